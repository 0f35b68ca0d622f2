"""Two models on the same items, and what the gate says of them, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sftchat.evaluation.results import ModelResult, named
from sftchat.evaluation.run import Item

if TYPE_CHECKING:
    from sftchat.evaluation.run import Pair  # loads the engines

Judgement = Literal["better", "worse", "no significant difference"]
Outcome = Literal["regressed", "inconclusive", "fine"]
LEVEL = 0.05
"""A smaller p is called significant."""


@dataclass(frozen=True)
class MetricDifference:
    """One metric of two models on the same items.

    Attributes:
        name: The metric's name.
        baseline: Value of the first, over the items that both answered.
        candidate: Value of the second, over the same items.
        low: Lower bound of the 95 % interval of ``candidate - baseline``; None where the items give no hint of the spread.
        high: Upper bound; None with ``low``.
        p: Two-sided, of the test.
        interval: How the interval was computed: ``bootstrap``, ``discordance`` or ``none``.
        test: How ``p`` was: ``mcnemar``, ``exact permutation``, ``permutation`` or ``identical``.
        differing: How many items have different counts.
        low_90: Lower bound of the 90 % interval: a drop beyond it can be excluded at 5 %; None where the items give no hint of the spread.
        high_90: Upper bound; None with ``low_90``.
        standard_error: Of the difference, from the bootstrap; None where nothing differs.
        higher_is_better: As the metric says.
        p_adjusted: ``p`` adjusted over everything that is gated together (Holm 1979); None where the gate does not look at the metric.
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
        """The p that says whether the difference is significant: the adjusted one where there is one."""
        return self.p if self.p_adjusted is None else self.p_adjusted

    @property
    def excludes_zero(self) -> bool:
        """Whether the 95 % interval lies on one side of 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    @property
    def judgement(self) -> Judgement:
        """Whether the candidate is better: the one rule behind every verdict, colour and word.

        A difference is significant when the deciding p is under 0.05 *and* the 95 % interval lies on one side of 0.
        """
        if self.deciding_p >= LEVEL or self.low is None or not self.excludes_zero:
            return "no significant difference"
        return "better" if (self.low > 0) == self.higher_is_better else "worse"

    @property
    def difference(self) -> float:
        """Candidate minus baseline."""
        return self.candidate - self.baseline

    @property
    def gain(self) -> float:
        """How much better the candidate is; negative when it is worse, whichever way the metric points."""
        return self.difference if self.higher_is_better else -self.difference

    @property
    def smallest_gain(self) -> float | None:
        """The one-sided 5 % bound of ``gain``: the drop that cannot be excluded; None where the items give no hint of the spread."""
        if self.low_90 is None or self.high_90 is None:
            return None
        return self.low_90 if self.higher_is_better else -self.high_90


@dataclass(frozen=True)
class Comparison:
    """Two models on the same gold set.

    Attributes:
        baseline: The one compared with.
        candidate: The one in question.
        n: Items that both answered.
        metrics: One for each metric of the task, the primary one first; empty when no item was answered by both.
        broken: Items that were right and are not, the greatest loss in the primary metric first.
        fixed: Items that were not right and are, the greatest gain first.
        differing: How many replies differ in their text.
        shifted: Items as right or wrong as before, with other counts, the greatest loss first.
        alike: Items with the same counts and another text.
        losses: What each item with other counts costs the primary metric, by id; negative where it gains.
        added: Ids that the baseline does not have.
        removed: Ids that only the baseline has.
        units: What was resampled and swapped: items, or clusters of them.
        cluster: The metadata key that makes the clusters; empty where items stand alone.
    """

    baseline: ModelResult
    candidate: ModelResult
    n: int
    metrics: tuple[MetricDifference, ...] = ()
    broken: tuple[Pair, ...] = ()
    fixed: tuple[Pair, ...] = ()
    differing: int = 0
    shifted: tuple[Pair, ...] = ()
    alike: tuple[Pair, ...] = ()
    losses: Mapping[str, float] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    units: int = 0
    cluster: str = ""

    def metric(self, name: str) -> MetricDifference:
        """The difference in one metric.

        Raises:
            KeyError: When there is none of that name.
        """
        return named(self.metrics, name)

    def as_json(self) -> dict[str, Any]:
        """What stands in ``report.json``."""
        kinds = (("broken", self.broken), ("fixed", self.fixed), ("shifted", self.shifted), ("alike", self.alike))
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
            "changes": [self._change(kind, old, new) for kind, pairs in kinds for old, new in pairs],
        }

    def _change(self, kind: str, old: Item, new: Item) -> dict[str, Any]:
        """One changed item as it stands in ``report.json``."""
        return {
            "id": new.example.id,
            "change": kind,
            "loss": self.losses.get(new.example.id, 0.0),
            "gold": new.example.gold,
            "baseline": {"reply": old.reply.text, "errors": list(old.score.errors)},
            "candidate": {"reply": new.reply.text, "errors": list(new.score.errors)},
        }


@dataclass(frozen=True)
class GateResult:
    """The gate's verdict on one metric of one comparison.

    Attributes:
        model: The candidate.
        task: Name of the task.
        evalset: Name of the gold set.
        metric: Name of the metric.
        outcome: ``regressed``, ``inconclusive`` or ``fine``.
        p: Two-sided, adjusted over everything that is gated together (Holm 1979).
        margin: In points of the metric, 0.01 of it each.
        n: Items, or clusters, compared.
        items_needed: How many would settle an inconclusive verdict; None for the others, and where nothing says so.
        comparison: Which of the report's comparisons it is about, from 0.
    """

    model: str
    task: str
    evalset: str
    metric: str
    outcome: Outcome
    p: float
    margin: float
    n: int
    items_needed: int | None = None
    comparison: int = 0


@dataclass(frozen=True)
class Ranked:
    """One checkpoint among several.

    Attributes:
        result: What it scored.
        step: Optimiser steps it was trained for; None where its name and its folder do not say.
        best: Whether the primary metric is best here; the earliest of equals.
        tied: Whether the items cannot tell it from the best: True for the best itself.
        difference: The primary metric, this checkpoint against the best; None for the best itself and where no item was answered by both.
    """

    result: ModelResult
    step: int | None
    best: bool
    tied: bool
    difference: MetricDifference | None = None

    def as_json(self) -> dict[str, Any]:
        """What stands in ``report.json``."""
        return {
            "model": self.result.model,
            "task": self.result.task,
            "evalset": self.result.evalset.name,
            "step": self.step,
            "best": self.best,
            "tied": self.tied,
        }
