"""A JSON array is read in pieces, and the positions of the cuts make no difference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json import JSONDecoder
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.data import arrays
from sftchat.data import read as reading
from sftchat.data.arrays import Refused, array_rows
from sftchat.data.read import iter_rows


def outcome(pieces: list[str]) -> list[Any]:
    """Return the rows, and the error at the end."""
    found: list[Any] = []
    try:
        found += array_rows(pieces, JSONDecoder())
    except Refused as error:
        found.append((str(error), error.line))
    return found


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
blanks = st.text(st.sampled_from(" \n\t"), max_size=2)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Strategy for arrays with blanks anywhere, sometimes broken."""
    parts = [
        draw(blanks) + json.dumps(value, ensure_ascii=draw(st.booleans())) + draw(blanks) for value in draw(st.lists(values, max_size=5))
    ]
    text = draw(blanks) + "[" + ",".join(parts) + "]" + draw(blanks)
    return text + draw(st.sampled_from(["", "", "x"])) if draw(st.booleans()) else text[: draw(st.integers(1, len(text)))]


@settings(database=None, deadline=None)
@given(texts().filter(lambda text: text.lstrip().startswith("[")), st.integers(1, 9))
def test_the_position_of_a_cut_in_an_array_makes_no_difference(text: str, size: int) -> None:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert outcome(pieces) == outcome([text])


def test_rows_are_yielded_before_the_end_is_read_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "FORGET", 100)
    read = 0

    def pieces() -> Iterator[str]:
        nonlocal read
        yield "["
        for read in range(1, 1000):
            yield f'{{"a": {read}}},\n{{"b": "好"}},'
        yield "{}]"

    rows = array_rows(pieces(), JSONDecoder())
    assert next(rows) == (1, 2, {"a": 1}, '{"a": 1}')
    assert read == 1
    everything = list(rows)
    assert (len(everything), everything[-2][:2], everything[-1][:3]) == (1998, (1000, 1), (1000, 12, {}))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_characters_and_lines_are_whole_whatever_the_size_of_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(reading, "PIECE", size)
    path = tmp_path / "f"
    path.write_bytes('[{"a": "好𝄞é"},\n{"b": 1}, {"c": "乙"}\n]\n'.encode())
    assert list(iter_rows(path)) == [(f"{path}:1", {"a": "好𝄞é"}), (f"{path}:2", {"b": 1}), (f"{path}:2:11", {"c": "乙"})]
    path.write_bytes('[{"a": "好"},\n\n{"b": "'.encode() + "甲".encode("gb18030") + b'"}]')
    *_, broken = map(str, iter_rows(path))
    assert broken == f"{path}:3: not UTF-8 at byte 23; convert it, such as with: iconv -f GB18030 -t UTF-8"
