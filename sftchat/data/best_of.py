"""The best of several replies by a task's own scorer: rows to train on, and pairs of best and worst for preference training.

Only what the model said competes. The gold reply is what the scorer compares with and never among the candidates, so that no row teaches what
the model cannot say; rejection sampling (Yuan et al. 2023, "Scaling relationship on learning mathematical reasoning"), and best-of-n distillation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sftchat.data.sampling import Samples
from sftchat.errors import DataError
from sftchat.task import Task, judge, reward
from sftchat.types import Example, Message, Reply


@dataclass(frozen=True)
class Judged:
    """A prompt, and what each of its samples is worth.

    Attributes:
        example: The prompt with its gold.
        replies: What the model said.
        rewards: The task's primary metric of each reply alone, more being better.
    """

    example: Example
    replies: tuple[Reply, ...]
    rewards: tuple[float, ...]

    @property
    def mean(self) -> float:
        """How well the model does on the prompt."""
        return sum(self.rewards) / len(self.rewards)

    @property
    def best(self) -> int | None:
        """The place of the best reply that came to its own end, the first of equals; None where none did."""
        ended = [place for place, reply in enumerate(self.replies) if reply.finish_reason == "stop" and reply.text.strip()]
        return max(ended, key=lambda place: (self.rewards[place], -place), default=None)

    @property
    def worst(self) -> int:
        """The place of the worst reply, the first of equals."""
        return min(range(len(self.rewards)), key=lambda place: (self.rewards[place], place))


def check_prompts(examples: Iterable[Example]) -> Iterator[Example]:
    """Refuse rows that could not be asked or scored.

    Raises:
        DataError: Names the row.
    """
    for example in examples:
        if not example.messages:
            raise DataError("the row is a text without a prompt to be answered", example.source)
        if example.gold is None:
            raise DataError("the row has no gold reply to score samples against; add one, or use 'sftchat data distill'", example.source)
        yield example


def judged(task: Task, examples: Iterable[Example], samples: Samples, k: int) -> Iterator[Judged]:
    """Score the samples of every prompt; one without any is left out.

    Args:
        task: Its scorer and primary metric are the reward.
        examples: Prompts with gold.
        samples: What the model said.
        k: Samples of a prompt that count, the first ones.

    Raises:
        PluginError: When the scorer or the metric breaks its contract.
    """
    for example in examples:
        replies = tuple(samples.of(example.messages)[:k])
        if replies:
            yield Judged(example, replies, tuple(reward(task, judge(task, example, reply)) for reply in replies))


@dataclass(frozen=True)
class Choice:
    """What came of a prompt.

    Attributes:
        fate: ``kept``, ``solved`` (it teaches nothing any more), or ``nothing good``.
        row: The prompt with the best reply as its gold; only when kept.
        pair: A row of ``prompt``, ``chosen`` and ``rejected`` as TRL reads it; only where best and worst differ.
    """

    fate: str
    row: Example | None = None
    pair: Mapping[str, Any] | None = None


FATES = ("kept", "solved", "nothing good")


def choose(found: Judged, *, solved: float | None = None, least: float | None = None) -> Choice:
    """Make a row and a pair of a prompt's samples.

    Args:
        found: The samples and what they are worth.
        solved: Mean reward from which on the prompt is solved and left out; None leaves none out.
        least: Reward that the best reply must reach; None asks for more than 0.
    """
    if solved is not None and found.mean >= solved:
        return Choice("solved")
    place = found.best
    if place is None or (found.rewards[place] <= 0 if least is None else found.rewards[place] < least):
        return Choice("nothing good")
    best = found.rewards[place]
    told = {"reward": round(best, 6), "mean": round(found.mean, 6), "k": len(found.replies)}
    row = replace(found.example, gold=found.replies[place].text, metadata={**found.example.metadata, "best_of": told})
    worst = found.rewards[found.worst]
    pair = None
    if worst < best:
        pair = {
            **({"id": found.example.id} if found.example.id else {}),
            "prompt": [dict(turn) for turn in found.example.messages],
            "chosen": [Message(role="assistant", content=found.replies[place].text)],
            "rejected": [Message(role="assistant", content=found.replies[found.worst].text)],
            "score_chosen": round(best, 6),
            "score_rejected": round(worst, 6),
        }
    return Choice("kept", row, pair)


def worth(task: Task, samples: Samples | None, example: Example) -> float:
    """The mean reward of a model's samples to a row, or without any samples the reward of the row's own reply, which a sound row gets in full.

    Raises:
        DataError: The row has no reply, or no sample of its prompt is there.
        PluginError: When the scorer or the metric breaks its contract.
    """
    if example.gold is None:
        raise DataError("the row has no gold reply to be scored", example.source)
    replies = [Reply(example.gold)] if samples is None else samples.of(example.messages)
    if samples is not None and not replies:
        raise DataError(f"no sample of this prompt is in {samples.path}", example.source)
    return sum(reward(task, judge(task, example, reply)) for reply in replies) / len(replies)
