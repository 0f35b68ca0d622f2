"""Constraints on replies, checked by program, as stored in the metadata of a row.

A constraint is an object with the name of its check and that check's parameters, such as ``{"check": "number", "value": 12}``. A check
returns an error class of ``CONSTRAINT_ERRORS``, or an empty string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftchat.text import tokens
from sftchat_general.reading import (
    contains_value,
    fold,
    is_bare_number,
    item_tokens,
    parse_number,
    plain_form,
    reply_lines,
    strip_fence,
    text_length,
)

CONSTRAINT_ERRORS = {
    "wrong_answer": "not what was asked for",
    "wrong_order": "the right items in another order",
    "wrong_format": "not in the form that was asked for",
    "extra_text": "the right answer with other text around it, although only the answer was asked for",
}
"""Error classes of the checks."""

Constraint = Mapping[str, Any]


def violations(constraints: Iterable[Constraint], reply: str, question: str) -> tuple[str, ...]:
    """Return the error classes of a reply, without duplicates, in the order of the constraints.

    Args:
        constraints: Valid ones, see ``constraint_problem``.
        reply: Any text.
        question: The last user turn.
    """
    errors = (CHECKS[constraint["check"]].error_of(reply, constraint, question) for constraint in constraints)
    return tuple(dict.fromkeys(error for error in errors if error))


def constraint_problem(constraint: object) -> str:
    """Return what is wrong with a constraint, one line; empty when it is valid."""
    if not isinstance(constraint, Mapping):
        return f"constraint {constraint!r} is no object"
    name = constraint.get("check")
    if not isinstance(name, str) or name not in CHECKS:
        return f"unknown check {name!r}, must be one of {', '.join(CHECKS)}"
    check = CHECKS[name]
    parameters = {**check.required, **check.optional}
    for parameter in constraint:
        if parameter != "check" and parameter not in parameters:
            return f"check {name} has no parameter {parameter!r}, only {', '.join(parameters)}"
    for parameter, is_valid in parameters.items():
        if parameter in constraint and not is_valid(constraint[parameter]):
            return f"parameter {parameter} of check {name} cannot be {constraint[parameter]!r}"
        if parameter in check.required and parameter not in constraint:
            return f"check {name} needs the parameter {parameter}"
    return ""


def _check_number(reply: str, constraint: Constraint, question: str) -> str:
    if parse_number(reply, question) != constraint["value"]:
        return "wrong_answer"
    return "extra_text" if constraint.get("only") and not is_bare_number(reply) else ""


def _check_text(reply: str, constraint: Constraint, question: str) -> str:
    case = constraint.get("case", False)
    answer = plain_form(reply, case=case)
    accepted = [plain_form(text, case=case) for text in constraint["accept"]]
    if answer in accepted:
        return ""
    contains_answer = any(text in answer and contains_value(fold(answer), text) for text in accepted)
    return "extra_text" if contains_answer else "wrong_answer"


def _check_mentions(reply: str, constraint: Constraint, question: str) -> str:
    text = fold(reply)
    has_right_value = any(contains_value(text, value) for value in constraint["any"])
    has_wrong_value = any(contains_value(text, value) for value in constraint.get("none", ()))
    return "" if has_right_value and not has_wrong_value else "wrong_answer"


def _check_sequence(reply: str, constraint: Constraint, question: str) -> str:
    return _compare_with_items(item_tokens(reply), constraint["items"])


def _compare_with_items(reply_tokens: Sequence[str], items: Sequence[str]) -> str:
    expected_tokens = tokens(" ".join(items))
    if list(reply_tokens) == expected_tokens:
        return ""
    return "wrong_order" if sorted(reply_tokens) == sorted(expected_tokens) else "wrong_answer"


def _check_list(reply: str, constraint: Constraint, question: str) -> str:
    lines = reply_lines(reply)
    pattern = _MARKERS[constraint["marker"]]
    markers = [marker for line in lines if (marker := pattern.match(line))]
    if not markers:
        return "wrong_format"
    item_texts = [marker.string[marker.end() :] for marker in markers]
    error = _compare_with_items(tokens(" ".join(item_texts)), constraint["items"]) if "items" in constraint else ""
    if len(markers) < len(lines):
        return error or "extra_text"
    if constraint["marker"] == "1." and [int(marker[1]) for marker in markers] != list(range(1, len(lines) + 1)):
        return "wrong_format"
    return error or ("" if len(lines) == constraint["count"] else "wrong_format")


_MARKERS = {"-": re.compile(r"-\s+"), "*": re.compile(r"\*\s+"), "1.": re.compile(r"([0-9]{1,3})\.\s+")}


def _check_json(reply: str, constraint: Constraint, question: str) -> str:
    text = strip_fence(reply).strip()
    start = text.find("{")
    try:
        value, end = json.JSONDecoder().raw_decode(text, max(start, 0))
    except (ValueError, RecursionError):
        return "wrong_format"
    if not isinstance(value, dict) or set(value) != set(constraint["keys"]):
        return "wrong_format"
    for key, expected in constraint.get("values", {}).items():
        accepted = expected if isinstance(expected, list) else [expected]
        if plain_form(str(value.get(key))) not in [plain_form(str(alternative)) for alternative in accepted]:
            return "wrong_answer"
    return "extra_text" if start > 0 or text[end:].strip() else ""


def _check_tags(reply: str, constraint: Constraint, question: str) -> str:
    tag = re.escape(constraint["tag"])
    match = re.search(rf"<{tag}>(.*)</{tag}>", reply, re.DOTALL)
    if not match:
        return "wrong_format"
    if plain_form(match[1]) not in map(plain_form, constraint["accept"]):
        return "wrong_answer"
    return "extra_text" if match[0] != reply.strip() else ""


def _check_length(reply: str, constraint: Constraint, question: str) -> str:
    length = text_length(reply, constraint["unit"])
    return "" if constraint.get("least", 1) <= length <= constraint["most"] else "wrong_format"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_text, value))


def _are_texts_not_empty(value: object) -> bool:
    return _are_texts(value) and bool(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_one_of(*values: str) -> Callable[[object], bool]:
    return lambda value: value in values


@dataclass(frozen=True)
class Check:
    """A kind of constraint.

    Attributes:
        error_of: Function of reply, constraint and question; returns an error class or an empty string.
        description: The requirement on a reply.
        required: Required parameters, each with a function that returns whether a value is valid.
        optional: Optional parameters, likewise.
    """

    error_of: Callable[[str, Constraint, str], str]
    description: str
    required: Mapping[str, Callable[[object], bool]]
    optional: Mapping[str, Callable[[object], bool]] = field(default_factory=dict)


CHECKS: dict[str, Check] = {
    "number": Check(
        _check_number,
        "the answer is the number `value`; with `only`, the reply has no other text",
        {"value": _is_number},
        {"only": _is_bool},
    ),
    "text": Check(
        _check_text,
        "the whole reply is one of `accept`, quotes and closing punctuation aside; capitals count with `case`",
        {"accept": _are_texts_not_empty},
        {"case": _is_bool},
    ),
    "mentions": Check(
        _check_mentions, "the reply contains one of `any` and none of `none`", {"any": _are_texts_not_empty}, {"none": _are_texts}
    ),
    "sequence": Check(_check_sequence, "the `items`, in this order, are listed in whatever way", {"items": _are_texts_not_empty}),
    "list": Check(
        _check_list,
        "`count` lines, each with the `marker` (`-`, `*` or `1.`), which list the `items`",
        {"marker": _is_one_of("-", "*", "1."), "count": _is_count},
        {"items": _are_texts_not_empty},
    ),
    "json": Check(
        _check_json,
        "a JSON object with exactly the `keys`, some with known `values` (a list means any of them)",
        {"keys": _are_texts_not_empty},
        {"values": _is_object},
    ),
    "tags": Check(_check_tags, "one of `accept` between `<tag>` and `</tag>`", {"tag": _is_text, "accept": _are_texts_not_empty}),
    "length": Check(
        _check_length,
        "from `least` (1) to `most` `words` or `characters`",
        {"unit": _is_one_of("words", "characters"), "most": _is_count},
        {"least": _is_count},
    ),
}
"""All checks by name."""
