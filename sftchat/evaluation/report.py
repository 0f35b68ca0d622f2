"""The result of an evaluation as data; the same inputs give the same bytes, so no clock is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sftchat.evaluation.items import Failure, Item
from sftchat.types import SamplingParams

Judgement = Literal["better", "worse", "no significant difference"]
Outcome = Literal["regressed", "inconclusive", "fine"]
Pair = tuple[Item, Item]
"""One item twice: what the baseline answered, and what the candidate did."""

SCHEMA_VERSION = 2
DIGITS = 10
"""Decimals kept in JSON: far more than any set can measure, and fewer than another order of summing changes."""


@dataclass(frozen=True)
class MetricResult:
    """One metric of one model.

    Attributes:
        name: The metric's name.
        value: Over all scored items.
        low: Lower bound of the 95 % interval; None where the items give no hint of the spread.
        high: Upper bound; None with ``low``.
        interval: How the interval was computed: ``wilson``, ``bootstrap`` or ``none``.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    interval: str


@dataclass(frozen=True)
class GroupResult:
    """One slice of the items, such as one relation: to look at, too small to gate on.

    Attributes:
        name: The slice, as the scorer calls it.
        support: How many gold answers it has, where the scorer counts ``gold``; else in how many items it occurs.
        metrics: The metrics that can be computed from what the scorer counts for slices, by name.
    """

    name: str
    support: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class EvalsetIdentity:
    """Which gold set was scored.

    Attributes:
        name: File name without its folder.
        sha256: Hash of the file's bytes, in hexadecimal; empty for examples that came from no file.
        size: Rows in the file; more than the items scored where the user limited them.
    """

    name: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True)
class ModelResult:
    """One model on one gold set.

    Attributes:
        model: What the user called it.
        evalset: What it was scored on.
        items: What it answered, with scores, in the evalset's order.
        failures: What it could not answer; in no metric.
        metrics: One for each metric of the task, the primary one first; empty when nothing was answered.
        groups: Slices, the largest first.
        seconds: Wall-clock time of generating; None where any reply was stored. Not in the JSON.
        replies: Name of the file that holds the replies, where there is one.
        remembered: How many replies came from the reply store. Not in the JSON, which is the same wherever replies come from.
        task: Name of the task that scored.
    """

    model: str
    evalset: EvalsetIdentity
    items: tuple[Item, ...]
    failures: tuple[Failure, ...] = ()
    metrics: tuple[MetricResult, ...] = ()
    groups: tuple[GroupResult, ...] = ()
    seconds: float | None = None
    replies: str = ""
    remembered: int = 0
    task: str = ""

    @property
    def errors(self) -> dict[str, int]:
        """How many faults of each class, the most frequent first."""
        found: dict[str, int] = {}
        for item in self.items:
            for name in item.score.errors:
                found[name] = found.get(name, 0) + 1
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def right(self) -> int:
        """Items without any fault."""
        return sum(item.right for item in self.items)

    @property
    def truncated(self) -> int:
        """Replies that ran into the token limit."""
        return sum(item.reply.finish_reason == "length" for item in self.items)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(item.reply.prompt_tokens for item in self.items)

    @property
    def completion_tokens(self) -> int:
        """Tokens of all replies."""
        return sum(item.reply.completion_tokens for item in self.items)

    def metric(self, name: str) -> MetricResult:
        """The result of one metric.

        Raises:
            KeyError: When there is none of that name.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)

    def as_json(self) -> dict[str, Any]:
        """What stands in ``report.json``: everything but the replies, which have their own file."""
        row: dict[str, Any] = {
            "model": self.model,
            "task": self.task,
            "evalset": asdict(self.evalset),
            "n": len(self.items),
            "right": self.right,
            "truncated": self.truncated,
            "failed": [{"id": failure.example.id, "error": failure.error} for failure in self.failures],
            "metrics": [asdict(metric) for metric in self.metrics],
            "groups": [{"name": group.name, "support": group.support, "metrics": dict(group.metrics)} for group in self.groups],
            "errors": self.errors,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
        return row | ({"replies": self.replies} if self.replies else {})


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
        judgement: Whether the candidate is better.
        low_90: Lower bound of the 90 % interval: a drop beyond it can be excluded at 5 %; None where the items give no hint of the spread.
        high_90: Upper bound; None with ``low_90``.
        standard_error: Of the difference, from the bootstrap; None where nothing differs.
        higher_is_better: As the metric says.
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
    judgement: Judgement
    low_90: float | None = None
    high_90: float | None = None
    standard_error: float | None = None
    higher_is_better: bool = True

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
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)

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
            "metrics": [asdict(metric) | {"difference": metric.difference} for metric in self.metrics],
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
class Report:
    """An evaluation: some models, some gold sets, maybe a baseline; mostly one task.

    Attributes:
        task: Name of the task; of all of them with commas where there are several, and each result then says which is its own.
        results: One for each model and gold set, in the order asked for.
        baselines: The baseline's results, one for each gold set.
        comparisons: Each model with the baseline on each gold set.
        sampling: How replies were generated.
        seed: Seed of the statistics.
        versions: Versions of the packages that the numbers depend on.
        gates: The gate's verdicts, one for each gated metric of each comparison.
        remarks: What else whoever reads the verdict must know, such as that there is no baseline yet.
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

    def gates_of(self, comparison: Comparison) -> tuple[GateResult, ...]:
        """The verdicts on one comparison."""
        return tuple(found for found in self.gates if self.comparisons[found.comparison] is comparison)

    @property
    def failures(self) -> tuple[tuple[ModelResult, Failure], ...]:
        """Every item that some model could not answer."""
        return tuple((result, failure) for result in (*self.baselines, *self.results) for failure in result.failures)

    def to_json(self) -> str:
        """The report as JSON with sorted keys and a newline at the end; the same inputs give the same bytes."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "task": self.task,
            "results": [result.as_json() for result in self.results],
            "baselines": [result.as_json() for result in self.baselines],
            "comparisons": [comparison.as_json() for comparison in self.comparisons],
            "sampling": asdict(self.sampling),
            "seed": self.seed,
            "versions": dict(self.versions),
            "gates": [asdict(found) for found in self.gates],
            "remarks": list(self.remarks),
        }
        return json.dumps(_rounded(document), ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _rounded(value: Any) -> Any:
    """Cut floats to the decimals that are the same everywhere."""
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0  # -0.0 and 0.0 are one number
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
