"""Metrics of the relation task, each a function of summed counts.

Precision, recall and F1 are undefined (0/0) without gold and predicted triples. They are then the share of readable replies: a slice whose
gold is all ``无`` scores 1 when every reply is ``无``, and less when replies are unreadable. Without triples on one side only, they are 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftchat import Metric, rate, ratio

Sums = Mapping[str, Any]


def _value_without_triples(sums: Sums) -> Any:
    """Return precision, recall and F1 for no gold and no predicted triples."""
    return ratio(sums["parsed"], sums["n"])


def _make_f1(hits: str, predicted: str, gold: str, name: str, description: str) -> Metric:
    def value(sums: Sums) -> Any:
        return ratio(2 * sums[hits], sums[predicted] + sums[gold], _value_without_triples(sums))

    return Metric(name, value, description, stats=(hits, predicted, gold, "parsed", "n"))


def _make_share(denominator: str, other_side: str, name: str, description: str) -> Metric:
    """Return the metric tp / denominator: the precision for the denominator ``pred``, the recall for ``gold``."""

    def value(sums: Sums) -> Any:
        # for a denominator of 0: 0 if the other side has triples; computed without `if`, because sums may be arrays
        value_at_zero = ratio(0 * sums[other_side], sums[other_side], _value_without_triples(sums))
        return ratio(sums["tp"], sums[denominator], value_at_zero)

    return Metric(name, value, description, stats=("tp", denominator, other_side, "parsed", "n"))


METRICS = (
    _make_f1("tp", "pred", "gold", "f1", "micro-F1 of triples, spellings and formats folded"),
    _make_share("pred", "gold", "precision", "share of predicted triples that are right"),
    _make_share("gold", "pred", "recall", "share of gold triples that are found"),
    _make_f1("strict_tp", "strict_pred", "gold", "strict_f1", "micro-F1 of triples letter for letter, replies in the exact format only"),
    _make_f1("pair_tp", "pair_pred", "pair_gold", "pair_f1", "micro-F1 of pairs, whatever the relation"),
    Metric(
        "relation_accuracy",
        lambda sums: ratio(sums["relation_right"], sums["relation_total"]),
        "share of rightly found pairs with the right relation",
        stats=("relation_right", "relation_total"),
    ),
    rate("exact", "exact", "share of replies with exactly the gold's triples"),
    rate("parse_rate", "parsed", "share of replies that could be read"),
)
"""Primary metric first."""
