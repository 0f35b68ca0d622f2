"""Text of a model never controls the terminal, and none of it is lost."""

from __future__ import annotations

import random
import threading

import pytest

from sftchat.chat.safe_text import ControlEscaper, LineBuffer, LineWriter, break_at_margin, escape_controls, wrap_words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("a\rb\x08\x7f\x00", "a␍b␈␡␀"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("abc\u202edef\u2066g\u2028h", "abc\\u202edef\\u2066g\\u2028h"),
        ("中文，。🙂👨‍👩‍👧 e\u0301\tx\n", "中文，。🙂👨‍👩‍👧 e\u0301\tx\n"),
    ],
)
def test_control_characters_become_symbols(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


def test_any_split_of_a_stream_gives_the_same_lines() -> None:
    text = "一\r\n二\r三\n\n\x1b[1m四\r\r\n tail\r"
    for seed in range(200):
        chance = random.Random(seed)
        cuts = sorted(chance.sample(range(len(text) + 1), chance.randint(0, 8)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        printable, lines = ControlEscaper(), LineBuffer()

        streamed = "".join(map(printable.feed, pieces)) + printable.end()
        completed = [lines.feed(piece) for piece in pieces]

        assert streamed == "一\n二␍三\n\n␛[1m四␍\n tail␍", pieces
        assert all(part == "" or part.endswith("\n") for part in completed)
        assert "".join(completed) + lines.end() == streamed + "\n"
        assert (lines.tail, lines.end()) == ("", "")


def test_rows_break_where_a_terminal_breaks() -> None:
    def width(character: str) -> int:
        return 2 if character in "甲乙丙🙂" else 1

    assert break_at_margin("甲乙丙", 5, width) == ["甲乙", "丙"]
    assert break_at_margin("abcdef", 3, width) == ["abc", "def"]
    assert break_at_margin("a甲b", 3, width) == ["a甲", "b"]
    assert break_at_margin("甲", 1, width) == ["甲"]
    assert break_at_margin("", 3, width) == [""]


def test_our_own_lines_break_between_words() -> None:
    assert wrap_words("one two three", 8, len) == ["one two", "three"]
    assert wrap_words("  /x  does this and that", 15, len) == ["  /x  does this", "      and that"]
    assert wrap_words("  /long [ARGUMENT]  does this", 20, len) == ["  /long [ARGUMENT]", "    does this"]
    assert wrap_words("  error here now", 12, len) == ["  error here", "  now"]
    assert wrap_words("  indented", 80, len) == ["  indented"]
    assert wrap_words("", 8, len) == [""]
    assert wrap_words("muchtoolong", 4, len) == ["muchtoolong"]


def test_output_of_a_library_is_shown_and_of_its_progress_bars_only_the_end() -> None:
    lines: list[str] = []
    writer = LineWriter(lines.append)

    thread = threading.Thread(target=print, args=("warning: old\n\nhalf",), kwargs={"file": writer, "end": ""})
    thread.start()
    thread.join()
    assert lines == ["warning: old"]

    print(" a line\r 10%\r 99%\r100%", file=writer)
    assert lines == ["warning: old", "100%"]
