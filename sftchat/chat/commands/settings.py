"""Commands that change how replies are generated and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from functools import partial
from typing import Any

from sftchat.chat.commands.arguments import whole_number
from sftchat.chat.context import OVERFLOWS, ChatCommand, ChatContext
from sftchat.engine import Templated
from sftchat.errors import UsageError, unknown_name_message
from sftchat.types import SamplingParams

TYPE_OF_NUMBER = {field.name: type(field.default) for field in fields(SamplingParams) if isinstance(field.default, int | float)}
"""Type of each sampling parameter that is a number: int or float."""
NAMES = (*TYPE_OF_NUMBER, "stop", "overflow", "history")
ON_OFF = {"true": True, "on": True, "false": False, "off": False}


def _show_or_set(context: ChatContext, argument: str) -> None:
    words = argument.replace("=", " ", 1).split(maxsplit=1)
    name = words[0].replace("-", "_") if words else ""
    value = words[1] if len(words) > 1 else ""
    if name and name not in NAMES:
        raise UsageError(unknown_name_message("setting", name, NAMES))
    if name == "stop" and value:
        _show_or_add_stop(context, value)
        return
    if name == "overflow" and value:
        if value not in OVERFLOWS:
            raise UsageError(unknown_name_message("way to treat a full context", value, OVERFLOWS))
        context.settings = replace(context.settings, overflow=value)
    elif name == "history" and value:
        if value not in ON_OFF:
            raise UsageError(f"history is '{value}', must be on, or off to ask every message as if it were the first")
        context.conversation = replace(context.conversation, history=ON_OFF[value])
    elif value:
        _set_sampling(context, name, value)
    context.info("\n".join(f"{setting} {_format_setting(context, setting)}" for setting in ([name] if name else NAMES)))


def _set_sampling(context: ChatContext, name: str, value: str) -> None:
    """Change a sampling parameter that is a number.

    Raises:
        UsageError: When the value has the wrong type, or is out of range.
    """
    number_type = TYPE_OF_NUMBER[name]
    try:
        change: dict[str, Any] = {name: number_type(value)}
    except ValueError:
        raise UsageError(f"{name} is '{value}', must be a {'whole number' if number_type is int else 'number'}") from None
    try:
        context.settings = replace(context.settings, sampling=replace(context.sampling, **change))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _format_setting(context: ChatContext, name: str) -> str:
    if name == "overflow":
        return context.settings.overflow
    if name == "history":
        return "on" if context.conversation.history else "off"
    if name == "stop":
        return " ".join(map(_escape, context.sampling.stop)) or "off"
    return str(getattr(context.sampling, name))


def _complete_setting(context: ChatContext, argument: str) -> Iterable[str]:
    return [*(f"{name} " for name in NAMES), *(f"overflow {value}" for value in OVERFLOWS), "stop off", "history off"]


def _show_or_set_seed(context: ChatContext, argument: str) -> None:
    if argument:
        _set_sampling(context, "seed", str(whole_number(argument, "seed", minimum=0)))
    context.info(f"seed {context.sampling.seed}")


def _show_or_add_stop(context: ChatContext, argument: str) -> None:
    if argument:
        stop = () if argument == "off" else (*context.sampling.stop, _unescape(argument))
        context.settings = replace(context.settings, sampling=replace(context.sampling, stop=tuple(dict.fromkeys(stop))))
    context.info(f"stop {_format_setting(context, 'stop')}")


def _unescape(text: str) -> str:
    """Replace ``\\n`` in a typed string by a line break and ``\\t`` by a tab."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _escape(text: str) -> str:
    """Revert ``_unescape``."""
    return text.replace("\n", "\\n").replace("\t", "\\t")


def _show_or_set_template(context: ChatContext, argument: str) -> None:
    arguments: dict[str, Any] = dict(context.settings.template_arguments)
    engines = _templated_engines(context)
    variables = sorted({name for engine in engines for name in engine.template_variables})
    if argument == "reset":
        arguments = {}
    elif argument:
        name, equals, value = (part.strip() for part in argument.partition("="))
        if not equals or not name:
            raise UsageError(f"'{argument}' is no argument of a template: /template NAME=VALUE, or /template reset")
        if len(engines) == len(context.panes) and name not in variables:
            raise UsageError(unknown_name_message("argument of the chat template", name, variables))
        arguments[name] = _parse_argument(value)
    context.settings = replace(context.settings, template_arguments=arguments)
    effective = {**(engines[0].template_arguments if engines else {}), **arguments}
    names = [*variables, *sorted(arguments.keys() - set(variables))]
    lines = [f"{name} {_format_argument(effective.get(name, 'as the template has it'))}" for name in names]
    context.info("\n".join(lines) or "the chat template takes no arguments")


def _templated_engines(context: ChatContext) -> list[Templated]:
    """Return the engines that report their template arguments, the focused one first."""
    panes = [context.focus, *(pane for pane in context.panes if pane is not context.focus)]
    engines: list[object] = [pane.engine for pane in panes]
    return [engine for engine in engines if isinstance(engine, Templated)]


def _parse_argument(value: str) -> bool | int | str:
    if value in ON_OFF:
        return ON_OFF[value]
    return int(value) if value.isdecimal() else value


def _format_argument(value: Any) -> str:
    """Format a template argument as it is typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _complete_template(context: ChatContext, argument: str) -> Iterable[str]:
    names = [name for engine in _templated_engines(context)[:1] for name in engine.template_variables]
    return ["reset", *(f"{name}=" for name in names), *(f"{name}={word}" for name in names for word in ("on", "off"))]


_command = partial(ChatCommand, topic="settings")
COMMANDS = (
    _command("set", "show or change the generation settings", _show_or_set, "[NAME VALUE]", _complete_setting),
    _command("seed", "show or change the seed of the samples", _show_or_set_seed, "[N]"),
    _command("stop", "strings that end a reply", _show_or_add_stop, "[TEXT|off]"),
    _command("template", "show or set template arguments", _show_or_set_template, "[NAME=VALUE|reset]", _complete_template),
)


def _switch_display_option(name: str, description: str) -> Callable[[ChatContext, str], None]:
    """Return the function of a command that shows or sets a boolean field of ``Display``."""

    def show_or_set(context: ChatContext, argument: str) -> None:
        if argument not in ("", "on", "off"):
            raise UsageError(f"/{name} is '{argument}', must be 'on' or 'off'")
        if argument:
            setattr(context.display, name, argument == "on")
        context.info(f"{description}: {'on' if getattr(context.display, name) else 'off'}")

    return show_or_set


def _complete_on_off(context: ChatContext, argument: str) -> Iterable[str]:
    return ("on", "off")


_display_command = partial(ChatCommand, topic="display")
DISPLAY = (
    _display_command(
        "markdown",
        "render Markdown, or show replies as plain text",
        _switch_display_option("markdown", "Markdown is rendered"),
        "[on|off]",
        _complete_on_off,
        allowed_while_busy=True,
    ),
    _display_command(
        "thoughts",
        "show the thoughts of a model, or one line for them",
        _switch_display_option("thoughts", "thoughts are shown"),
        "[on|off]",
        _complete_on_off,
        allowed_while_busy=True,
    ),
)
