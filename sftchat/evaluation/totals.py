"""Totals over the items of a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from sftchat.evaluation.run import Item
from sftchat.thinking import only_thoughts

T = TypeVar("T", int, float)


@dataclass
class Totals:
    """Sums over items, updated item by item.

    Attributes:
        right: Number of items without an error.
        truncated: Number of replies that reached the token limit.
        cut_thinking: Number of replies that were cut while the model thought: thoughts without an answer.
        prompt_tokens: Number of tokens of all prompts.
        completion_tokens: Number of tokens of all replies.
        errors: Number of errors per error class.
        groups: Summed counts per slice.
        occurrences: Number of items per slice.
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
        """Add one item."""
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
    """Add values by key, in place."""
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
