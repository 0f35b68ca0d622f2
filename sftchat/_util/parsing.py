"""Reads external text and JSON with size limits, and converts JSON to types; invalid content raises ``ValueError``."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, BinaryIO, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

MAX_BYTES = 64 << 20
"""Maximum size in bytes of a file that is read as a whole; larger ones might not fit into memory."""
MAX_DEPTH = 100
"""Maximum nesting of lists and objects; fixed, so that results do not depend on Python's recursion limit."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_TYPE_NAMES = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    NoneType: "null",
    dict: "an object",
    list: "a list",
}


def expand_user(text: str | Path) -> Path:
    """Return a path with ``~`` or ``~USER`` at its start expanded; ``~USER`` of an unknown user is left unchanged."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises for an unknown user


def read_text(path: Path) -> str:
    """Read a small UTF-8 file, with or without a byte order mark.

    Raises:
        OSError: When it cannot be read, or is larger than ``MAX_BYTES``, such as a sparse file or a device.
        UnicodeDecodeError: When it is not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content.decode("utf-8-sig")


def iter_bounded_lines(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Yield ``(number from 1, line, was cut)`` for each line; a line over ``MAX_BYTES`` is cut, and its rest is yielded as the next line."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_BYTES), b""), start=1):
        yield number, line, len(line) == MAX_BYTES and not line.endswith(b"\n")


def not_utf8_message(error: UnicodeDecodeError) -> str:
    """Return an error message for a line that is not UTF-8, with a command that converts the file from its likely encoding."""
    encoding = "UTF-16" if error.object.startswith(UTF16_MARKS) else "GB18030"
    return f"not UTF-8 at byte {error.start} of the line; convert it, such as with: {iconv_command(encoding)}"


def iconv_command(encoding: str) -> str:
    """Return the command that converts a file to UTF-8."""
    return f"iconv -f {encoding} -t UTF-8"


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; for ``object_pairs_hook`` of ``json``, which by default keeps the last of duplicate keys.

    Raises:
        ValueError: When a key occurs twice.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {json.dumps(key)} stands twice in one object; remove one")
            seen.add(key)
    return members


_STRICT_DECODER = json.JSONDecoder(object_pairs_hook=reject_duplicate_keys)
_LENIENT_DECODER = json.JSONDecoder()


def load_json(text: str | bytes, *, last_wins: bool = False) -> Any:
    """Parse JSON text.

    Args:
        text: JSON text.
        last_wins: Whether to keep the last of duplicate keys, as most JSON readers do; for responses of servers.

    Raises:
        ValueError: When it is not JSON, an object has duplicate keys (unless ``last_wins``), or lists and objects are nested too deep.
    """
    decoder = _LENIENT_DECODER if last_wins else _STRICT_DECODER
    try:
        value = decoder.decode(text if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass"))
    except RecursionError:
        raise ValueError(f"lists and objects lie more than {MAX_DEPTH} deep in one another") from None
    if is_too_deep(value, text):
        raise ValueError(f"lists and objects lie more than {MAX_DEPTH} deep in one another")
    return value


def is_too_deep(value: Any, text: str | bytes) -> bool:
    """Return whether lists and objects are nested deeper than ``MAX_DEPTH``.

    Args:
        value: The parsed JSON.
        text: The same as text. If it has at most ``MAX_DEPTH`` opening brackets, the value is not traversed.
    """
    brackets = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    return sum(map(text.count, brackets)) > MAX_DEPTH and nesting_depth(value) > MAX_DEPTH  # type: ignore[arg-type]


def keyed_texts(value: Any) -> Iterator[tuple[str, str]]:
    """Yield ``(key, string)`` for every string in a JSON value; in a list, the key is that of the list.

    Iterative, because external data may be nested deeper than Python's recursion limit.

    Args:
        value: Result of ``load_json``.
    """
    pending = [("", value)]
    while pending:
        key, item = pending.pop()
        if isinstance(item, str):
            yield key, item
        elif isinstance(item, list):
            pending += [(key, entry) for entry in item]
        elif isinstance(item, dict):
            pending += item.items()


def nesting_depth(value: Any) -> int:
    """Return the nesting depth of lists and objects; iterative, because it may exceed Python's recursion limit."""
    depth, level = 0, [value] if isinstance(value, (dict, list)) else []
    while level:  # all lists and objects of one depth
        depth += 1
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item) if isinstance(inner, (dict, list))
        ]
    return depth


def from_json(target: Callable[..., T], value: Any) -> T:
    """Convert a JSON value to a type.

    Args:
        target: A frozen dataclass, or a type of its fields: text, numbers, literals, tuples, mappings, unions.
        value: The value; lists become tuples, objects become dataclasses.

    Raises:
        ValueError: When the value does not have the type; the message names where.
    """
    result: T = _convert(target, value, "")
    return result


def _convert(target: Any, value: Any, path: str) -> Any:
    """Convert the part of a JSON value at ``path``, such as ``.items[2].name``; the path is used in errors."""
    origin = get_origin(target)
    if target is Any:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in get_args(target):
            return None
        (optional_target,) = (inner_target for inner_target in get_args(target) if inner_target is not NoneType)
        return _convert(optional_target, value, path)
    if origin is Literal:
        if value in get_args(target):
            return value
        raise _type_error(path, value, f"one of {', '.join(map(repr, get_args(target)))}")
    if origin is tuple and isinstance(value, list | tuple):
        targets = get_args(target)
        if targets[-1] is Ellipsis:
            targets = targets[:1] * len(value)
        elif len(value) != len(targets):
            raise ValueError(f"{path.lstrip('.') or 'the whole'} has {len(value)} values, must have {len(targets)}")
        return tuple(_convert(targets[index], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _convert(get_args(target)[1], member, f"{path}.{key}") for key, member in value.items()}
    if is_dataclass(target) and isinstance(value, dict):
        return _convert_dataclass(target, value, path)
    if target is float and (type(value) is float or (type(value) is int and abs(value) <= 1e308)):
        return value
    if target is int and type(value) is int and abs(value) < 1 << 63:
        return value
    if target in (str, bool) and type(value) is target:
        return value
    raise _type_error(path, value, _TYPE_NAMES.get(target, "a list" if origin is tuple else "an object"))


def _convert_dataclass(target: Any, value: dict[str, Any], path: str) -> Any:
    field_types = _field_types(target)
    if unknown := sorted(map(str, value.keys() - field_types.keys())):
        raise ValueError(f"unknown key '{f'{path}.{unknown[0]}'.lstrip('.')}'")
    for item in fields(target):
        if item.name not in value and item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"key '{f'{path}.{item.name}'.lstrip('.')}' is missing")
    return target(**{name: _convert(field_types[name], member, f"{path}.{name}") for name, member in value.items()})


@cache
def _field_types(target: Any) -> dict[str, Any]:
    return get_type_hints(target)


def _type_error(path: str, value: Any, expected: str) -> ValueError:
    kind_name = _TYPE_NAMES.get(type(value), type(value).__name__)
    text = f"{value!r:.40}" if kind_name in ("text", "a whole number", "a number", "true or false") else kind_name
    return ValueError(f"{path.lstrip('.') or 'the whole'} is {text}, must be {expected}")
