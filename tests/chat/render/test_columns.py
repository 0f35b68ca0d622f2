"""Replies side by side: the rule never moves, nothing is lost, the first difference is marked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.chat.render.columns import (
    Side,
    clip,
    column_widths,
    count_final_rows,
    first_difference,
    heading_row,
    join_columns,
    rows_across,
    side_rows,
)
from sftchat.chat.render.width import Line, line_width, text_of

TEXTS = st.text(st.sampled_from("ab \n中文，👨‍👩‍👧🇩🇪e\u0301"), max_size=60)


def marked(rows: list[Line]) -> list[str]:
    return [text for row in rows for style, text in row if style == "class:difference"]


@pytest.mark.parametrize(
    ("count", "columns", "widths"),
    [(2, 99, [48, 48]), (2, 98, None), (2, 200, [98, 98]), (3, 200, [64, 64, 64]), (3, 120, None), (1, 200, None)],
)
def test_columns_are_side_by_side_where_the_terminal_is_wide_enough(count: int, columns: int, widths: list[int] | None) -> None:
    assert column_widths(count, columns) == widths


@pytest.mark.parametrize(
    ("sides", "at"),
    [
        ([Side("abc"), Side("abd")], 2),
        ([Side("abc"), Side("abc")], None),
        ([Side("abc"), Side("ab")], 2),
        ([Side(""), Side("a")], 0),
        ([Side("abc", done=False), Side("ab")], 2),
        ([Side("abc"), Side("ab", done=False)], None),
        ([Side("abx", done=False), Side("abc")], None),  # both may still get an accent, but x is not c
        ([Side("abxy", done=False), Side("abc")], 2),
        ([Side("ae\u0301"), Side("ae")], 1),
        ([Side("👨‍👩‍👧"), Side("👨‍👩‍👦")], 0),
        ([Side("abc"), Side("abc"), Side("axc")], 1),
        ([Side("abc"), Side("abd"), Side("a", done=False)], None),
        ([], None),
    ],
)
def test_the_first_difference_is_reported_as_soon_as_it_is_certain(sides: list[Side], at: int | None) -> None:
    assert first_difference(sides) == at


def test_the_difference_is_marked_in_each_column() -> None:
    sides = [Side("甲-乙:师徒"), Side("甲-乙:父子\n丙"), Side("甲-乙:")]
    at = first_difference(sides)

    assert at == 4
    assert [marked(side_rows(side, 20, at)) for side in sides] == [["师"], ["父"], ["∎"]]
    assert marked(side_rows(Side("a\nb"), 20, 1)) == ["⏎"]
    assert marked(side_rows(Side("a", done=False), 20, 1)) == []


@given(st.lists(TEXTS, min_size=2, max_size=3), st.integers(6, 12))
def test_the_separator_keeps_its_position_and_no_text_is_lost(texts: list[str], size: int) -> None:
    sides = [Side(text) for text in texts]
    widths = [size] * len(sides)
    drawn = [side_rows(side, size, first_difference(sides)) for side in sides]

    for row in rows_across(drawn):
        line = text_of(join_columns(row, widths))
        before = ""
        for cell in row[:-1]:
            before += text_of(cell) + " " * (size - line_width(cell))
            assert line.startswith(before + " │ ")
            assert line_width([("", before)]) % (size + 3) == size
            before += " │ "
    for text, rows in zip(texts, drawn, strict=True):
        seen = "".join(map(text_of, rows)).replace("⏎", "").replace("∎", "").replace("␣", "")
        assert "".join(seen.split()) == "".join(text.split())


@given(st.lists(TEXTS, min_size=2, max_size=3), st.integers(6, 12), st.data())
def test_completed_rows_do_not_change(texts: list[str], size: int, data: st.DataObject) -> None:
    lengths = [data.draw(st.integers(0, len(text))) for text in texts]
    early = [
        Side(text[:length], done=length == len(text) and data.draw(st.booleans())) for text, length in zip(texts, lengths, strict=True)
    ]
    late = [Side(text) for text in texts]
    drawn = [[side_rows(side, size, first_difference(sides)) for side in sides] for sides in (early, late)]
    done = count_final_rows(early, drawn[0])

    assert rows_across(drawn[0], 0, done) == rows_across(drawn[1], 0, done)


def test_a_row_can_position_its_separators_with_escape_sequences() -> None:
    row: list[Line] = [[("", "👨‍👩‍👧")], [("bold", "b")], []]

    assert join_columns(row, [8, 3, 3], anchored=True) == [
        ("", "👨‍👩‍👧  "),
        ("[ZeroWidthEscape]", "\x1b[9G"),
        ("class:faint", " │ "),
        ("bold", "b"),
        ("", "  "),
        ("[ZeroWidthEscape]", "\x1b[15G"),
        ("class:faint", " │ "),
    ]


def test_names_are_cut_to_their_column_and_escaped() -> None:
    assert heading_row(["a\x1b[2Jb", "很长的名字"], [20, 5]) == [[("bold", "a␛[2Jb")], [("bold", "很长…")]]
    assert clip("abc", 0) == ""
    assert clip("a\nb", 3) == "a b"
