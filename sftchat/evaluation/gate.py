"""The gate: one of three outcomes for every gated metric of every comparison.

*Regressed*: the difference is judged ``worse`` (``MetricDifference.judgement``, on the Holm-adjusted p-value), and the drop is at least
``min_drop`` and larger than the observed run-to-run variation of the model. *Inconclusive*: not regressed, but a drop larger than the margin
cannot be excluded at the 5 % level. *Fine*: otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

from sftchat.errors import listed
from sftchat.evaluation.comparison import LEVEL, Comparison, GateResult, MetricDifference, Outcome
from sftchat.evaluation.paired_test import MIN_DIFFERING_ITEMS, POWER, holm
from sftchat.evaluation.report import Report
from sftchat.evaluation.report.view import disagreement
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.rules import POINT, GateConfig, GatedMetric
from sftchat.text import pluralize

TOLERANCE = 1e-12
"""Tolerance when a drop is compared with a limit: 0.005 is not a binary fraction."""


Gating = Callable[[Comparison], Sequence[GatedMetric]]
"""Returns the gated metrics of a comparison."""


def gate(comparisons: Sequence[Comparison], gated: Gating) -> tuple[tuple[Comparison, ...], tuple[GateResult, ...]]:
    """Decide every gated metric of every comparison, with p-values adjusted over all of them because the exit code is one decision.

    Args:
        comparisons: Comparisons that share the decision.
        gated: Returns the gated metrics of a comparison.

    Returns:
        The comparisons, with the adjusted p-value in their gated metrics, and the gate results.
    """
    asked = [(place, rule) for place, comparison in enumerate(comparisons) if comparison.metrics for rule in gated(comparison)]
    adjusted = holm([comparisons[place].metric(rule.metric).p for place, rule in asked])
    found = {(place, rule.metric): p for (place, rule), p in zip(asked, adjusted, strict=True)}
    judged = tuple(
        replace(
            comparison,
            metrics=tuple(replace(metric, p_adjusted=found.get((place, metric.name))) for metric in comparison.metrics),
        )
        for place, comparison in enumerate(comparisons)
    )
    return judged, tuple(_result(place, judged[place], rule) for place, rule in asked)


def _result(place: int, comparison: Comparison, rule: GatedMetric) -> GateResult:
    """Build the gate result of one metric, with the numbers behind it."""
    candidate, difference = comparison.candidate, comparison.metric(rule.metric)
    checks = [result.self_check for result in (comparison.baseline, candidate) if result.self_check is not None]
    verdict = outcome(difference, rule, max((check.floors.get(difference.name, 0.0) for check in checks), default=0.0))
    needed = items_needed(difference, comparison.units, rule.margin) if verdict == "inconclusive" else None
    return GateResult(
        candidate.model,
        candidate.task,
        candidate.evalset.name,
        difference.name,
        verdict,
        difference.deciding_p,
        rule.margin,
        comparison.units,
        needed,
        place,
    )


def items_needed(difference: MetricDifference, n: int, margin: float) -> int | None:
    """Estimate how many items would settle the outcome with a power of 80 %, if the difference and its spread stayed the same.

    The standard error falls with the square root of the number of items. The result is the smaller of two numbers: the items needed to exclude
    a drop of ``margin``, and those needed to make the observed drop significant, with the same power as ``--plan``.

    Args:
        difference: Difference between the models.
        n: Number of items, or clusters, in the comparison.
        margin: Margin in points of the metric.

    Returns:
        At least ``n + 1``; None when the spread cannot be estimated, or when more items would not change the outcome (a drop beyond the
        margin that is already significant).
    """
    error, least = difference.standard_error, 0.0
    if difference.differing < MIN_DIFFERING_ITEMS:
        bound = difference.smallest_gain  # hardly any item differs: use the upper bound of the share of items that may differ
        room = margin * POINT + min(0.0, difference.gain)
        if bound is None:
            return None
        # an observed drop beyond the margin must become significant, which takes at least MIN_DIFFERING_ITEMS changed items
        least = n * ((min(0.0, difference.gain) - bound) / room if room > TOLERANCE else MIN_DIFFERING_ITEMS / difference.differing)
    elif not error:
        return None
    power = NormalDist().inv_cdf(POWER)
    distances = [(NormalDist().inv_cdf(1 - LEVEL), margin * POINT + difference.gain)]
    if difference.judgement != "worse":
        distances.append((NormalDist().inv_cdf(1 - LEVEL / 2), -difference.gain))
    needed = [n * ((z + power) * (error or 0.0) / distance) ** 2 for z, distance in distances if distance > TOLERANCE]
    return max(n + 1, math.ceil(max(least, min(needed)))) if needed else None


def outcome(difference: MetricDifference, rule: GatedMetric, floor: float = 0.0) -> Outcome:
    """Return the outcome of one metric.

    Args:
        difference: Difference between the models, with the adjusted p-value when several metrics are gated.
        rule: Margin and minimum drop, in points.
        floor: Run-to-run variation of the models, as repeated items showed it; no drop up to this is a regression.
    """
    drop = -difference.gain
    if difference.judgement == "worse" and drop >= rule.min_drop * POINT - TOLERANCE and drop > floor + TOLERANCE:
        return "regressed"
    if difference.differing == 0:
        return "fine"  # equal counts on every item do not suggest a drop, however few items there are
    bound = difference.smallest_gain
    return "inconclusive" if bound is None or bound < -rule.margin * POINT - TOLERANCE else "fine"


PASSED, GATE_FAILED, COULD_NOT, NOT_COMPARABLE = 0, 1, 3, 4

Ruling = Literal["pass", "fail", "inconclusive", "not comparable", "could not judge", "not asked"]
Tone = Literal["pass", "fail", "unsure"]
COLOURS: Mapping[Tone, str] = {"pass": "green", "fail": "red", "unsure": "yellow"}
"""Terminal colour of each tone."""


@dataclass(frozen=True)
class Unsettled:
    """An inconclusive comparison: what it could not exclude.

    Attributes:
        metric: Name of the metric.
        drop: Drop, in points, that cannot be excluded at the 5 % level; None without a bound.
        margin: Drop, in points, that had to be excluded.
        n: Items, or clusters, compared.
        items_needed: Approximate number that would settle it; None when unknown.
        units: ``items`` or ``clusters``.
        falls: Whether a fall of the metric is a loss; False for a metric that is better when lower.
    """

    metric: str
    drop: float | None
    margin: float
    n: int
    items_needed: int | None = None
    units: str = "items"
    falls: bool = True

    @property
    def words(self) -> str:
        """The drop and the number of items that would settle it, as text."""
        way = "drop" if self.falls else "rise"
        bound = f"no bound on the {way} of {self.metric}"
        if self.drop is not None:
            bound = f"a {way} of {self.drop:.1f} points of {self.metric} cannot be excluded"
        more = "" if self.items_needed is None else f"; about {self.items_needed:,} {self.units} would settle it, here are {self.n:,}"
        if self.n < MIN_DIFFERING_ITEMS:
            more = f"; {self.n} {self.units} are too few for any {way} to be significant, it takes {MIN_DIFFERING_ITEMS}"
        return f"{bound}, the margin is {self.margin:g}{more}"


@dataclass(frozen=True)
class Verdict:
    """Verdict of an evaluation with its reasons.

    Attributes:
        outcome: ``pass``; ``fail``: a regression or a missed requirement; ``inconclusive``: a drop beyond the margin can be neither shown nor
            excluded; ``not comparable``: other items than the baseline's under strict rules, or only a part of the items; ``could not judge``:
            some items were not answered, whatever the others show; ``not asked``: nothing was required.
        reasons: One line per requirement, comparison and remark.
        unsettled: Details of an inconclusive verdict: among several metrics, the one furthest beyond its margin.
        strict: Whether the rules treat an inconclusive verdict as a failure.
        lost: The tasks that failed, when there are several.
        partial: Whether only a part of the items has replies although requirements cover all of them.
    """

    outcome: Ruling = "not asked"
    reasons: tuple[str, ...] = ()
    unsettled: Unsettled | None = None
    strict: bool = False
    lost: tuple[str, ...] = ()
    partial: bool = False

    @property
    def exit_code(self) -> int:
        """0: passed, inconclusive or not asked. 1: failed. 3: could not judge. 4: not comparable, or inconclusive under strict rules."""
        if self.outcome == "inconclusive":
            return NOT_COMPARABLE if self.strict else PASSED
        codes = {"fail": GATE_FAILED, "could not judge": COULD_NOT, "not comparable": NOT_COMPARABLE}
        return codes.get(self.outcome, PASSED)

    @property
    def tone(self) -> Tone:
        """Display tone: green, red, or yellow for everything else."""
        return "pass" if self.outcome == "pass" else "fail" if self.outcome == "fail" else "unsure"

    @property
    def headline(self) -> str:
        """The outcome and its most important detail on one line; empty when nothing was required."""
        if self.outcome == "not asked":
            return ""
        refused = ", which --strict does not accept" if self.strict and self.exit_code == NOT_COMPARABLE else ""
        if self.partial:
            refused = ", because some items have no reply yet"
        details = [self.unsettled.words] if self.unsettled is not None else [f"lost: {', '.join(self.lost)}"] if self.lost else []
        return "; ".join([f"{self.outcome}{refused}", *details])

    @property
    def lines(self) -> tuple[str, ...]:
        """The reasons, then the verdict; empty when nothing was required and there are no remarks."""
        return (*self.reasons, f"verdict: {self.headline}") if self.headline else self.reasons

    def as_json(self) -> dict[str, Any]:
        """The verdict as stored in ``report.json``."""
        return asdict(self) | {
            "reasons": list(self.reasons),
            "lost": list(self.lost),
            "exit_code": self.exit_code,
            "headline": self.headline,
        }


def decide(report: Report, rules: Mapping[str, GateConfig] | GateConfig) -> Verdict:
    """Decide the evaluation: all floors and must-pass items of every model, and all gated comparisons.

    Args:
        report: Measurements; ``report.gates`` holds the gate results of its comparisons.
        rules: Gate configuration, for all tasks or by task name.
    """
    demanded = {result.task: rules.get(result.task, GateConfig()) if isinstance(rules, Mapping) else rules for result in report.results}
    lines: list[str] = []
    missed: set[str] = set()
    unsettled: list[Unsettled] = []
    failed = strict = others = False
    for result in report.results:
        for met, line in _demands(result, demanded[result.task]):
            failed |= not met
            missed |= set() if met else {result.task}
            lines.append(line)
        if part := _part(result, report, demanded[result.task]):
            others |= demanded[result.task].strict
            lines.append(part)
    for comparison in report.comparisons:
        wanted = demanded[comparison.candidate.task]
        for found in report.gates_of(comparison):
            failed |= found.outcome == "regressed"
            if found.outcome == "inconclusive":
                unsettled.append(_unsettled(comparison, found))
                strict |= wanted.strict
            lines.append(_compared(comparison, found, wanted))
        if comparison.added or comparison.removed:
            others |= wanted.strict
            lines.append(_other_items(comparison))
    asked = bool(lines)
    lines.extend((*report.remarks, *(line for result in (*report.baselines, *report.results) for line in _worth(result))))
    lost = report.failures
    if lost:
        result, failure = lost[0]
        count = f"{len(lost)} items were" if len(lost) > 1 else "1 item was"
        lines.append(f"{count} not answered, the first '{failure.example.id}' by {result.model}: {failure.error}")
        return Verdict("could not judge", tuple(lines))
    if failed:
        return Verdict("fail", tuple(lines), lost=_losers(report, missed))
    if any(rule.partial and (asked or rule.must_pass) for rule in demanded.values()):
        return Verdict("not comparable", tuple(lines), partial=True)
    if unsettled:
        worst = max(unsettled, key=lambda one: float("inf") if one.drop is None else one.drop / one.margin)
        return Verdict("inconclusive", tuple(lines), worst, strict or others)
    if others:
        return Verdict("not comparable", tuple(lines), strict=True)
    return Verdict("pass" if asked else "not asked", tuple(lines))


def _demands(result: ModelResult, rules: GateConfig) -> Iterator[tuple[bool, str]]:
    """Yield, for each floor and for the must-pass items, whether the model meets it and the line that reports it."""
    where = f"{result.model} on {result.evalset.name}"
    for name, floor in rules.floors.items():
        if not result.metrics:
            yield False, f"{where}: no {name}, nothing was answered"
            continue
        value = result.metric(name).value
        met = value >= floor - TOLERANCE
        yield met, f"{where}: {name} {value:.3f} {'meets' if met else 'is under'} the floor {floor:g}"
    for name, floor in rules.lower_floors.items():
        low = result.metric(name).low if result.metrics else None
        if low is None:
            yield False, f"{where}: {name} has no lower bound, so it cannot meet the floor {floor:g}"
            continue
        met = low >= floor - TOLERANCE
        yield met, f"{where}: the lower bound of {name}, {low:.3f}, {'meets' if met else 'is under'} the floor {floor:g}"
    if not rules.must_pass:
        return
    asked = result.items_of(rules.must_pass)
    wrong = [item for item in asked if not item.right]
    if wrong:
        faults = ", ".join(dict.fromkeys(wrong[0].score.errors))
        yield False, f"{where}: {len(wrong)} of {len(asked)} must-pass items wrong: {listed([i.example.id for i in wrong])} ({faults})"
    elif asked:
        yield True, f"{where}: {'all ' if len(asked) > 1 else ''}{pluralize(len(asked), 'must-pass item')} right"


def _unsettled(comparison: Comparison, found: GateResult) -> Unsettled:
    """Describe an inconclusive gate result."""
    difference = comparison.metric(found.metric)
    bound = difference.smallest_gain
    units = "clusters" if comparison.cluster else "items"
    return Unsettled(
        found.metric,
        None if bound is None else -bound / POINT,
        found.margin,
        found.n,
        found.items_needed,
        units,
        difference.higher_is_better,
    )


def _compared(comparison: Comparison, found: GateResult, rules: GateConfig) -> str:
    """Return the line on one gated metric; all numbers are in points."""
    difference = comparison.metric(found.metric)
    points = difference.difference / POINT
    bounds = ""
    if difference.low is not None and difference.high is not None:
        bounds = f" [{difference.low / POINT:+.1f}, {difference.high / POINT:+.1f}]"
    adjusted = f" ({found.p:.3g} adjusted)" if round(found.p, 12) != round(difference.p, 12) else ""
    figures = f"{difference.name} {points:+.1f} points{bounds}, p = {difference.p:.3g}{adjusted}"
    where, other = f"{found.model} on {found.evalset}", comparison.baseline.model
    if found.outcome == "regressed":
        return f"{where}: regressed, worse than {other}: {figures}"
    if difference.judgement == "better":
        return f"{where}: better than {other}: {figures}"
    excuse = f", {_excuse(difference, rules)}" if difference.judgement == "worse" else ""
    unsure = f"; {words}" if (words := disagreement(difference)) else ""
    if found.outcome == "fine":
        unchanged = ", no item changed its counts" if not difference.differing else ""
        return f"{where}: fine against {other}{excuse}: {figures}{unchanged}{unsure}"
    return f"{where}: inconclusive against {other}{excuse}: {_unsettled(comparison, found).words}; {figures}{unsure}"


def _excuse(difference: MetricDifference, rules: GateConfig) -> str:
    """Return why a metric that is worse is no regression."""
    rule = next((rule for rule in rules.gated if rule.metric == difference.name), GatedMetric(difference.name))
    if -difference.gain < rule.min_drop * POINT - TOLERANCE:
        return f"worse by less than --min-drop {rule.min_drop:g}"
    return "worse by no more than a model differs from itself"


def _part(result: ModelResult, report: Report, rules: GateConfig) -> str:
    """Return the line on a verdict over a part of the items; empty when nothing is decided or all items are included."""
    asked, size = len(result.items.asked), result.evalset.size
    compared = any(report.gates_of(comparison) for comparison in report.comparisons if comparison.candidate is result)
    if asked >= size or not (compared or rules.floors or rules.lower_floors or rules.must_pass):
        return ""
    option = "--partial" if rules.partial else "--limit"
    return f"{result.model} on {result.evalset.name}: {'compared' if compared else 'judged'} on {asked} of {size} items ({option})"


def _other_items(comparison: Comparison) -> str:
    """Return the line on items that only one of the two models has, and on the share of the baseline that is compared."""
    parts = [f"{len(ids)} {what} ({listed(ids)})" for what, ids in (("added", comparison.added), ("removed", comparison.removed)) if ids]
    where = f"{comparison.candidate.model} on {comparison.candidate.evalset.name}"
    return f"{where}: compared on {comparison.n} of the baseline's {comparison.n + len(comparison.removed)} items; since the baseline {' and '.join(parts)}"


def _worth(result: ModelResult) -> Iterator[str]:
    """Yield the lines on leaked items and on run-to-run variation."""
    where = f"{result.model} on {result.evalset.name}"
    leaks, again = result.leak_check, result.self_check
    if leaks is not None and leaks.leaks:
        first, count = leaks.leaks[0], len(leaks.leaks)
        clean = f"; without {'them' if count > 1 else 'it'} {leaks.clean[0].name} is {leaks.clean[0].value:.3f}" if leaks.clean else ""
        which = f"{count} of {len(result.items) + len(result.failures)} items {'stand' if count > 1 else 'stands'}"
        yield f"{where}: {which} in its training data, or nearly (the first '{first.id}', {first.row or 'a generated row'}){clean}"
    if again is not None and again.changed:
        name, floor = result.metrics[0].name, again.floors[result.metrics[0].name] / POINT
        yield (
            f"{where}: {again.changed} of {again.n} replies changed when asked again, {name} by up to {floor:.1f} points; "
            "no drop up to that is called a regression"
        )
    elif again is not None:
        yield f"{where}: {again.n} replies were the same when asked again, alone and in other batches"


def _losers(report: Report, missed: Collection[str]) -> tuple[str, ...]:
    """Return the tasks that failed, by a regression or a missed requirement, when there are several tasks."""
    tasks = dict.fromkeys(result.task for result in report.results)
    regressed = {found.task for found in report.gates if found.outcome == "regressed"}
    return tuple(task for task in tasks if task in regressed or task in missed) if len(tasks) > 1 else ()
