"""Normal form of tools and tool calls: that of OpenAI's chat completions, with call arguments as objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.data.row_options import Change, unreported
from sftchat.data.values import abbreviate
from sftchat.errors import DataError
from sftchat.types import Example

NULLS = "members that are null in turns, tools or calls of tools are left out; Arrow adds them where other rows have a value"


def normal_tools(given: Any, where: str = "tools", change: Change = unreported) -> list[dict[str, Any]]:
    """Convert tools to ``{"type": "function", "function": {"name", …}}``.

    Args:
        given: A list of tools, or its JSON text; a tool may be the function alone. None and empty text are no tools.
        where: Key in the row, for messages.
        change: Called with a description of each change.

    Raises:
        DataError: When it is anything else, or a tool has no name; the message has no source.
    """
    try:
        tools = (load_json(given) if given.strip() else []) if isinstance(given, str) else given or []
    except ValueError as error:
        raise DataError(f"{where} is {abbreviate(given)}, which is no JSON: {error}") from error
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        raise DataError(f"{where} is {abbreviate(given)}, must be a list of JSON schemas")
    return [_tool(tool, f"{where}[{index}]", change) for index, tool in enumerate(tools)]


def _tool(tool: Mapping[str, Any], where: str, change: Change) -> dict[str, Any]:
    """Convert one tool."""
    full = without_nulls(tool, change)
    function = full.get("function", full)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(f"{where} is {abbreviate(tool)}, which names no function")
    if "function" in full:
        return {"type": "function", **full}
    return {"type": "function", "function": {key: value for key, value in full.items() if (key, value) != ("type", "function")}}


def normal_calls(given: Any, where: str, change: Change = unreported) -> list[dict[str, Any]]:
    """Convert tool calls to ``{"type": "function", "function": {"name", "arguments"}}``, with arguments parsed from JSON text.

    Args:
        given: A call or a list of calls; a call may be the function alone: ``{"name", "arguments"}``.
        where: Key in the row, for messages.
        change: Called with a description of each change.

    Raises:
        DataError: When it is anything else, or a call has no name; the message has no source.
    """
    calls = given if isinstance(given, list) else [given]
    return [_call(call, where if calls is not given else f"{where}[{index}]", change) for index, call in enumerate(calls)]


def _call(call: Any, where: str, change: Change) -> dict[str, Any]:
    """Convert one call."""
    full = without_nulls(call, change) if isinstance(call, dict) else {}
    function = full.get("function", full)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(
            f'{where} is {abbreviate(call)}, must be a call such as {{"type": "function", "function": {{"name": "weather", "arguments": {{}}}}}}'
        )
    if "function" in full:
        rest = {key: value for key, value in full.items() if key != "function"}
    else:
        rest = {key: value for key, value in full.items() if key not in ("name", "arguments")}
        function = {key: full[key] for key in ("name", "arguments") if key in full}
    if isinstance(function.get("arguments"), str):
        function = {**function, "arguments": _object(function["arguments"])}
    return {"type": "function", **rest, "function": function}


def _object(text: str) -> Any:
    """Parse JSON text; return other text unchanged, and also objects with null members, which the author wrote (not Arrow)."""
    try:
        value = load_json(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) and value == without_nulls(value, unreported) else text


def without_nulls(value: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Return an object without null members, at any depth; list elements stay.

    Args:
        value: Nested at most ``MAX_DEPTH`` levels.
        change: Called when a member was removed.
    """
    found = False

    def cleaned(inner: Any) -> Any:
        """Return a copy without null members."""
        nonlocal found
        if isinstance(inner, Mapping):
            found |= None in inner.values()
            return {key: cleaned(one) for key, one in inner.items() if one is not None}
        return [cleaned(one) for one in inner] if isinstance(inner, list) else inner

    result: dict[str, Any] = cleaned(value)
    if found:
        change(NULLS)
    return result


def tools_of(example: Example) -> tuple[Mapping[str, Any], ...]:
    """Return the tools of an example (key ``tools``) in normal form; empty when it has none.

    Raises:
        DataError: When they are anything else, or one has no name.
    """
    try:
        return tuple(normal_tools(example.metadata.get("tools")))
    except DataError as error:
        raise DataError(error.message, example.source) from error
