"""The report as data, and what the output formats share: rows, number formats and the lines on gate results.

A report has no timestamps, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from sftchat.errors import list_quoted
from sftchat.evaluation.comparison import MIN_DIFFERING_ITEMS, POINT, TOLERANCE
from sftchat.evaluation.results import SIGNIFICANCE_LEVEL, Comparison, GateResult, MetricDifference, ModelResult, Ranked
from sftchat.evaluation.scored import Failure, Item, Outcome
from sftchat.text import sanitize_json
from sftchat.types import Example, SamplingParams

if TYPE_CHECKING:
    from sftchat.evaluation.gate import Verdict  # imports the report
    from sftchat.evaluation.gate_options import GateConfig
    from sftchat.evaluation.judge import JudgeSummary

SCHEMA_VERSION = 1
DIGITS = 10
"""Number of decimals in the JSON: more than any evalset can measure, but too few to show in which order numbers were summed."""
MAX_SLICES = 30
"""Maximum number of slices in a table."""
Change = Literal["broken", "failed", "fixed", "wrong", "right"]
"""How an item changed since the baseline, see ``ItemHistory``."""


@dataclass(frozen=True)
class Report:
    """Report of an evaluation.

    Attributes:
        task: Name of the task; for several tasks, their names separated by commas.
        results: One per model and evalset, in the order of the command line.
        baselines: The baseline's results, one per evalset; empty without a baseline.
        comparisons: Each model with the baseline on each evalset.
        sampling: Sampling parameters.
        seed: Seed of the statistics.
        versions: Versions of the packages that affect the numbers.
        gates: Gate results, one per gated metric of each comparison.
        rankings: The models by step, for each evalset that several models answered.
        verdict: Verdict on the results; None before it is decided.
        remarks: Further reasons of the verdict, such as that there is no baseline yet.
        judge: What is known of the judge whose verdicts are the scores; None without a judge.
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
    judge: JudgeSummary | None = None

    def gates_of(self, comparison: Comparison) -> tuple[GateResult, ...]:
        """Return the gate results of one comparison."""
        return tuple(gate_result for gate_result in self.gates if self.comparisons[gate_result.comparison] is comparison)

    @property
    def failures(self) -> tuple[tuple[ModelResult, Failure], ...]:
        """Failures of all models, each with the result that it belongs to; those of pairs of replies once."""
        results = self.results if self.judge is not None and self.judge.mode == "pairs" else (*self.baselines, *self.results)
        return tuple((result, failure) for result in results for failure in result.failures)

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
            **({} if self.judge is None else {"judge": self.judge.as_json()}),
        }
        return sanitize_json(json.dumps(_round_floats(document), ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)) + "\n"


def _round_floats(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0  # turns -0.0 into 0.0
    if isinstance(value, Mapping):
        return {key: _round_floats(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_round_floats(item) for item in value]
    return value


@dataclass(frozen=True)
class ItemHistory:
    """The outcomes of one item: the model's, and the baseline's if there is one.

    Attributes:
        change: ``broken``: right under the baseline, now wrong; ``fixed``: the reverse; ``failed``: not answered by the model; ``wrong`` or
            ``right`` for every other item.
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
        comparison: Its comparison with the baseline; None without a baseline.
    """
    old_outcomes = {} if comparison is None else comparison.baseline.items.outcomes
    broken = [] if comparison is None else [new for _, new in comparison.broken]
    fixed = [] if comparison is None else [new for _, new in comparison.fixed]
    changed_ids = {item.example.id for item in (*broken, *fixed)}
    unchanged = [item for item in result.items if item.example.id not in changed_ids]
    outcomes_by_change: dict[Change, Iterable[Outcome]] = {
        "broken": broken,
        "failed": result.failures,
        "fixed": fixed,
        "wrong": (item for item in unchanged if not item.right),
        "right": (item for item in unchanged if item.right),
    }
    return [
        ItemHistory(change, new, old_outcomes.get(new.example.id)) for change, outcomes in outcomes_by_change.items() for new in outcomes
    ]


def count_changes(histories: Iterable[ItemHistory]) -> dict[Change, int]:
    """Count the items per kind of change."""
    counts: dict[Change, int] = dict.fromkeys(get_args(Change), 0)
    for history in histories:
        counts[history.change] += 1
    return counts


def error_classes(outcome: Outcome | None) -> tuple[str, ...]:
    """Return the distinct error classes of an item, in the scorer's order; empty when it was not answered."""
    return tuple(dict.fromkeys(outcome.score.errors)) if isinstance(outcome, Item) else ()


def reply_text(outcome: Outcome | None) -> str:
    """Return the text of a reply; for a failure, the error message in brackets; for None, an empty text."""
    return "" if outcome is None else outcome.shown


def format_value(value: float | None) -> str:
    """Format the value of a metric; empty for None."""
    return "" if value is None else f"{value:.3f}"


def format_interval(low: float | None, high: float | None) -> str:
    """Format the interval of a value; empty when there is none."""
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def format_difference(metric: MetricDifference) -> str:
    """Format a difference with its sign; a ``~`` before it marks one that is not significant, as in benchstat."""
    return ("~ " if metric.judgement == "no significant difference" else "") + f"{metric.difference:+.3f}"


def format_difference_interval(metric: MetricDifference) -> str:
    """Format the interval of a difference; empty when there is none."""
    return "" if metric.low is None or metric.high is None else f"[{metric.low:+.3f}, {metric.high:+.3f}]"


def format_p_value(p: float) -> str:
    """Format a p-value; values below 0.001 as ``<0.001``."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def format_p_values(metric: MetricDifference) -> str:
    """Format the p-value of a difference, such as ``0.030 (0.060 adjusted)``; without parentheses when the adjusted one looks the same."""
    plain, deciding = format_p_value(metric.p), format_p_value(metric.deciding_p)
    return plain if plain == deciding else f"{plain} ({deciding} adjusted)"


def describe_disagreement(metric: MetricDifference) -> str:
    """Return why a difference is not significant although the test or the interval alone would call it so; empty when the two agree.

    The interval may be missing (``metric.low`` is None); then the difference is not significant either.
    """
    significant = metric.deciding_p < SIGNIFICANCE_LEVEL
    if significant == metric.excludes_zero:
        return ""
    p = f"the {'adjusted ' if metric.deciding_p != metric.p else ''}p of {metric.deciding_p:.3g}"
    if not significant:
        return f"not significant: the interval excludes 0, but {p} is not under {SIGNIFICANCE_LEVEL:g}"
    interval = "there is no interval" if metric.low is None else "the interval includes 0"
    return f"not significant: {p} is under {SIGNIFICANCE_LEVEL:g}, but {interval}"


def format_change(change: float) -> str:
    """Format a change of a count or of a value with its sign; empty for 0."""
    text = f"{change:+d}" if isinstance(change, int) else f"{change:+.3f}"
    return text if change else ""


@dataclass(frozen=True)
class ErrorClassRow:
    """How often an error class occurs in a result, and before in the baseline's (None without a baseline)."""

    name: str
    count: int
    before: int | None

    @property
    def change(self) -> str:
        """Change since the baseline with its sign; empty for 0 and without a baseline."""
        return "" if self.before is None else format_change(self.count - self.before)


def error_class_rows(result: ModelResult, comparison: Comparison | None = None) -> list[ErrorClassRow]:
    """Return the error classes of a result and of the baseline's, the most frequent first.

    Args:
        result: Result of one model on one evalset.
        comparison: Its comparison with the baseline; None without a baseline.
    """
    new = result.errors
    old = {} if comparison is None else comparison.baseline.errors
    names = sorted({*new, *old}, key=lambda name: (-max(new.get(name, 0), old.get(name, 0)), name))
    return [ErrorClassRow(name, new.get(name, 0), None if comparison is None else old.get(name, 0)) for name in names]


def slice_metrics(result: ModelResult) -> list[str]:
    """Return the names of the metrics that at least one slice has."""
    return [metric.name for metric in result.metrics if any(metric.name in group.metrics for group in result.slices)]


def model_notes(result: ModelResult) -> list[str]:
    """Return short notes on a result besides its metrics, such as the number of truncated replies; that of unanswered items stands last."""
    totals = result.items.totals
    notes = [f"{totals.right} of {len(result.items)} items without any error class"]  # not "right": a metric may count others as right
    if totals.truncated:
        notes.append(f"{totals.truncated} truncated")
    if totals.cut_thinking:
        notes.append(f"{totals.cut_thinking} cut while thinking")
    if result.failures:
        notes.append(f"{len(result.failures)} {result.failures[0].lack}")
    return notes


@dataclass(frozen=True)
class Unsettled:
    """What an inconclusive comparison could not exclude.

    Attributes:
        metric: Name of the metric.
        drop: Largest drop, in points, that cannot be excluded at the 5 % level; None without a bound.
        margin: Drop, in points, that had to be excluded.
        n: Number of items, or of clusters, that were compared.
        items_needed: Approximate number that would settle the outcome; None when unknown.
        units: What ``n`` counts: ``items`` or ``clusters``.
        falls: Whether the drop is a fall of the metric; False for a metric that is better when lower, whose drop is a rise.
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
        direction = "drop" if self.falls else "rise"
        if self.drop is None:
            bound = f"no bound on the {direction} of {self.metric}"
        else:
            bound = f"a {direction} of {self.drop:.1f} points of {self.metric} cannot be excluded"
        needed = ""
        if self.n < MIN_DIFFERING_ITEMS:
            needed = f"; {self.n} {self.units} are too few for any {direction} to be significant, it takes {MIN_DIFFERING_ITEMS}"
        elif self.items_needed is not None:
            needed = f"; about {self.items_needed:,} {self.units} would settle it, here are {self.n:,}"
        return f"{bound}, the margin is {self.margin:g}{needed}"


def subset_line(result: ModelResult, report: Report, config: GateConfig) -> str:
    """Return the line on a verdict over a part of the items; empty when all items are included or nothing is required."""
    count, size = len(result.items.requested_ids), result.evalset.size
    compared = any(report.gates_of(comparison) for comparison in report.comparisons if comparison.candidate is result)
    if count >= size or not (compared or config.has_requirements):
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
    where, baseline = f"{gate_result.model} on {gate_result.evalset}", comparison.baseline.model
    if gate_result.outcome == "regressed":
        return f"{where}: regressed, worse than {baseline}: {numbers}"
    if metric.judgement == "better":
        return f"{where}: better than {baseline}: {numbers}"
    why_no_regression = ""
    if metric.judgement == "worse":
        min_drop = next((rule.min_drop for rule in config.gated if rule.metric == metric.name), 0.0)
        below_min_drop = -metric.gain < min_drop * POINT - TOLERANCE
        limit = f"less than --min-drop {min_drop:g}" if below_min_drop else "no more than the run-to-run variation"
        why_no_regression = f", worse by {limit}"
    disagreement = describe_disagreement(metric)
    if gate_result.outcome == "fine":
        details = numbers if metric.differing else f"{numbers}, no item changed its counts"
    else:
        details = f"{describe_unsettled(comparison, gate_result).words}; {numbers}"
    return f"{where}: {gate_result.outcome} against {baseline}{why_no_regression}: {details}" + (
        f"; {disagreement}" if disagreement else ""
    )


def other_items_line(comparison: Comparison) -> str:
    """Return the line on items that only one of the two models has, and on how many of the baseline's items are compared."""
    ids_by_change = {"added": comparison.added, "removed": comparison.removed}
    changes = " and ".join(f"{len(ids)} {change} ({list_quoted(ids)})" for change, ids in ids_by_change.items() if ids)
    where = f"{comparison.candidate.model} on {comparison.candidate.evalset.name}"
    size = comparison.n + len(comparison.removed)
    return f"{where}: compared on {comparison.n} of the baseline's {size} items; since the baseline {changes}"


def trust_lines(result: ModelResult) -> Iterator[str]:
    """Yield the lines on leaked items and on run-to-run variation."""
    where = f"{result.model} on {result.evalset.name}"
    leak_check, self_check = result.leak_check, result.self_check
    if leak_check is not None and leak_check.leaks:
        first, count = leak_check.leaks[0], len(leak_check.leaks)
        verb, pronoun = ("stand", "them") if count > 1 else ("stands", "it")
        clean = ""
        if leak_check.clean:
            metric = leak_check.clean[0]
            clean = f"; without {pronoun} {metric.name} is {metric.value:.3f}"
        row = first.row or "a generated row"
        size = len(result.items) + len(result.failures)
        yield f"{where}: {count} of {size} items {verb} in its training data, or nearly (the first '{first.id}', {row}){clean}"
    if self_check is not None and not self_check.changed:
        yield f"{where}: {self_check.n} replies were the same when generated again, alone and in other batches"
    elif self_check is not None:
        name = result.metrics[0].name
        yield (
            f"{where}: {self_check.changed} of {self_check.n} replies changed when generated again, "
            f"{name} by up to {self_check.floors[name] / POINT:.1f} points; no drop up to that is called a regression"
        )
