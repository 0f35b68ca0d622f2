"""Completion of commands, of their values, and of paths."""

from __future__ import annotations

from collections.abc import Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from sftchat.chat.lines import visible
from sftchat.chat.talk import Talk


class CommandCompleter(Completer):
    """Completes what the commands know how to complete.

    Args:
        talk: Whose commands.
    """

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The ways to go on, as the menu shows them."""
        for found in self._talk.commands.complete(self._talk, document.text_before_cursor):
            shown = visible(found.text).replace("\n", "␊").replace("\t", "␉")
            yield Completion(found.text, -found.length, display=shown, display_meta=visible(found.summary))
