"""Reads external text and JSON with size limits and converts it to types; invalid content raises ``ValueError``."""

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
"""Maximum nesting of lists and objects; fixed, so that results do not depend on the depth of Python's stack."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null", dict: "an object", list: "a list"}


def expand_user(text: str | Path) -> Path:
    """Convert a string to a path with ``~`` and ``~USER`` expanded; that of an unknown user is left unchanged."""
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
    """Yield the lines of a file with their numbers, from 1, and whether each was cut at ``MAX_BYTES`` bytes; its rest then comes as the next line."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_BYTES), b""), start=1):
        yield number, line, len(line) == MAX_BYTES and not line.endswith(b"\n")


def not_utf8_message(error: UnicodeDecodeError) -> str:
    """Return an error message for a line that is not UTF-8, with advice."""
    return f"not UTF-8 at byte {error.start} of the line; convert it, such as with: {iconv_command('UTF-16' if error.object.startswith(UTF16_MARKS) else 'GB18030')}"


def iconv_command(encoding: str) -> str:
    """Return the command that converts a file to UTF-8."""
    return f"iconv -f {encoding} -t UTF-8"


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Create an object from its members, for ``object_pairs_hook``; JSON readers otherwise silently keep the last of duplicate keys.

    Raises:
        ValueError: When a key occurs twice; names it.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {json.dumps(key)} stands twice in one object; remove one")
            seen.add(key)
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=reject_duplicate_keys)
_LENIENT = json.JSONDecoder()


def load_json(text: str | bytes, *, last_wins: bool = False) -> Any:
    """Parse JSON text.

    Args:
        text: JSON text.
        last_wins: Whether the last of duplicate keys is kept, as by most JSON readers; for responses of servers.

    Raises:
        ValueError: When it is not JSON, an object has duplicate keys (unless ``last_wins``), or lists and objects are nested too deep.
    """
    try:
        value = (_LENIENT if last_wins else _DECODER).decode(
            text if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass")
        )
    except RecursionError:
        raise ValueError(f"lists and objects lie more than {MAX_DEPTH} deep in one another") from None
    if too_deep(value, text):
        raise ValueError(f"lists and objects lie more than {MAX_DEPTH} deep in one another")
    return value


def too_deep(value: Any, text: str | bytes) -> bool:
    """Whether lists and objects are nested too deep; usually decided from the number of brackets in the text."""
    marks = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    return sum(map(text.count, marks)) > MAX_DEPTH and nesting_depth(value) > MAX_DEPTH  # type: ignore[arg-type]


def keyed_texts(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every string in a JSON value with the key of it, or of the list around it; keys themselves are excluded.

    Iterative instead of recursive, because external data may be deeply nested.

    Args:
        value: Result of ``load_json``.
    """
    todo = [("", value)]
    while todo:
        key, item = todo.pop()
        if isinstance(item, str):
            yield key, item
        elif isinstance(item, list):
            todo += [(key, entry) for entry in item]
        elif isinstance(item, dict):
            todo += item.items()


def nesting_depth(value: Any) -> int:
    """Return the nesting depth of lists and objects; iterative, because it protects against recursion."""
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, level = todo.pop()
        if isinstance(item, (dict, list)):
            deepest = max(deepest, level)
            todo += [(inner, level + 1) for inner in (item.values() if isinstance(item, dict) else item)]
    return deepest


def from_json(kind: Callable[..., T], value: Any) -> T:
    """Convert a JSON value to a type.

    Args:
        kind: A frozen dataclass, or a type of its fields: text, numbers, literals, tuples, mappings, unions.
        value: The value; lists become tuples, objects become dataclasses.

    Raises:
        ValueError: When it does not fit; names the location.
    """
    result: T = _convert(kind, value, "")
    return result


def _convert(kind: Any, value: Any, path: str) -> Any:
    """Convert a JSON value at a location within the whole."""
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        (kind,) = (inner_kind for inner_kind in get_args(kind) if inner_kind is not NoneType)
        return _convert(kind, value, path)
    if origin is Literal:
        if value in get_args(kind):
            return value
        raise _type_error(path, value, f"one of {', '.join(map(repr, get_args(kind)))}")
    if origin is tuple and isinstance(value, list | tuple):
        kinds = get_args(kind)
        if kinds[-1] is not Ellipsis:
            if len(value) != len(kinds):
                raise ValueError(f"{path.lstrip('.') or 'the whole'} has {len(value)} values, must have {len(kinds)}")
            return tuple(
                _convert(inner_kind, inner, f"{path}[{index}]") for index, (inner_kind, inner) in enumerate(zip(kinds, value, strict=True))
            )
        return tuple(_convert(get_args(kind)[0], inner_kind, f"{path}[{index}]") for index, inner_kind in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _convert(get_args(kind)[1], inner_kind, f"{path}.{key}") for key, inner_kind in value.items()}
    if is_dataclass(kind) and isinstance(value, dict):
        return _convert_dataclass(kind, value, path)
    if kind is float and (type(value) is float or (type(value) is int and abs(value) <= 1e308)):
        return value
    if kind is int and type(value) is int and abs(value) < 1 << 63:
        return value
    if kind in (str, bool) and type(value) is kind:
        return value
    raise _type_error(path, value, _KINDS.get(kind, "a list" if origin is tuple else "an object"))


def _convert_dataclass(kind: Any, value: dict[str, Any], path: str) -> Any:
    hints = _hints(kind)
    if unknown := sorted(map(str, value.keys() - hints.keys())):
        raise ValueError(f"unknown key '{f'{path}.{unknown[0]}'.lstrip('.')}'")
    for item in fields(kind):
        if item.name not in value and item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"key '{f'{path}.{item.name}'.lstrip('.')}' is missing")
    return kind(**{name: _convert(hints[name], member, f"{path}.{name}") for name, member in value.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields."""
    return get_type_hints(kind)


def _type_error(path: str, value: Any, expected: str) -> ValueError:
    """Return an error for a value of the wrong type."""
    kind = _KINDS.get(type(value), type(value).__name__)
    text = f"{value!r:.40}" if kind in ("text", "a whole number", "a number", "true or false") else kind
    return ValueError(f"{path.lstrip('.') or 'the whole'} is {text}, must be {expected}")
