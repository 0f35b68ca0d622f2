"""Where the top of the prompt is after the terminal was made narrower.

Many terminals then break rows that have become too long into several, and the cursor moves down with them. prompt_toolkit goes up as many rows
as it drew, and what was above stays behind as stale copies. Asking the terminal where the cursor is would not say how it got there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sftchat.chat.lines import rows

_MARKS = (
    "VTE_VERSION",
    "TMUX",
    "KITTY_WINDOW_ID",
    "WEZTERM_PANE",
    "ALACRITTY_WINDOW_ID",
    "WT_SESSION",
    "KONSOLE_VERSION",
    "GHOSTTY_RESOURCES_DIR",
)
_PROGRAMS = ("iTerm.app", "Apple_Terminal", "WezTerm", "vscode", "ghostty", "tmux", "rio", "WarpTerminal", "Hyper")
_TERMS = ("tmux", "xterm-kitty", "alacritty", "foot", "xterm-ghostty", "wezterm", "contour", "rio")


def breaks_rows(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is known to break rows when it is made narrower; where that is not sure, no: a stale copy is better than a line
    of the scrollback erased."""
    if "STY" in environment:  # GNU screen, whatever it runs in
        return False
    return (
        any(name in environment for name in _MARKS)
        or environment.get("TERM_PROGRAM") in _PROGRAMS
        or environment.get("TERM", "").startswith(_TERMS)
    )


def row_of_cursor(drawn: Sequence[str], row: int, column: int, columns: int, width: Callable[[str], int]) -> int:
    """The row, counted from the top of what was drawn, in which the cursor is after the terminal broke the rows.

    Args:
        drawn: The rows as they were drawn, without the blanks at their ends.
        row: Where the cursor was.
        column: Where the cursor was, in cells.
        columns: The new width.
        width: How many cells a character takes.
    """
    above = sum(len(rows(text, columns, width)) for text in drawn[:row])
    return above + max(0, column - 1) // columns
