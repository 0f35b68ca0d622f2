"""Result of one model on one evalset, as data."""

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
    """Anything with the name of a metric."""

    @property
    def name(self) -> str:
        """Name of the metric."""


M = TypeVar("M", bound=Named)


def named(metrics: Iterable[M], name: str) -> M:
    """Return the entry with a name.

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
class GroupResult:
    """One slice of the items, such as one relation; informative only, too small for a gate.

    Attributes:
        name: Name of the slice, from the scorer.
        support: Number of gold answers when the scorer counts ``gold``, else number of items in the slice.
        metrics: Values by name, of the metrics whose counts the scorer reports per slice.
    """

    name: str
    support: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class LeakCheck:
    """Result of comparing an evalset with a checkpoint's training data.

    Attributes:
        leaks: Items that are in the training data, exactly or nearly.
        clean: The metrics over the other items; empty when nothing leaked or no item is left.
        unchecked: Training sources that could not be reproduced: missing, changed, or no longer generated.
    """

    leaks: tuple[Leak, ...]
    clean: tuple[MetricResult, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelfCheck:
    """Result of the repeatability check.

    Attributes:
        n: Number of items repeated.
        times: Number of repetitions: one alone, the others in shuffled batches.
        changed: Items whose reply differed at least once.
        rescored: Items whose counts differed at least once.
        floors: Per metric, the largest difference between the original replies and one repetition, over the repeated items.
    """

    n: int
    times: int
    changed: int
    rescored: int
    floors: Mapping[str, float]

    @property
    def flip_rate(self) -> float:
        """Share of items whose reply differed at least once."""
        return self.changed / self.n if self.n else 0.0


@dataclass(frozen=True)
class ModelResult:
    """Result of one model on one evalset.

    Attributes:
        model: Model name as typed by the user.
        evalset: Identity of the evalset.
        items: Scored items in the evalset's order, with the failures.
        metrics: One entry per metric of the task, the primary one first; empty when nothing was answered.
        groups: Slices, the largest first.
        seconds: Wall-clock generation time; None when any reply was stored. Not in the JSON.
        replies: Name of the file that holds the replies, if there is one.
        remembered: Number of replies from the reply cache. Not in the JSON, which does not depend on where replies come from.
        task: Name of the task.
        leak_check: Comparison with the training data; None when the training data are unknown.
        self_check: Repeatability check; None when it was not requested.
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
        """Requests without a reply; in no metric."""
        return self.items.failures

    @property
    def tally(self) -> Totals:
        """Totals over the items."""
        return self.items.figures.tally

    @property
    def errors(self) -> dict[str, int]:
        """Number of errors per error class, the most frequent first."""
        return dict(sorted(self.tally.errors.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def right(self) -> int:
        """Number of items without an error."""
        return self.tally.right

    @property
    def truncated(self) -> int:
        """Number of replies that reached the token limit."""
        return self.tally.truncated

    @property
    def cut_thinking(self) -> int:
        """Number of replies that were cut while the model thought: thoughts without an answer."""
        return self.tally.cut_thinking

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of all prompts."""
        return self.tally.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        """Number of tokens of all replies."""
        return self.tally.completion_tokens

    def items_of(self, ids: Collection[str]) -> list[Item]:
        """Return the items with the given ids, in the evalset's order."""
        return [self.items[place] for place, identity in enumerate(self.items.ids) if identity in ids]

    def metric(self, name: str) -> MetricResult:
        """Return the result of one metric.

        Raises:
            KeyError: When there is no metric of that name.
        """
        return named(self.metrics, name)

    def as_json(self) -> dict[str, Any]:
        """The result as stored in ``report.json``: everything but the replies, which have their own file."""
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
