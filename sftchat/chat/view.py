"""Interface between the chat controller and its views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sftchat.chat.context import Fragments
from sftchat.chat.conversation import ReplyScore


class View(Protocol):
    """A view: shows a chat on a terminal or writes it to a pipe. All methods except ``post`` run on the UI thread."""

    def post(self, action: Callable[[], None]) -> None:
        """Run an action on the UI thread; callable from any thread, does nothing after the view has ended."""

    def show_typed(self, text: str) -> None:
        """Show a typed line when it is processed."""

    def begin_reply(self, pane: int, said: str) -> None:
        """Begin the reply of a pane; ``said`` is the existing text of a continued reply and is not sent again as pieces."""

    def show_piece(self, text: str, pane: int) -> None:
        """Show more text of a pane's reply."""

    def show_thoughts(self, text: str, pane: int) -> None:
        """Show thoughts of a pane's model; they are not part of the reply, and may be hidden."""

    def text_was_thoughts(self, pane: int) -> None:
        """Treat the reply shown so far as thoughts: a closing tag came without an opening one."""

    def end_reply(self, pane: int) -> None:
        """End the reply of a pane, for any reason; called once for each ``begin_reply``."""

    def show_score(self, score: ReplyScore, pane: int) -> None:
        """Show the score of a pane's last reply, after its end."""

    def info(self, text: str | Fragments) -> None:
        """Show lines that are not from a model."""

    def error(self, text: str) -> None:
        """Show a one-line error."""

    def prefill_input(self, text: str) -> bool:
        """Put text into the input line for the user to edit and send; False when there is no input line."""

    def leave(self, error: Exception | None) -> None:
        """End the view; with an error, a model could not be loaded."""
