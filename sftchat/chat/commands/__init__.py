"""Commands of a chat: how a typed line becomes a command or a message, and the built-in commands; one module for each topic."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from sftchat._util.plugin_calls import call_plugin, copy_texts
from sftchat.chat.commands import data, inspect_probs, inspect_prompt, likelihood, models, navigation, samples, scoring, sessions, settings
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.errors import PluginError, UsageError, unknown_name_message
from sftchat.plugins.spec import hookimpl


@dataclass(frozen=True)
class CommandLine:
    """A parsed line.

    Attributes:
        command: The command to run; None for a message.
        text: The argument of the command, or the message.
    """

    command: ChatCommand | None
    text: str


@dataclass(frozen=True)
class Completion:
    """A completion of a command line.

    Attributes:
        text: Text that replaces the last ``length`` characters.
        length: Number of characters to replace.
        summary: Short description.
    """

    text: str
    length: int
    summary: str = ""


class Commands(Mapping[str, ChatCommand]):
    """The commands of a chat by name; the first command of a name wins, so that plugins cannot replace built-in commands.

    Args:
        commands: All commands, in the order of ``/help``.

    Attributes:
        shadowed: Commands that are ignored because their name is taken.
    """

    def __init__(self, commands: Iterable[ChatCommand]) -> None:
        self._by_name: dict[str, ChatCommand] = {}
        self.shadowed = tuple(command for command in commands if self._by_name.setdefault(command.name, command) is not command)
        self._aliases: dict[str, str] = {}
        for command in self._by_name.values():
            for alias in command.aliases:
                self._aliases.setdefault(alias, command.name)

    def __getitem__(self, name: str) -> ChatCommand:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def parse(self, line: str) -> CommandLine:
        """Parse a line into a command or a message; ``//`` starts a message that begins with one slash.

        Raises:
            UsageError: When no command has the name; names the closest one.
        """
        if line.startswith("//"):
            return CommandLine(None, line[1:])
        if not line.startswith("/"):
            return CommandLine(None, line)
        name, *argument = re.split(r"\s+", line[1:].rstrip(), maxsplit=1)
        if (command := self._find(name)) is not None:
            return CommandLine(command, "".join(argument))
        near = get_close_matches(name, self._by_name, n=1)
        hint = f"did you mean '/{near[0]}'?" if near else "'/help' lists them"
        raise UsageError(f"unknown command '/{name}', {hint} ('//' begins a message with a slash)")

    def complete(self, context: ChatContext, typed: str) -> Iterator[Completion]:
        """Return completions of a typed line: command names first, then the command's own."""
        if not typed.startswith("/") or typed.startswith("//"):
            return
        name, space, argument = typed[1:].partition(" ")
        if not space:
            for offered in self._by_name.values():
                if offered.name.startswith(name) and _is_offered(offered, context):
                    yield Completion(f"/{offered.name}", len(typed), offered.summary)
        elif (command := self._find(name)) is not None:
            for word in _argument_words(command, context, argument):
                if word.startswith(argument) and word != argument:
                    yield Completion(word, len(argument))

    def _find(self, name: str) -> ChatCommand | None:
        """Return the command of a name or alias; a name has precedence."""
        return self._by_name.get(name) or self._by_name.get(self._aliases.get(name, ""))


def _is_offered(command: ChatCommand, context: ChatContext) -> bool:
    """Whether a command is available; a failing plugin condition counts as available, so that its error is shown when the command runs and
    not at each key.
    """
    try:
        return not call_plugin(f"/{command.name}", command.unavailable_reason, context)
    except PluginError:
        return False


def _argument_words(command: ChatCommand, context: ChatContext, argument: str) -> tuple[str, ...]:
    """Return the completions of an argument; none when a plugin's function fails, because this is called at each key."""
    try:
        return call_plugin(f"/{command.name}", lambda: copy_texts(command.complete(context, argument), "words"))
    except PluginError:
        return ()


KEYS_HELP = """enter sends · ctrl-j or esc enter: new line · tab completes
ctrl-c stops a reply · ctrl-r searches · ctrl-d leaves
ctrl-x ctrl-e: editor · f2: thoughts · f4: vi keys"""

MAX_USAGE_WIDTH = 28
"""Width limit of a usage; a longer one shifts its own summary to the right."""


def help_text(commands: Mapping[str, ChatCommand]) -> str:
    """List the commands by topic, in the order of registration."""
    calls = {name: f"/{name} {command.usage}".rstrip() for name, command in commands.items()}
    wide = min(MAX_USAGE_WIDTH, max(map(len, calls.values()), default=0))
    topics = dict.fromkeys(command.topic for command in commands.values())
    blocks = [
        "\n".join([topic, *(f"  {calls[name]:<{wide}}  {command.summary}" for name, command in commands.items() if command.topic == topic)])
        for topic in topics
    ]
    return "\n\n".join([*blocks, KEYS_HELP])


def _help(context: ChatContext, argument: str) -> None:
    name = argument.removeprefix("/")
    if not name:
        context.info(help_text(context.commands))
        return
    if name not in context.commands:
        raise UsageError(unknown_name_message("command", name, context.commands))
    command = context.commands[name]
    context.info(f"{f'/{name} {command.usage}'.rstrip()}  {command.summary}")


def _command_names(context: ChatContext, argument: str) -> Iterable[str]:
    return context.commands


def _exit(context: ChatContext, argument: str) -> None:
    context.exit()


_command = partial(ChatCommand, topic="general")
GENERAL = (
    _command("help", "list the commands, or describe one", _help, "[COMMAND]", _command_names, allowed_while_busy=True),
    _command("exit", "leave the chat", _exit, allowed_while_busy=True),
)
TOPIC_MODULES = (navigation, settings, sessions, models, inspect_prompt, inspect_probs, likelihood, samples, data, scoring)
BUILTINS = (*GENERAL, *(command for topic in TOPIC_MODULES for command in topic.COMMANDS), *settings.DISPLAY)
"""Built-in commands in the order of ``/help``; those of plugins follow."""


@hookimpl
def sftchat_register_chat_commands() -> Iterable[ChatCommand]:
    """Register the built-in commands."""
    return BUILTINS
