"""Results as data: one model on one evalset, the comparison of two, gate results and rankings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sftchat.data.leakage import Leak
from sftchat.evaluation.confusion import count_confusion
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.scored import Failure, Item, Pair, ScoredItems


@dataclass(frozen=True)
class MetricResult:
    """One metric of one model.

    Attributes:
        name: Name of the metric.
        value: Value over all scored items.
        low: Lower bound of the 95 % interval; None when the spread cannot be estimated.
        high: Upper bound; None with ``low``.
        interval: Method of the interval: ``wilson``, ``bootstrap`` or ``none``.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    interval: str


@dataclass(frozen=True)
class SliceResult:
    """Metrics of one slice of the items, such as one relation; informative only, because most slices are too small for a gate.

    Attributes:
        name: Name of the slice, from the scorer.
        support: Number of gold answers when the scorer counts ``gold``, else number of items in the slice.
        metrics: Values by metric name; only of the metrics whose counts the scorer reports per slice.
    """

    name: str
    support: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class LeakCheck:
    """Result of comparing an evalset with a checkpoint's training data.

    Attributes:
        leaks: Items that are in the training data, exactly or nearly.
        clean: The metrics over the items that are not in it; empty when nothing leaked or everything did.
        unchecked: One line per training source that could not be compared, with the reason.
    """

    leaks: tuple[Leak, ...]
    clean: tuple[MetricResult, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelfCheck:
    """Result of the repeatability check.

    Attributes:
        n: Number of items repeated.
        times: Number of repetitions: one in which each item was alone, the others in shuffled batches.
        changed: Number of items whose reply differed at least once.
        rescored: Number of items whose counts differed at least once.
        floors: Per metric, the largest difference between the original replies and one repetition, over the repeated items.
    """

    n: int
    times: int
    changed: int
    rescored: int
    floors: Mapping[str, float]


@dataclass(frozen=True)
class ModelResult:
    """Result of one model on one evalset.

    Attributes:
        model: Model name as typed by the user.
        evalset: Identity of the evalset.
        items: Scored items in the evalset's order; also holds the failures.
        metrics: One entry per metric of the task, the primary one first; empty when nothing was answered.
        slices: Slices, the largest first.
        seconds: Wall-clock generation time; None when any reply was stored. Not in the JSON.
        replies: Name of the file that holds the replies, if there is one.
        cached: Number of replies from the reply cache. Not in the JSON, which does not depend on where replies come from.
        task: Name of the task.
        leak_check: Comparison with the training data; None when the training data are unknown.
        self_check: Repeatability check; None when it was not requested.
    """

    model: str
    evalset: EvalsetIdentity
    items: ScoredItems
    metrics: tuple[MetricResult, ...] = ()
    slices: tuple[SliceResult, ...] = ()
    seconds: float | None = None
    replies: str = ""
    cached: int = 0
    task: str = ""
    leak_check: LeakCheck | None = None
    self_check: SelfCheck | None = None

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Requests without a reply, which are in no metric."""
        return self.items.failures

    @property
    def errors(self) -> dict[str, int]:
        """Number of errors per error class, the most frequent first."""
        errors = self.items.totals.errors
        return {name: errors[name] for name in sorted(errors, key=lambda name: (-errors[name], name))}

    def items_of(self, ids: Collection[str]) -> list[Item]:
        """Return the answered items with the given ids, in the evalset's order."""
        return [item for item in self.items if item.example.id in ids]

    def metric(self, name: str) -> MetricResult:
        """Return the result of one metric.

        Raises:
            KeyError: When there is no metric of that name.
        """
        return {metric.name: metric for metric in self.metrics}[name]

    def as_json(self) -> dict[str, Any]:
        """The result as stored in ``report.json``: everything but the replies, which have their own file."""
        totals = self.items.totals
        row: dict[str, Any] = {
            "model": self.model,
            "task": self.task,
            "evalset": asdict(self.evalset),
            "n": len(self.items),
            "right": totals.right,
            "truncated": totals.truncated,
            **({"cut_thinking": totals.cut_thinking} if totals.cut_thinking else {}),
            "failed": [{"id": failure.example.id, "error": failure.error} for failure in self.failures],
            "metrics": [asdict(metric) for metric in self.metrics],
            "groups": [{"name": group.name, "support": group.support, "metrics": dict(group.metrics)} for group in self.slices],
            "errors": self.errors,
            "prompt_tokens": totals.prompt_tokens,
            "completion_tokens": totals.completion_tokens,
        }
        checks = {"leak_check": self.leak_check, "self_check": self.self_check}
        row |= {name: asdict(check) for name, check in checks.items() if check is not None}
        if confusion := count_confusion(item.score for item in self.items):
            row["confusion"] = confusion.as_json()
        return row | ({"replies": self.replies} if self.replies else {})


Judgement = Literal["better", "worse", "no significant difference"]
GateOutcome = Literal["regressed", "inconclusive", "fine"]
SIGNIFICANCE_LEVEL = 0.05
"""Significance level: p-values below it are significant."""


@dataclass(frozen=True)
class MetricDifference:
    """One metric of two models on the same items.

    Attributes:
        name: Name of the metric.
        baseline: Value of the baseline, over the items that both models answered.
        candidate: Value of the candidate, over the same items.
        low: Lower bound of the 95 % interval of ``candidate - baseline``; None when the spread cannot be estimated.
        high: Upper bound; None with ``low``.
        p: Two-sided p-value.
        interval: Method of the interval: ``bootstrap``, ``discordance`` or ``none``.
        test: Method of ``p``: ``mcnemar``, ``exact permutation``, ``permutation`` or ``identical``.
        differing: Number of items with different counts.
        low_90: Lower bound of the 90 % interval, which is a one-sided 5 % bound; None when the spread cannot be estimated.
        high_90: Upper bound; None with ``low_90``.
        standard_error: Standard error of the difference, from the bootstrap; None when no item differs.
        higher_is_better: Whether a larger value is better.
        p_adjusted: ``p`` adjusted over all gated metrics (Holm 1979); None when the metric is not gated.
    """

    name: str
    baseline: float
    candidate: float
    low: float | None
    high: float | None
    p: float
    interval: str
    test: str
    differing: int
    low_90: float | None = None
    high_90: float | None = None
    standard_error: float | None = None
    higher_is_better: bool = True
    p_adjusted: float | None = None

    @property
    def deciding_p(self) -> float:
        """The p-value that decides significance: ``p_adjusted``, or ``p`` without one."""
        return self.p if self.p_adjusted is None else self.p_adjusted

    @property
    def excludes_zero(self) -> bool:
        """Whether the 95 % interval excludes 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    @property
    def judgement(self) -> Judgement:
        """Whether the candidate is better, worse or neither; the whole output uses this rule.

        A difference is significant when ``deciding_p`` is below 0.05 *and* the 95 % interval excludes 0.
        """
        if self.deciding_p >= SIGNIFICANCE_LEVEL or self.low is None or not self.excludes_zero:
            return "no significant difference"
        return "better" if (self.low > 0) == self.higher_is_better else "worse"

    @property
    def difference(self) -> float:
        """Candidate minus baseline."""
        return self.candidate - self.baseline

    @property
    def gain(self) -> float:
        """Improvement of the candidate: positive when it is better, negative when it is worse."""
        return self.difference if self.higher_is_better else -self.difference

    @property
    def smallest_gain(self) -> float | None:
        """One-sided 5 % lower bound of ``gain``: a larger drop is excluded; None when the spread cannot be estimated."""
        if self.low_90 is None or self.high_90 is None:
            return None
        return self.low_90 if self.higher_is_better else -self.high_90


@dataclass(frozen=True)
class Comparison:
    """Two models on the same evalset.

    Attributes:
        baseline: Result of the reference model.
        candidate: Result of the model under test.
        n: Number of items that both answered.
        metrics: One entry per metric of the task, the primary one first; empty when no item was answered by both.
        broken: Items that were right and are wrong now, the largest loss in the primary metric first.
        fixed: Items that were wrong and are right now, the largest gain first.
        differing: Number of items whose two replies have different text.
        score_changed: Items that are right or wrong as before but have other counts, the largest loss first.
        text_changed: Items that are right or wrong as before, with the same counts and another text.
        losses: Loss in the primary metric by id, for items whose counts changed; negative for a gain.
        added: Ids that are not in the baseline.
        removed: Ids that are only in the baseline.
        units: Number of resampling units: items, or clusters.
        cluster: Metadata key that groups items into clusters; empty for independent items.
    """

    baseline: ModelResult
    candidate: ModelResult
    n: int
    metrics: tuple[MetricDifference, ...] = ()
    broken: tuple[Pair, ...] = ()
    fixed: tuple[Pair, ...] = ()
    differing: int = 0
    score_changed: tuple[Pair, ...] = ()
    text_changed: tuple[Pair, ...] = ()
    losses: Mapping[str, float] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    units: int = 0
    cluster: str = ""

    def metric(self, name: str) -> MetricDifference:
        """Return the difference in one metric.

        Raises:
            KeyError: When there is no metric of that name.
        """
        return {metric.name: metric for metric in self.metrics}[name]

    def as_json(self) -> dict[str, Any]:
        """The comparison as stored in ``report.json``."""
        changes = (("broken", self.broken), ("fixed", self.fixed), ("shifted", self.score_changed), ("alike", self.text_changed))
        return {
            "baseline": self.baseline.model,
            "candidate": self.candidate.model,
            "task": self.candidate.task,
            "evalset": self.candidate.evalset.name,
            "n": self.n,
            "units": self.units,
            "cluster": self.cluster,
            "metrics": [asdict(metric) | {"difference": metric.difference, "judgement": metric.judgement} for metric in self.metrics],
            "broken": [new.example.id for _, new in self.broken],
            "fixed": [new.example.id for _, new in self.fixed],
            "differing": self.differing,
            "added": list(self.added),
            "removed": list(self.removed),
            "changes": [self._change_as_json(change, old, new) for change, pairs in changes for old, new in pairs],
        }

    def _change_as_json(self, change: str, old: Item, new: Item) -> dict[str, Any]:
        return {
            "id": new.example.id,
            "change": change,
            "loss": self.losses.get(new.example.id, 0.0),
            "gold": new.example.gold,
            "baseline": {"reply": old.reply.text, "errors": list(old.score.errors)},
            "candidate": {"reply": new.reply.text, "errors": list(new.score.errors)},
        }


@dataclass(frozen=True)
class GateResult:
    """Outcome of the gate for one metric of one comparison.

    Attributes:
        model: Name of the candidate.
        task: Name of the task.
        evalset: Name of the evalset.
        metric: Name of the metric.
        outcome: ``regressed``, ``inconclusive`` or ``fine``.
        p: Two-sided p-value, adjusted over all gated metrics (Holm 1979).
        margin: Margin of the gate, in points of the metric; a point is 0.01.
        n: Number of items, or of clusters, that were compared.
        items_needed: Number that would settle an inconclusive outcome; None for other outcomes, and when unknown.
        comparison: Index of the comparison in the report.
        tier: ``block``, or ``warn`` for a rule that is only reported.
    """

    model: str
    task: str
    evalset: str
    metric: str
    outcome: GateOutcome
    p: float
    margin: float
    n: int
    items_needed: int | None = None
    comparison: int = 0
    tier: Literal["block", "warn"] = "block"


@dataclass(frozen=True)
class Ranked:
    """One checkpoint of a ranking.

    Attributes:
        result: Result of the checkpoint.
        step: Number of optimiser steps; None when neither name nor folder states it.
        best: Whether its primary metric is the best; of several equal ones, the earliest checkpoint is the best.
        tied: Whether it cannot be distinguished from the best; True for the best itself.
        difference: Difference of the primary metric from the best checkpoint's; None for the best itself, and when no item was answered by both.
    """

    result: ModelResult
    step: int | None
    best: bool
    tied: bool
    difference: MetricDifference | None = None

    def as_json(self) -> dict[str, Any]:
        """The ranking entry as stored in ``report.json``."""
        return {
            "model": self.result.model,
            "task": self.result.task,
            "evalset": self.result.evalset.name,
            "step": self.step,
            "best": self.best,
            "tied": self.tied,
        }
