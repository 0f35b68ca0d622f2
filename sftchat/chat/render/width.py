"""Width of text on a terminal, and line breaking.

Terminals differ for joined emoji: some draw a family in two cells, others draw each member. A grapheme cluster is never split and is given
the largest width that a terminal may need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

from wcwidth import iter_graphemes, wcswidth, wcwidth

Line: TypeAlias = list[tuple[str, str]]
"""One line without its newline, as (style, text) pairs; style names as in prompt_toolkit."""


def text_width(text: str) -> int:
    """Return the width of a text in cells when each character is drawn separately, as prompt_toolkit counts."""
    return sum(max(0, wcwidth(character)) for character in text)


@lru_cache(maxsize=4096)
def max_width(cluster: str) -> int:
    """Return the largest width of a grapheme cluster in cells on any terminal."""
    return max(text_width(cluster), wcswidth(cluster))


def width(line: Line) -> int:
    """Return the width of a line in cells, with joined emoji drawn separately."""
    return sum(text_width(text) for _, text in line)


def text_of(line: Line) -> str:
    """Return the text of a line."""
    return "".join(text for _, text in line)


def merge_styles(clusters: Iterable[tuple[str, str]]) -> Line:
    """Merge adjacent pairs of the same style; drop pairs without text."""
    line: Line = []
    for style, text in clusters:
        if not text:
            continue
        if line and line[-1][0] == style:
            line[-1] = (style, line[-1][1] + text)
        else:
            line.append((style, text))
    return line


def wrap_line(line: Line, columns: int) -> list[Line]:
    """Break a line into rows of at most ``columns`` cells: after a space or next to a wide character if possible, otherwise between
    clusters.

    Only spaces at a break are dropped. When text is appended, only the last row changes.

    Args:
        line: One line; control characters escaped, tabs expanded.
        columns: At least 1. A wider cluster gets its own row.
    """
    rows: list[Line] = []
    row: list[tuple[str, str]] = []
    used, broken_at = 0, 0
    for style, cluster in _styled_clusters(line):
        size = max_width(cluster)
        if row and used + size > columns:
            if cluster == " ":
                rows.append(_without_trailing_spaces(row))
                row, used, broken_at = [], 0, -1
                continue
            cut = broken_at if 0 < broken_at < len(row) and size < 2 else len(row)
            rows.append(_without_trailing_spaces(row[:cut]))
            row = row[cut:]
            used, broken_at = sum(max_width(text) for _, text in row), 0
        elif broken_at < 0:  # further spaces at a break
            if cluster == " ":
                continue
            broken_at = 0
        row.append((style, cluster))
        used += size
        if cluster == " " or size > 1:
            broken_at = len(row)
    return [*rows, merge_styles(row)] if row or not rows else rows


def break_line(line: Line, columns: int) -> list[Line]:
    """Break a line into rows as a terminal does, between any clusters; nothing is dropped, and no terminal breaks the rows again."""
    rows: list[Line] = []
    row: list[tuple[str, str]] = []
    used = 0
    for style, cluster in _styled_clusters([(style, text.expandtabs(8)) for style, text in line]):
        if row and used + max_width(cluster) > columns:
            rows.append(merge_styles(row))
            row, used = [], 0
        row.append((style, cluster))
        used += max_width(cluster)
    return [*rows, merge_styles(row)]


def pad(line: Line, columns: int, align: str = "left") -> Line:
    """Pad a line with spaces to a width; ``align`` is left, right or center."""
    free = max(0, columns - width(line))
    before = {"left": 0, "right": free, "center": free // 2}[align]
    return merge_styles([("", " " * before), *line, ("", " " * (free - before))])


def _styled_clusters(line: Line) -> Iterator[tuple[str, str]]:
    for style, text in line:
        for cluster in iter_graphemes(text):
            yield style, cluster


def _without_trailing_spaces(row: list[tuple[str, str]]) -> Line:
    end = len(row)
    while end > 1 and row[end - 1][1] == " ":
        end -= 1
    return merge_styles(row[:end])
