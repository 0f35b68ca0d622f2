"""Widths, and breaking lines between clusters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.chat.render.width import Line, line_width, max_width, merge_styles, pad, text_of, text_width, wrap_line

TEXT = st.text(st.sampled_from("ab cd  中文，。한é１🙂👍🏽👨‍👩‍👧🇩🇪❤️e\u0301\u200b"), max_size=60)


@pytest.mark.parametrize(
    ("cluster", "apart", "most"), [("a", 1, 1), ("中", 2, 2), ("👨‍👩‍👧", 6, 6), ("❤️", 1, 2), ("🇩🇪", 4, 4), ("é", 1, 1), ("👍🏽", 4, 4)]
)
def test_the_width_of_a_cluster_is_the_largest_of_all_terminals(cluster: str, apart: int, most: int) -> None:
    assert (text_width(cluster), max_width(cluster)) == (apart, most)


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("one two three", 8, ["one two", "three"]),
        ("one two", 3, ["one", "two"]),
        ("abcdef", 4, ["abcd", "ef"]),
        ("中文字", 5, ["中文", "字"]),
        ("ab中文", 4, ["ab中", "文"]),
        ("中文ab", 5, ["中文", "ab"]),
        ("a  b", 2, ["a", "b"]),
        ("ab  ", 2, ["ab"]),
        ("  indented", 12, ["  indented"]),
        ("x👨‍👩‍👧y", 6, ["x", "👨‍👩‍👧", "y"]),
        ("中", 1, ["中"]),
        ("", 5, [""]),
    ],
)
def test_a_line_breaks_after_a_space_or_next_to_a_wide_character(text: str, columns: int, rows: list[str]) -> None:
    assert [text_of(row) for row in wrap_line([("", text)], columns)] == rows


@given(TEXT, st.integers(6, 30))
def test_no_row_is_too_wide_and_only_spaces_are_dropped(text: str, columns: int) -> None:
    rows = wrap_line([("", text)], columns)

    assert all(line_width(row) <= columns for row in rows)
    assert "".join(map(text_of, rows)).replace(" ", "") == text.replace(" ", "")
    assert rows[:-1] == [row for row in rows[:-1] if text_of(row)] or not text.strip()


@given(TEXT, TEXT, st.integers(6, 20))
def test_earlier_rows_do_not_change_when_the_line_grows(text: str, more: str, columns: int) -> None:
    before, after = wrap_line([("", text)], columns), wrap_line([("", text + more)], columns)

    assert after[: len(before) - 1] == before[:-1]


def test_styles_stay_with_their_characters() -> None:
    line: Line = [("bold", "中文"), ("", "ab cd")]

    assert wrap_line(line, 4) == [[("bold", "中文")], [("", "ab")], [("", "cd")]]
    assert merge_styles([("a", "x"), ("a", "y"), ("b", "z")]) == [("a", "xy"), ("b", "z")]


@pytest.mark.parametrize(("align", "padded"), [("left", "中   "), ("right", "   中"), ("center", " 中  ")])
def test_a_line_is_padded_to_a_width(align: str, padded: str) -> None:
    assert text_of(pad([("bold", "中")], 5, align)) == padded
    assert text_of(pad([("", "中文字")], 5, align)) == "中文字"
