"""What a report means for whoever waits for the exit code."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from sftchat.errors import listed
from sftchat.evaluation.comparison import Comparison, GateResult
from sftchat.evaluation.paired import FEWEST
from sftchat.evaluation.report import Report
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.rules import POINT, Rules
from sftchat.text import counted

PASSED, GATE_FAILED, COULD_NOT, NOT_COMPARABLE = 0, 1, 3, 4
TOLERANCE = 1e-12
"""A value this little under its floor meets it: 0.8 is not a binary fraction."""


@dataclass(frozen=True)
class Verdict:
    """A judgement in words and as an exit code.

    Attributes:
        lines: One line for each demand and comparison, and the verdict last; empty when nothing was asked.
        exit_code: 0 passed, 1 a regression or a demand missed, 3 some items could not be answered, whatever the others say,
            4 inconclusive or other items where the rules are strict.
    """

    lines: tuple[str, ...]
    exit_code: int


def judge(report: Report, rules: Mapping[str, Rules] | Rules) -> Verdict:
    """Decide: every floor and every must-pass item for every model, and every gated comparison.

    Args:
        report: What was measured; ``report.gates`` are the verdicts on its comparisons.
        rules: What was demanded, for all tasks alike or by the name of the task.
    """
    demanded = {result.task: rules.get(result.task, Rules()) if isinstance(rules, Mapping) else rules for result in report.results}
    lines: list[str] = []
    missed: set[str] = set()
    failed = unsure = False
    for result in report.results:
        for met, line in _demands(result, demanded[result.task]):
            failed |= not met
            missed |= set() if met else {result.task}
            lines.append(line)
        if part := _part(result, report, demanded[result.task]):
            unsure |= demanded[result.task].strict
            lines.append(part)
    for comparison in report.comparisons:
        strict = demanded[comparison.candidate.task].strict
        for found in report.gates_of(comparison):
            failed |= found.outcome == "regressed"
            unsure |= found.outcome == "inconclusive" and strict
            lines.append(_compared(comparison, found))
        if comparison.added or comparison.removed:
            unsure |= strict
            lines.append(_other_items(comparison))
    remarks = [*report.remarks, *(line for result in (*report.baselines, *report.results) for line in _worth(result))]
    lines.extend(remarks)
    lost = report.failures
    if lost:
        result, failure = lost[0]
        count = f"{len(lost)} items were" if len(lost) > 1 else "1 item was"
        lines.append(f"{count} not answered, the first '{failure.example.id}' by {result.model}: {failure.error}")
        return Verdict((*lines, "verdict: could not judge"), COULD_NOT)
    if failed:
        return Verdict((*lines, f"verdict: fail{_losers(report, missed)}"), GATE_FAILED)
    if unsure:
        return Verdict((*lines, "verdict: not proven, which --strict does not accept"), NOT_COMPARABLE)
    if not lines or lines == remarks:
        return Verdict(tuple(lines), PASSED)
    return Verdict((*lines, "verdict: pass"), PASSED)


def _demands(result: ModelResult, rules: Rules) -> Iterator[tuple[bool, str]]:
    """Whether one model meets each floor and each item that must be right, and the lines that say so."""
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
        yield True, f"{where}: {'all ' if len(asked) > 1 else ''}{counted(len(asked), 'must-pass item')} right"


def _compared(comparison: Comparison, found: GateResult) -> str:
    """The line on one gated metric; every figure in points of it."""
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
    if found.outcome == "fine":
        better = "better than" if difference.judgement == "better" else "fine against"
        unchanged = ", no item changed its counts" if not difference.differing else ""
        return f"{where}: {better} {other}: {figures}{unchanged}"
    units = "clusters" if comparison.cluster else "items"
    bound = difference.smallest_gain
    excluded = "no bound on the drop" if bound is None else f"a drop of {-bound / POINT:.1f} points cannot be excluded"
    more = "" if found.items_needed is None else f"; about {found.items_needed:,} {units} would settle it, here are {found.n:,}"
    if found.n < FEWEST:
        more = f"; {found.n} {units} are too few for any drop to be significant, it takes {FEWEST}"
    return f"{where}: inconclusive against {other}: {figures}; {excluded}, the margin is {found.margin:g}{more}"


def _part(result: ModelResult, report: Report, rules: Rules) -> str:
    """The line on a judgement of the first items alone; empty where nothing is judged, or all items are."""
    asked, size = len(result.items.asked), result.evalset.size
    compared = any(report.gates_of(comparison) for comparison in report.comparisons if comparison.candidate is result)
    if asked >= size or not (compared or rules.floors or rules.lower_floors or rules.must_pass):
        return ""
    return f"{result.model} on {result.evalset.name}: {'compared' if compared else 'judged'} on {asked} of {size} items (--limit)"


def _other_items(comparison: Comparison) -> str:
    """The line on items that only one of the two has, and the share of the baseline that is compared."""
    parts = [f"{len(ids)} {what} ({listed(ids)})" for what, ids in (("added", comparison.added), ("removed", comparison.removed)) if ids]
    where = f"{comparison.candidate.model} on {comparison.candidate.evalset.name}"
    return f"{where}: compared on {comparison.n} of the baseline's {comparison.n + len(comparison.removed)} items; since the baseline {' and '.join(parts)}"


def _worth(result: ModelResult) -> Iterator[str]:
    """The lines on what a model's score is worth: items it was trained on, and how far it differs from itself."""
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


def _losers(report: Report, missed: Collection[str]) -> str:
    """Which tasks were lost, where there are several: by a regression, or because they missed a demand."""
    tasks = dict.fromkeys(result.task for result in report.results)
    regressed = {found.task for found in report.gates if found.outcome == "regressed"}
    lost = [task for task in tasks if task in regressed or task in missed]
    return f"; lost: {', '.join(lost)}" if lost and len(tasks) > 1 else ""
