"""Lenient parsing of triples in JSON or in brackets instead of lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

Row = tuple[str, str, str]
"""Head, tail and relation as written."""

_HEAD_KEYS = frozenset(
    ["head", "subject", "source", "from", "a", "person1", "entity1", "name1", "h", "人物a", "人物1", "人物一", "主体", "头实体", "实体1"]
)
_TAIL_KEYS = frozenset(
    ["tail", "object", "target", "to", "b", "person2", "entity2", "name2", "t", "人物b", "人物2", "人物二", "客体", "尾实体", "实体2"]
)
_RELATION_KEYS = frozenset(["relation", "relationship", "predicate", "type", "label", "r", "关系", "人物关系", "关系类型", "谓词"])

_OPEN, _CLOSE, _PART = r"[(\[{<]", r"[)\]}>]", r"([^()\[\]{}<>,、|:]{1,60})"
_BRACKETS = re.compile(rf"{_OPEN}{_PART}[,、|]{_PART}[,、|]{_PART}{_CLOSE}")
_MAX_DEPTH = 6


def parse_json_rows(text: str, position: int, is_label: Callable[[str], bool]) -> tuple[list[Row | str], int] | None:
    """Read one JSON value that starts at a position.

    Rows may be objects with a key for each part, lists of three, one object from pair to relation, or strings to be read as lines.

    Args:
        text: The reply.
        position: Position of the opening ``[`` or ``{``.
        is_label: Returns whether a word is a relation label; distinguishes ``[甲, 关系, 乙]`` from ``[甲, 乙, 关系]``.

    Returns:
        Rows and the position after the value; no rows for ``[]``; None when it is not JSON or has no rows.
    """
    try:
        value, end = json.JSONDecoder().raw_decode(text, position)
    except (ValueError, RecursionError):
        return None
    rows = list(_iter_rows(value, is_label, _MAX_DEPTH))
    return (rows, end) if rows or _is_empty(value, _MAX_DEPTH) else None


def parse_bracket_rows(statement: str, is_label: Callable[[str], bool]) -> tuple[list[Row | str], str]:
    """Read ``(甲, 关系, 乙)`` groups.

    Args:
        statement: One line, compatibility characters already folded.
        is_label: Whether a word is a relation label.

    Returns:
        Rows, and the text outside the brackets.
    """
    rows: list[Row | str] = []
    for parts in _BRACKETS.findall(statement):
        rows.append(order_parts([part.strip(" '\"“”‘’") for part in parts], is_label))
    return rows, _BRACKETS.sub("", statement)


def order_parts(parts: list[str], is_label: Callable[[str], bool]) -> Row:
    """Order three parts as a row: the relation is the second part, as usual in the literature, unless only the third is a label."""
    first, second, third = parts
    if is_label(third) and not is_label(second):
        return first, second, third
    return first, third, second


def _iter_rows(value: Any, is_label: Callable[[str], bool], depth: int) -> Iterator[Row | str]:
    """Yield the rows of a JSON value; a string outside a row is yielded as a line."""
    if depth == 0:
        return
    if isinstance(value, list):
        is_row = len(value) == 3 and all(isinstance(item, str) and ":" not in item and "：" not in item for item in value)
        if is_row:
            yield order_parts(value, is_label)
            return
        for item in value:
            if isinstance(item, str):
                yield item
            else:
                yield from _iter_rows(item, is_label, depth - 1)
    elif isinstance(value, dict):
        head, tail, relation = (_find_text(value, keys) for keys in (_HEAD_KEYS, _TAIL_KEYS, _RELATION_KEYS))
        if head and tail and relation:
            yield head, tail, relation
            return
        for key, item in value.items():
            if isinstance(item, str):
                yield f"{key}:{item}"
            else:
                yield from _iter_rows(item, is_label, depth - 1)


def _find_text(row: dict[str, Any], keys: frozenset[str]) -> str:
    return next((item for key, item in row.items() if key.strip().lower() in keys and isinstance(item, str)), "")


def _is_empty(value: Any, depth: int) -> bool:
    """Return whether a value has only empty lists and objects: JSON for no relation."""
    if depth == 0 or not isinstance(value, (list, dict)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return all(_is_empty(item, depth - 1) for item in items)
