"""A file is written completely or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftchat import DataError, SftchatError, UsageError
from sftchat.data.write import write_rows


def breaking_off() -> Iterator[dict[str, Any]]:
    yield {"a": 1}
    raise DataError("no more", "f:2")


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_are_lines_of_utf_8_and_are_counted(tmp_path: Path) -> None:
    assert write_rows(tmp_path / "f", [{"a": "甲"}, {"b": "x\ny"}]) == 2
    assert listing(tmp_path) == {"f": '{"a": "甲"}\n{"b": "x\\ny"}\n'.encode()}


def test_a_dash_is_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert write_rows("-", [{"a": "甲"}]) == 1
    assert capfdbinary.readouterr().out == '{"a": "甲"}\n'.encode()


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(UsageError) as caught:
        write_rows(path, [{"a": 1}])
    assert str(caught.value) == f"output '{path}' exists; give --overwrite to replace it, or another name"
    assert listing(tmp_path) == {"f": b"old"}
    write_rows(path, [{"a": 1}], overwrite=True)
    assert listing(tmp_path) == {"f": b'{"a": 1}\n'}


def test_an_interrupted_write_leaves_no_file_and_an_old_one_unchanged(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_rows(tmp_path / "f", breaking_off())
    assert listing(tmp_path) == {}
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(DataError):
        write_rows(tmp_path / "f", breaking_off(), overwrite=True)
    assert listing(tmp_path) == {"f": b"old"}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL, and there are no locks")
def test_leftovers_of_a_killed_process_are_removed_by_the_next_write_and_those_of_a_running_one_stay(tmp_path: Path) -> None:
    target = tmp_path / "f[1].jsonl"
    code = f"""
from pathlib import Path
from sftchat._util.files import atomic_file
with atomic_file(Path({str(target)!r})):
    print("writing", flush=True)
    input()
"""
    killed, running = (subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2))
    with killed, running:
        for process in (killed, running):
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
        kept = tmp_path / f".{target.name}.{running.pid}.part"
        killed.kill()
        killed.wait()
        strange = tmp_path / f".{target.name}.1.2.part"
        strange.touch()

        write_rows(target, [{"a": 1}])

        assert sorted(listing(tmp_path)) == sorted([target.name, kept.name, strange.name])
        running.kill()


def test_rows_cannot_be_written_to_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_rows(tmp_path, [])
    assert str(caught.value) == f"output '{tmp_path}' is a folder; give a file, such as '{tmp_path}/rows.jsonl'"
    with pytest.raises(UsageError) as caught:
        write_rows(tmp_path / "no" / "f", [])
    assert str(caught.value) == f"output '{tmp_path}/no/f' is in a folder that does not exist; make it: mkdir -p '{tmp_path}/no'"
    with pytest.raises(UsageError) as caught:
        write_rows("x" * 300, [])
    assert str(caught.value) == f"output '{'x' * 300}' cannot be written: file name too long"


def test_an_error_of_the_system_is_reported_with_its_message(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 254)  # fits, but the temporary name beside it does not
    with pytest.raises(SftchatError) as caught:
        write_rows(path, [])
    assert str(caught.value) == f"{path}: cannot be written: file name too long"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_rows(tmp_path / "link", [{"a": 1}], overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b'{"a": 1}\n'


def test_a_pipe_is_written_into_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_rows(path, [{"a": 1}])
    assert os.read(end, 99) == b'{"a": 1}\n'
    os.close(end)
    assert path.is_fifo()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object, "Object of type type is not JSON serializable"),
        (float("nan"), "Out of range float values are not JSON compliant"),
        ("\ud800", "'utf-8' codec can't encode character '\\ud800' in position 7: surrogates not allowed"),
    ],
)
def test_a_value_that_json_cannot_hold_is_refused_with_its_row(tmp_path: Path, value: object, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        write_rows(tmp_path / "f", [{"a": 1}, {"a": value}])
    assert str(caught.value).startswith(f"row 2 cannot be written as JSON: {reason}")
    assert listing(tmp_path) == {}
