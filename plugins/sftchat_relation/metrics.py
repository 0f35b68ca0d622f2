"""Metrics of the relation task, each a function of summed counts.

Without gold and predicted triples (0/0), precision, recall and F1 are the share of readable replies: a slice whose gold is all ``无``
scores 1 when every reply is ``无``, and unreadable replies count as wrong. When only one side is empty they are 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftchat import Metric, rate, ratio

Sums = Mapping[str, Any]


def _nothing(sums: Sums) -> Any:
    """Return the value of a metric when neither side has a triple."""
    return ratio(sums["parsed"], sums["n"])


def _f1(hits: str, predicted: str, gold: str, name: str, description: str) -> Metric:
    def value(sums: Sums) -> Any:
        return ratio(2 * sums[hits], sums[predicted] + sums[gold], _nothing(sums))

    return Metric(name, value, description, stats=(hits, predicted, gold, "parsed", "n"))


def _share(denominator: str, other: str, name: str, description: str) -> Metric:
    def value(sums: Sums) -> Any:
        one_sided = ratio(0 * sums[other], sums[other], _nothing(sums))  # 0 where the other side has triples
        return ratio(sums["tp"], sums[denominator], one_sided)

    return Metric(name, value, description, stats=("tp", denominator, other, "parsed", "n"))


METRICS = (
    _f1("tp", "pred", "gold", "f1", "micro-F1 of triples, spellings and formats folded"),
    _share("pred", "gold", "precision", "share of predicted triples that are right"),
    _share("gold", "pred", "recall", "share of gold triples that are found"),
    _f1("strict_tp", "strict_pred", "gold", "strict_f1", "micro-F1 of triples letter for letter, replies in the exact format only"),
    _f1("pair_tp", "pair_pred", "pair_gold", "pair_f1", "micro-F1 of pairs, whatever the relation"),
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
