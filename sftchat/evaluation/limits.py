"""Limits on replies, whatever the task: their length, and the shares of truncated, empty, refused and unparsable ones, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sftchat.errors import UsageError, unknown_name_message
from sftchat.evaluation.scored import Item, ScoredItems
from sftchat.evaluation.statistics import Counts, metric_interval
from sftchat.scorers.base import REFUSAL
from sftchat.task import Metric, ratio
from sftchat.thinking import separate_thoughts
from sftchat.types import Reply

TOKENS = "tokens"
UNPARSABLE_ERRORS = frozenset({"unparsable", "no_marker", "no_number", "no_items", "unknown_label", "ambiguous", "syntax_error"})
"""Error classes of replies in which the scorer could not find an answer."""
REFUSAL_ERRORS = frozenset({"refused", "refusal"})
"""Error classes of replies that decline to answer."""


@dataclass(frozen=True)
class Measure:
    """Something that a limit bounds.

    Attributes:
        description: What it is.
        count: Returns its count in one item: a number of replies, or of tokens.
        per_reply: Whether each sample of an item counts; False when the item counts once.
    """

    description: str
    count: Callable[[Item], int]
    per_reply: bool = True


def _of_samples(test: Callable[[Reply], bool]) -> Callable[[Item], int]:
    return lambda item: sum(map(test, item.reply.samples))


def _is_empty(reply: Reply) -> bool:
    return not separate_thoughts(reply).text.strip()


def _is_refused(item: Item) -> bool:
    if item.reply.refused or REFUSAL_ERRORS.intersection(item.score.errors):
        return True
    return not item.right and REFUSAL.search(separate_thoughts(item.reply).text) is not None


MEASURES: Mapping[str, Measure] = {
    TOKENS: Measure("mean number of tokens of a reply", lambda item: sum(reply.completion_tokens for reply in item.reply.samples)),
    "truncated": Measure("share of replies that reached the token limit", _of_samples(lambda reply: reply.finish_reason == "length")),
    "empty": Measure("share of replies without text besides thoughts", _of_samples(_is_empty)),
    "refused": Measure(
        "share of items whose reply declines to answer: marked so by the server, or wrong and worded so", _is_refused, False
    ),
    "unparsable": Measure(
        f"share of items in whose reply the scorer found no answer: error classes {', '.join(sorted(UNPARSABLE_ERRORS))}",
        lambda item: bool(UNPARSABLE_ERRORS.intersection(item.score.errors)),
        False,
    ),
}
"""What limits bound, by name."""


@dataclass(frozen=True)
class LimitValue:
    """A measure of one model on one evalset.

    Attributes:
        count: Number of replies, or of tokens.
        total: Number of replies or items that it is a share or a mean of.
        value: ``count / total``.
        low: Lower bound of the 95 % interval; None when the spread cannot be estimated.
        high: Upper bound; None with ``low``.
    """

    count: int
    total: int
    value: float
    low: float | None
    high: float | None


def check_limits(limits: Mapping[str, float]) -> dict[str, float]:
    """Check names and values of limits, and return them.

    Raises:
        UsageError: When a name is unknown, a share is not from 0 to 1, or a number of tokens is not above 0.
    """
    for name, limit in limits.items():
        if name not in MEASURES:
            raise UsageError(unknown_name_message("limit", name, MEASURES))
        if name == TOKENS and not (math.isfinite(limit) and limit > 0):
            raise UsageError(f"limit {name} = {limit:g} must be a number of tokens above 0")
        if name != TOKENS and not 0 <= limit <= 1:
            raise UsageError(f"limit {name} = {limit:g} must be a share from 0 to 1, such as 0.05")
    return dict(limits)


def measure_items(name: str, items: ScoredItems, seed: int = 0) -> LimitValue | None:
    """Measure what a limit bounds over the answered items; shares of items get Wilson's interval, everything else the bootstrap over items.

    Args:
        name: One of ``MEASURES``.
        items: Scored items.
        seed: Seed of the resampling.

    Returns:
        None when no item was answered, or when no engine counted the tokens of the replies.
    """
    import numpy as np

    if not len(items):
        return None
    measure = MEASURES[name]
    rows = np.array([(measure.count(item), len(item.reply.samples) if measure.per_reply else 1) for item in items], dtype=np.float64)
    count, total = (int(number) for number in rows.sum(axis=0))
    if name == TOKENS and count == 0 and any(item.reply.text for item in items):
        return None
    is_rate = name != TOKENS and bool((rows[:, 1] == 1).all())
    metric = Metric(name, lambda sums: ratio(sums["count"], sums["total"]), stats=("count", "total"), per_item_rate=is_rate)
    interval = metric_interval(metric, Counts(("count", "total"), rows), seed=seed)
    return LimitValue(count, total, count / total, interval.low, interval.high)


def describe_limit(name: str, measured: LimitValue | None, limit: float, *, upper: bool) -> tuple[bool, str]:
    """Return whether a limit is kept, and the line that says so; a limit on something unknown is not kept.

    Args:
        name: One of ``MEASURES``.
        measured: The measured value; None when unknown.
        limit: The limit.
        upper: Whether the upper bound of the interval is limited, not the value.
    """
    if measured is None:
        return False, f"{name} unknown: no reply has it, so it cannot be under the limit {limit:g}"
    interval = (
        "no interval"
        if measured.low is None or measured.high is None
        else f"[{_format(name, measured.low)}, {_format(name, measured.high)}]"
    )
    counted = (
        f"{measured.count:,} in {measured.total:,} replies"
        if name == TOKENS
        else f"{measured.count} of {measured.total} {'replies' if MEASURES[name].per_reply else 'items'}"
    )
    described = f"{counted}: {_format(name, measured.value)} {interval}"
    bound = measured.high if upper else measured.value
    if bound is None:
        return False, f"{name} {described}: without an upper bound it cannot be under the limit {limit:g}"
    kept = bound <= limit + 1e-9
    what = f"the upper bound of {name}, {_format(name, bound)}, is" if upper else f"{name} is"
    return kept, f"{what} {'within' if kept else 'over'} the limit {limit:g} ({described})"


def _format(name: str, value: float) -> str:
    return f"{value:.1f}" if name == TOKENS else f"{value:.3f}"
