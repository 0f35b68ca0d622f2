"""The report as data, and what all output formats share: rows, number formats and the lines on gate results.

A report has no timestamps, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from sftchat.errors import list_quoted
from sftchat.evaluation.comparison import MIN_DIFFERING_ITEMS, POINT, TOLERANCE
from sftchat.evaluation.results import LEVEL, Comparison, GateResult, MetricDifference, ModelResult, Ranked
from sftchat.evaluation.scored import Failure, Item, Outcome
from sftchat.text import sanitize_json
from sftchat.types import Example, SamplingParams

if TYPE_CHECKING:
    from sftchat.evaluation.gate import GateConfig, Verdict  # imports the report

SCHEMA_VERSION = 1


DIGITS = 10
"""Decimals in the JSON: more than any evalset can measure, and few enough to hide the rounding errors of another summation order."""
MAX_SLICES = 30
"""Maximum number of slices in a table."""
Change = Literal["broken", "failed", "fixed", "wrong", "right"]


@dataclass(frozen=True)
class Report:
    """Report of an evaluation: models, evalsets, and a baseline if there is one; usually of one task.

    Attributes:
        task: Name of the task; comma-separated when there are several, and each result then names its own.
        results: One per model and evalset, in the order of the command line.
        baselines: The baseline's results, one per evalset.
        comparisons: Each model with the baseline on each evalset.
        sampling: Sampling parameters.
        seed: Seed of the statistics.
        versions: Versions of the packages that affect the numbers.
        gates: Gate results, one per gated metric of each comparison.
        rankings: Per evalset with several models, the models by step, with those that tie with the best.
        verdict: Verdict on the results; None before it is decided.
        remarks: Further lines for the reader of the verdict, such as that there is no baseline yet.
    """

    task: str
    results: tuple[ModelResult, ...]
    baselines: tuple[ModelResult, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    gates: tuple[GateResult, ...] = ()
    remarks: tuple[str, ...] = ()
    rankings: tuple[tuple[Ranked, ...], ...] = ()
    verdict: Verdict | None = None

    def gates_of(self, comparison: Comparison) -> tuple[GateResult, ...]:
        """Return the gate results of one comparison."""
        return tuple(gate_result for gate_result in self.gates if self.comparisons[gate_result.comparison] is comparison)

    @property
    def failures(self) -> tuple[tuple[ModelResult, Failure], ...]:
        """Failures of all models, with the model's result."""
        return tuple((result, failure) for result in (*self.baselines, *self.results) for failure in result.failures)

    def to_json(self) -> str:
        """Return the report as JSON with sorted keys and a final newline; the same inputs give the same bytes.

        Control characters and characters that reorder or hide text are escaped, see ``sftchat.text.sanitize_json``.
        """
        document = {
            "schema_version": SCHEMA_VERSION,
            "task": self.task,
            "results": [result.as_json() for result in self.results],
            "baselines": [result.as_json() for result in self.baselines],
            "comparisons": [comparison.as_json() for comparison in self.comparisons],
            "sampling": asdict(self.sampling),
            "seed": self.seed,
            "versions": dict(self.versions),
            "gates": [asdict(gate_result) for gate_result in self.gates],
            "verdict": None if self.verdict is None else self.verdict.as_json(),
            "remarks": list(self.remarks),
            "rankings": [[ranked.as_json() for ranked in ranking] for ranking in self.rankings],
        }
        return sanitize_json(json.dumps(_round_floats(document), ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)) + "\n"


def _round_floats(value: Any) -> Any:
    """Round floats to the decimals that are the same on every machine."""
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0  # turns -0.0 into 0.0
    if isinstance(value, Mapping):
        return {key: _round_floats(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_round_floats(item) for item in value]
    return value


@dataclass(frozen=True)
class ItemHistory:
    """One item under one model, and under the baseline if there is one.

    Attributes:
        change: ``broken``: was right and is wrong; ``failed``: was not answered; ``fixed``: was wrong and is right; ``wrong`` and ``right``:
            all others, including every answered item of a report without a baseline.
        new: Outcome of the model.
        old: Outcome of the baseline; None without a baseline.
    """

    change: Change
    new: Outcome
    old: Outcome | None = None

    @property
    def example(self) -> Example:
        """The example of the item."""
        return self.new.example

    @property
    def differs(self) -> bool:
        """Whether both models answered with different text."""
        return isinstance(self.new, Item) and isinstance(self.old, Item) and self.new.reply.text != self.old.reply.text


def comparison_of(report: Report, result: ModelResult) -> Comparison | None:
    """Return the comparison of a result with the baseline, if there is one."""
    return next((comparison for comparison in report.comparisons if comparison.candidate == result), None)


def item_histories(result: ModelResult, comparison: Comparison | None = None) -> list[ItemHistory]:
    """Return the items of a result: newly broken ones first, in order of loss; then failed, newly fixed, wrong, right.

    Args:
        result: Result of one model on one evalset.
        comparison: Its comparison with the baseline, if there is one; it defines which items are broken and fixed.
    """
    old = {} if comparison is None else comparison.baseline.items.outcomes
    broken, fixed = ((), ()) if comparison is None else ([new for _, new in pairs] for pairs in (comparison.broken, comparison.fixed))
    changed = {item.example.id for item in (*broken, *fixed)}
    unchanged = [item for item in result.items if item.example.id not in changed]
    kinds: dict[Change, Iterable[Outcome]] = {
        "broken": broken,
        "failed": result.failures,
        "fixed": fixed,
        "wrong": (item for item in unchanged if not item.right),
        "right": (item for item in unchanged if item.right),
    }
    return [ItemHistory(change, new, old.get(new.example.id)) for change, outcomes in kinds.items() for new in outcomes]


def count_changes(histories: Iterable[ItemHistory]) -> dict[Change, int]:
    """Count the items per kind of change."""
    counts: dict[Change, int] = dict.fromkeys(get_args(Change), 0)
    for history in histories:
        counts[history.change] += 1
    return counts


def error_classes(outcome: Outcome | None) -> tuple[str, ...]:
    """Return the distinct error classes of an answered item, in the scorer's order."""
    return tuple(dict.fromkeys(outcome.score.errors)) if isinstance(outcome, Item) else ()


def reply_text(outcome: Outcome | None) -> str:
    """Return the text of a reply; for a failure, the error message in brackets."""
    if outcome is None:
        return ""
    return f"[not answered: {outcome.error}]" if isinstance(outcome, Failure) else outcome.reply.text


def format_value(value: float | None) -> str:
    """Format the value of a metric; empty for None."""
    return "" if value is None else f"{value:.3f}"


def format_interval(low: float | None, high: float | None) -> str:
    """Format the interval of a value; empty when there is none."""
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def format_difference(metric: MetricDifference) -> str:
    """Format a difference with its sign, with ``~`` before it when it is not significant, as in benchstat."""
    return f"{'~ ' if metric.judgement == 'no significant difference' else ''}{metric.difference:+.3f}"


def format_difference_interval(metric: MetricDifference) -> str:
    """Format the interval of a difference; empty when there is none."""
    return "" if metric.low is None or metric.high is None else f"[{metric.low:+.3f}, {metric.high:+.3f}]"


def format_p_value(p: float) -> str:
    """Format a p-value; values below 0.001 as ``<0.001``."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def format_p_values(metric: MetricDifference) -> str:
    """Format the p-value of a difference, and the adjusted one that decides if it differs."""
    plain, deciding = format_p_value(metric.p), format_p_value(metric.deciding_p)
    return plain if plain == deciding else f"{plain} ({deciding} adjusted)"


def describe_disagreement(metric: MetricDifference) -> str:
    """Describe how test and interval disagree when only one of them finds a difference (then not significant); empty when they agree."""
    significant = metric.deciding_p < LEVEL
    if significant == metric.excludes_zero:
        return ""
    p = f"the {'adjusted ' if metric.deciding_p != metric.p else ''}p of {metric.deciding_p:.3g}"
    if not significant:
        return f"not significant: the interval excludes 0, but {p} is not under {LEVEL:g}"
    interval = "there is no interval" if metric.low is None else "the interval includes 0"
    return f"not significant: {p} is under {LEVEL:g}, but {interval}"


def format_change(change: float) -> str:
    """Format a change of a count or a value; empty for none."""
    if not change:
        return ""
    return f"{change:+d}" if isinstance(change, int) else f"{change:+.3f}"


@dataclass(frozen=True)
class ErrorClassRow:
    """An error class with its counts; ``before`` is None without a baseline."""

    name: str
    count: int
    before: int | None

    @property
    def change(self) -> str:
        """Change since the baseline with its sign; empty for none."""
        return "" if self.before is None else format_change(self.count - self.before)


def error_class_rows(result: ModelResult, comparison: Comparison | None = None) -> list[ErrorClassRow]:
    """Return the error classes of a model, and of the baseline if there is one, the most frequent first."""
    new, old = result.errors, {} if comparison is None else comparison.baseline.errors
    names = sorted({*new, *old}, key=lambda name: (-max(new.get(name, 0), old.get(name, 0)), name))
    return [ErrorClassRow(name, new.get(name, 0), None if comparison is None else old.get(name, 0)) for name in names]


def slice_metrics(result: ModelResult) -> list[str]:
    """Return the names of the metrics that can be computed per slice."""
    return [metric.name for metric in result.metrics if any(metric.name in group.metrics for group in result.slices)]


def model_notes(result: ModelResult) -> list[str]:
    """Return short notes on a model besides its metrics, such as the number of truncated replies; unanswered items are the last."""
    # the items without an error class may differ from those that a metric counts as right
    entries = [f"{result.items.totals.right} of {len(result.items)} items without any error class"]
    entries += [f"{result.items.totals.truncated} truncated"] if result.items.totals.truncated else []
    entries += [f"{result.items.totals.cut_thinking} cut while thinking"] if result.items.totals.cut_thinking else []
    return entries + ([f"{len(result.failures)} not answered"] if result.failures else [])


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


def subset_line(result: ModelResult, report: Report, config: GateConfig) -> str:
    """Return the line on a verdict over a part of the items; empty when nothing is decided or all items are included."""
    count, size = len(result.items.requested_ids), result.evalset.size
    compared = any(report.gates_of(comparison) for comparison in report.comparisons if comparison.candidate is result)
    if count >= size or not (compared or config.floors or config.lower_floors or config.must_pass):
        return ""
    option = "--partial" if config.partial else "--limit"
    return f"{result.model} on {result.evalset.name}: {'compared' if compared else 'judged'} on {count} of {size} items ({option})"


def describe_unsettled(comparison: Comparison, gate_result: GateResult) -> Unsettled:
    """Describe what a comparison cannot exclude in one metric."""
    difference = comparison.metric(gate_result.metric)
    bound = difference.smallest_gain
    return Unsettled(
        metric=gate_result.metric,
        drop=None if bound is None else -bound / POINT,
        margin=gate_result.margin,
        n=gate_result.n,
        items_needed=gate_result.items_needed,
        units="clusters" if comparison.cluster else "items",
        falls=difference.higher_is_better,
    )


def gate_line(comparison: Comparison, gate_result: GateResult, config: GateConfig) -> str:
    """Return the line on one gated metric; all numbers are in points."""
    metric = comparison.metric(gate_result.metric)
    interval = "" if metric.low is None or metric.high is None else f" [{metric.low / POINT:+.1f}, {metric.high / POINT:+.1f}]"
    adjusted = f" ({gate_result.p:.3g} adjusted)" if round(gate_result.p, 12) != round(metric.p, 12) else ""
    numbers = f"{metric.name} {metric.difference / POINT:+.1f} points{interval}, p = {metric.p:.3g}{adjusted}"
    where, other = f"{gate_result.model} on {gate_result.evalset}", comparison.baseline.model
    if gate_result.outcome == "regressed":
        return f"{where}: regressed, worse than {other}: {numbers}"
    if metric.judgement == "better":
        return f"{where}: better than {other}: {numbers}"
    excuse = ""
    if metric.judgement == "worse":
        excuse = ", worse by no more than a model differs from itself"
        if small := [rule for rule in config.gated if rule.metric == metric.name and -metric.gain < rule.min_drop * POINT - TOLERANCE]:
            excuse = f", worse by less than --min-drop {small[0].min_drop:g}"
    unsure = f"; {words}" if (words := describe_disagreement(metric)) else ""
    if gate_result.outcome == "fine":
        unchanged = ", no item changed its counts" if not metric.differing else ""
        return f"{where}: fine against {other}{excuse}: {numbers}{unchanged}{unsure}"
    return f"{where}: inconclusive against {other}{excuse}: {describe_unsettled(comparison, gate_result).words}; {numbers}{unsure}"


def other_items_line(comparison: Comparison) -> str:
    """Return the line on items that only one of the two models has, and on the share of the baseline that is compared."""
    parts = [
        f"{len(ids)} {what} ({list_quoted(ids)})" for what, ids in (("added", comparison.added), ("removed", comparison.removed)) if ids
    ]
    where = f"{comparison.candidate.model} on {comparison.candidate.evalset.name}"
    return f"{where}: compared on {comparison.n} of the baseline's {comparison.n + len(comparison.removed)} items; since the baseline {' and '.join(parts)}"


def trust_lines(result: ModelResult) -> Iterator[str]:
    """Yield the lines on leaked items and on run-to-run variation."""
    where = f"{result.model} on {result.evalset.name}"
    leaks, check = result.leak_check, result.self_check
    if leaks is not None and leaks.leaks:
        first, count = leaks.leaks[0], len(leaks.leaks)
        clean = f"; without {'them' if count > 1 else 'it'} {leaks.clean[0].name} is {leaks.clean[0].value:.3f}" if leaks.clean else ""
        which = f"{count} of {len(result.items) + len(result.failures)} items {'stand' if count > 1 else 'stands'}"
        yield f"{where}: {which} in its training data, or nearly (the first '{first.id}', {first.row or 'a generated row'}){clean}"
    if check is not None and check.changed:
        name = result.metrics[0].name
        yield (
            f"{where}: {check.changed} of {check.n} replies changed when generated again, {name} by up to {check.floors[name] / POINT:.1f} points; "
            "no drop up to that is called a regression"
        )
    elif check is not None:
        yield f"{where}: {check.n} replies were the same when generated again, alone and in other batches"
