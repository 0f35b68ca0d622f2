"""What a talk wants of whatever shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sftchat.chat.context import Fragments
from sftchat.chat.conversation import Mark


class View(Protocol):
    """What shows a talk to a person or to a pipe."""

    def post(self, action: Callable[[], None]) -> None:
        """Have an action run on the view's thread; called from any thread, harmless after the view is gone."""

    def show_typed(self, text: str) -> None:
        """A line the user typed has its turn."""

    def begin_reply(self, column: int, said: str) -> None:
        """A column begins to reply; what it has said already is not empty when a reply is continued, and not among the pieces."""

    def show_piece(self, text: str, column: int) -> None:
        """The reply of a column goes on."""

    def show_thoughts(self, text: str, column: int) -> None:
        """The model of a column thinks; thoughts are no part of its reply, and shown where the user wants them."""

    def show_late_thoughts(self, column: int) -> None:
        """What was shown of the reply of a column are thoughts: their end tag came, without an opening one."""

    def end_reply(self, column: int) -> None:
        """The reply of a column is over, for whatever reason; every ``begin_reply`` has one."""

    def show_mark(self, mark: Mark, column: int) -> None:
        """What the task thinks of a column's last reply became known, after its end."""

    def say(self, text: str | Fragments) -> None:
        """Show lines that are not the model's."""

    def complain(self, text: str) -> None:
        """Show that something went wrong, in one line."""

    def propose(self, text: str) -> bool:
        """Put text into the input line for the user to change and send; False where there is no input line."""

    def leave(self, error: Exception | None) -> None:
        """End the view; with an error, a model could not be loaded."""
