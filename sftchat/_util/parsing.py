"""What comes from outside as text and JSON, read with bounds and given the types that it must have; whatever is wrong is a ``ValueError``."""

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
"""Bytes of a file that is read as a whole: what is larger is none of ours, and might not fit into memory."""
MAX_DEPTH = 100
"""Lists and objects inside one another; a fixed limit, so that what is read does not depend on how deep Python's stack happens to be."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null", dict: "an object", list: "a list"}


def path_of(text: str | Path) -> Path:
    """A path as somebody wrote it, ``~`` and ``~USER`` being homes; of a user that nobody knows it stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - a path's own method raises for such a user


def read_text(path: Path) -> str:
    """A small file of UTF-8, with or without a byte order mark.

    Raises:
        OSError: When it cannot be read, or is larger than ``MAX_BYTES``: a file of holes, a device.
        UnicodeDecodeError: When it is not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content.decode("utf-8-sig")


def bounded_lines(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """The lines of a file with their numbers, from 1, and whether each was cut at ``MAX_BYTES`` bytes; what comes next is then the rest of it."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_BYTES), b""), start=1):
        yield number, line, len(line) == MAX_BYTES and not line.endswith(b"\n")


def not_utf_8(error: UnicodeDecodeError) -> str:
    """Why a line cannot be read, and what to do about it."""
    return f"not UTF-8 at byte {error.start} of the line; convert it, such as with: {iconv('UTF-16' if error.object.startswith(UTF16_MARKS) else 'GB18030')}"


def iconv(encoding: str) -> str:
    """The command that makes UTF-8 of another encoding."""
    return f"iconv -f {encoding} -t UTF-8"


def one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object from its members, for ``object_pairs_hook``: of two values of one key JSON readers silently keep the last.

    Raises:
        ValueError: When a key stands twice; names it.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {json.dumps(key)} stands twice in one object; remove one")
            seen.add(key)
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=one_of_each)
_LENIENT = json.JSONDecoder()


def load_json(text: str | bytes, *, last_wins: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        text: The text.
        last_wins: Of two values of one key keep the last one, as most JSON readers do; for what servers send.

    Raises:
        ValueError: When it is none, a key stands twice in an object (unless the last one wins), or lists and objects lie too deep in one another.
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
    """Whether lists and objects lie too deep in one another; the text that they were read from mostly saves looking."""
    marks = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    return sum(map(text.count, marks)) > MAX_DEPTH and depth(value) > MAX_DEPTH  # type: ignore[arg-type]


def keyed_texts(value: Any) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value with the key that it, or the list around it, stands under; keys themselves aside.

    A loop and no recursion, because what comes from outside may be deep.

    Args:
        value: As ``load_json`` gives it.
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


def depth(value: Any) -> int:
    """How many lists and objects lie inside one another; a loop, because recursion is what it guards."""
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, level = todo.pop()
        if isinstance(item, (dict, list)):
            deepest = max(deepest, level)
            todo += [(inner, level + 1) for inner in (item.values() if isinstance(item, dict) else item)]
    return deepest


def from_json(kind: Callable[..., T], value: Any) -> T:
    """A value of a type from what JSON made of it.

    Args:
        kind: A frozen dataclass, or what its fields may be: text, numbers, literals, tuples, mappings, one of several.
        value: Lists stand for tuples, objects for dataclasses.

    Raises:
        ValueError: When it does not fit; says where.
    """
    result: T = _made(kind, value, "")
    return result


def _made(kind: Any, value: Any, where: str) -> Any:
    """The same, at some place within the whole."""
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
        return _made(kind, value, where)
    if origin is Literal:
        if value in get_args(kind):
            return value
        raise _wrong(where, value, f"one of {', '.join(map(repr, get_args(kind)))}")
    if origin is tuple and isinstance(value, list | tuple):
        kinds = get_args(kind)
        if kinds[-1] is not Ellipsis:
            if len(value) != len(kinds):
                raise ValueError(f"{where.lstrip('.') or 'the whole'} has {len(value)} values, must have {len(kinds)}")
            return tuple(_made(one, inner, f"{where}[{index}]") for index, (one, inner) in enumerate(zip(kinds, value, strict=True)))
        return tuple(_made(get_args(kind)[0], one, f"{where}[{index}]") for index, one in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _made(get_args(kind)[1], one, f"{where}.{key}") for key, one in value.items()}
    if is_dataclass(kind) and isinstance(value, dict):
        return _object(kind, value, where)
    if kind is float and (type(value) is float or (type(value) is int and abs(value) <= 1e308)):
        return value
    if kind is int and type(value) is int and abs(value) < 1 << 63:
        return value
    if kind in (str, bool) and type(value) is kind:
        return value
    raise _wrong(where, value, _KINDS.get(kind, "a list" if origin is tuple else "an object"))


def _object(kind: Any, value: dict[str, Any], where: str) -> Any:
    """A dataclass."""
    hints = _hints(kind)
    if unknown := sorted(map(str, value.keys() - hints.keys())):
        raise ValueError(f"unknown key '{f'{where}.{unknown[0]}'.lstrip('.')}'")
    for item in fields(kind):
        if item.name not in value and item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"key '{f'{where}.{item.name}'.lstrip('.')}' is missing")
    return kind(**{name: _made(hints[name], one, f"{where}.{name}") for name, one in value.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return get_type_hints(kind)


def _wrong(where: str, value: Any, wanted: str) -> ValueError:
    """What is not what it must be."""
    found = _KINDS.get(type(value), type(value).__name__)
    shown = f"{value!r:.40}" if found in ("text", "a whole number", "a number", "true or false") else found
    return ValueError(f"{where.lstrip('.') or 'the whole'} is {shown}, must be {wanted}")
