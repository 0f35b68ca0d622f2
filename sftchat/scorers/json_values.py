"""The scorer ``json_fields``, which compares every field of a reply in JSON with the gold reply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from json import dumps
from typing import Any

from sftchat.scorers.base import Scorer, answer_form, gold_required, with_reply_errors
from sftchat.scorers.json_text import find_json
from sftchat.task import Metric, rate, ratio
from sftchat.types import Example, Reply, Score

MAX_PAIRS = 10_000
"""Maximum number of pairs of elements of two lists that are compared to find the best matching; longer lists are compared in order."""

F1 = Metric("f1", lambda sums: ratio(2 * sums["tp"], sums["pred"] + sums["gold"]), "micro F1 over fields", stats=("tp", "pred", "gold"))
EXACT = rate("exact", "exact", "share of replies in which every field is right")
VALID = rate("valid", "valid", "share of replies that are JSON")


@dataclass
class Comparison:
    """Compares two JSON values field by field, and collects the error classes of their differences.

    Attributes:
        ignore_types: Whether values of different types are compared by their text.
        exact_text: Whether strings are compared character by character.
        ordered: Whether equal lists have the same order; only for ``key``.
        errors: The error classes found so far.
    """

    ignore_types: bool = False
    exact_text: bool = False
    ordered: bool = False
    errors: set[str] = field(default_factory=set)

    def key(self, value: Any) -> Any:
        """Return a hashable key that is the same for equal values."""
        if isinstance(value, dict):
            return "object", frozenset((name, self.key(member)) for name, member in value.items())
        if isinstance(value, list):
            return "list", tuple(map(self.key, value)) if self.ordered else frozenset(Counter(map(self.key, value)).items())
        if self.ignore_types:
            return "text", _as_text(value, self.exact_text)
        if isinstance(value, str):
            return "text", value if self.exact_text else answer_form(value)
        return _type_of(value), value

    def right(self, reply: Any, gold: Any) -> int:
        """Return the number of fields of the gold value that the reply's value has with the same path and value."""
        if isinstance(gold, dict) and isinstance(reply, dict):
            if not gold and not reply:
                return 1
            if reply.keys() - gold.keys():
                self.errors.add("extra_field")
            if gold.keys() - reply.keys():
                self.errors.add("missing_field")
            return sum(self.right(reply[name], gold[name]) for name in gold if name in reply)
        if isinstance(gold, list) and isinstance(reply, list):
            return self._right_of_lists(reply, gold)
        if self.key(reply) == self.key(gold):
            return 1
        self.errors.add("wrong_value" if _type_of(reply) == _type_of(gold) or self.ignore_types else "wrong_type")
        return 0

    def _right_of_lists(self, reply: list[Any], gold: list[Any]) -> int:
        if not gold and not reply:
            return 1
        if len(reply) > len(gold):
            self.errors.add("extra_field")
        if len(gold) > len(reply):
            self.errors.add("missing_field")
        right, rest_of_reply, rest_of_gold = self._take_equal(reply, gold)
        if not rest_of_reply or not rest_of_gold:
            return right
        return right + sum(self.right(reply_item, gold_item) for reply_item, gold_item in self._pairs(rest_of_reply, rest_of_gold))

    def _take_equal(self, reply: list[Any], gold: list[Any]) -> tuple[int, list[Any], list[Any]]:
        """Return the number of fields of elements that both lists have, and the elements that only one has."""
        wanted = Counter(map(self.key, gold))
        right, rest_of_reply = 0, []
        for item in reply:
            key = self.key(item)
            if wanted[key]:
                wanted[key] -= 1
                right += count_fields(item)
            else:
                rest_of_reply.append(item)
        rest_of_gold = []
        for item in gold:
            key = self.key(item)
            if wanted[key]:
                wanted[key] -= 1
                rest_of_gold.append(item)
        return right, rest_of_reply, rest_of_gold

    def _pairs(self, reply: list[Any], gold: list[Any]) -> Iterable[tuple[Any, Any]]:
        """Match the elements of two lists so that most fields agree (linear sum assignment)."""
        fields = sum(map(count_fields, reply)) * sum(map(count_fields, gold))
        if (len(reply) == 1 and len(gold) == 1) or len(reply) * len(gold) > MAX_PAIRS or fields > 10 * MAX_PAIRS:
            return zip(reply, gold, strict=False)
        from scipy.optimize import linear_sum_assignment

        trial = Comparison(self.ignore_types, self.exact_text)  # its errors do not count
        overlaps = [[trial.right(reply_item, gold_item) for gold_item in gold] for reply_item in reply]
        rows, columns = linear_sum_assignment(overlaps, maximize=True)
        return [(reply[row], gold[column]) for row, column in zip(rows, columns, strict=True)]


def count_fields(value: Any) -> int:
    """Return the number of fields of a JSON value: its strings, numbers, booleans and nulls; an empty object or list is one field."""
    if isinstance(value, dict):
        return sum(map(count_fields, value.values())) or 1
    if isinstance(value, list):
        return sum(map(count_fields, value)) or 1
    return 1


def _type_of(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "constant" if value is None else "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "object" if isinstance(value, dict) else "list"


def _as_text(value: Any, exact_text: bool) -> str:
    text = value if isinstance(value, str) else dumps(value)
    try:
        number = float(text)
    except ValueError:
        return text if exact_text else answer_form(text)
    return repr(number)


def json_fields(*, ignore_types: bool = False, exact_text: bool = False) -> Scorer:
    """Score the fields of a JSON reply: micro F1 over every value with its path.

    Lists are compared without their order, and objects in lists are matched so that most fields agree. Numbers are compared as numbers. The reply
    ``{"name": "anna", "age": "30"}`` to the gold reply ``{"name": "Anna", "age": 30}`` has 1 of 2 fields right (``wrong_type``).

    Args:
        ignore_types: Whether ``"30"`` equals ``30``, and ``"true"`` equals ``true``.
        exact_text: Whether strings are compared character by character, and not in ``answer_form``.
    """

    def score(example: Example, reply: Reply) -> Score:
        try:
            gold = find_json(example.gold or "")
        except ValueError:
            gold = _ABSENT
        counts = {"n": 1, "tp": 0, "pred": 0, "gold": count_fields(gold), "exact": 0, "valid": 0}
        names = tuple(gold) if isinstance(gold, dict) else ()
        groups = {name: {**counts, "gold": count_fields(gold[name])} for name in names}
        try:
            value = find_json(reply.text)
        except ValueError:
            return with_reply_errors(Score(counts, "", ("unparsable",), groups), reply)
        if gold is _ABSENT:  # nothing is right, not even null
            return with_reply_errors(Score({**counts, "pred": count_fields(value), "valid": 1}, "", ("wrong_value",)), reply)
        comparison = Comparison(ignore_types, exact_text)
        right, predicted = comparison.right(value, gold), count_fields(value)
        exact = right == predicted == counts["gold"]
        counts |= {"tp": right, "pred": predicted, "exact": int(exact), "valid": 1}
        for name in names:
            part = value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
            groups[name] |= {"valid": 1, **_counts_of_part(part, gold[name], ignore_types, exact_text)}
        errors = () if exact else tuple(sorted(comparison.errors))
        return with_reply_errors(Score(counts, dumps(value, ensure_ascii=False, sort_keys=True), errors, groups), reply)

    settings = {"ignore_types": ignore_types, "exact_text": exact_text}
    return Scorer("json_fields", score, (F1, EXACT, VALID), json_problems, settings)


_ABSENT: Any = object()


def _counts_of_part(reply: Any, gold: Any, ignore_types: bool, exact_text: bool) -> dict[str, int]:
    if reply is _ABSENT:
        return {}
    right, predicted = Comparison(ignore_types, exact_text).right(reply, gold), count_fields(reply)
    return {"tp": right, "pred": predicted, "exact": int(right == predicted == count_fields(gold))}


def json_problems(example: Example) -> Iterable[str]:
    """Return the problem of a row whose gold reply is missing or no JSON."""
    if not example.gold:
        return gold_required(example)
    try:
        find_json(example.gold)
    except ValueError as error:
        return (f"the gold reply is no JSON: {error}",)
    return ()
