"""Chat command line: parse typed lines into commands or messages, look commands up by name, and complete them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from sftchat._util.plugin_calls import call_plugin, plain_texts
from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.errors import PluginError, UsageError


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


@dataclass(frozen=True)
class Commands(Mapping[str, "ChatCommand"]):
    """The commands of a chat by name; the first command of a name wins, so that plugins cannot replace built-in commands.

    Attributes:
        given: All commands, in the order of ``/help``.
        shadowed: Commands that are ignored because their name is taken.
    """

    given: tuple[ChatCommand, ...]
    shadowed: tuple[ChatCommand, ...] = field(init=False)
    _by_name: Mapping[str, ChatCommand] = field(init=False, repr=False)
    _aliases: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found: dict[str, ChatCommand] = {}
        shadowed = [command for command in self.given if found.setdefault(command.name, command) is not command]
        object.__setattr__(self, "shadowed", tuple(shadowed))
        object.__setattr__(self, "_by_name", found)
        aliases: dict[str, str] = {}
        for command in found.values():
            for alias in command.aliases:
                if alias not in found:
                    aliases.setdefault(alias, command.name)
        object.__setattr__(self, "_aliases", aliases)

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
        name = self._aliases.get(name, name)
        if name in self._by_name:
            return CommandLine(self._by_name[name], "".join(argument))
        near = get_close_matches(name, self._by_name, n=1)
        hint = f"did you mean '/{near[0]}'?" if near else "'/help' lists them"
        raise UsageError(f"unknown command '/{name}', {hint} ('//' begins a message with a slash)")

    def complete(self, context: ChatContext, typed: str) -> Iterator[Completion]:
        """Return completions of a typed line: command names first, then the command's own."""
        if not typed.startswith("/") or typed.startswith("//"):
            return
        name, space, argument = typed[1:].partition(" ")
        if not space:
            for command in self._by_name.values():
                if command.name.startswith(name) and _makes_sense(command, context):
                    yield Completion(f"/{command.name}", len(typed), command.summary)
        elif (command_name := self._aliases.get(name, name)) in self._by_name:
            for word in _words(self._by_name[command_name], context, argument):
                if word.startswith(argument) and word != argument:
                    yield Completion(word, len(argument))


def _makes_sense(command: ChatCommand, context: ChatContext) -> bool:
    """Whether a command is available; a failing plugin condition counts as available, so that its error is shown when the command runs and
    not at each key.
    """
    try:
        return not call_plugin(f"/{command.name}", command.unavailable_reason, context)
    except PluginError:
        return False


def _words(command: ChatCommand, context: ChatContext, argument: str) -> tuple[str, ...]:
    """Return the completions of an argument; none when a plugin's function fails, because this is called at each key."""
    try:
        return call_plugin(f"/{command.name}", lambda: plain_texts(command.complete(context, argument), "words"))
    except PluginError:
        return ()
