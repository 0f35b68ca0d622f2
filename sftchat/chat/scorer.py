"""Score the replies of a chat on the engine threads, so that a slow scorer does not block the UI."""

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
from sftchat.task import Task, metric_value, no_problems, row_problems, score_reply
from sftchat.types import Example, Message, Reply


class ReplyScoring:
    """Scores replies and stores the scores in the conversation. Thread: UI.

    Args:
        talk: The chat.
        view: Shows the scores.

    Attributes:
        under_way: Number of replies that are being scored.
    """

    def __init__(self, talk: ChatContext, view: View) -> None:
        self.under_way = 0
        self._talk = talk
        self._view = view

    def judge_all(self) -> None:
        """Score the answers at the head of the conversation, when the chat has a task."""
        judge, conversation = self._talk.desk.judge, self._talk.conversation
        for column, answer in enumerate(conversation.node(conversation.head).answers):
            self._talk.columns[column].mark = None
            if judge is not None and not answer.silent:
                self._judge(judge, column, answer)

    def _judge(self, judge: GoldScorer, column: int, answer: Answer) -> None:
        """Score one reply on the engine thread of its model."""
        conversation = self._talk.conversation
        id, messages = conversation.head, conversation.unanswered().seen_by(column).messages

        def job(engine: Engine) -> None:
            try:
                mark = judge.mark(messages, answer.reply)
            except Exception as error:  # a failing scorer must not end the chat
                self._view.post(partial(self._judged, id, column, answer, None, in_one_line(error)))
            else:
                self._view.post(partial(self._judged, id, column, answer, mark))

        self.under_way += 1
        self._talk.columns[column].worker.do(job)

    def _judged(self, id: int, column: int, answer: Answer, mark: Mark | None, problem: str = "") -> None:
        """Store and show a score; the conversation may have changed since it was requested."""
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
    """A task's scorer with an evalset.

    Args:
        task: The task.
        path: The evalset; by default the first of the task, if it has one.
    """

    def __init__(self, task: Task, path: Path | None = None) -> None:
        self.task = task
        self.path = path if path is not None else next(iter(task.evalsets.values()), None)

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """The evalset items, read on first use.

        Raises:
            DataError: When the file cannot be used.
        """
        from sftchat.evaluation.evalset import read_evalset

        return tuple(read_evalset(self.path).examples) if self.path is not None else ()

    def find(self, messages: Sequence[Message]) -> Example | None:
        """Return the item whose messages, without the system prompt, are the last messages of the conversation.

        Args:
            messages: The conversation; ends with a user message.
        """
        said = _said(messages)
        for example in self._by_question.get(said[-1][1], ()):
            asked = _said(example.messages)
            if said[-len(asked) :] == asked:
                return example
        return None

    def mark(self, messages: Sequence[Message], reply: Reply) -> Mark | None:
        """Score a reply.

        Args:
            messages: The conversation; ends with the user's message.
            reply: The reply to it.

        Returns:
            None when there is nothing to score: no gold reply, and the task has no format check.

        Raises:
            DataError: When the evalset cannot be used.
            PluginError: When the scorer fails.
        """
        metric = self.task.metric
        example = self.find(messages)
        if example is not None:
            score = score_reply(self.task, example, reply)
            return Mark(metric.name, metric_value(metric, score.stats), score.errors, score.answer)
        if self.task.validate_row is no_problems:
            return None
        return Mark(metric.name, None, row_problems(self.task, Example(tuple(messages), reply.text, source="this reply")))

    @cached_property
    def _by_question(self) -> dict[str, list[Example]]:
        """Index the items by their last message."""
        found: dict[str, list[Example]] = defaultdict(list)
        for example in self.examples:
            found[example.messages[-1]["content"].strip()].append(example)
        return found


def _said(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Roles and stripped texts, without the system prompt."""
    return [(message["role"], message["content"].strip()) for message in messages if message["role"] != "system"]
