"""Input line: completion, history, long pastes, external editor."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.lexers import Lexer

from sftchat.chat.controller import ChatController
from sftchat.chat.safe_text import escape_controls
from sftchat.errors import UsageError


class CommandCompleter(Completer):
    """Completes commands, their arguments, and paths.

    Args:
        chat: The chat whose commands are completed.
    """

    def __init__(self, chat: ChatController) -> None:
        self._chat = chat

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return completions for the menu."""
        for completion in self._chat.commands.complete(self._chat, document.text_before_cursor):
            display = escape_controls(completion.text).replace("\n", "␊").replace("\t", "␉")
            yield Completion(completion.text, -completion.length, display=display, display_meta=escape_controls(completion.summary))


def edit_text(text: str) -> str:
    """Edit a text in ``$VISUAL``, ``$EDITOR`` or another available editor; blocks until it is closed.

    Raises:
        UsageError: When there is no editor, or it failed.
    """
    import click

    try:
        edited = click.edit(text, extension=".md", require_save=False)
    except click.ClickException as error:
        command, _, reason = error.message.partition(": ")
        raise UsageError(f"editor '{command}' failed: {reason.removeprefix('Editing failed: ')}; set VISUAL or EDITOR") from None
    return (edited or "").removesuffix("\n")


class _TolerantHistory(FileHistory):
    """History file that ignores I/O errors, such as a full disk or a read-only home."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


def open_history(path: Path | None) -> History:
    """Open the history file, readable by its owner only; without a path, or when the file cannot be written, the history is kept in memory."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return _TolerantHistory(str(path))


PLACEHOLDER_LINES, PLACEHOLDER_CHARACTERS = 8, 1000
"""A paste of at least so many lines or characters is shown as a placeholder."""


class Pasted:
    """Long pastes in the input, each shown as a placeholder."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}  # by placeholder

    def shorten(self, text: str) -> str:
        """Return the text to insert for a paste: the paste, or a placeholder when it is long."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = len(text.removesuffix("\n").split("\n"))
        if lines < PLACEHOLDER_LINES and len(text) < PLACEHOLDER_CHARACTERS:
            return text
        size = f"{lines} lines" if lines >= PLACEHOLDER_LINES else f"{len(text)} characters"
        number = sum(placeholder.startswith(f"[pasted {size}") for placeholder in self._texts) + 1
        placeholder = f"[pasted {size}]" if number == 1 else f"[pasted {size}, {number}]"
        self._texts[placeholder] = text
        return placeholder

    def expand(self, text: str) -> str:
        """Replace the placeholders in a text by the pastes."""
        pattern = self._pattern()
        return pattern.sub(lambda match: self._texts[match[0]], text) if pattern is not None else text

    def length_before_cursor(self, document: Document) -> int:
        """Return the length of the placeholder that ends at the cursor; 0 when there is none."""
        text = document.text_before_cursor
        return next((len(placeholder) for placeholder in self._texts if text.endswith(placeholder)), 0)

    def clear(self) -> None:
        """Forget all pastes, after the input was sent or discarded."""
        self._texts.clear()

    def split(self, line: str) -> StyleAndTextTuples:
        """Split a line into text and styled placeholders."""
        pattern = self._pattern()
        if pattern is None:
            return [("", line)]
        fragments: StyleAndTextTuples = []
        last_end = 0
        for match in pattern.finditer(line):
            fragments += [("", line[last_end : match.start()]), ("class:pasted", match[0])]
            last_end = match.end()
        return [*fragments, ("", line[last_end:])]

    def _pattern(self) -> re.Pattern[str] | None:
        """Return a pattern that matches each placeholder; None when there are none."""
        return re.compile("|".join(map(re.escape, self._texts))) if self._texts else None


class PastedLexer(Lexer):
    """Styles placeholders in the input."""

    def __init__(self, pasted: Pasted) -> None:
        self._pasted = pasted

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Return a function that styles one line."""
        lines = document.lines
        return lambda number: self._pasted.split(lines[number]) if number < len(lines) else []
