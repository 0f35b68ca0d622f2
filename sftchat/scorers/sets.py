"""The scorer ``set_f1``: a reply lists items, in any order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sftchat.errors import UsageError
from sftchat.scorers.base import Answers, Scorer, answer_form, with_reply_errors
from sftchat.task import Metric, rate, ratio
from sftchat.text import fold_width
from sftchat.types import Example, Reply, Score

_LIST_MARK = re.compile(r"\s*(?:[-*+•·]\s+|\(?[0-9]{1,3}[.)、]\s*(?=\D))")
"""A bullet or a number before an item."""
_STATS = ("tp", "pred", "gold", "answered", "n")


def set_f1(*, extract: str = "whole", separator: str = "", empty: tuple[str, ...] = ("none", "无"), ignore_case: bool = True) -> Scorer:
    """Score the items that a reply lists against those of the gold reply, by F1 over all items.

    With ``separator=","``, the reply ``Paris, Rome`` to ``{"gold": "Rome, Oslo"}`` has one right item of two, of two gold items: F1 is 0.5, and the
    error classes are ``missing`` and ``spurious``.

    Args:
        extract: Where the list stands in reply and gold, see ``EXTRACTIONS``.
        separator: Text between items, such as ``,`` (then also ``，`` and ``、``) or ``;``; empty for one item a line. Lines always separate.
        empty: Words for a list without items. An empty reply is never right.
        ignore_case: Whether case does not matter.

    Raises:
        UsageError: When an argument is invalid.
    """
    if separator.isspace() or any(character.isalnum() for character in separator):
        raise UsageError(f"separator is {separator!r}, must be punctuation, or empty for one item a line")
    answers = Answers(extract)
    parse = ItemParser(fold_width(separator), frozenset(answer_form(word) for word in empty), ignore_case)

    def score(example: Example, reply: Reply) -> Score:
        answer, marked = answers.of(reply.text)
        gold, items = parse.items(answers.gold(example)) or frozenset(), parse.items(answer)
        found = items or frozenset()
        errors = ("no_items",) if items is None else (*(("missing",) if gold - found else ()), *(("spurious",) if found - gold else ()))
        stats = {"n": 1, "tp": len(gold & found), "pred": len(found), "gold": len(gold), "answered": int(items is not None)}
        stats["exact"] = int(not errors)
        return with_reply_errors(Score(stats, "\n".join(sorted(found)), errors), reply, marked=marked)

    def validate_row(example: Example) -> Iterable[str]:
        if parse.items(answers.gold(example)) is None:
            words = f" and is not a word for none ({', '.join(empty)})" if empty else ""
            yield f"the gold reply lists no item{words}"

    settings = {"extract": extract, "separator": separator, "empty": [*empty], "ignore_case": ignore_case}
    return Scorer("set_f1", score, METRICS, validate_row, settings)


@dataclass(frozen=True)
class ItemParser:
    """Reads the items of a list.

    Attributes:
        separator: Text between items in addition to line breaks; empty for none.
        empty: Words for no items, in normal form.
        ignore_case: Whether items are folded to one case.
    """

    separator: str
    empty: frozenset[str]
    ignore_case: bool

    def items(self, text: str) -> frozenset[str] | None:
        """Return the different items of a text in normal form; None for a text with neither items nor a word for none."""
        parts = re.split(f"\n|{re.escape(self.separator)}" if self.separator else "\n", self._unify(text))
        forms = {part: answer_form(_LIST_MARK.sub("", part, count=1), ignore_case=self.ignore_case) for part in parts}
        found = frozenset(form for form in forms.values() if form and form.casefold() not in self.empty)
        return found if found or any(form.casefold() in self.empty for form in forms.values() if form) else None

    def _unify(self, text: str) -> str:
        if not self.separator:
            return text
        folded = fold_width(text)
        return folded.replace("、", ",") if self.separator == "," else folded


def _value_without_items(sums: Mapping[str, Any]) -> Any:
    """Return the value of 0/0: the share of replies that list items or say that there are none."""
    return ratio(sums["answered"], sums["n"])


def _f1(sums: Mapping[str, Any]) -> Any:
    return ratio(2 * sums["tp"], sums["pred"] + sums["gold"], _value_without_items(sums))


def _share(denominator: str, other: str, name: str, description: str) -> Metric:
    def value(sums: Mapping[str, Any]) -> Any:
        without = ratio(0 * sums[other], sums[other], _value_without_items(sums))  # 0 when only the other side has items
        return ratio(sums["tp"], sums[denominator], without)

    return Metric(name, value, description, stats=_STATS)


METRICS = (
    Metric("f1", _f1, "harmonic mean of precision and recall over all items", stats=_STATS),
    _share("pred", "gold", "precision", "share of the listed items that are right"),
    _share("gold", "pred", "recall", "share of the gold items that are listed"),
    rate("exact", "exact", "share of replies with exactly the gold items"),
)
