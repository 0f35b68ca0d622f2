"""Results of the ledger over time: which may be compared, what changed from one to the next, and when an item was won and lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, Literal

from sftchat.errors import NotComparableError, PluginError
from sftchat.evaluation.baseline import differing_settings
from sftchat.evaluation.comparison import paired_difference
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.ledger import LedgerItem, LedgerResult
from sftchat.evaluation.results import MetricDifference
from sftchat.evaluation.statistics import build_counts
from sftchat.task import Metric, ratio
from sftchat.text import pluralize
from sftchat.types import Score

Items = Mapping[str, LedgerItem]
ReadItems = Callable[[LedgerResult], Items]
FindMetric = Callable[[str, str], Metric | None]
"""Returns the metric of a task by the names of both; None when the task is not installed."""
MAX_DEVIATION = 1e-9
"""Maximum deviation of a metric from the mean of its items for it to be that mean."""


@dataclass(frozen=True)
class Run:
    """A result in a section of the history.

    Attributes:
        result: The result.
        before: The last complete result of the section before it; None for the first one and for an incomplete one.
        difference: Paired difference of the primary metric from that of ``before``; None when it cannot be computed.
        won: Ids of the items that were wrong before and are right.
        lost: Ids of the items that were right before and are wrong.
        rescored: Number of items that have the same reply as before and other counts: the scorer has changed.
    """

    result: LedgerResult
    before: LedgerResult | None = None
    difference: MetricDifference | None = None
    won: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    rescored: int = 0

    @property
    def change(self) -> float | None:
        """Change of the primary metric since ``before``; None when it is another metric."""
        if self.before is None or not (self.before.metrics and self.result.metrics):
            return None
        old, new = self.before.metrics[0], self.result.metrics[0]
        return new.value - old.value if old.name == new.name else None


@dataclass(frozen=True)
class Section:
    """Comparable results: of one task, on one content of an evalset, with the same settings.

    Attributes:
        task: Name of the task.
        evalset: Evalset of the last result.
        note: Why the section before it, of the same task and evalset name, is not continued; empty without one.
        runs: The results, the oldest first.
    """

    task: str
    evalset: EvalsetIdentity
    note: str
    runs: tuple[Run, ...]


def visible_results(results: Iterable[LedgerResult]) -> list[LedgerResult]:
    """Leave out baselines that the series shows already: a model that others are compared with is evaluated again with each of them."""
    results = list(results)
    shown = {(*result.series, result.model, result.weights) for result in results if result.role == "model"}
    visible = []
    for result in results:
        key = (*result.series, result.model, result.weights)
        if result.role == "model" or key not in shown:
            visible.append(result)
            shown.add(key)
    return visible


def make_sections(results: Sequence[LedgerResult], limit: int, read_items: ReadItems, find_metric: FindMetric) -> list[Section]:
    """Group results into sections; the section with the latest result is the last one.

    Args:
        results: Visible results, the oldest first.
        limit: Maximum number of results to show, the latest ones.
        read_items: Reads the items of a result.
        find_metric: Finds the metric of an installed task.
    """
    shown = {result.number for result in results[-limit:]}
    by_series: dict[tuple[str, str, str], list[LedgerResult]] = {}
    for result in results:
        by_series.setdefault(result.series, []).append(result)
    sections: list[Section] = []
    last_of: dict[tuple[str, str], LedgerResult] = {}  # last result of the section before, by task and evalset name
    for series in sorted(by_series.values(), key=lambda series: series[-1].number):
        last = series[-1]
        name = (last.task, last.evalset.name)
        note = _why_new(last_of[name], last) if name in last_of else ""
        last_of[name] = last
        runs, before = [], None
        for result in series:
            if result.number in shown:
                runs.append(_make_run(result, before if result.complete else None, read_items, find_metric))
            if result.complete:
                before = result
        if runs:
            sections.append(Section(last.task, last.evalset, note, tuple(runs)))
    return sections


def _make_run(result: LedgerResult, before: LedgerResult | None, read_items: ReadItems, find_metric: FindMetric) -> Run:
    if before is None:
        return Run(result)
    old, new = read_items(before), read_items(result)
    pairs = [(old[item_id], item) for item_id, item in new.items() if item_id in old and old[item_id].content == item.content]
    return Run(
        result,
        before,
        _difference(before, result, pairs, find_metric) if len(pairs) == len(new) == len(old) else None,
        won=tuple(now.id for then, now in pairs if now.right and then.right is False),
        lost=tuple(now.id for then, now in pairs if then.right and now.right is False),
        rescored=sum(then.reply == now.reply and then.stats != now.stats for then, now in pairs),
    )


def _difference(
    before: LedgerResult, result: LedgerResult, pairs: Sequence[tuple[LedgerItem, LedgerItem]], find_metric: FindMetric
) -> MetricDifference | None:
    """Return the paired difference of the primary metric; None when it cannot be computed from what the ledger holds.

    A metric that is the mean of its items needs no task. Clusters of items are not in the ledger, and without them the interval would be too narrow.
    """
    if (
        not (pairs and before.metrics and result.metrics)
        or before.metrics[0].name != result.metrics[0].name
        or "cluster" in result.settings
    ):
        return None
    metric = _mean_metric(before, result, pairs) or find_metric(result.task, result.metrics[0].name)
    if metric is None:
        return None
    is_mean = metric.stats == _MEAN_STATS
    try:
        old, new = (build_counts(Score(_mean_counts(pair[side]) if is_mean else pair[side].stats) for pair in pairs) for side in (0, 1))
        return paired_difference(old, new, metric)
    except (PluginError, NotComparableError):  # the scorer counted something else then, or does now
        return None


_MEAN_STATS = ("value", "n")


def _mean_counts(item: LedgerItem) -> dict[str, float]:
    return {"value": item.value or 0.0, "n": 1}


def _mean_metric(before: LedgerResult, result: LedgerResult, pairs: Sequence[tuple[LedgerItem, LedgerItem]]) -> Metric | None:
    """Return the primary metric as a mean over items; None when it is no mean."""
    for side, of_side in enumerate((before, result)):
        mean = fsum(pair[side].value or 0.0 for pair in pairs) / len(pairs)
        if abs(mean - of_side.metrics[0].value) > MAX_DEVIATION:
            return None
    return Metric(
        result.metrics[0].name,
        lambda sums: ratio(sums["value"], sums["n"]),
        stats=_MEAN_STATS,
        per_item_rate=result.per_item_rate and before.per_item_rate,
        higher_is_better=result.higher_is_better,
    )


def _why_new(before: LedgerResult, result: LedgerResult) -> str:
    """Return why a result is not compared with one of the same task and evalset name."""
    if before.evalset != result.evalset:
        sizes = (
            ""
            if before.evalset.size == result.evalset.size
            else f": {pluralize(result.evalset.size, 'item')}, before {before.evalset.size}"
        )
        return f"{result.evalset.name} has other content than in the runs above{sizes}"
    differing = differing_settings(flatten_settings(before.settings), flatten_settings(result.settings))
    changes = [f"{key} {new}, above {old}" for key, old, new in differing]
    return f"other settings than in the runs above: {'; '.join(changes)}"


def flatten_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a result without their grouping."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if name in ("sampling", "task", "options") and isinstance(value, Mapping) else {name: value}
    return flat


ItemChange = Literal["won", "lost", ""]


@dataclass(frozen=True)
class ItemRun:
    """One item in one result.

    Attributes:
        result: The result.
        item: The item.
        change: Whether it was ``won`` or ``lost`` since the answered run before; empty when neither or for the first run.
        same_reply: Whether the reply is that of the run before; None for the first run and without a reply.
        rescored: Whether the reply is the same and its counts differ: the scorer has changed.
    """

    result: LedgerResult
    item: LedgerItem
    change: ItemChange = ""
    same_reply: bool | None = None
    rescored: bool = False


@dataclass(frozen=True)
class ItemSection:
    """Comparable runs of one item: of one task, with the same content of the item and the same settings."""

    task: str
    evalset: str
    note: str
    runs: tuple[ItemRun, ...]


def make_item_sections(results: Sequence[LedgerResult], items: Mapping[int, LedgerItem], limit: int) -> list[ItemSection]:
    """Return when an item was won and lost; the section with the latest result is the last one.

    Args:
        results: Visible results, the oldest first; also partial ones.
        items: The item by number of the result, as ``read_item`` returns it.
        limit: Maximum number of results to show, the latest ones.
    """
    by_key: dict[tuple[str, str, str], list[LedgerResult]] = {}
    having = [result for result in results if result.number in items]
    for result in having:
        by_key.setdefault((result.task, items[result.number].content, result.series[2]), []).append(result)
    shown = {result.number for result in having[-limit:]}
    sections: list[ItemSection] = []
    last_of: dict[str, LedgerResult] = {}
    for series in sorted(by_key.values(), key=lambda series: series[-1].number):
        last, runs, before = series[-1], [], None
        for result in series:
            item = items[result.number]
            run = _make_item_run(result, item, before)
            before = item if item.right is not None else before
            if result.number in shown:
                runs.append(run)
        note = ""
        if (earlier := last_of.get(last.task)) is not None:
            changed = items[earlier.number].content != items[last.number].content
            note = "prompt, gold reply or metadata of the item differ from the runs above" if changed else _why_new(earlier, last)
        last_of[last.task] = last
        if runs:
            sections.append(ItemSection(last.task, last.evalset.name, note, tuple(runs)))
    return sections


def _make_item_run(result: LedgerResult, item: LedgerItem, before: LedgerItem | None) -> ItemRun:
    if before is None or item.right is None:
        return ItemRun(result, item)
    same = item.reply == before.reply
    change: ItemChange = "" if item.right == before.right else "won" if item.right else "lost"
    return ItemRun(result, item, change, same, same and item.stats != before.stats)
