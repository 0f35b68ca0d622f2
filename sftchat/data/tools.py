"""The tools of a row: functions that the model may call, as JSON schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftchat.data.turns import shown
from sftchat.errors import DataError
from sftchat.parsing import parsed
from sftchat.types import Example


def tools_of(example: Example) -> tuple[Mapping[str, Any], ...]:
    """The tools that a row carries under ``tools``, a list or JSON text of one; none when it carries none.

    Raises:
        DataError: When they are something else, or one has no name.
    """
    given = example.metadata.get("tools")
    try:
        tools = parsed(given) if isinstance(given, str) and given.strip() else given or ()
    except ValueError as error:
        raise DataError(f"tools is {shown(given)}, which is no JSON: {error}", example.source) from error
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"tools is {shown(given)}, must be a list of JSON schemas", example.source)
    for index, tool in enumerate(tools):
        function = tool.get("function", tool)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise DataError(f"tools[{index}] is {shown(tool)}, which names no function", example.source)
    return tuple(tools)
