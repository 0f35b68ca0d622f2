"""Score the replies of a chat on the engine threads, so that a slow scorer does not block the UI."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from sftchat.chat.context import ChatContext, View
from sftchat.chat.conversation import Answer
from sftchat.engine import Engine
from sftchat.errors import in_one_line
from sftchat.task import ReplyScore, Task, no_problems, primary_score, row_problems, score_reply
from sftchat.types import Example, Message, Reply


class ReplyScoring:
    """Scores replies and stores the scores in the conversation. Thread: UI.

    Args:
        chat: The chat.
        view: Shows the scores.

    Attributes:
        unfinished_count: Number of replies that are being scored.
    """

    def __init__(self, chat: ChatContext, view: View) -> None:
        self.unfinished_count = 0
        self._chat = chat
        self._view = view

    def score_all(self) -> None:
        """Score the answers at the head of the conversation, when the chat has a task."""
        scorer, conversation = self._chat.services.scorer, self._chat.conversation
        for pane, answer in enumerate(conversation.node(conversation.head).answers):
            self._chat.panes[pane].score = None
            if scorer is not None and not answer.aborted_without_text:
                self._score(scorer, pane, answer)

    def _score(self, scorer: GoldScorer, pane: int, answer: Answer) -> None:
        """Score one reply on the engine thread of its model."""
        conversation = self._chat.conversation
        node_id, messages = conversation.head, conversation.unanswered().seen_by(pane).messages

        def job(engine: Engine) -> None:
            try:
                score = scorer.score(messages, answer.reply)
            except Exception as error:  # a failing scorer must not end the chat
                self._view.post(partial(self._store, node_id, pane, answer, None, in_one_line(error)))
            else:
                self._view.post(partial(self._store, node_id, pane, answer, score))

        self.unfinished_count += 1
        self._chat.panes[pane].engine_thread.submit(job)

    def _store(self, node_id: int, pane: int, answer: Answer, score: ReplyScore | None, problem: str = "") -> None:
        """Store and show a score, or show the error in ``problem``; the conversation may have changed since the score was requested."""
        self.unfinished_count -= 1
        if problem:
            self._view.error(problem)
        conversation = self._chat.conversation
        answers = conversation.node(node_id).answers if node_id <= len(conversation.nodes) else ()
        if score is None or pane >= len(answers) or answers[pane].reply != answer.reply:
            return
        self._chat.conversation = conversation.with_answer(node_id, pane, replace(answers[pane], score=score))
        if conversation.head == node_id:
            self._chat.panes[pane].score = score
            self._view.show_score(score, pane)


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

    def find_item(self, messages: Sequence[Message]) -> Example | None:
        """Return the item whose messages, without the system prompt, are the last messages of the conversation.

        Args:
            messages: The conversation; ends with a user message.
        """
        chat_texts = _roles_and_texts(messages)
        for example in self._by_last_message.get(messages[-1]["content"].strip(), ()):
            item_texts = _roles_and_texts(example.messages)
            if chat_texts[-len(item_texts) :] == item_texts:
                return example
        return None

    def score(self, messages: Sequence[Message], reply: Reply) -> ReplyScore | None:
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
        example = self.find_item(messages)
        if example is not None:
            return primary_score(self.task, score_reply(self.task, example, reply))
        if self.task.validate_row is no_problems:
            return None
        problems = row_problems(self.task, Example(tuple(messages), reply.text, source="this reply"))
        return ReplyScore(self.task.metric.name, None, problems)

    @cached_property
    def _by_last_message(self) -> dict[str, list[Example]]:
        items: dict[str, list[Example]] = defaultdict(list)
        for example in self.examples:
            items[example.messages[-1]["content"].strip()].append(example)
        return items


def _roles_and_texts(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Return (role, stripped text) of each message, without the system prompt."""
    return [(message["role"], message["content"].strip()) for message in messages if message["role"] != "system"]
