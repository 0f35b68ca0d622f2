"""Marks under the replies of a talk: judged in the workers, so that a slow scorer is in nobody's way, and put where they belong."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from sftchat.chat.conversation import Answer, Mark
from sftchat.chat.judging import Judge
from sftchat.chat.view import View
from sftchat.commands import ChatContext
from sftchat.engines.base import Engine
from sftchat.errors import in_one_line


class Marking:
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

    def _judge(self, judge: Judge, column: int, answer: Answer) -> None:
        """Have one reply judged in the worker of its model."""
        conversation = self._talk.conversation
        id, messages = conversation.head, conversation.unanswered().seen_by(column).messages

        def job(engine: Engine) -> None:
            try:
                mark = judge.mark(messages, answer.reply)
            except Exception as error:  # a scorer that fails costs a mark, never the talk
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
