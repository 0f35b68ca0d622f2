"""The commands every chat has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from sftchat.commands import ChatCommand, ChatContext
from sftchat.errors import UsageError, unknown
from sftchat.types import SamplingParams

_NUMBERS = {name.name: type(name.default) for name in fields(SamplingParams) if isinstance(name.default, int | float)}


def _help(context: ChatContext, argument: str) -> None:
    """List the commands, or one of them."""
    name = argument.removeprefix("/")
    if name and name not in context.commands:
        raise UsageError(unknown("command", name, context.commands))
    listed = [context.commands[name]] if name else list(context.commands.values())
    calls = [f"/{command.name} {command.usage}".rstrip() for command in listed]
    wide = max(map(len, calls))
    lines = [f"{call:<{wide}}  {command.summary}" for call, command in zip(calls, listed, strict=True)]
    if not name:
        lines += ["", "enter sends · ctrl-j or esc enter: new line · tab completes"]
        lines += ["ctrl-c stops a reply · ctrl-r searches · ctrl-d leaves"]
    context.say("\n".join(lines))


def _system(context: ChatContext, argument: str) -> None:
    """Show, change or drop the system prompt."""
    if not argument:
        context.say(context.conversation.system or "no system prompt; /system TEXT sets one")
    elif argument == "off":
        context.conversation = context.conversation.with_system("")
        context.say("no system prompt from the next message on")
    else:
        context.conversation = context.conversation.with_system(argument)
        context.say("system prompt set, from the next message on")


def _set(context: ChatContext, argument: str) -> None:
    """Show the sampling parameters or change one."""
    name, value = (*argument.replace("=", " ", 1).split(maxsplit=1), "", "")[:2]
    name = name.replace("-", "_")
    if name and name not in _NUMBERS:
        raise UsageError(unknown("parameter", name, _NUMBERS))
    if value:
        kind = _NUMBERS[name]
        try:
            changed: dict[str, Any] = {name: kind(value)}
        except ValueError:
            raise UsageError(f"{name} is '{value}', must be a {'whole number' if kind is int else 'number'}") from None
        try:
            context.settings = replace(context.settings, sampling=replace(context.sampling, **changed))
        except ValueError as error:
            raise UsageError(str(error)) from None
    shown = [name] if name else list(_NUMBERS)
    context.say("\n".join(f"{name} {getattr(context.sampling, name)}" for name in shown))


def _set_names(context: ChatContext, argument: str) -> Iterable[str]:
    """The parameters there are."""
    return [f"{name} " for name in _NUMBERS]


def _command_names(context: ChatContext, argument: str) -> Iterable[str]:
    """The commands there are."""
    return context.commands


def _reset(context: ChatContext, argument: str) -> None:
    """Start anew."""
    context.conversation = context.conversation.reset()
    context.say("the talk starts anew" + ("; the system prompt stays" if context.conversation.system else ""))


def _exit(context: ChatContext, argument: str) -> None:
    """Leave."""
    context.exit()


BUILTINS = (
    ChatCommand("help", "what can be typed", _help, "[COMMAND]", _command_names, while_generating=True),
    ChatCommand("system", "show or change the system prompt", _system, "[TEXT|off]"),
    ChatCommand("set", "show or change how tokens are chosen", _set, "[NAME VALUE]", _set_names),
    ChatCommand("reset", "forget all but the system prompt", _reset),
    ChatCommand("exit", "leave the chat", _exit, while_generating=True),
)
"""Listed in this order by ``/help``; the commands of plugins follow."""
