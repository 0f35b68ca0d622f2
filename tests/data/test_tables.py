"""Parquet files and data sets of the Hub as rows."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sftchat import DataError, Example, Message, MissingExtraError
from sftchat.cli import main
from sftchat.data.check import check
from sftchat.data.formats import read_examples
from sftchat.data.read import read_rows
from sftchat.data.tables import hub_rows

USER = Message(role="user", content="几度？")


def call(**arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": arguments}}]}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_rows_of_a_parquet_file_have_their_number_and_no_keys_of_other_rows() -> None:
    write(
        Path("f.parquet"),
        [{"messages": [USER, call(city="北京")], "at": None}, {"messages": [USER, call(day=1)], "at": datetime(2026, 1, 2)}],
    )
    assert list(read_examples("f.parquet")) == [
        Example((USER, call(city="北京")), metadata={"at": None}, source="f.parquet:1"),  # type: ignore[arg-type]
        Example((USER, call(day=1)), metadata={"at": "2026-01-02T00:00:00"}, source="f.parquet:2"),  # type: ignore[arg-type]
    ]


def test_a_changed_parquet_file_is_read_again() -> None:
    for words in ("old", "new"):
        assert [row for _, row in read_rows(write(Path("rows"), [{"text": words}]))] == [{"text": words}]


def test_a_damaged_parquet_file_is_an_ordinary_problem(capsys: pytest.CaptureFixture[str]) -> None:
    Path("f").write_bytes(b"PAR1 and no more")
    (problem,) = check("f").problems
    assert (problem.kind, problem.source) == ("malformed", "f")
    assert problem.message.startswith("the Parquet file cannot be read: ")
    assert capsys.readouterr() == ("", "")


def test_problems_in_a_parquet_file_name_its_row() -> None:
    write(Path("f.parquet"), [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "c"}, {"prompt": "", "completion": "c"}])
    assert list(map(str, check("f.parquet").problems)) == [
        "f.parquet:2: the same prompt as line 1 with another reply; keep one of them",
        "f.parquet:3: prompt is empty; fill it or remove the row",
    ]


def test_parquet_is_converted_like_any_file() -> None:
    write(Path("f.parquet"), [{"instruction": "a", "input": None, "output": "好"}])
    assert main(["data", "convert", "f.parquet", "out", "--to", "sharegpt", "-q"]) == 0
    assert (
        Path("out").read_text(encoding="utf-8") == '{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "好"}]}\n'
    )


def test_a_data_set_has_revision_configuration_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*words: Any, **options: Any) -> list[dict[str, str]]:
        asked.append((words, options))
        return [{"text": "a"}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    for reference in ("hf://datasets/org/name", "hf://datasets/org/name@v1/zh#test"):
        assert list(read_rows(reference)) == [(f"{reference}:1", {"text": "a"})]
    assert asked == [
        (("org/name", None), {"revision": None, "split": "train", "streaming": True}),
        (("org/name", "zh"), {"revision": "v1", "split": "test", "streaming": True}),
    ]


def test_a_data_set_that_cannot_be_downloaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*words: Any, **options: Any) -> None:
        raise ConnectionError("Couldn't reach 'org/name' on the Hub\nmore")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(DataError) as caught:
        list(read_rows("hf://datasets/org/name"))
    assert str(caught.value) == "hf://datasets/org/name: the data set cannot be fetched from the Hub: Couldn't reach 'org/name' on the Hub"
    with pytest.raises(DataError) as caught:
        list(read_rows("hf://datasets/a/b/c/d"))
    assert str(caught.value) == "hf://datasets/a/b/c/d: is no data set of the Hub; write hf://datasets/ORG/NAME[@REVISION][/CONFIG][#SPLIT]"


def test_without_datasets_the_required_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftchat.data.tables.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        list(hub_rows("hf://datasets/org/name"))
    assert str(caught.value) == "reading 'hf://datasets/org/name' needs packages that are not installed: pip install 'sftchat[local]'"


def test_a_pipe_cannot_be_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"PAR1")))
    with pytest.raises(DataError) as caught:
        list(read_rows("-"))
    assert str(caught.value) == "stdin: Parquet cannot be read from a pipe; give the file"
