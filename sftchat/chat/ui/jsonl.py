"""JSON Lines view of a chat, for programs: one JSON object per line in and out.

In: ``{"message": TEXT}``, a message or a command with its slash; an ``id`` is repeated in all objects that result from the line.
Out, by ``type``:

- ``reply``: ``model``, ``adapter``, ``reply``, ``finish_reason`` (stop, length, cancelled, error), ``prompt_tokens``, ``completion_tokens``,
  ``first_token_seconds``, ``seconds``, and, if present, ``thoughts`` and ``refused``; one for each model;
- ``mark``: ``model``, ``metric``, ``value`` (null without gold), ``errors``, ``answer``: the score of a reply;
- ``note``: ``text``, output of a command;
- ``error``: ``error``, one line; the chat continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.chat.context import Fragments
from sftchat.chat.ui.plain import Plain
from sftchat.task import ReplyScore
from sftchat.text import sanitize_json
from sftchat.thinking import separate_thoughts, with_opening_tag


class JsonLines(Plain):
    """Shows a chat as JSON Lines; a ``View``."""

    _id: Any = None  # that of the last input line

    def _submit_line(self, line: str) -> None:
        if not line.strip():
            return
        self._id = None
        try:
            row = load_json(line)
        except ValueError as error:
            self.error(f"the line is not JSON: {error}")
            return
        self._id = row.get("id") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(row.get("message"), str):
            self.error('the line must be an object with a text "message", such as {"message": "hello"}')
        elif unknown := sorted(row.keys() - {"message", "id"}):
            self.error(f"unknown field '{unknown[0]}' in the line, there are: id, message")
        else:
            self.chat.submit(row["message"])

    def show_piece(self, text: str, pane: int) -> None:
        """Do nothing: replies are written when complete."""

    def text_was_thoughts(self, pane: int, more_thoughts: str) -> None:
        """Do nothing: replies are written when complete."""

    def end_reply(self, pane: int) -> None:
        """Write the replies when all are complete."""
        self._running.discard(pane)
        if self._running:
            return
        for index in self._replies:
            answer = self.chat.conversation.node(self.chat.conversation.head).answers[index]
            reply = answer.reply
            if self._splitters.pop(index, None) is not None:
                reply = separate_thoughts(replace(reply, text=with_opening_tag(reply.text, reply.finish_reason)))
            self._write_object(
                "reply",
                model=answer.model,
                adapter=answer.adapter,
                reply=reply.text,
                finish_reason=reply.finish_reason,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                first_token_seconds=round(answer.first_token_seconds, 4),
                seconds=round(answer.seconds, 4),
                **({"thoughts": reply.thoughts} if reply.thoughts else {}),
                **({"refused": True} if reply.refused else {}),
            )
        self._replies = {}

    def show_score(self, score: ReplyScore, pane: int) -> None:
        """Write the score of a reply."""
        model = self.chat.panes[pane].name
        self._write_object("mark", model=model, metric=score.metric, value=score.value, errors=list(score.errors), answer=score.answer)

    def info(self, text: str | Fragments) -> None:
        """Write a note."""
        self._write_object("note", text=text if isinstance(text, str) else "".join(piece for _, piece in text))

    def error(self, text: str) -> None:
        """Write an error and count it."""
        self.failures += 1
        self._write_object("error", error=" ".join(text.split()))

    def _write_object(self, type: str, **fields: Any) -> None:
        row: Mapping[str, Any] = {"type": type, **({} if self._id is None else {"id": self._id}), **fields}
        self._write(sanitize_json(json.dumps(row, ensure_ascii=False)) + "\n")
