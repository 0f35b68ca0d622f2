"""CSV and TSV files: rows whose columns the header names."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import DataError, Example, Message
from sftchat.data.check import check
from sftchat.data.formats import read_examples
from sftchat.data.read import iter_rows
from sftchat.data.row_options import RowOptions
from tests.data.test_reading import assert_rows_or_a_data_error


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def found(content: bytes, name: str = "f.csv") -> list[object]:
    """Return the rows of a file, with errors as messages; an error that ends the file is last."""
    Path(name).write_bytes(content)
    rows: list[object] = []
    try:
        for row in iter_rows(name):
            rows.append(str(row) if isinstance(row, DataError) else row)
    except DataError as error:
        rows.append(str(error))
    return rows


def test_the_header_names_the_columns_and_a_row_has_the_line_where_it_begins() -> None:
    content = b'\xef\xbb\xbfprompt,completion,id\r\n"two\nlines, ""quoted""",b,1\r\n\r\nc,d,2\r\n'

    assert found(content) == [
        ("f.csv:2", {"prompt": 'two\nlines, "quoted"', "completion": "b", "id": "1"}),
        ("f.csv:5", {"prompt": "c", "completion": "d", "id": "2"}),
    ]
    assert found(b"prompt\tcompletion\na, b\tc\n", "F.TSV") == [("F.TSV:2", {"prompt": "a, b", "completion": "c"})]


def test_columns_of_a_table_are_mapped_like_those_of_any_row() -> None:
    Path("f.csv").write_text('question,answer,system\n"Who?",The cat.,\n', encoding="utf-8")

    examples = read_examples("f.csv", RowOptions(columns={"prompt": "question", "completion": "answer"}))

    assert list(examples) == [Example((Message(role="user", content="Who?"),), "The cat.", source="f.csv:2")]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (
            b"a,b\n1\n2,3,4\n5,6\n",
            [
                'f.csv:2: the row has 1 values and the header 2; put values with "," into quotes',
                'f.csv:3: the row has 3 values and the header 2; put values with "," into quotes',
                ("f.csv:4", {"a": "5", "b": "6"}),
            ],
        ),
        (b"", ["f.csv: the file is empty; give a table whose first line names the columns"]),
        (b"a,b\n", ["f.csv: the table has no rows"]),
        (b"a,b,a\n1,2,3\n", ['f.csv:1: the column "a" is twice in the header; rename one']),
        (b"a;b\n1;2\n", ['f.csv:1: the header has no "," but ";"; a .csv has commas between its values, a .tsv has tabs']),
        (b'a,b\n1,2\n"3,4\n5,6\n', [("f.csv:2", {"a": "1", "b": "2"}), "f.csv:3: the table cannot be read from here: unexpected end of data"]),
        ("a,b\n甲,乙\n".encode("gb18030"), ["f.csv:2: not UTF-8 at byte 0 of the line; convert it, such as with: iconv -f GB18030 -t UTF-8"]),
        (b"a,b\n\0,1\n", ["f.csv:2: the line holds NUL bytes; the file is damaged or not text"]),
    ],
)  # fmt: skip
def test_problems_of_a_table_are_reported_with_their_line(content: bytes, rows: list[object]) -> None:
    assert found(content) == rows


def test_a_table_without_the_right_columns_is_refused_with_advice() -> None:
    Path("f.csv").write_text("question,answer\nWho?,The cat.\n", encoding="utf-8")

    (problem,) = check("f.csv").problems

    assert (problem.kind, problem.source) == ("invalid", "f.csv:2")
    assert problem.message.endswith("; read it with --map prompt=question --map completion=answer")


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@settings(database=None, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5), st.sampled_from([".csv", ".tsv"]), st.sampled_from(["\n", "\r\n"]))
def test_any_text_survives_a_table(rows: list[tuple[str, str]], suffix: str, end: str) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter="," if suffix == ".csv" else "\t", lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"f{suffix}")
        path.write_bytes(written.getvalue().encode())
        read = list(iter_rows(path))

    assert [tuple(row[1].values()) for row in read if not isinstance(row, DataError)] == rows


@settings(database=None, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\xff", b"\0", b'""']), max_size=25).map(b"".join)))  # fmt: skip
def test_any_bytes_are_rows_of_a_table_or_a_data_error(content: bytes) -> None:
    assert_rows_or_a_data_error(content, "f.csv")
