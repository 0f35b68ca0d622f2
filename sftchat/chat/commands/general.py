"""Commands ``/help`` and ``/exit``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.errors import UsageError, unknown

KEYS = """enter sends · ctrl-j or esc enter: new line · tab completes
ctrl-c stops a reply · ctrl-r searches · ctrl-d leaves
ctrl-x ctrl-e: editor · f2: thoughts · f4: vi keys"""

WIDEST = 28
"""Width limit of a usage; a longer one shifts its own summary to the right."""


def help_text(commands: Mapping[str, ChatCommand]) -> str:
    """List the commands by topic, in the order of registration."""
    calls = {name: f"/{name} {command.usage}".rstrip() for name, command in commands.items()}
    wide = min(WIDEST, max(map(len, calls.values()), default=0))
    topics = dict.fromkeys(command.topic for command in commands.values())
    blocks = [
        "\n".join([topic, *(f"  {calls[name]:<{wide}}  {command.summary}" for name, command in commands.items() if command.topic == topic)])
        for topic in topics
    ]
    return "\n\n".join([*blocks, KEYS])


def _help(context: ChatContext, argument: str) -> None:
    """List all commands, or describe one."""
    name = argument.removeprefix("/")
    if not name:
        context.info(help_text(context.commands))
        return
    if name not in context.commands:
        raise UsageError(unknown("command", name, context.commands))
    command = context.commands[name]
    context.info(f"{f'/{name} {command.usage}'.rstrip()}  {command.summary}")


def _command_names(context: ChatContext, argument: str) -> Iterable[str]:
    return context.commands


def _exit(context: ChatContext, argument: str) -> None:
    context.exit()


COMMANDS = (
    ChatCommand("help", "what can be typed", _help, "[COMMAND]", _command_names, allowed_while_busy=True, topic="general"),
    ChatCommand("exit", "leave the chat", _exit, allowed_while_busy=True, topic="general"),
)
