"""A reply's Markdown, rendered line by line as it comes; nothing that was shown changes afterwards.

A line is rendered when it is complete, a table when it is. Lines stay lines: they are never joined into paragraphs, because the replies of
fine-tuned models are often one item a line. Letters and digits are shown as they were written, all of them, in their order.
"""

from __future__ import annotations

import re

from sftchat.chat.rendering.cells import Line, joined
from sftchat.chat.rendering.code import Code
from sftchat.chat.rendering.inline import inline
from sftchat.chat.rendering.tables import draw_table, is_delimiter, is_row

_FENCE = re.compile(r"(?P<indent> *)(?P<marks>`{3,}|~{3,})(?P<language>[^`]*)")
_HEADING = re.compile(r" {0,3}(?P<level>#{1,6})\s+(?P<text>.*?)(\s+#+)?\s*")
_BULLET = re.compile(r"(?P<indent>\s*)[-*+](?P<space>\s+)(?P<text>\S.*)")
_NUMBER = re.compile(r"(?P<number>\s*\d{1,4}[.)]\s+)(?P<text>\S.*)")
_QUOTE = re.compile(r" {0,3}(?P<marks>>(?: ?>)*) ?(?P<text>.*)")
_RULE = re.compile(r" {0,3}([-*_])( *\1){2,} *")
_HEADINGS = {1: "bold underline", 2: "bold"}


class Markdown:
    """Renders the lines of one reply."""

    def __init__(self) -> None:
        self._fence = ""
        self._code = Code("")
        self._table: list[str] = []

    @property
    def held(self) -> list[str]:
        """Lines, as written, that are not rendered yet because they may be, or are, an unfinished table."""
        return list(self._table)

    def feed(self, line: str, columns: int) -> list[Line]:
        """Take a complete line, without its newline, and return what can be shown now."""
        if self._fence:
            return [self._within(line)]
        if is_row(line) and (len(self._table) != 1 or is_delimiter(line)):
            self._table.append(line)
            return []
        drawn = self._end_table(columns)
        if is_row(line):  # the one before was no header; this may be
            self._table.append(line)
            return drawn
        return [*drawn, self._block(line, columns)]

    def end(self, columns: int) -> list[Line]:
        """The reply is over; what was held."""
        return self._end_table(columns)

    def _end_table(self, columns: int) -> list[Line]:
        """Draw the rows that were held: a table, or lines that only looked like one."""
        source, self._table = self._table, []
        if len(source) > 1:
            return draw_table(source, columns)
        return [inline(line) for line in source]

    def _within(self, line: str) -> Line:
        """A line within a block of code."""
        if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
            self._fence = ""
            return [("class:faint", line)]
        return self._code.feed(line)

    def _block(self, line: str, columns: int) -> Line:
        """A line of its own."""
        if found := _FENCE.fullmatch(line):
            self._fence = found["marks"]
            self._code = Code(found["language"])
            return [("class:faint", line)]
        if found := _HEADING.fullmatch(line):
            return inline(found["text"], _HEADINGS.get(len(found["level"]), "bold italic")) if found["text"] else [("", line)]
        if _RULE.fullmatch(line):
            return [("class:faint", "─" * min(columns, 40))]
        if found := _BULLET.fullmatch(line):
            return joined([("", found["indent"]), ("class:bullet", "•"), ("", found["space"]), *inline(found["text"])])
        if found := _NUMBER.fullmatch(line):
            return [("class:bullet", found["number"]), *inline(found["text"])]
        if found := _QUOTE.fullmatch(line):
            bars = "▌ " * found["marks"].count(">")
            return [("class:faint", bars), *inline(found["text"], "class:quote")]
        return inline(line)
