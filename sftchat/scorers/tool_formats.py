"""Reads the tool calls in a reply, in the text formats of the model families."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sftchat.scorers.json_text import iter_json, read_json, value_of_literal

_NAME = r"[\w.:/-]+"
_TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
"""Hermes, Qwen and many others; the content is JSON, or the tags of Qwen3-Coder or GLM."""
_FUNCTION = re.compile(rf"<function=({_NAME})>(.*?)(?:</function>|(?=<function=)|\Z)", re.DOTALL)
"""Llama 3.1's own functions and functionary with JSON, Qwen3-Coder with parameters."""
_PARAMETER = re.compile(rf"<parameter=({_NAME})>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
_ARGUMENT = re.compile(r"([^<]*)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
"""GLM-4.5, after each ``<arg_key>``; the name of the function stands before the first."""
_DEEPSEEK = re.compile(r"<｜tool▁call▁begin｜>(.*?)(?:<｜tool▁call▁end｜>|(?=<｜tool▁call▁begin｜>)|\Z)", re.DOTALL)
_KIMI = re.compile(
    r"<\|tool_call_begin\|>([^<]*)<\|tool_call_argument_begin\|>(.*?)(?:<\|tool_call_end\|>|(?=<\|tool_call_begin\|>)|\Z)", re.DOTALL
)
_RECIPIENT = re.compile(
    rf"(?:^|(?<=\n))(?:>>>|<\|recipient\|>\s*)({_NAME})\s*\n(?:<\|content\|>)?(.*?)(?=\n>>>|<\|(?:recipient|from|stop)\|>|\Z)", re.DOTALL
)
"""Functionary; the recipient ``all`` is the user."""
_MARKER = re.compile(
    r"\[TOOL_CALLS\]|<\|python_tag\|>|<tool_calls>|<TOOLCALL>|<\|tool_call\|>|<\|action_start\|>\s*<\|plugin\|>|\bfunctools(?=\[)"
)
"""Text before JSON calls: Mistral, Llama 3, Jamba, Nemotron, Granite, InternLM and Phi-4-mini."""
_NAMED = re.compile(rf"\s*({_NAME})(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(?=\{{)")
"""The name before the arguments in newer Mistral models."""
_BARE_DEEPSEEK = re.compile(rf"\s*function\s*({_NAME})\s*\n```json\n(.*?)\n?```", re.DOTALL)
"""DeepSeek's format after the special tokens were removed."""
_FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)
_SEPARATORS = re.compile(r"[\s;,]*")


@dataclass(frozen=True)
class Call:
    """A call of a tool.

    Attributes:
        name: Name of the function.
        arguments: Its arguments.
    """

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Calls:
    """The tool calls of a reply.

    Attributes:
        calls: Those that can be read, in order.
        unparsable: Number of calls that the reply marks as such and that cannot be read.
    """

    calls: tuple[Call, ...] = ()
    unparsable: int = 0


def parse_calls(text: str) -> Calls:
    """Return the tool calls in a text; text around them is ignored.

    Known are the formats of Hermes and Qwen (``<tool_call>``), Qwen3-Coder, GLM, Llama 3 and 4 (JSON, ``<|python_tag|>``, ``[name(key=value)]``),
    Mistral (``[TOOL_CALLS]``), DeepSeek, Kimi, functionary, Granite, Jamba, InternLM, Nemotron and Phi-4-mini, and JSON alone, in code blocks or in
    text: objects with ``name`` and ``arguments`` or ``parameters``, or OpenAI's ``{"type": "function", "function": …}``.

    Args:
        text: A reply or a gold reply.
    """
    readers: tuple[Callable[[str], Iterable[Call | None]], ...] = (_tagged, _after_marker, _pythonic)
    for read in readers:
        found = list(read(text))
        if found:
            calls = tuple(call for call in found if call is not None)
            return Calls(calls, len(found) - len(calls))
    return Calls(tuple(_unmarked(text)))


def parse_gold_calls(text: str) -> Calls:
    """Return the tool calls of a gold reply: in a text that is a JSON list or object, whatever is no call cannot be read; others as in a reply.

    Args:
        text: A gold reply, such as ``[{"name": "now", "arguments": {}}]``; ``[]`` is no call.
    """
    try:
        value = read_json(text.strip())
    except ValueError:
        return parse_calls(text)
    items = value if isinstance(value, list) else [value]
    calls = [_call_of_object(item, unmarked=True) for item in items if isinstance(item, dict)]
    found = tuple(call for call in calls if call is not None)
    return Calls(found, len(items) - len(found))


def _tagged(text: str) -> Iterator[Call | None]:
    """Yield the calls of formats in which each call has its own tags; None for one that cannot be read."""
    if "<tool_call>" in text:
        for match in _TOOL_CALL.finditer(text):
            yield from _content_of_tag(match[1])
    elif "<function=" in text:
        for match in _FUNCTION.finditer(text):
            yield _function(match[1], match[2])
    elif "<｜tool▁call▁begin｜>" in text:
        for match in _DEEPSEEK.finditer(text):
            first, _, second = match[1].partition("<｜tool▁sep｜>")
            name, line_break, rest = second.partition("\n")
            if first.strip() == "function" and line_break:
                yield _call(name, rest.strip().removeprefix("```json").removesuffix("```"))
            else:
                yield _call(first, second)
    elif "<|tool_call_begin|>" in text:
        for match in _KIMI.finditer(text):
            yield _call(re.sub(r"^functions\.|:\d+$", "", match[1].strip()), match[2])
    elif ">>>" in text or "<|recipient|>" in text:
        yield from (_call(match[1], match[2]) for match in _RECIPIENT.finditer(text) if match[1] != "all")
    elif _BARE_DEEPSEEK.match(text):
        yield from (_call(match[1], match[2]) for match in _BARE_DEEPSEEK.finditer(text))


def _content_of_tag(content: str) -> Iterator[Call | None]:
    if "<function=" in content:
        yield from (_function(match[1], match[2]) for match in _FUNCTION.finditer(content))
    elif "<arg_key>" in content or re.fullmatch(rf"\s*{_NAME}\s*", content):
        name, *parts = content.split("<arg_key>")
        name, matches = name.strip(), map(_ARGUMENT.match, parts)
        arguments = {match[1].strip(): _value_or_text(match[2]) for match in matches if match}
        yield Call(name, arguments) if name else None
    else:
        try:
            yield from _calls_of(read_json(content.strip()))
        except ValueError:
            yield None


def _function(name: str, content: str) -> Call | None:
    if "<parameter=" in content or not content.strip():
        return Call(name, {key: _value_or_text(value) for key, value in _PARAMETER.findall(content)})
    return _call(name, content)


def _value_or_text(text: str) -> Any:
    """Return a value that stands in tags: JSON, or else a text; the tools' schemas, which say which it is, are not known here."""
    try:
        return read_json(text.strip())
    except ValueError:
        return text


def _after_marker(text: str) -> Iterator[Call | None]:
    """Yield the calls after each marker; None after a marker without any."""
    markers = [*_MARKER.finditer(text)]
    for index, marker in enumerate(markers):
        part = text[marker.end() : markers[index + 1].start() if index + 1 < len(markers) else len(text)]
        calls = [*_named(part)] if _NAMED.match(part) else [call for value in _leading_values(part) for call in _calls_of(value)]
        yield from calls or _pythonic(part) or [None]


def _named(text: str) -> Iterator[Call | None]:
    position = 0
    while match := _NAMED.match(text, position):
        start, end, value = next(iter_json(text[match.end() :]), (0, 0, None))
        yield Call(match[1], value) if isinstance(value, dict) and start == 0 else None
        if not end:
            return
        position = match.end() + end


def _leading_values(text: str) -> Iterator[Any]:
    """Yield the JSON values at the start of a text, separated by white space, commas or semicolons."""
    position = 0
    for start, end, value in iter_json(text):
        separator = _SEPARATORS.match(text, position)
        if separator is None or separator.end() != start:
            return
        yield value
        position = end


def _unmarked(text: str) -> Iterator[Call]:
    """Yield the calls among the objects of a text without markers, alone or in lists; an object of another form is no call."""
    for _, _, value in iter_json(text):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and (call := _call_of_object(item, unmarked=True)):
                yield call


def _pythonic(text: str) -> list[Call | None]:
    """Return the calls of a text that is a list of Python calls, such as ``[weather(city="Rome")]``; empty when it is none."""
    source = text.strip().removeprefix("<|python_start|>").removesuffix("<|python_end|>").strip()
    if fence := _FENCE.match(source):
        source = fence[1].strip()
    if not re.match(rf"\[\s*{_NAME}\s*\(", source) or not source.endswith("]"):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown escapes in strings
            tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []
    nodes = tree.elts if isinstance(tree, ast.List) else []
    if not nodes or not all(isinstance(node, ast.Call) for node in nodes):
        return []
    return [_pythonic_call(node) for node in nodes if isinstance(node, ast.Call)]


def _pythonic_call(node: ast.Call) -> Call | None:
    try:
        arguments = {str(keyword.arg): value_of_literal(keyword.value) for keyword in node.keywords if keyword.arg}
    except (ValueError, RecursionError):
        return None
    if node.args or len(arguments) < len(node.keywords):
        return None
    return Call(ast.unparse(node.func), arguments)


def _calls_of(value: Any) -> Iterator[Call | None]:
    """Yield the calls of a JSON value that stands where a call must stand; None for what is no call."""
    for item in value if isinstance(value, list) else [value]:
        yield _call_of_object(item) if isinstance(item, dict) else None


def _call_of_object(item: Mapping[str, Any], *, unmarked: bool = False) -> Call | None:
    """Return the call that an object describes.

    Args:
        item: The object.
        unmarked: Whether only the object itself shows that it is a call; it must have arguments then.
    """
    function = item.get("function") if isinstance(item.get("function"), dict) else item
    name = function.get("name") if isinstance(function, dict) else None
    key = next((key for key in ("arguments", "parameters") if isinstance(function, dict) and key in function), "")
    if not isinstance(name, str) or not isinstance(function, dict) or (unmarked and not key):
        return None
    return _call(name, function.get(key) if key else {})


def _call(name: str, arguments: Any) -> Call | None:
    """Return a call whose arguments are an object, its JSON text, or nothing."""
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments.strip()) if arguments.strip() else {}
        except ValueError:
            return None
    if not name.strip() or not isinstance(arguments, dict | None):
        return None
    return Call(name.strip(), arguments or {})
