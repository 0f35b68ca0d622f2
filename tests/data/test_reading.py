"""Every kind of invalid file of rows, with its error message."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import DataError
from sftchat.data.check import check
from sftchat.data.read import iter_rows, line_of, read_rows

GIVE = "give one JSON object a line (JSONL) or one JSON array of objects, in UTF-8"
DEEP = "lists and objects lie more than 100 deep in one another; flatten the row"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(content: bytes) -> list[object]:
    """Return the rows of a file with that content, with errors as text."""
    Path("f").write_bytes(content)
    return [str(row) if isinstance(row, DataError) else row for row in iter_rows("f")]


def refusal(path: str = "f", content: bytes | None = None) -> str:
    """Return the error message of reading a file to the end."""
    if content is not None:
        Path(path).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    return str(caught.value)


def test_lines_become_rows_with_line_numbers_and_blank_lines_are_counted() -> None:
    assert rows(b'{"a": 1}\n\n \t\r\n{"a": "\xe7\x94\xb2"}\r\n{}') == [("f:1", {"a": 1}), ("f:4", {"a": "甲"}), ("f:5", {})]


def test_a_byte_order_mark_is_not_part_of_the_first_row() -> None:
    assert rows(b'\xef\xbb\xbf{"a": 1}\n') == [("f:1", {"a": 1})]
    assert rows(b'\xef\xbb\xbf[{"a": 1}]') == [("f:1", {"a": 1})]


def test_unicode_line_separators_inside_a_text_do_not_end_a_row() -> None:
    row = {"a": "one\u2028two\u2029three\x85four"}
    assert rows(json.dumps(row, ensure_ascii=False).encode()) == [("f:1", row)]


def test_rows_of_an_array_are_found_at_the_line_where_they_begin() -> None:
    assert rows(b'\n[\n  {"a": 1},\n  {\n    "a": 2\n  }, {"a": 3}\n]\n') == [("f:3", {"a": 1}), ("f:4", {"a": 2}), ("f:6", {"a": 3})]


def test_rows_of_an_array_on_one_line_are_distinguished_by_column() -> None:
    assert rows(b'[{"a": 1}, {"a": 2}]') == [("f:1", {"a": 1}), ("f:1:12", {"a": 2})]


def test_line_of_splits_off_the_file() -> None:
    assert [line_of(source) for source in ("C:/a.jsonl:7", "f:1:12", "f", "")] == ["7", "1:12", "", ""]


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1}\n')))
    assert list(read_rows("-")) == [("stdin:1", {"a": 1})]


def test_a_pipe_is_read_like_a_file() -> None:
    end, start = os.pipe()
    os.write(start, b'[{"a": 1}]')
    os.close(start)
    assert list(read_rows(f"/dev/fd/{end}")) == [(f"/dev/fd/{end}:1", {"a": 1})]
    os.close(end)


def test_a_missing_file_is_refused_with_the_nearest_name() -> None:
    Path("train.jsonl").write_text("{}")
    assert refusal("trian.jsonl") == "trian.jsonl: no such file; did you mean 'train.jsonl'?"
    assert refusal("zzz") == "zzz: no such file in folder '.'"
    assert refusal("no/train.jsonl") == "no/train.jsonl: no such file: there is no folder 'no'"


def test_a_folder_is_refused_with_a_file_in_it() -> None:
    Path("full").mkdir()
    Path("full/b.jsonl").write_text("{}")
    Path("full/a.txt").write_text("")
    Path("void").mkdir()
    assert refusal("full") == "full: is a folder; give a file, such as 'full/b.jsonl'"
    assert refusal("void") == "void: is a folder without a file of rows in it; give a file"


def test_a_name_that_the_system_refuses_is_refused_with_the_systems_message() -> None:
    assert refusal("a\0b") == "'a\\x00b': cannot be opened: embedded null byte"
    assert refusal("x" * 300) == "x" * 300 + ": cannot be opened: file name too long"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(content: bytes) -> None:
    assert refusal(content=content) == f"f: the file is empty; {GIVE}"


def test_blank_files_and_empty_arrays_are_refused() -> None:
    assert refusal(content=b"\n \n\t\r\n") == f"f: the file holds only blank lines; {GIVE}"
    assert refusal(content=b"\xef\xbb\xbf\n") == f"f: the file holds only blank lines; {GIVE}"
    assert refusal(content=b" [ ]\n") == f"f: the array is empty; {GIVE}"


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "zip"), (b"ARROW1\0\0", "Arrow"), (b"%PDF-1.7\n", "PDF"), (b"\x89PNG\r\n\x1a\n", "PNG")],
)
def test_other_formats_are_named_in_the_error(content: bytes, kind: str) -> None:
    assert refusal(content=content) == f"f: the file is {kind}, which is not read; {GIVE}"


@pytest.mark.parametrize("content", [b"\x7fELF\x02\n\0\0\n\xff\n" * 9, b"\0" * 5000, b"\x08\x00\x00\x00\n{}\n", b"\x80\x04\x95\n.\n\0"])
def test_a_binary_file_is_one_error_and_not_one_per_line(content: bytes) -> None:
    assert refusal(content=content) == f"f: the file is binary or damaged: it holds NUL bytes; give {GIVE.removeprefix('give ')}"
    assert [(problem.kind, problem.source) for problem in check("f").problems] == [("malformed", "f")]


def test_other_encodings_are_refused_at_the_first_invalid_byte() -> None:
    gbk = '{"a": 1}\n{"a": "甲"}\n'.encode("gb18030")
    assert refusal(content=gbk) == "f:2: not UTF-8 at byte 16; convert it, such as with: iconv -f GB18030 -t UTF-8"
    array = '[{"a": 1},\n{"a": "甲"}]\n'.encode("gb18030")
    assert refusal(content=array) == "f:2: not UTF-8 at byte 18; convert it, such as with: iconv -f GB18030 -t UTF-8"
    utf16 = '{"a": 1}'.encode("utf-16")
    assert refusal(content=utf16) == "f: the file is UTF-16, not UTF-8; convert it, such as with: iconv -f UTF-16 -t UTF-8"


def test_nul_bytes_are_refused_with_their_place() -> None:
    assert refusal(content=b'{}\n{"a": "\0"}') == "f:2: NUL byte at column 8; the file is damaged or not text"
    assert refusal(content=b'[\n{"a": "\0"}]') == "f:2: NUL byte at column 8; the file is damaged or not text"


def test_malformed_json_is_refused_with_line_and_column() -> None:
    assert refusal(content=b'{}\n{"a": 1 "b": 2}') == f"f:2: malformed JSON at column 9: expecting ',' delimiter; {GIVE}"
    assert refusal(content=b"a,b\n1,2\n") == f"f:1: malformed JSON at column 1: expecting value; {GIVE}"


def test_a_malformed_line_does_not_hide_the_next() -> None:
    assert rows(b'{"a"}\n{"a": 1}\n') == [f"f:1: malformed JSON at column 5: expecting ':' delimiter; {GIVE}", ("f:2", {"a": 1})]


def test_a_broken_array_gives_the_rows_before_the_break() -> None:
    unread = "the rest of the array was not read"
    assert rows(b"[{},\n{]") == [
        ("f:1", {}),
        f"f:2: malformed JSON at column 2: expecting property name enclosed in double quotes; {unread}",
    ]
    assert rows(b"[{}\n{}]") == [("f:1", {}), f"f:2: malformed JSON at column 1: expecting ',' or ']'; {unread}"]
    assert rows(b"[{},\n") == [("f:1", {}), "f:2: the array does not end; is the file cut off?"]
    assert rows(b"[{}") == [("f:1", {}), "f:1: the array does not end; is the file cut off?"]
    assert rows(b"[") == ["f:1: the array does not end; is the file cut off?"]
    after = "text after the end of the array at column 1; give one array, or one object a line"
    assert rows(b"[{}]\n{}") == [("f:1", {}), f"f:2: {after}"]
    assert rows(b"[" * 99999) == ["f:1: lists and objects lie too deep in one another; the rest of the array was not read"]


def test_positions_in_an_array_on_one_line_and_after_multi_byte_characters() -> None:
    content = '[{"a": "好𝄞é"},\n{"b": 1}, {"c": "乙"}\n]\n'.encode()
    assert rows(content) == [("f:1", {"a": "好𝄞é"}), ("f:2", {"b": 1}), ("f:2:11", {"c": "乙"})]
    assert rows(b'[{"a": 1},\n\n{"a": NaN}]') == [("f:1", {"a": 1}), "f:3: NaN is not JSON; write null or a number"]


@pytest.mark.parametrize(
    ("row", "kind"), [("1", "a number"), ('"a"', "text"), ("null", "null"), ("true", "true or false"), ("[1]", "a list")]
)
def test_a_row_that_is_not_an_object_is_refused(row: str, kind: str) -> None:
    complaint = f'the row is {kind}, must be an object such as {{"messages": [...]}}'
    assert rows(f"{{}}\n{row}\n{{}}".encode()) == [("f:1", {}), f"f:2: {complaint}", ("f:3", {})]
    assert rows(f"[{{}},\n{row},\n{{}}]".encode()) == [("f:1", {}), f"f:2: {complaint}", ("f:3", {})]


def test_half_a_surrogate_pair_is_refused_and_a_whole_one_is_not() -> None:
    assert refusal(content=b'{"a": "\\ud83d"}') == "f:1: lone surrogate \\ud83d, half of a character; remove it or write both halves"
    assert rows(b'{"a": "\\ud83d\\ude00"}') == [("f:1", {"a": "😀"})]


def test_numbers_out_of_range_are_refused() -> None:
    assert refusal(content=b'{"a": 1e999}') == "f:1: number 1e999 is too large to read; the largest is about 1.8e308"
    long = b'{"a": -' + b"7" * 5000 + b"}"
    assert refusal(content=long) == "f:1: number -77777777777… has 5000 digits, too large to read; write it as text"
    assert refusal(content=b'{"a": NaN}') == "f:1: NaN is not JSON; write null or a number"


def test_a_repeated_key_is_refused() -> None:
    assert refusal(content=b'{"gold": "a", "gold": "b"}') == 'f:1: key "gold" stands twice in one object; remove one'


def test_nesting_is_refused_beyond_a_hundred_and_read_up_to_it() -> None:
    assert refusal(content=b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}") == f"f:1: {DEEP}"
    assert refusal(content=b'{"a": ' + b"[" * 99999) == f"f:1: {DEEP}"
    assert len(rows(b'{"a": ' + b"[" * 99 + b"]" * 99 + b"}")) == 1
    assert len(rows(b'{"a": "' + b"[" * 999 + b'"}')) == 1


PIECES = st.sampled_from(
    [b"[", b"]", b"{", b"}", b'"', b":", b",", b"\n", b"1", b"e9", b"null", b'"a"', b"\\u", b"d83d", b"\xef\xbb\xbf", b"\xff", b"\0"]
)


@settings(database=None, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=25).map(b"".join)))
def test_any_bytes_are_rows_or_a_data_error(content: bytes) -> None:
    assert_rows_or_a_data_error(content, "f")


def assert_rows_or_a_data_error(content: bytes, name: str) -> None:
    """Any content of a file of this name gives rows, errors of rows, or one error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            found = list(iter_rows(path))
        except DataError:
            return
    assert found
    assert all(isinstance(row, DataError) or isinstance(row[1], dict) for row in found)
