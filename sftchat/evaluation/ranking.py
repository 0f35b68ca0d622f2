"""Several checkpoints on one evalset: which is best, and which could as well be."""

from __future__ import annotations

from collections.abc import Sequence

from sftchat.evaluation.comparison import Ranked
from sftchat.evaluation.evaluate import compare
from sftchat.evaluation.results import ModelResult
from sftchat.models.references import step_of
from sftchat.task import Task


def rank(results: Sequence[ModelResult], task: Task, *, seed: int = 0) -> tuple[Ranked, ...]:
    """Order checkpoints by their step and say which are as good as the best.

    A checkpoint is tied with the best when the paired comparison of the primary metric does not call it worse: with few items many
    are. The best is chosen on the very items that it is compared on, so its own value is optimistic (the winner's curse): it takes other items
    to say how good it is.

    Args:
        results: Of one evalset, at least one with a metric.
        task: Names the primary metric.
        seed: Of the resampling.

    Returns:
        By step, those without a step first in the order given.

    Raises:
        NotComparableError: When two were not scored on the same items.
        ValueError: When no result has a metric.
    """
    scored = [result for result in results if result.metrics]
    if not scored:
        raise ValueError("no result has a metric to be ranked by")
    sign = 1.0 if task.metric.higher_is_better else -1.0
    ordered = sorted(results, key=lambda result: -1 if (step := step_of(result.model)) is None else step)
    best = max((result for result in ordered if result.metrics), key=lambda result: sign * result.metric(task.metric.name).value)
    return tuple(_ranked(result, best, task, seed) for result in ordered)


def _ranked(result: ModelResult, best: ModelResult, task: Task, seed: int) -> Ranked:
    """One checkpoint beside the best."""
    step = step_of(result.model)
    if result is best:
        return Ranked(result, step, best=True, tied=True)
    metrics = compare(best, result, task, seed=seed).metrics
    difference = next((metric for metric in metrics if metric.name == task.metric.name), None)
    return Ranked(result, step, best=False, tied=difference is not None and difference.judgement != "worse", difference=difference)
