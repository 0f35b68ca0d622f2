"""What the items of a result add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sftchat.evaluation.run import Item
from sftchat.thinking import only_thoughts

T = TypeVar("T", int, float)


@dataclass
class Totals:
    """Sums over items; items can be added.

    Attributes:
        right: Items without any fault.
        truncated: Replies that ran into the token limit.
        cut_thinking: Replies that were cut while the model thought: thoughts and no answer.
        prompt_tokens: Tokens of all prompts.
        completion_tokens: Tokens of all replies.
        errors: How many faults of each class.
        groups: The counts of every slice, summed.
        occurrences: In how many items every slice occurs.
    """

    right: int = 0
    truncated: int = 0
    cut_thinking: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    occurrences: dict[str, int] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        """Count one item."""
        reply, score = item.reply, item.score
        self.right += not score.errors
        self.truncated += reply.finish_reason == "length"
        self.cut_thinking += only_thoughts(reply)
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        for name in score.errors:
            self.errors[name] = self.errors.get(name, 0) + 1
        for name, stats in score.groups.items():
            self.occurrences[name] = self.occurrences.get(name, 0) + 1
            _add(self.groups.setdefault(name, {}), stats)


def _add(total: dict[str, T], more: Mapping[str, T]) -> None:
    """Add counts to those of the same name."""
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
