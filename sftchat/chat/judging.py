"""The task's scorer in the talk: what it thinks of a reply, against the gold where the question is one of its evalset's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from sftchat.chat.conversation import Mark
from sftchat.task import Task, judge, metric_value, no_problems, problems_of
from sftchat.types import Example, Message, Reply


class Judge:
    """A task's scorer with a gold set.

    Args:
        task: Scores.
        path: The gold set; the task's first one by default, none where it has none.
    """

    def __init__(self, task: Task, path: Path | None = None) -> None:
        self.task = task
        self.path = path if path is not None else next(iter(task.evalsets.values()), None)

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """The items of the gold set, read at the first use.

        Raises:
            DataError: When the file cannot be used.
        """
        from sftchat.evaluation.evalset import read_evalset

        return tuple(read_evalset(self.path).examples) if self.path is not None else ()

    def find(self, messages: Sequence[Message]) -> Example | None:
        """The item that a talk asks: its turns, the system prompt aside, are the last of the talk's.

        Args:
            messages: The talk; ends with the user's.
        """
        said = _said(messages)
        for example in self._by_question.get(said[-1][1], ()):
            asked = _said(example.messages)
            if said[-len(asked) :] == asked:
                return example
        return None

    def mark(self, messages: Sequence[Message], reply: Reply) -> Mark | None:
        """Judge a reply.

        Args:
            messages: What was asked; ends with the user's message.
            reply: What was answered.

        Returns:
            None where nothing can be said: no gold, and the task has no opinion on the form.

        Raises:
            DataError: When the gold set cannot be used.
            PluginError: When the scorer fails.
        """
        metric = self.task.metric
        example = self.find(messages)
        if example is not None:
            score = judge(self.task, example, reply)
            return Mark(metric.name, metric_value(metric, score.stats), score.errors, score.answer)
        if self.task.problems is no_problems:
            return None
        return Mark(metric.name, None, problems_of(self.task, Example(tuple(messages), reply.text, source="this reply")))

    @cached_property
    def _by_question(self) -> dict[str, list[Example]]:
        """The items by their last message."""
        found: dict[str, list[Example]] = defaultdict(list)
        for example in self.examples:
            found[example.messages[-1]["content"].strip()].append(example)
        return found


def _said(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Roles and texts without the system prompt and the blanks around."""
    return [(message["role"], message["content"].strip()) for message in messages if message["role"] != "system"]
