"""Markdown rendering of streamed lines, with code highlighted by Pygments.

Less counts as markup than in CommonMark: ``__init__``, ``2**3``, ``a*b*c``, ``\\(x\\)`` and ``<tag>`` are plain text in model replies. But a
closing ``**`` may stand between a Chinese full stop and the next word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sftchat.chat.render.tables import draw_table
from sftchat.chat.render.width import Line, merge_styles, text_of

MAX_HIGHLIGHTED_LINES = 400
"""Maximum highlighted lines of a code block; each line is lexed with all lines before it."""

_STYLES = {"Keyword": "keyword", "String": "string", "Comment": "comment", "Number": "number", "Function": "name", "Class": "name"}


class CodeBlock:
    """A code block that is highlighted line by line.

    Args:
        language: Info string of the fence; unknown languages are not highlighted.
    """

    def __init__(self, language: str) -> None:
        self._lexer = _find_lexer(language)
        self._source = ""
        self._count = 0

    def feed(self, line: str) -> Line:
        """Return the next line, highlighted."""
        self._count += 1
        if self._lexer is None or self._count > MAX_HIGHLIGHTED_LINES:
            return [("", line)] if line else []
        self._source += line + "\n"
        last_line: list[tuple[str, str]] = []
        current: list[tuple[str, str]] = []
        for token_type, text in self._lexer.get_tokens(self._source):
            for piece in re.split(r"(\n)", text):
                if piece == "\n":
                    last_line, current = current, []
                else:
                    current.append((_style_of(token_type), piece))
        styled = merge_styles(last_line)
        if text_of(styled) == line:
            return styled
        return [("", line)] if line else []  # the lexer changed the text


def _find_lexer(language: str) -> Any:
    """Return the Pygments lexer of a language; None when there is none."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    words = language.split()
    try:
        return get_lexer_by_name(words[0].strip("{}.").lower(), stripnl=False, ensurenl=False) if words else None
    except ClassNotFound:
        return None


def _style_of(token: Any) -> str:
    """Return the style of a token type or its nearest styled ancestor."""
    for part in reversed(token):
        if part in _STYLES:
            return f"class:code.{_STYLES[part]}"
    return ""


# each matches a complete line
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
        self._fence = ""  # the opening fence of the current code block; empty outside
        self._code = CodeBlock("")
        self._table: list[str] = []

    @property
    def pending_lines(self) -> list[str]:
        """Source lines that are not rendered yet because they are, or may be, an unfinished table."""
        return list(self._table)

    def feed(self, line: str, columns: int) -> list[Line]:
        """Add a complete line, without its newline, and return the lines that can be shown."""
        if self._fence:
            return [self._render_code_line(line)]
        if _is_row(line) and (len(self._table) != 1 or _is_delimiter(line)):
            self._table.append(line)
            return []
        table = self._end_table(columns)
        if _is_row(line):  # the previous line was not a table header; this one may be
            self._table.append(line)
            return table
        return [*table, self._render_line(line, columns)]

    def end(self, columns: int) -> list[Line]:
        """Finish the reply and return the remaining lines."""
        return self._end_table(columns)

    def _end_table(self, columns: int) -> list[Line]:
        """Render the pending lines: several as a table, a single one as text."""
        source, self._table = self._table, []
        if len(source) > 1:
            return _render_table(source, columns)
        return [inline(line) for line in source]

    def _render_code_line(self, line: str) -> Line:
        marks = line.strip()
        if marks.startswith(self._fence) and not marks.strip(self._fence[0]):  # a closing fence is at least as long as the opening one
            self._fence = ""
            return [("class:faint", line)]
        return self._code.feed(line)

    def _render_line(self, line: str, columns: int) -> Line:
        if match := _FENCE.fullmatch(line):
            self._fence = match["marks"]
            self._code = CodeBlock(match["language"])
            return [("class:faint", line)]
        if match := _HEADING.fullmatch(line):
            return inline(match["text"], _HEADINGS.get(len(match["level"]), "bold italic")) if match["text"] else [("", line)]
        if _RULE.fullmatch(line):
            return [("class:faint", "─" * min(columns, 40))]
        if match := _BULLET.fullmatch(line):
            return merge_styles([("", match["indent"]), ("class:bullet", "•"), ("", match["space"]), *inline(match["text"])])
        if match := _NUMBER.fullmatch(line):
            return [("class:bullet", match["number"]), *inline(match["text"])]
        if match := _QUOTE.fullmatch(line):
            bars = "▌ " * match["marks"].count(">")
            return [("class:faint", bars), *inline(match["text"], "class:quote")]
        return inline(line)


_DELIMITER = re.compile(r"\s{0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")
_CELL_TOKEN = re.compile(r"`[^`]*`|\\.|.")


def _is_row(line: str) -> bool:
    """Return whether a line may be a table row: only with a leading bar, so that prose is never taken for a table."""
    return re.match(r" {0,3}\|.*\S", line) is not None


def _is_delimiter(line: str) -> bool:
    """Return whether a line is the delimiter below a table header."""
    return _is_row(line) and "-" in line and _DELIMITER.fullmatch(line) is not None


def _render_table(source: list[str], columns: int) -> list[Line]:
    """Render header, delimiter and rows of a table; return the source lines when it does not fit or a row has more cells than the header."""
    header, delimiter, *body = [_split_cells(line) for line in source]
    table = None
    if len(delimiter) == len(header) and all(len(row) <= len(header) for row in body):
        rows = [[inline(cell, "bold") for cell in header]]
        for row in body:
            missing_cells: list[Line] = [[] for _ in header[len(row) :]]
            rows.append([inline(cell) for cell in row] + missing_cells)
        table = draw_table(rows, [_alignment_of(cell) for cell in delimiter], columns)
    return table if table is not None else [[("", line)] for line in source]


def _split_cells(line: str) -> list[str]:
    """Split a row into cells; ``\\|`` and bars within code are text."""
    cells = [""]
    for token in _CELL_TOKEN.findall(line.strip().removeprefix("|")):
        if token == "|":
            cells.append("")
        else:
            cells[-1] += "|" if token == "\\|" else token
    if len(cells) > 1 and not cells[-1].strip():  # after the closing bar
        cells.pop()
    return [cell.strip() for cell in cells]


def _alignment_of(cell: str) -> str:
    """Return the alignment that a delimiter cell specifies."""
    if cell.endswith(":"):
        return "center" if cell.startswith(":") else "right"
    return "left"


# Inline code, strong, strong emphasis, emphasis, struck text, or a link. Markers of emphasis count only next to the text that they enclose, not
# inside a word, and not escaped. Limited lengths bound the time of a search.
_SPAN = re.compile(
    r"(?P<ticks>(?<!`)`{1,3}(?!`))(?P<code>[^`\n]{1,2000}?)(?P=ticks)(?!`)"
    r"|(?<![A-Za-z0-9*\\])\*\*(?=[^\s*])(?P<strong>.{1,2000}?)(?<=[^\s*\\])\*\*(?![A-Za-z0-9*])"
    r"|(?<![A-Za-z0-9*\\])\*\*\*(?=[^\s*])(?P<both>[^*]{1,2000}?)(?<=[^\s\\])\*\*\*(?![A-Za-z0-9*])"
    r"|(?<![A-Za-z0-9*\\])\*(?=[^\s*])(?P<emphasis>[^*]{1,2000}?)(?<=[^\s\\])\*(?![A-Za-z0-9*])"
    r"|(?<![A-Za-z0-9~\\])~~(?=[^\s~])(?P<struck>[^~]{1,2000}?)(?<=[^\s\\])~~(?![A-Za-z0-9~])"
    r"|(?<![\\!\]])\[(?P<label>[^\[\]]{1,500})\]\((?P<url>[a-z]+://[^()\s]{1,1000})\)"
)
_SPAN_STYLES = {"strong": "bold", "both": "bold italic", "emphasis": "italic", "struck": "strike"}


def inline(text: str, style: str = "") -> Line:
    """Style emphasis, code and links of a line and remove their markers.

    Args:
        text: One line or a part of it.
        style: Base style of the line.
    """
    return merge_styles(_split_spans(text, style))


def _split_spans(text: str, style: str) -> Iterator[tuple[str, str]]:
    """Split a text into styled pieces, recursively within emphasis."""
    last_end = 0
    for match in _SPAN.finditer(text):
        if match.start() > last_end:
            yield style, text[last_end : match.start()]
        last_end = match.end()
        if match["code"] is not None:
            yield f"{style} class:code".strip(), match["code"]
        elif match["url"] is not None:
            yield f"{style} class:link".strip(), match["label"]
            yield f"{style} class:faint".strip(), f" ({match['url']})"
        else:
            assert match.lastgroup is not None
            yield from _split_spans(match[match.lastgroup], f"{style} {_SPAN_STYLES[match.lastgroup]}".strip())
    if last_end < len(text):
        yield style, text[last_end:]
