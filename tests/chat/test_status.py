"""The status line on terminals of any width."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sftchat.chat.render.width import text_width
from sftchat.chat.ui.status import StatusItem, status_line

ITEMS = [
    StatusItem("模型-a", 1),
    StatusItem("ready", 0),
    StatusItem("", 2),
    StatusItem("812/2048 tokens", 2, "812/2048"),
    StatusItem("31.0 tokens/s", 3, "31/s"),
]


def test_the_least_important_items_are_left_out_first() -> None:
    assert status_line(ITEMS, 80) == "模型-a · ready · 812/2048 tokens · 31.0 tokens/s"
    assert status_line(ITEMS, 42) == "模型-a · ready · 812/2048 tokens · 31/s"
    assert status_line(ITEMS, 34) == "模型-a · ready · 812/2048 · 31/s"
    assert status_line(ITEMS, 26) == "模型-a · ready · 812/2048"
    assert status_line(ITEMS, 16) == "模型-a · ready"
    assert status_line(ITEMS, 6) == "ready"
    assert status_line(ITEMS, 4) == "rea…"
    assert status_line([], 4) == ""


@given(st.lists(st.tuples(st.text(max_size=20), st.integers(0, 5), st.text(max_size=5)), max_size=6), st.integers(1, 60))
def test_the_status_line_is_never_too_wide(items: list[tuple[str, int, str]], columns: int) -> None:
    line = status_line([StatusItem(*item) for item in items], columns)

    assert text_width(line) <= columns
    assert "\n" not in line
