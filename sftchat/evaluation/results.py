"""What one model scored on one gold set, as data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sftchat.data.leakage import Leak
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.run import Failure, Item
from sftchat.evaluation.totals import Totals

if TYPE_CHECKING:
    from sftchat.evaluation.scored import ScoredItems  # loads numpy


class Named(Protocol):
    """What has the name of a metric."""

    @property
    def name(self) -> str:
        """The metric's name."""


M = TypeVar("M", bound=Named)


def named(metrics: Iterable[M], name: str) -> M:
    """The one of that name.

    Raises:
        KeyError: When there is none.
    """
    for metric in metrics:
        if metric.name == name:
            return metric
    raise KeyError(name)


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
class LeakCheck:
    """What comparing an evalset with the training data of a checkpoint showed.

    Attributes:
        leaks: Items that the checkpoint has seen, or nearly.
        clean: The metrics over the other items; empty when nothing leaked or nothing else is left.
        unchecked: Sources of training rows that could not be read as they were: gone, changed, or no longer generated.
    """

    leaks: tuple[Leak, ...]
    clean: tuple[MetricResult, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelfCheck:
    """What asking a model again showed.

    Attributes:
        n: Items asked again.
        times: How often each was asked again: once alone, the others in shuffled batches.
        changed: Items whose reply was another one at least once.
        rescored: Items whose counts were others at least once.
        floors: For every metric, the largest difference between the first answers and one repetition, over the items asked again.
    """

    n: int
    times: int
    changed: int
    rescored: int
    floors: Mapping[str, float]

    @property
    def flip_rate(self) -> float:
        """The share of items whose reply was another one at least once."""
        return self.changed / self.n if self.n else 0.0


@dataclass(frozen=True)
class ModelResult:
    """One model on one gold set.

    Attributes:
        model: What the user called it.
        evalset: What it was scored on.
        items: What it answered, with scores, in the evalset's order; knows what it could not answer.
        metrics: One for each metric of the task, the primary one first; empty when nothing was answered.
        groups: Slices, the largest first.
        seconds: Wall-clock time of generating; None where any reply was stored. Not in the JSON.
        replies: Name of the file that holds the replies, where there is one.
        remembered: How many replies came from the reply store. Not in the JSON, which is the same wherever replies come from.
        task: Name of the task that scored.
        leak_check: Whether it has seen items in its training; None where nothing says what it was trained on.
        self_check: Whether it answers the same when asked again; None where that was not asked for.
    """

    model: str
    evalset: EvalsetIdentity
    items: ScoredItems
    metrics: tuple[MetricResult, ...] = ()
    groups: tuple[GroupResult, ...] = ()
    seconds: float | None = None
    replies: str = ""
    remembered: int = 0
    task: str = ""
    leak_check: LeakCheck | None = None
    self_check: SelfCheck | None = None

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What it could not answer; in no metric."""
        return self.items.failures

    @property
    def tally(self) -> Totals:
        """What the items add up to."""
        return self.items.figures.tally

    @property
    def errors(self) -> dict[str, int]:
        """How many faults of each class, the most frequent first."""
        return dict(sorted(self.tally.errors.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def right(self) -> int:
        """Items without any fault."""
        return self.tally.right

    @property
    def truncated(self) -> int:
        """Replies that ran into the token limit."""
        return self.tally.truncated

    @property
    def cut_thinking(self) -> int:
        """Replies that were cut while the model thought: thoughts and no answer."""
        return self.tally.cut_thinking

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return self.tally.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        """Tokens of all replies."""
        return self.tally.completion_tokens

    def items_of(self, ids: Collection[str]) -> list[Item]:
        """The items of some ids, in the evalset's order."""
        return [self.items[place] for place, identity in enumerate(self.items.ids) if identity in ids]

    def metric(self, name: str) -> MetricResult:
        """The result of one metric.

        Raises:
            KeyError: When there is none of that name.
        """
        return named(self.metrics, name)

    def as_json(self) -> dict[str, Any]:
        """What stands in ``report.json``: everything but the replies, which have their own file."""
        row: dict[str, Any] = {
            "model": self.model,
            "task": self.task,
            "evalset": asdict(self.evalset),
            "n": len(self.items),
            "right": self.right,
            "truncated": self.truncated,
            **({"cut_thinking": self.cut_thinking} if self.cut_thinking else {}),
            "failed": [{"id": failure.example.id, "error": failure.error} for failure in self.failures],
            "metrics": [asdict(metric) for metric in self.metrics],
            "groups": [{"name": group.name, "support": group.support, "metrics": dict(group.metrics)} for group in self.groups],
            "errors": self.errors,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
        checks = {"leak_check": self.leak_check, "self_check": self.self_check}
        row |= {name: asdict(check) for name, check in checks.items() if check is not None}
        return row | ({"replies": self.replies} if self.replies else {})
