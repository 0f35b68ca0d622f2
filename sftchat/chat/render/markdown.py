"""Markdown rendering of streamed lines, with code highlighted by Pygments."""

from __future__ import annotations

import re
from typing import Any

from sftchat.chat.render.inline import inline
from sftchat.chat.render.tables import draw_table, is_delimiter, is_row
from sftchat.chat.render.width import Line, joined

LINES = 400
"""Maximum highlighted lines of a code block; each line is lexed with all lines before it."""

_STYLES = {"Keyword": "keyword", "String": "string", "Comment": "comment", "Number": "number", "Function": "name", "Class": "name"}


class Code:
    """A code block that is highlighted line by line.

    Args:
        language: Info string of the fence; unknown languages are not highlighted.
    """

    def __init__(self, language: str) -> None:
        self._lexer = _lexer(language)
        self._source = ""
        self._count = 0

    def feed(self, line: str) -> Line:
        """Return the next line, highlighted."""
        self._count += 1
        if self._lexer is None or self._count > LINES:
            return [("", line)] if line else []
        self._source += line + "\n"
        last: list[tuple[str, str]] = []
        for token, text in self._lexer.get_tokens(self._source):
            *before, rest = text.split("\n")
            if before:
                finished, last = [*last, (_style(token), before[-1])] if len(before) == 1 else [(_style(token), before[-1])], []
            last.append((_style(token), rest))
        styled = joined([pair for pair in finished if pair[1]])
        return styled if "".join(text for _, text in styled) == line else [("", line)] if line else []


def _lexer(language: str) -> Any:
    """Return the Pygments lexer of a language; None when there is none."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    words = language.split()
    try:
        return get_lexer_by_name(words[0].strip("{}.").lower(), stripnl=False, ensurenl=False) if words else None
    except ClassNotFound:
        return None


def _style(token: Any) -> str:
    """Return the style of a token type or its nearest styled ancestor."""
    for part in reversed(token):
        if part in _STYLES:
            return f"class:code.{_STYLES[part]}"
    return ""


_FENCE = re.compile(r"(?P<indent> *)(?P<marks>`{3,}|~{3,})(?P<language>[^`]*)")
_HEADING = re.compile(r" {0,3}(?P<level>#{1,6})\s+(?P<text>.*?)(\s+#+)?\s*")
_BULLET = re.compile(r"(?P<indent>\s*)[-*+](?P<space>\s+)(?P<text>\S.*)")
_NUMBER = re.compile(r"(?P<number>\s*\d{1,4}[.)]\s+)(?P<text>\S.*)")
_QUOTE = re.compile(r" {0,3}(?P<marks>>(?: ?>)*) ?(?P<text>.*)")
_RULE = re.compile(r" {0,3}([-*_])( *\1){2,} *")
_HEADINGS = {1: "bold underline", 2: "bold"}


class Markdown:
    """Renders the lines of one reply as Markdown."""

    def __init__(self) -> None:
        self._fence = ""
        self._code = Code("")
        self._table: list[str] = []

    @property
    def held(self) -> list[str]:
        """Source lines that are not rendered yet because they are, or may be, an unfinished table."""
        return list(self._table)

    def feed(self, line: str, columns: int) -> list[Line]:
        """Add a complete line, without its newline, and return the lines that can be shown."""
        if self._fence:
            return [self._within(line)]
        if is_row(line) and (len(self._table) != 1 or is_delimiter(line)):
            self._table.append(line)
            return []
        drawn = self._end_table(columns)
        if is_row(line):  # the previous line was not a table header; this one may be
            self._table.append(line)
            return drawn
        return [*drawn, self._block(line, columns)]

    def end(self, columns: int) -> list[Line]:
        """Finish the reply and return the remaining lines."""
        return self._end_table(columns)

    def _end_table(self, columns: int) -> list[Line]:
        """Render the held lines: as a table, or as ordinary lines."""
        source, self._table = self._table, []
        if len(source) > 1:
            return draw_table(source, columns)
        return [inline(line) for line in source]

    def _within(self, line: str) -> Line:
        """Render a line of a code block."""
        if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
            self._fence = ""
            return [("class:faint", line)]
        return self._code.feed(line)

    def _block(self, line: str, columns: int) -> Line:
        """Render a line outside code blocks."""
        if match := _FENCE.fullmatch(line):
            self._fence = match["marks"]
            self._code = Code(match["language"])
            return [("class:faint", line)]
        if match := _HEADING.fullmatch(line):
            return inline(match["text"], _HEADINGS.get(len(match["level"]), "bold italic")) if match["text"] else [("", line)]
        if _RULE.fullmatch(line):
            return [("class:faint", "─" * min(columns, 40))]
        if match := _BULLET.fullmatch(line):
            return joined([("", match["indent"]), ("class:bullet", "•"), ("", match["space"]), *inline(match["text"])])
        if match := _NUMBER.fullmatch(line):
            return [("class:bullet", match["number"]), *inline(match["text"])]
        if match := _QUOTE.fullmatch(line):
            bars = "▌ " * match["marks"].count(">")
            return [("class:faint", bars), *inline(match["text"], "class:quote")]
        return inline(line)
