"""Marks under the replies of a talk: judged in the workers, so that a slow scorer is in nobody's way, and put where they belong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from sftchat.chat.context import ChatContext
from sftchat.chat.conversation import Answer, Mark
from sftchat.chat.view import View
from sftchat.engine import Engine
from sftchat.errors import in_one_line
from sftchat.task import Task, judge, metric_value, no_problems, problems_of
from sftchat.types import Example, Message, Reply


class ReplyScoring:
    """Has replies judged and keeps their marks. Its methods run on the view's thread.

    Args:
        talk: Whose replies.
        view: Shows the marks.

    Attributes:
        under_way: How many replies are being judged.
    """

    def __init__(self, talk: ChatContext, view: View) -> None:
        self.under_way = 0
        self._talk = talk
        self._view = view

    def judge_all(self) -> None:
        """Have the answers at the head of the talk judged, where the talk has a task."""
        judge, conversation = self._talk.desk.judge, self._talk.conversation
        for column, answer in enumerate(conversation.node(conversation.head).answers):
            self._talk.columns[column].mark = None
            if judge is not None and not answer.silent:
                self._judge(judge, column, answer)

    def _judge(self, judge: GoldScorer, column: int, answer: Answer) -> None:
        """Have one reply judged in the worker of its model."""
        conversation = self._talk.conversation
        id, messages = conversation.head, conversation.unanswered().seen_by(column).messages

        def job(engine: Engine) -> None:
            try:
                mark = judge.mark(messages, answer.reply)
            except Exception as error:  # a scorer that fails costs a mark, never the conversation
                self._view.post(partial(self._judged, id, column, answer, None, in_one_line(error)))
            else:
                self._view.post(partial(self._judged, id, column, answer, mark))

        self.under_way += 1
        self._talk.columns[column].worker.do(job)

    def _judged(self, id: int, column: int, answer: Answer, mark: Mark | None, problem: str = "") -> None:
        """A mark came; the talk may be another by now."""
        self.under_way -= 1
        if problem:
            self._view.complain(problem)
        conversation = self._talk.conversation
        answers = conversation.node(id).answers if id <= len(conversation.nodes) else ()
        if mark is None or column >= len(answers) or answers[column].reply != answer.reply:
            return
        self._talk.conversation = conversation.changed(id, column, replace(answers[column], mark=mark))
        if conversation.head == id:
            self._talk.columns[column].mark = mark
            self._view.show_mark(mark, column)


class GoldScorer:
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
