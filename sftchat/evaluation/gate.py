"""The gate: outcomes of metrics and rules, the verdict, and its exit code. The rules themselves are in ``gate_options``.

An evaluation that ends without a verdict has the exit code of its error (``sftchat.errors``), such as 4 of a ``NotComparableError``.

Every gated metric of every comparison has one of three outcomes. *Regressed*: ``MetricDifference.judgement`` is ``worse``, and the drop is at
least ``min_drop`` and larger than the observed run-to-run variation of the models. *Inconclusive*: not regressed, but a drop larger than the
margin cannot be excluded at the 5 % level. *Fine*: otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from sftchat.errors import list_quoted
from sftchat.evaluation.comparison import POINT, TOLERANCE, adjust_p_values, estimate_items_needed
from sftchat.evaluation.gate_options import GateConfig, GatedMetric, TierName
from sftchat.evaluation.limits import describe_limit, measure_items
from sftchat.evaluation.report import view
from sftchat.evaluation.report.view import Report, Unsettled
from sftchat.evaluation.results import Comparison, GateOutcome, GateResult, MetricDifference, ModelResult
from sftchat.text import pluralize

PASSED, GATE_FAILED, COULD_NOT_JUDGE, NOT_COMPARABLE = 0, 1, 3, 4
"""Exit codes."""
VerdictOutcome = Literal["pass", "fail", "inconclusive", "not comparable", "could not judge", "not asked"]
Tone = Literal["pass", "fail", "unsure"]
RuleOutcome = Literal["met", "failed", "inconclusive"]
MAX_NAMED_RULES = 4
"""Maximum number of failed rules that a headline names."""
COLOURS: Mapping[Tone, str] = {"pass": "green", "fail": "red", "unsure": "yellow"}
"""Terminal colour of each tone."""


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


def gate_tiers(
    comparisons: Sequence[Comparison], config_of: Callable[[Comparison], GateConfig]
) -> tuple[tuple[Comparison, ...], tuple[GateResult, ...]]:
    """Decide the gated metrics of both tiers, see ``gate_comparisons``.

    The p-values of each tier are adjusted on their own, so that a rule that only warns does not change what blocks. The comparisons have the
    p-values of the tier ``block``, and those of ``warn`` for metrics that only it gates.

    Args:
        comparisons: All comparisons of the evaluation.
        config_of: Returns the gate configuration of a comparison.
    """

    def warnings_of(comparison: Comparison) -> Sequence[GatedMetric]:
        warn = config_of(comparison).warn
        return warn.gated if warn is not None else ()

    adjusted, results = gate_comparisons(comparisons, lambda comparison: config_of(comparison).gated)
    warned, warnings = gate_comparisons(comparisons, warnings_of)
    if not warnings:
        return adjusted, results
    merged = []
    for blocking, warning in zip(adjusted, warned, strict=True):
        pairs = zip(blocking.metrics, warning.metrics, strict=True)
        merged.append(replace(blocking, metrics=tuple(second if first.p_adjusted is None else first for first, second in pairs)))
    return tuple(merged), (*results, *(replace(result, tier="warn") for result in warnings))


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
class RuleResult:
    """A rule of the gate for one model on one evalset.

    Attributes:
        tier: ``block`` or ``warn``.
        rule: The rule by the names of a policy file, such as ``min accuracy``.
        outcome: ``met``, ``failed`` or ``inconclusive``.
        line: The line on it in the reasons.
        task: Name of the task.
        model: Name of the model.
        evalset: Name of the evalset.
    """

    tier: TierName
    rule: str
    outcome: RuleOutcome
    line: str
    task: str
    model: str
    evalset: str


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
        rules: All rules with their outcomes.
        policy: Name of the policy file that states them; empty for rules from options.
    """

    outcome: VerdictOutcome = "not asked"
    reasons: tuple[str, ...] = ()
    unsettled: Unsettled | None = None
    strict: bool = False
    lost: tuple[str, ...] = ()
    partial: bool = False
    rules: tuple[RuleResult, ...] = field(default=(), compare=False)
    policy: str = ""

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
        if self.policy and (failed := self.failed_rules("block")):
            line += f"; failed: {_name_rules(failed)}"
        if self.policy and (warned := self.failed_rules("warn")):
            line += f"; warnings: {_name_rules(warned)}"
        return line

    @property
    def remarks(self) -> tuple[str, ...]:
        """The reasons that are no rule of a policy file; all of them without one."""
        if not self.policy:
            return self.reasons
        rule_lines = {f"{rule.tier}: {rule.line}" for rule in self.rules}
        return tuple(reason for reason in self.reasons if reason not in rule_lines)

    def failed_rules(self, tier: TierName) -> tuple[RuleResult, ...]:
        """Return the rules of a tier that are not met; of ``warn``, the inconclusive ones too."""
        outcomes = ("failed",) if tier == "block" else ("failed", "inconclusive")
        return tuple(rule for rule in self.rules if rule.tier == tier and rule.outcome in outcomes)

    @property
    def lines(self) -> tuple[str, ...]:
        """The reasons, then the verdict; empty when nothing was required and there are no remarks."""
        return (*self.reasons, f"verdict: {self.headline}") if self.headline else self.reasons

    def as_json(self) -> dict[str, Any]:
        """The verdict as stored in ``report.json``."""
        lists = {"reasons": list(self.reasons), "lost": list(self.lost), "rules": [asdict(rule) for rule in self.rules]}
        return asdict(self) | lists | {"exit_code": self.exit_code, "headline": self.headline}


def _name_rules(rules: Sequence[RuleResult]) -> str:
    """Return the names of rules, the first ``MAX_NAMED_RULES`` of them; with their task if there are several tasks."""
    several = len({rule.task for rule in rules}) > 1
    names = list(dict.fromkeys(f"{rule.task}: {rule.rule}" if several else rule.rule for rule in rules))
    rest = f" and {len(names) - MAX_NAMED_RULES} more" if len(names) > MAX_NAMED_RULES else ""
    return ", ".join(names[:MAX_NAMED_RULES]) + rest


def decide_verdict(report: Report, config: Mapping[str, GateConfig] | GateConfig) -> Verdict:
    """Decide the evaluation from the rules on every model, and from all gated comparisons.

    Args:
        report: Measurements; ``report.gates`` holds the gate results of its comparisons.
        config: Gate configuration, of all tasks or by task name.
    """
    tasks = dict.fromkeys(result.task for result in report.results)
    configs = {task: config.get(task, GateConfig()) if isinstance(config, Mapping) else config for task in tasks}
    policy = next((task_config.policy for task_config in configs.values() if task_config.policy), "")
    lines: list[str] = []
    rules: list[RuleResult] = []
    inconclusive: list[Unsettled] = []
    strict_on_inconclusive = strict_on_items = False

    def add(rule: RuleResult) -> None:
        rules.append(rule)
        lines.append(f"{rule.tier}: {rule.line}" if policy else rule.line)

    for result in report.results:
        task_config = configs[result.task]
        for rule in _check_requirements(result, task_config, report.seed):
            add(rule)
        if line := view.subset_line(result, report, task_config):
            lines.append(line)
            strict_on_items |= task_config.strict
    for comparison in report.comparisons:
        task_config = configs[comparison.candidate.task]
        for gate_result in report.gates_of(comparison):
            add(_gate_rule(comparison, gate_result, task_config))
            if gate_result.tier == "block" and gate_result.outcome == "inconclusive":
                inconclusive.append(view.describe_unsettled(comparison, gate_result))
                strict_on_inconclusive |= task_config.strict
        if comparison.added or comparison.removed:
            lines.append(view.other_items_line(comparison))
            strict_on_items |= task_config.strict
    required = bool(lines)
    failed_tasks = {rule.task for rule in rules if rule.tier == "block" and rule.outcome == "failed"}
    lines.extend((*report.remarks, *(line for result in (*report.baselines, *report.results) for line in view.trust_lines(result))))

    def decided(outcome: VerdictOutcome, **details: Any) -> Verdict:
        return Verdict(outcome, tuple(lines), rules=tuple(rules), policy=policy, **details)

    if report.failures:
        result, failure = report.failures[0]
        count = f"{len(report.failures)} items were" if len(report.failures) > 1 else "1 item was"
        lines.append(f"{count} {failure.lack}, the first '{failure.example.id}' by {result.model}: {failure.error}")
        return decided("could not judge")
    if failed_tasks:
        return decided("fail", lost=tuple(task for task in configs if task in failed_tasks) if len(configs) > 1 else ())
    if any(task_config.partial and (required or task_config.must_pass) for task_config in configs.values()):
        return decided("not comparable", partial=True)
    if inconclusive:
        worst = max(inconclusive, key=lambda entry: math.inf if entry.drop is None else entry.drop / entry.margin)
        return decided("inconclusive", unsettled=worst, strict=strict_on_inconclusive or strict_on_items)
    if strict_on_items:
        return decided("not comparable", strict=True)
    return decided("pass" if required else "not asked")


def _gate_rule(comparison: Comparison, result: GateResult, config: GateConfig) -> RuleResult:
    """Return the rule on one gated metric; its line has the p-value of its tier."""
    tier = config if result.tier == "block" or config.warn is None else config.warn
    metrics = tuple(replace(metric, p_adjusted=result.p) if metric.name == result.metric else metric for metric in comparison.metrics)
    outcome: RuleOutcome = {"regressed": "failed", "inconclusive": "inconclusive"}.get(result.outcome, "met")  # type: ignore[assignment]
    line = view.gate_line(replace(comparison, metrics=metrics), result, tier)
    return RuleResult(result.tier, f"gate {result.metric}", outcome, line, result.task, result.model, result.evalset)


def _check_requirements(result: ModelResult, config: GateConfig, seed: int) -> Iterator[RuleResult]:
    """Yield the outcomes of the rules on one model that need no baseline, of both tiers."""
    for tier, rules in config.tiers:
        for rule, met, line in (*_check_metrics(result, rules), *_check_limits(result, rules, seed), *_check_must_pass(result, rules)):
            where = f"{result.model} on {result.evalset.name}"
            yield RuleResult(tier, rule, "met" if met else "failed", f"{where}: {line}", result.task, result.model, result.evalset.name)


def _check_metrics(result: ModelResult, config: GateConfig) -> Iterator[tuple[str, bool, str]]:
    """Yield, for each floor, its name, whether the model meets it and the line that reports it."""
    for name, floor in config.floors.items():
        if not result.metrics:
            yield f"min {name}", False, f"no {name}, nothing was answered"
            continue
        value = result.metric(name).value
        met = value >= floor - TOLERANCE
        yield f"min {name}", met, f"{name} {value:.3f} {'meets' if met else 'is under'} the floor {floor:g}"
    for name, floor in config.lower_floors.items():
        low = result.metric(name).low if result.metrics else None
        if low is None:
            yield f"min_lower {name}", False, f"{name} has no lower bound, so it cannot meet the floor {floor:g}"
            continue
        met = low >= floor - TOLERANCE
        yield f"min_lower {name}", met, f"the lower bound of {name}, {low:.3f}, {'meets' if met else 'is under'} the floor {floor:g}"


def _check_limits(result: ModelResult, config: GateConfig, seed: int) -> Iterator[tuple[str, bool, str]]:
    """Yield, for each limit, its name, whether it is kept and the line that reports it."""
    measured = {name: measure_items(name, result.items, seed) for name in {**config.limits, **config.upper_limits}}
    for rule, limits, upper in (("max", config.limits, False), ("max_upper", config.upper_limits, True)):
        for name, limit in limits.items():
            yield f"{rule} {name}", *describe_limit(name, measured[name], limit, upper=upper)


def _check_must_pass(result: ModelResult, config: GateConfig) -> Iterator[tuple[str, bool, str]]:
    """Yield whether the must-pass items are right, and the line that reports it, if there are any."""
    must_pass = result.items_of(config.must_pass) if config.must_pass else []
    wrong = [item for item in must_pass if not item.right]
    if wrong:
        ids = list_quoted([item.example.id for item in wrong])
        yield (
            "must_pass",
            False,
            f"{len(wrong)} of {len(must_pass)} must-pass items wrong: {ids} ({', '.join(view.error_classes(wrong[0]))})",
        )
    elif must_pass:
        yield "must_pass", True, f"{'all ' if len(must_pass) > 1 else ''}{pluralize(len(must_pass), 'must-pass item')} right"
