"""Best-of-n sampling with a task's scorer: training rows, and preference pairs of best and worst reply.

Candidates are the model's own samples only; the gold reply is the reference of the scorer. Method: rejection sampling (Yuan et al. 2023,
"Scaling relationship on learning mathematical reasoning") and best-of-n distillation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sftchat.data.samples import SampleFile
from sftchat.errors import DataError
from sftchat.task import Task, reward, score_reply
from sftchat.types import Example, Message, Reply


@dataclass(frozen=True)
class ScoredSamples:
    """A prompt with its samples and their rewards.

    Attributes:
        example: The prompt with its gold reply.
        replies: The samples.
        rewards: The task's primary metric of each reply alone, negated if needed so that higher is better.
    """

    example: Example
    replies: tuple[Reply, ...]
    rewards: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean reward of the samples."""
        return sum(self.rewards) / len(self.rewards)

    @property
    def best(self) -> int | None:
        """Index of the best complete reply (the first of equals); None when no reply is complete."""
        complete = [index for index, reply in enumerate(self.replies) if reply.finish_reason == "stop" and reply.text.strip()]
        return max(complete, key=self.rewards.__getitem__, default=None)

    @property
    def worst(self) -> int:
        """Index of the worst reply (the first of equals)."""
        return min(range(len(self.rewards)), key=self.rewards.__getitem__)


def check_prompts(examples: Iterable[Example]) -> Iterator[Example]:
    """Yield the examples after checking that each has a prompt and can be scored.

    Raises:
        DataError: When a row has no prompt or no gold reply.
    """
    for example in examples:
        if not example.messages:
            raise DataError("the row is a text without a prompt to be answered", example.source)
        if example.gold is None:
            raise DataError("the row has no gold reply to score samples against; add one, or use 'sftchat data distill'", example.source)
        yield example


def score_samples(task: Task, examples: Iterable[Example], samples: SampleFile, k: int) -> Iterator[ScoredSamples]:
    """Score the samples of each prompt; prompts without samples are skipped.

    Args:
        task: Its scorer and primary metric give the reward.
        examples: Prompts with gold replies.
        samples: The samples.
        k: Number of samples per prompt to use, from the first.

    Raises:
        PluginError: When the scorer or the metric breaks its contract.
    """
    for example in examples:
        replies = tuple(samples.replies_to(example.messages)[:k])
        if replies:
            yield ScoredSamples(example, replies, tuple(reward(task, score_reply(task, example, reply)) for reply in replies))


@dataclass(frozen=True)
class Selection:
    """Outcome for a prompt.

    Attributes:
        outcome: ``kept``, ``solved`` (the model's replies are good already), or ``nothing good``.
        row: The prompt with the best reply as gold; only when kept.
        pair: A row with ``prompt``, ``chosen`` and ``rejected`` in TRL's format; only when best and worst reward differ.
    """

    outcome: str
    row: Example | None = None
    pair: Mapping[str, Any] | None = None


OUTCOMES = ("kept", "solved", "nothing good")


def select(samples: ScoredSamples, *, solved: float | None = None, min_reward: float | None = None) -> Selection:
    """Select a training row and a preference pair from a prompt's samples.

    Args:
        samples: The samples with rewards.
        solved: Mean reward at or above which the prompt counts as solved and is left out; None for never.
        min_reward: Minimum reward of the best reply; None for any reward above 0.
    """
    if solved is not None and samples.mean >= solved:
        return Selection("solved")
    if samples.best is None:
        return Selection("nothing good")
    best_text, best_reward = samples.replies[samples.best].text, samples.rewards[samples.best]
    is_too_low = best_reward <= 0 if min_reward is None else best_reward < min_reward
    if is_too_low:
        return Selection("nothing good")
    example = samples.example
    summary = {"reward": round(best_reward, 6), "mean": round(samples.mean, 6), "k": len(samples.replies)}
    row = replace(example, gold=best_text, metadata={**example.metadata, "best_of": summary})
    worst_text, worst_reward = samples.replies[samples.worst].text, samples.rewards[samples.worst]
    pair = None
    if worst_reward < best_reward:
        pair = {
            **({"id": example.id} if example.id else {}),
            "prompt": [dict(turn) for turn in example.messages],
            "chosen": [Message(role="assistant", content=best_text)],
            "rejected": [Message(role="assistant", content=worst_text)],
            "score_chosen": round(best_reward, 6),
            "score_rejected": round(worst_reward, 6),
        }
    return Selection("kept", row, pair)


def mean_reward(task: Task, samples: SampleFile | None, example: Example) -> float:
    """Return the mean reward of a model's samples for a row; without samples, that of its gold reply (the maximum for a correct row).

    Raises:
        DataError: When the row has no reply, or its prompt has no sample.
        PluginError: When the scorer or the metric breaks its contract.
    """
    if example.gold is None:
        raise DataError("the row has no gold reply to be scored", example.source)
    replies = [Reply(example.gold)] if samples is None else samples.replies_to(example.messages)
    if samples is not None and not replies:
        raise DataError(f"no sample of this prompt is in {samples.path}", example.source)
    return sum(reward(task, score_reply(task, example, reply)) for reply in replies) / len(replies)
