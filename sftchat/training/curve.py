"""The task's own metric over the steps of a training: which step is best, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Curve:
    """Scores by step; step 0 is the base model.

    Attributes:
        metric: The primary metric, which decides.
        higher_is_better: False for error rates.
        scores: Every metric of the task by step.
    """

    metric: str
    higher_is_better: bool = True
    scores: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def add(self, step: int, values: Mapping[str, float]) -> Curve:
        """The curve with one step more; a step that is scored again, as after a resumption, is replaced."""
        return replace(self, scores={**self.scores, step: dict(values)})

    def value(self, step: int) -> float:
        """The primary metric at a step."""
        return self.scores[step][self.metric]

    @property
    def trained(self) -> tuple[int, ...]:
        """The steps scored after the base model, in order."""
        return tuple(sorted(step for step in self.scores if step > 0))

    @property
    def best(self) -> int | None:
        """The best of the trained steps, the earliest of those that tie; None before the first."""
        sign = 1 if self.higher_is_better else -1
        return max(self.trained, key=lambda step: (sign * self.value(step), -step), default=None)

    @property
    def helped(self) -> bool:
        """Whether the best step is better than the base model; so where there is nothing to compare."""
        if self.best is None or 0 not in self.scores:
            return True
        return (self.value(self.best) > self.value(0)) == self.higher_is_better and self.value(self.best) != self.value(0)

    def stalled(self, patience: int) -> bool:
        """Whether the last ``patience`` scorings brought nothing better; never with a patience of 0."""
        since = sum(step > (self.best or 0) for step in self.trained)
        return patience > 0 and since >= patience

    def as_manifest(self) -> dict[str, dict[str, float]]:
        """The scores as a manifest holds them: steps as text, in order."""
        return {str(step): dict(self.scores[step]) for step in sorted(self.scores)}


def read_curve(metric: str, higher_is_better: bool, scores: Mapping[str, Mapping[str, float]]) -> Curve:
    """The curve of a manifest."""
    return Curve(metric, higher_is_better, {int(step): dict(values) for step, values in scores.items()})
