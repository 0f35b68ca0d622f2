"""Replies that stream side by side: every row once, in order, whatever the pieces and the widths."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.chat.render.columns import Side, first_difference, rows_across, side_rows
from sftchat.chat.render.side_by_side import SideBySide
from sftchat.chat.render.width import Line, text_of

TEXTS = st.text(st.sampled_from("ab \n中文，🙂"), max_size=80)


def stream(texts: list[str], columns: int, seed: int, narrower: int | None = None) -> list[Line]:
    """Return the lines written for texts in random interleaved pieces; the width of the terminal may change meanwhile."""
    chance = random.Random(seed)
    beside = SideBySide([f"m{number}" for number in range(len(texts))])
    left = list(texts)
    going = set(range(len(texts)))
    lines: list[Line] = []
    while any(left):
        column = chance.choice([number for number, text in enumerate(left) if text])
        size = chance.randint(1, 9)
        beside.feed(column, left[column][:size])
        left[column] = left[column][size:]
        if not left[column] and chance.random() < 0.5:
            beside.end(column)
            going.remove(column)
        if narrower is not None and sum(map(len, left)) * 2 < sum(map(len, texts)):
            columns = narrower
        lines += beside.lines(columns)
    for column in going:
        beside.end(column)
    lines += beside.lines(columns)
    assert beside.tail(9) == []
    return lines


def cells_of(lines: list[Line], columns: int) -> list[str]:
    """Return the text of each column, without spaces, separators and end marks."""
    found = [""] * columns
    for line in lines:
        for at, cell in enumerate(text_of([pair for pair in line if pair[0] != "[ZeroWidthEscape]"]).split(" │ ")):
            found[at] += cell
    return ["".join(cell.split()).replace("∎", "").replace("⏎", "").replace("␣", "") for cell in found]


@given(st.lists(TEXTS, min_size=2, max_size=3), st.integers(24, 50), st.integers(0, 99))
def test_streamed_rows_equal_the_final_rendering(texts: list[str], columns: int, seed: int) -> None:
    size = (columns - 3 * (len(texts) - 1)) // len(texts)
    sides = [Side(text.removesuffix("\n")) for text in texts]  # a final line feed adds no row
    whole = rows_across([side_rows(side, size, first_difference(sides)) for side in sides])

    lines = stream(texts, columns, seed)

    assert len(lines) == 1 + len(whole)
    assert cells_of(lines[1:], len(texts)) == ["".join(text.split()) for text in texts]
    if not any(text.endswith("\n") for text in texts):
        assert sum(style == "class:difference" for line in lines for style, _ in line) == len(texts) * (first_difference(sides) is not None)


@given(st.lists(TEXTS, min_size=2, max_size=3), st.integers(20, 60), st.integers(20, 60), st.integers(0, 99))
def test_a_resize_in_mid_reply_loses_nothing_and_repeats_nothing(texts: list[str], columns: int, narrower: int, seed: int) -> None:
    lines = stream(texts, columns, seed, narrower)

    assert cells_of(lines[1:], len(texts)) == ["".join(text.split()) for text in texts]


@pytest.mark.parametrize("shown", [True, False])
def test_thoughts_are_compared_only_when_they_are_shown(shown: bool) -> None:
    beside = SideBySide(["a", "b"], show_thoughts=shown)
    beside.feed(0, "<think>hm</think>same\ttext")
    beside.feed(1, "same\x1b[2Jtext\r\n")
    beside.end(0)
    beside.end(1)

    assert cells_of(beside.lines(60)[1:], 2) == ["hmsametext" if shown else "sametext", "same␛[2Jtext"]


def test_only_the_tail_of_the_rendering_may_change() -> None:
    beside = SideBySide(["a", "b"])
    beside.feed(0, "\n".join(map(str, range(9))))
    beside.feed(1, "0\n1")

    assert [text_of(line)[:1] for line in beside.lines(60)] == ["a", "0"]
    assert [text_of(line)[0] for line in beside.tail(3)] == ["6", "7", "8"]


def test_thoughts_that_the_prompt_opened_end_at_the_closing_tag() -> None:
    beside = SideBySide(["a", "b"], thinking=[True, True])
    beside.feed(0, "hm</think>yes")
    beside.feed(1, "yes")
    beside.end(0)
    beside.end(1)

    assert cells_of(beside.lines(60)[1:], 2) == ["yes", "yes"]


@pytest.mark.parametrize(("shows", "drawn"), [(False, False), (False, True), (True, False)])
def test_text_that_becomes_thoughts_is_removed_unless_it_is_shown_or_already_in_the_scrollback(shows: bool, drawn: bool) -> None:
    beside = SideBySide(["a", "b"], show_thoughts=shows)
    beside.feed(0, "hm\nso\n")
    beside.feed(1, "yes\nno\n")
    lines = beside.lines(60) if drawn else []
    beside.retract(0)
    beside.feed(0, "yes")
    for column in (0, 1):
        beside.end(column)
    lines += beside.lines(60)

    assert cells_of(lines[1:], 2) == ["hmso(thoughtsuptohere)yes" if shows or drawn else "yes", "yesno"]
