"""Finds JSON in a reply: alone, in a code block or within text; repaired only where no value can change."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

from sftchat._util.parsing import MAX_DEPTH, is_too_deep, reject_duplicate_keys

MAX_SCANS = 10
"""JSON is sought at opening brackets until this many times the length of the text was read, so that the time is linear."""
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_STRING = r'"(?:[^"\\]|\\.)*"'
_REPAIRS = re.compile(
    rf"(?P<kept>{_STRING})|(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<comma>,(?=\s*[}}\]]))|\b(?P<word>True|False|None)\b", re.DOTALL
)
_WORDS = {"True": "true", "False": "false", "None": "null"}
_OPENING = re.compile(r"[\[{]")
_TOKENS = re.compile(rf"{_STRING}|[\[\]{{}}]", re.DOTALL)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=reject_duplicate_keys, parse_constant=_refuse)
_WITH_LINE_BREAKS = json.JSONDecoder(object_pairs_hook=reject_duplicate_keys, parse_constant=_refuse, strict=False)


def find_json(text: str) -> Any:
    """Return the JSON value of a reply: the whole text, else the last code block that is JSON, else the longest object or list in the text.

    What is no JSON is repaired where no value can change: trailing commas and comments are removed, line breaks in strings are kept, and Python's
    literals (``True``, ``None``, strings in single quotes) are read. JSON that was cut off is not completed.

    Args:
        text: A reply or a gold reply.

    Raises:
        ValueError: When there is no JSON, an object has a key twice, or lists and objects are nested too deep.
    """
    whole = text.strip().lstrip("\ufeff")
    for content in (whole, *(fence[1].strip() for fence in reversed(_FENCE.findall(text)))):
        try:
            return read_json(content)
        except ValueError:
            continue
    found = [*iter_json(text)]
    if not found:
        raise ValueError("there is no JSON")
    return max(found, key=lambda item: item[1] - item[0])[2]


def iter_json(text: str) -> Iterator[tuple[int, int, Any]]:
    """Yield start, end and value of the objects and lists in a text, from left to right; none is within another.

    Args:
        text: Any text.
    """
    position, characters_left = 0, MAX_SCANS * len(text)
    while characters_left > 0 and (opening := _OPENING.search(text, position)):
        start, end = opening.start(), _end_of_brackets(text, opening.start())
        position = start + 1
        characters_left -= end - start
        try:
            value = read_json(text[start:end])
        except ValueError:
            continue
        yield start, end, value
        position = end


def read_json(text: str) -> Any:
    """Return the value of a text that is JSON and nothing else, repaired as in ``find_json``.

    Raises:
        ValueError: When it is no JSON.
    """
    try:
        return _decode(_STRICT, text)
    except ValueError:
        if text[:1] not in ("{", "["):
            raise
    try:
        return _decode(_WITH_LINE_BREAKS, _REPAIRS.sub(_repair, text))
    except ValueError:
        return _read_python_literal(text)


def _decode(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        value = decoder.decode(text)
    except RecursionError:
        raise ValueError(f"lists and objects lie more than {MAX_DEPTH} deep in one another") from None
    if is_too_deep(value, text):
        raise ValueError(f"lists and objects lie more than {MAX_DEPTH} deep in one another")
    return value


def _repair(match: re.Match[str]) -> str:
    if match["kept"]:
        return match["kept"]
    return _WORDS[match["word"]] if match["word"] else ""


def _read_python_literal(text: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown escapes in strings
            tree = ast.parse(text, mode="eval")
        value = value_of_literal(tree.body)
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("it is neither JSON nor a Python literal") from error
    if is_too_deep(value, text):
        raise ValueError(f"lists and objects lie more than {MAX_DEPTH} deep in one another")
    return value


def value_of_literal(node: ast.expr) -> Any:
    """Return the JSON value of a Python literal.

    Raises:
        ValueError: When it has a value that JSON does not have, such as a set.
    """
    if isinstance(node, ast.Dict):
        keys = [value_of_literal(key) if key else None for key in node.keys]
        if not all(isinstance(key, str) for key in keys):
            raise ValueError("a key is no text")
        return reject_duplicate_keys([(str(key), value_of_literal(value)) for key, value in zip(keys, node.values, strict=True)])
    if isinstance(node, ast.List):
        return [value_of_literal(item) for item in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        number = node.operand.value
        if isinstance(number, int | float) and not isinstance(number, bool):
            return -number
    raise ValueError("it has values that JSON does not have")


def _end_of_brackets(text: str, start: int) -> int:
    """Return the position after the bracket that closes the one at ``start``; the end of the text when none does."""
    depth = 0
    for match in _TOKENS.finditer(text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match[0], 0)
        if not depth and len(match[0]) == 1:
            return match.end()
    return len(text)
