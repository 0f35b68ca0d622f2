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
        shadowed: list[ChatCommand] = []
        for command in commands:
            if self._by_name.setdefault(command.name, command) is not command:
                shadowed.append(command)
        self.shadowed = tuple(shadowed)
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
            UsageError: When no command has this name or alias; the message suggests the closest name, if one is similar.
        """
        if line.startswith("//"):
            return CommandLine(None, line[1:])
        if not line.startswith("/"):
            return CommandLine(None, line)
        name, *argument = re.split(r"\s+", line[1:].rstrip(), maxsplit=1)
        if (command := self._find(name)) is not None:
            return CommandLine(command, "".join(argument))
        closest = get_close_matches(name, self._by_name, n=1)
        hint = f"did you mean '/{closest[0]}'?" if closest else "'/help' lists them"
        raise UsageError(f"unknown command '/{name}', {hint} ('//' begins a message with a slash)")

    def complete(self, context: ChatContext, typed: str) -> Iterator[Completion]:
        """Return completions of a typed line: names of commands, or arguments once a name and a space are typed."""
        if not typed.startswith("/") or typed.startswith("//"):
            return
        name, space, argument = typed[1:].partition(" ")
        if not space:
            for candidate in self._by_name.values():
                if candidate.name.startswith(name) and _is_available(candidate, context):
                    yield Completion(f"/{candidate.name}", len(typed), candidate.summary)
        elif (command := self._find(name)) is not None:
            for word in _complete_argument(command, context, argument):
                if word.startswith(argument) and word != argument:
                    yield Completion(word, len(argument))

    def _find(self, name: str) -> ChatCommand | None:
        """Return the command with a name or, second, with an alias; None when there is none."""
        return self._by_name.get(name) or self._by_name.get(self._aliases.get(name, ""))


def _is_available(command: ChatCommand, context: ChatContext) -> bool:
    """Return whether a command is available; False when a plugin's function fails: its error is shown when the command runs, not at each key."""
    try:
        return not call_plugin(f"/{command.name}", command.unavailable_reason, context)
    except PluginError:
        return False


def _complete_argument(command: ChatCommand, context: ChatContext, argument: str) -> tuple[str, ...]:
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
    usages = {name: _usage(command) for name, command in commands.items()}
    usage_width = min(MAX_USAGE_WIDTH, max(map(len, usages.values()), default=0))
    lines_by_topic: dict[str, list[str]] = {}
    for name, command in commands.items():
        lines_by_topic.setdefault(command.topic, []).append(f"  {usages[name]:<{usage_width}}  {command.summary}")
    topics = ["\n".join([topic, *lines]) for topic, lines in lines_by_topic.items()]
    return "\n\n".join([*topics, KEYS_HELP])


def _usage(command: ChatCommand) -> str:
    return f"/{command.name} {command.usage}".rstrip()


def _show_help(context: ChatContext, argument: str) -> None:
    name = argument.removeprefix("/")
    if not name:
        context.info(help_text(context.commands))
        return
    if name not in context.commands:
        raise UsageError(unknown_name_message("command", name, context.commands))
    command = context.commands[name]
    context.info(f"{_usage(command)}  {command.summary}")


def _complete_command(context: ChatContext, argument: str) -> Iterable[str]:
    return context.commands


def _exit_chat(context: ChatContext, argument: str) -> None:
    context.exit()


_command = partial(ChatCommand, topic="general")
GENERAL = (
    _command("help", "list the commands, or describe one", _show_help, "[COMMAND]", _complete_command, allowed_while_busy=True),
    _command("exit", "leave the chat", _exit_chat, allowed_while_busy=True),
)
TOPIC_MODULES = (navigation, settings, sessions, models, inspect_prompt, inspect_probs, likelihood, samples, data, scoring)
BUILTINS = (*GENERAL, *(command for topic in TOPIC_MODULES for command in topic.COMMANDS), *settings.DISPLAY)
"""Built-in commands in the order of ``/help``; those of plugins follow."""


@hookimpl
def sftchat_register_chat_commands() -> Iterable[ChatCommand]:
    """Register the built-in commands."""
    return BUILTINS
