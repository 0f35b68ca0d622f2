"""The scorer ``choice``: a reply names one of few labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sftchat.errors import UsageError
from sftchat.scorers.base import ACCURACY, Answers, Scorer, answer_form, decided, whole_word
from sftchat.task import Metric, ratio
from sftchat.types import Example, Reply, Score

PRECISION = Metric(
    "precision", lambda sums: ratio(sums["tp"], sums["pred"]), "share of the found answers that are right", stats=("tp", "pred")
)
RECALL = Metric("recall", lambda sums: ratio(sums["tp"], sums["gold"]), "share of the gold answers that are found", stats=("tp", "gold"))
F1 = Metric(
    "f1",
    lambda sums: ratio(2 * sums["tp"], sums["pred"] + sums["gold"]),
    "harmonic mean of precision and recall",
    stats=("tp", "pred", "gold"),
)


def choice(
    *, labels: tuple[str, ...], synonyms: Mapping[str, tuple[str, ...]] | None = None, extract: str = "whole", ignore_case: bool = True
) -> Scorer:
    """Score which one of the labels a reply names.

    A reply that is a label is that label; otherwise it names the only label that stands in it as a whole word (Chinese labels: anywhere). Of two
    labels at one place the longer counts, such as ``not urgent`` before ``urgent``. With the labels ``billing`` and ``hardware``, the reply
    ``This is a **billing** question.`` to ``{"gold": "billing"}`` is right; ``billing or hardware`` is wrong (``ambiguous``).

    Args:
        labels: At least two labels.
        synonyms: Other spellings by label.
        extract: Where the answer stands in reply and gold, see ``EXTRACTIONS``.
        ignore_case: Whether case does not matter.

    Raises:
        UsageError: When there are fewer than two labels, two labels have one spelling, or an argument is invalid.
    """
    finder = LabelFinder.of(labels, synonyms or {}, ignore_case=ignore_case)
    answers = Answers(extract)

    def score(example: Example, reply: Reply) -> Score:
        gold = finder.label_of(answers.gold(example))
        answer, marked = answers.of(reply.text)
        found = finder.find(answer)
        label = found[0] if len(found) == 1 else ""
        error = "ambiguous" if len(found) > 1 else "wrong_label" if found else "unknown_label"
        result = decided(bool(label) and label == gold, label, reply, error, marked=marked, expected=gold)
        return replace(result, stats={**result.stats, **_counts(labels, gold, label)}, groups=_groups(gold, label))

    def validate_row(example: Example) -> Iterable[str]:
        if finder.label_of(answers.gold(example)):
            return ()
        return (f"the gold reply is none of the labels {', '.join(labels)}",)

    settings: dict[str, Any] = {"labels": [*labels], "extract": extract, "ignore_case": ignore_case}
    settings["synonyms"] = {label: [*spellings] for label, spellings in (synonyms or {}).items()}
    return Scorer("choice", score, (ACCURACY, _macro_f1(labels), F1, PRECISION, RECALL), validate_row, settings, labels)


def _counts(labels: Sequence[str], gold: str, label: str) -> dict[str, int]:
    """Count one answer, in all and by label."""
    counts = {"tp": int(bool(label) and label == gold), "pred": int(bool(label)), "gold": int(bool(gold))}
    for name in labels:
        counts |= {f"tp:{name}": int(label == gold == name), f"pred:{name}": int(label == name), f"gold:{name}": int(gold == name)}
    return counts


def _groups(gold: str, label: str) -> dict[str, dict[str, int]]:
    """Count one answer in the slices of the gold label and of the label that was answered."""
    return {
        name: {"tp": int(label == gold), "pred": int(label == name), "gold": int(gold == name)}
        for name in dict.fromkeys((gold, label))
        if name
    }


def _macro_f1(labels: Sequence[str]) -> Metric:
    keys = tuple(f"{count}:{label}" for label in labels for count in ("tp", "pred", "gold"))

    def value(sums: Mapping[str, Any]) -> Any:
        total: Any = 0
        occurring: Any = 0
        for label in labels:
            answers = sums[f"pred:{label}"] + sums[f"gold:{label}"]
            total = total + ratio(2 * sums[f"tp:{label}"], answers)
            occurring = occurring + (answers > 0)
        return ratio(total, occurring)

    return Metric("macro_f1", value, "mean F1 of the labels that occur in gold or answers", stats=keys)


@dataclass(frozen=True)
class LabelFinder:
    """Finds labels in texts.

    Attributes:
        by_form: The label of each spelling in normal form.
        patterns: Regular expression and label of each spelling, the longest spelling first.
        ignore_case: Whether case does not matter.
    """

    by_form: Mapping[str, str]
    patterns: tuple[tuple[re.Pattern[str], str], ...]
    ignore_case: bool

    @classmethod
    def of(cls, labels: Sequence[str], synonyms: Mapping[str, Sequence[str]], *, ignore_case: bool) -> LabelFinder:
        """Compile labels and synonyms; raises ``UsageError`` when they are ambiguous."""
        if len(labels) < 2:
            raise UsageError(f"labels is {', '.join(labels) or 'empty'}, must be at least two labels")
        if unknown := [label for label in synonyms if label not in labels]:
            raise UsageError(f"synonyms are given for '{unknown[0]}', which is no label (labels: {', '.join(labels)})")
        by_form: dict[str, str] = {}
        for label in labels:
            for spelling in (label, *synonyms.get(label, ())):
                form = answer_form(spelling, ignore_case=ignore_case)
                if not form:
                    raise UsageError(f"the label '{spelling}' has no letter or digit")
                if by_form.setdefault(form, label) != label or (spelling == label and labels.count(label) > 1):
                    raise UsageError(f"the labels '{by_form[form]}' and '{label}' are both written '{spelling}'")
        forms = sorted(by_form, key=lambda form: (-len(form), form))
        return cls(by_form, tuple((re.compile(whole_word(form)), by_form[form]) for form in forms), ignore_case)

    def label_of(self, text: str) -> str:
        """Return the label that a text is, apart from quotes and final punctuation; empty when it is none."""
        return self.by_form.get(answer_form(text, ignore_case=self.ignore_case), "")

    def find(self, text: str) -> list[str]:
        """Return the label that a text is, or else the labels that stand in it; spellings inside longer ones do not count."""
        if label := self.label_of(text):
            return [label]
        rest = answer_form(text, ignore_case=self.ignore_case)
        found = []
        for pattern, label in self.patterns:
            rest, times = pattern.subn("\0", rest)
            if times and label not in found:
                found.append(label)
        return found
