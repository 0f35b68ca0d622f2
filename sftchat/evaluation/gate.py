"""The gate: everything that decides the exit code of a verdict. Options as typed, configuration, outcomes, verdict.

An evaluation that ends without a verdict has the exit code of its error (``sftchat.errors``), such as 4 of a ``NotComparableError``.

Every gated metric of every comparison has one of three outcomes. *Regressed*: ``MetricDifference.judgement`` is ``worse``, and the drop is at
least ``min_drop`` and larger than the observed run-to-run variation of the models. *Inconclusive*: not regressed, but a drop larger than the
margin cannot be excluded at the 5 % level. *Fine*: otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from sftchat.errors import UsageError, list_quoted, unknown_name_message
from sftchat.evaluation.comparison import POINT, TOLERANCE, adjust_p_values, estimate_items_needed
from sftchat.evaluation.evalset import parse_ids
from sftchat.evaluation.report import view
from sftchat.evaluation.report.view import Report, Unsettled
from sftchat.evaluation.results import Comparison, GateOutcome, GateResult, MetricDifference, ModelResult
from sftchat.task import Metric, Task
from sftchat.text import pluralize

PASSED, GATE_FAILED, COULD_NOT_JUDGE, NOT_COMPARABLE = 0, 1, 3, 4
"""Exit codes."""
MARGIN, MIN_DROP = 2.0, 0.5
"""Defaults, in points."""
VerdictOutcome = Literal["pass", "fail", "inconclusive", "not comparable", "could not judge", "not asked"]
Tone = Literal["pass", "fail", "unsure"]
COLOURS: Mapping[Tone, str] = {"pass": "green", "fail": "red", "unsure": "yellow"}
"""Terminal colour of each tone."""


@dataclass(frozen=True)
class GatedMetric:
    """A metric that the gate compares with the baseline.

    Attributes:
        metric: Name of the metric.
        margin: The outcome is ``fine`` only when a drop of more than this many points is excluded; above 0.
        min_drop: A drop of fewer points is no regression even when it is significant; 0 or more.
    """

    metric: str
    margin: float = MARGIN
    min_drop: float = MIN_DROP


@dataclass(frozen=True)
class GateConfig:
    """Everything that can change the exit code.

    Attributes:
        gated: Metrics compared with the baseline.
        floors: Minimum value, by metric.
        lower_floors: Minimum of the lower bound of the 95 % interval, by metric.
        must_pass: Ids of items that must be right.
        strict: Whether the exit code is not 0 for inconclusive comparisons and changed item sets either.
        partial: Whether only the items with a reply are scored, so that nothing is proven for the others.
    """

    gated: tuple[GatedMetric, ...] = ()
    floors: Mapping[str, float] = field(default_factory=dict)
    lower_floors: Mapping[str, float] = field(default_factory=dict)
    must_pass: frozenset[str] = frozenset()
    strict: bool = False
    partial: bool = False


@dataclass(frozen=True)
class GateOptions:
    """Gate options as typed, before task and items are read.

    Attributes:
        gated: ``METRIC[=MARGIN]``.
        min_drop: ``GatedMetric.min_drop`` of every gated metric.
        floors: ``METRIC=X``, see ``GateConfig``.
        lower_floors: ``METRIC=X``, see ``GateConfig``.
        must_pass: Ids, or files with one id per line.
        strict: See ``GateConfig``.
        require_baseline: Whether to stop when the baseline is missing, which is also the default.
        allow_missing_baseline: Whether to continue when the baseline is missing, as in the first run of a CI job.
    """

    gated: tuple[str, ...] = ()
    min_drop: float = MIN_DROP
    floors: tuple[str, ...] = ()
    lower_floors: tuple[str, ...] = ()
    must_pass: tuple[str, ...] = ()
    strict: bool = False
    require_baseline: bool = False
    allow_missing_baseline: bool = False

    @property
    def baseline_options(self) -> tuple[str, ...]:
        """Names of the options in use that require a baseline."""
        values = {
            "--gate": self.gated, "--min-drop": self.min_drop != MIN_DROP, "--strict": self.strict,
            "--require-baseline": self.require_baseline, "--allow-missing-baseline": self.allow_missing_baseline,
        }  # fmt: skip
        return tuple(name for name, value in values.items() if value)

    @property
    def options_in_use(self) -> tuple[str, ...]:
        """Names of all options in use."""
        values = {"--min": self.floors, "--min-lower": self.lower_floors, "--must-pass": self.must_pass}
        return (*self.baseline_options, *(name for name, value in values.items() if value))

    def check(self) -> None:
        """Refuse contradictory options.

        Raises:
            UsageError: When a missing baseline is both allowed and refused.
        """
        refusing = [name for name in ("--strict", "--require-baseline") if name in self.baseline_options]
        verb = "refuse" if len(refusing) > 1 else "refuses"
        if self.allow_missing_baseline and refusing:
            raise UsageError(f"--allow-missing-baseline goes on without a baseline, which {' and '.join(refusing)} {verb}; leave one out")

    def parse(self, task: Task, ids: Iterable[str]) -> GateConfig:
        """Parse the options for one task.

        Args:
            task: Task with the metrics.
            ids: Ids of all its items.

        Raises:
            UsageError: When an option is invalid.
            DataError: When a file of ids cannot be read.
        """
        if not math.isfinite(self.min_drop):
            raise UsageError(f"--min-drop {self.min_drop:g} must be a number of points, such as {MIN_DROP:g}")
        return GateConfig(
            _parse_gated(self.gated, task, self.min_drop),
            parse_floors(self.floors, task),
            parse_floors(self.lower_floors, task),
            parse_ids(self.must_pass, ids, "--must-pass"),
            self.strict,
        )


def parse_floors(texts: Iterable[str], task: Task) -> dict[str, float]:
    """Parse ``METRIC=X`` arguments.

    Raises:
        UsageError: When an argument has another form, names an unknown metric or one that is better when lower, or is repeated.
    """
    floors: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        floor = _parse_number(number)
        if floor is None:
            raise UsageError(f"floor '{text}' must be METRIC=X with a number X, such as {task.metric.name}=0.8")
        metric = _find_metric(name, task)
        if not metric.higher_is_better:
            raise UsageError(f"metric '{name}' is better when lower, so a floor makes no sense")
        if metric.per_item_rate and floor > 1:
            raise UsageError(f"floor '{text}' can never be met: {name} is a share of the items, from 0 to 1")
        if name in floors:
            raise UsageError(f"metric '{name}' has two floors")
        floors[name] = floor
    return floors


def _parse_gated(texts: Iterable[str], task: Task, min_drop: float) -> tuple[GatedMetric, ...]:
    """Parse ``METRIC[=MARGIN]`` arguments, with margins in points; without any, the task's primary metric is gated."""
    gated: dict[str, GatedMetric] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        margin = _parse_number(number) if equals else MARGIN
        if margin is None or margin <= 0:
            raise UsageError(f"gate '{text}' must be METRIC or METRIC=MARGIN with a margin above 0 in points, such as {task.metric.name}=2")
        _find_metric(name, task)  # refuses an unknown name
        if name in gated:
            raise UsageError(f"metric '{name}' is gated twice")
        gated[name] = GatedMetric(name, margin, min_drop)
    return tuple(gated.values()) or (GatedMetric(task.metric.name, MARGIN, min_drop),)


def _find_metric(name: str, task: Task) -> Metric:
    metrics = {metric.name: metric for metric in task.metrics}
    if name not in metrics:
        raise UsageError(unknown_name_message("metric", name, metrics))
    return metrics[name]


def _parse_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def gate_comparisons(
    comparisons: Sequence[Comparison], gated: Callable[[Comparison], Sequence[GatedMetric]]
) -> tuple[tuple[Comparison, ...], tuple[GateResult, ...]]:
    """Decide every gated metric of every comparison.

    The p-values are adjusted over all of them, because together they decide one exit code.

    Args:
        comparisons: All comparisons of the evaluation.
        gated: Returns the gated metrics of a comparison.

    Returns:
        The comparisons, with the adjusted p-value in their gated metrics, and the gate results.
    """
    # index of a comparison, and one of its gated metrics
    decisions = [(index, rule) for index, comparison in enumerate(comparisons) if comparison.metrics for rule in gated(comparison)]
    p_values = adjust_p_values([comparisons[index].metric(rule.metric).p for index, rule in decisions])
    p_by_metric = {(index, rule.metric): p for (index, rule), p in zip(decisions, p_values, strict=True)}
    adjusted = []
    for index, comparison in enumerate(comparisons):
        metrics = [replace(metric, p_adjusted=p_by_metric.get((index, metric.name))) for metric in comparison.metrics]
        adjusted.append(replace(comparison, metrics=tuple(metrics)))
    return tuple(adjusted), tuple(_decide_metric(index, adjusted[index], rule) for index, rule in decisions)


def _decide_metric(index: int, comparison: Comparison, rule: GatedMetric) -> GateResult:
    candidate, difference = comparison.candidate, comparison.metric(rule.metric)
    checks = [result.self_check for result in (comparison.baseline, candidate) if result.self_check is not None]
    variation = max((check.floors.get(difference.name, 0.0) for check in checks), default=0.0)
    outcome = decide_outcome(difference, rule, variation)
    return GateResult(
        model=candidate.model,
        task=candidate.task,
        evalset=candidate.evalset.name,
        metric=difference.name,
        outcome=outcome,
        p=difference.deciding_p,
        margin=rule.margin,
        n=comparison.units,
        items_needed=estimate_items_needed(difference, comparison.units, rule.margin) if outcome == "inconclusive" else None,
        comparison=index,
    )


def decide_outcome(difference: MetricDifference, rule: GatedMetric, variation: float = 0.0) -> GateOutcome:
    """Decide the outcome of one metric.

    Args:
        difference: Difference between the models, with the adjusted p-value when several metrics are gated.
        rule: Margin and minimum drop.
        variation: Run-to-run variation of the models in units of the metric; a drop up to this is no regression.
    """
    drop = -difference.gain
    if difference.judgement == "worse" and drop >= rule.min_drop * POINT - TOLERANCE and drop > variation + TOLERANCE:
        return "regressed"
    if difference.differing == 0:
        return "fine"  # the bound would depend on the number of items alone, and few items would give "inconclusive"
    bound = difference.smallest_gain
    return "inconclusive" if bound is None or bound < -rule.margin * POINT - TOLERANCE else "fine"


@dataclass(frozen=True)
class Verdict:
    """Verdict of an evaluation with its reasons.

    Attributes:
        outcome: ``pass``; ``fail``: a regression or a missed requirement; ``inconclusive``: a drop beyond the margin can be neither shown nor
            excluded; ``not comparable``: ``--strict`` refuses other items than the baseline's, or only a part of the items has replies;
            ``could not judge``: some items were not answered, whatever the others show; ``not asked``: nothing was required.
        reasons: One line per requirement, gated metric and remark.
        unsettled: Details of an inconclusive verdict: of several inconclusive metrics, the one furthest beyond its margin.
        strict: Whether ``--strict`` turns this outcome into a failure.
        lost: The tasks that failed; empty for an evaluation of one task.
        partial: Whether the outcome is ``not comparable`` because only a part of the items has replies.
    """

    outcome: VerdictOutcome = "not asked"
    reasons: tuple[str, ...] = ()
    unsettled: Unsettled | None = None
    strict: bool = False
    lost: tuple[str, ...] = ()
    partial: bool = False

    @property
    def exit_code(self) -> int:
        """0: passed, inconclusive or not asked. 1: failed. 3: could not judge. 4: not comparable, or inconclusive with ``--strict``."""
        if self.outcome == "inconclusive":
            return NOT_COMPARABLE if self.strict else PASSED
        codes = {"fail": GATE_FAILED, "could not judge": COULD_NOT_JUDGE, "not comparable": NOT_COMPARABLE}
        return codes.get(self.outcome, PASSED)

    @property
    def tone(self) -> Tone:
        """How the verdict is displayed: ``unsure`` for every outcome other than ``pass`` and ``fail``."""
        tones: dict[VerdictOutcome, Tone] = {"pass": "pass", "fail": "fail"}
        return tones.get(self.outcome, "unsure")

    @property
    def headline(self) -> str:
        """The outcome and its most important detail on one line; empty when nothing was required."""
        if self.outcome == "not asked":
            return ""
        line: str = self.outcome
        if self.partial:
            line += ", because some items have no reply yet"
        elif self.strict and self.exit_code == NOT_COMPARABLE:
            line += ", which --strict does not accept"
        if self.unsettled is not None:
            line += f"; {self.unsettled.words}"
        elif self.lost:
            line += f"; lost: {', '.join(self.lost)}"
        return line

    @property
    def lines(self) -> tuple[str, ...]:
        """The reasons, then the verdict; empty when nothing was required and there are no remarks."""
        return (*self.reasons, f"verdict: {self.headline}") if self.headline else self.reasons

    def as_json(self) -> dict[str, Any]:
        """The verdict as stored in ``report.json``."""
        lists = {"reasons": list(self.reasons), "lost": list(self.lost)}
        return asdict(self) | lists | {"exit_code": self.exit_code, "headline": self.headline}


def decide_verdict(report: Report, config: Mapping[str, GateConfig] | GateConfig) -> Verdict:
    """Decide the evaluation from the floors and must-pass items of every model, and from all gated comparisons.

    Args:
        report: Measurements; ``report.gates`` holds the gate results of its comparisons.
        config: Gate configuration, of all tasks or by task name.
    """
    tasks = dict.fromkeys(result.task for result in report.results)
    configs = {task: config.get(task, GateConfig()) if isinstance(config, Mapping) else config for task in tasks}
    lines: list[str] = []
    failed_tasks: set[str] = set()
    inconclusive: list[Unsettled] = []
    strict_on_inconclusive = strict_on_items = False
    for result in report.results:
        task_config = configs[result.task]
        for met, line in _check_requirements(result, task_config):
            lines.append(line)
            if not met:
                failed_tasks.add(result.task)
        if line := view.subset_line(result, report, task_config):
            lines.append(line)
            strict_on_items |= task_config.strict
    for comparison in report.comparisons:
        task_config = configs[comparison.candidate.task]
        for gate_result in report.gates_of(comparison):
            lines.append(view.gate_line(comparison, gate_result, task_config))
            if gate_result.outcome == "regressed":
                failed_tasks.add(gate_result.task)
            if gate_result.outcome == "inconclusive":
                inconclusive.append(view.describe_unsettled(comparison, gate_result))
                strict_on_inconclusive |= task_config.strict
        if comparison.added or comparison.removed:
            lines.append(view.other_items_line(comparison))
            strict_on_items |= task_config.strict
    required = bool(lines)
    lines.extend((*report.remarks, *(line for result in (*report.baselines, *report.results) for line in view.trust_lines(result))))
    if report.failures:
        result, failure = report.failures[0]
        count = f"{len(report.failures)} items were" if len(report.failures) > 1 else "1 item was"
        lines.append(f"{count} {failure.lack}, the first '{failure.example.id}' by {result.model}: {failure.error}")
        return Verdict("could not judge", tuple(lines))
    if failed_tasks:
        return Verdict("fail", tuple(lines), lost=tuple(task for task in configs if task in failed_tasks) if len(configs) > 1 else ())
    if any(task_config.partial and (required or task_config.must_pass) for task_config in configs.values()):
        return Verdict("not comparable", tuple(lines), partial=True)
    if inconclusive:
        worst = max(inconclusive, key=lambda entry: math.inf if entry.drop is None else entry.drop / entry.margin)
        return Verdict("inconclusive", tuple(lines), worst, strict_on_inconclusive or strict_on_items)
    if strict_on_items:
        return Verdict("not comparable", tuple(lines), strict=True)
    return Verdict("pass" if required else "not asked", tuple(lines))


def _check_requirements(result: ModelResult, config: GateConfig) -> Iterator[tuple[bool, str]]:
    """Yield, for each floor and for the must-pass items, whether the model meets it and the line that reports it."""
    where = f"{result.model} on {result.evalset.name}"
    for name, floor in config.floors.items():
        if not result.metrics:
            yield False, f"{where}: no {name}, nothing was answered"
            continue
        value = result.metric(name).value
        met = value >= floor - TOLERANCE
        yield met, f"{where}: {name} {value:.3f} {'meets' if met else 'is under'} the floor {floor:g}"
    for name, floor in config.lower_floors.items():
        low = result.metric(name).low if result.metrics else None
        if low is None:
            yield False, f"{where}: {name} has no lower bound, so it cannot meet the floor {floor:g}"
            continue
        met = low >= floor - TOLERANCE
        yield met, f"{where}: the lower bound of {name}, {low:.3f}, {'meets' if met else 'is under'} the floor {floor:g}"
    must_pass = result.items_of(config.must_pass) if config.must_pass else []
    wrong = [item for item in must_pass if not item.right]
    if wrong:
        ids = list_quoted([item.example.id for item in wrong])
        yield False, f"{where}: {len(wrong)} of {len(must_pass)} must-pass items wrong: {ids} ({', '.join(view.error_classes(wrong[0]))})"
    elif must_pass:
        yield True, f"{where}: {'all ' if len(must_pass) > 1 else ''}{pluralize(len(must_pass), 'must-pass item')} right"
