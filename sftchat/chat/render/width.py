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


def line_width(line: Line) -> int:
    """Return the width of a line in cells, with joined emoji drawn separately."""
    return sum(text_width(text) for _, text in line)


def text_of(line: Line) -> str:
    """Return the text of a line."""
    return "".join(text for _, text in line)


def merge_styles(pairs: Iterable[tuple[str, str]]) -> Line:
    """Merge adjacent pairs of the same style; drop pairs without text."""
    line: Line = []
    for style, text in pairs:
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
    used = 0
    last_break = 0  # number of clusters of the row before the last place where it may be broken
    skipping_spaces = False
    for style, cluster in _styled_clusters(line):
        cluster_width = max_width(cluster)
        if row and used + cluster_width > columns:
            if cluster == " ":
                rows.append(_without_trailing_spaces(row))
                row, used, last_break, skipping_spaces = [], 0, 0, True
                continue
            # a wide character may begin a row, so no earlier break is needed before it
            cut = last_break if 0 < last_break < len(row) and cluster_width < 2 else len(row)
            rows.append(_without_trailing_spaces(row[:cut]))
            row = row[cut:]
            used, last_break = sum(max_width(text) for _, text in row), 0
        elif skipping_spaces and cluster == " ":
            continue
        skipping_spaces = False
        row.append((style, cluster))
        used += cluster_width
        if cluster == " " or cluster_width > 1:
            last_break = len(row)
    return [*rows, merge_styles(row)] if row or not rows else rows


def break_line(line: Line, columns: int) -> list[Line]:
    """Break a line into rows as a terminal does: between any clusters, and nothing is dropped."""
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
    padding = max(0, columns - line_width(line))
    before = {"left": 0, "right": padding, "center": padding // 2}[align]
    return merge_styles([("", " " * before), *line, ("", " " * (padding - before))])


def _styled_clusters(line: Line) -> Iterator[tuple[str, str]]:
    for style, text in line:
        for cluster in iter_graphemes(text):
            yield style, cluster


def _without_trailing_spaces(row: list[tuple[str, str]]) -> Line:
    end = len(row)
    while end > 1 and row[end - 1][1] == " ":
        end -= 1
    return merge_styles(row[:end])
