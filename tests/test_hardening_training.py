"""Concurrent trainings, a full disk, or an invalid folder: one line reports it, and nothing incomplete is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sftchat import UsageError
from sftchat._util import parsing
from sftchat.cli import main
from sftchat.data import read as reading
from sftchat.data.read import EXPECTED_INPUT, iter_rows
from sftchat.errors import DataError
from sftchat.models.manifest import read_manifest
from sftchat.training.checkpoints import HELD_LOCKS, check_not_in_use, lock_run
from tests.conftest import make_checkpoint
from tests.test_hardening import one_line, with_little_room

HOLD = """
import sys
from pathlib import Path
from sftchat.training.checkpoints import lock_run

with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def everything() -> list[str]:
    """Return all files of the folder except the rows."""
    return sorted(str(path) for path in Path().rglob("*") if path.name != ROWS)


ROWS = "rows.jsonl"


def training(model: Path, output: str, *more: object) -> tuple[object, ...]:
    """Return the arguments of a training of one step."""
    Path(ROWS).write_text('{"prompt": "谁？", "completion": "无"}\n' * 4, encoding="utf-8")
    return ("train", "general", "--model", model, "--data", ROWS, "--max-steps", 1, "-q", "-o", output, *more)


# --- two trainings into one folder


def another_training(run: str) -> subprocess.Popen[str]:
    """Process that holds the lock of a training on a folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("output", ["runs/first", "link"])
def test_the_second_of_two_trainings_into_one_folder_is_refused_and_a_killed_one_blocks_nothing(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("link").symlink_to("runs/first")
    process = another_training("runs/first")
    try:
        before = everything()
        code, line = one_line(capsys, "train", "general", "-o", output)
        assert code == 2
        holder = f"process {process.pid}" if HELD_LOCKS.is_file() else "another process"
        assert line == f"sftchat: error: {holder} is training into '{output}'; wait for it, or give another -o\n"
        with pytest.raises(UsageError, match=f"^{holder} is training into "), lock_run(Path(output)):
            pass
        assert everything() == before == ["link", "runs", "runs/first"]
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    check_not_in_use(Path(output))
    with lock_run(Path(output)):
        Path("runs/first/model").touch()
        assert everything() == ["link", "runs", "runs/first", "runs/first/model"]  # the lock is not a file
    check_not_in_use(Path(output))


def test_a_lock_leaves_no_empty_folder_and_keeps_one_that_holds_a_run() -> None:
    with lock_run(Path("a/b/run")):
        pass
    assert everything() == []
    with lock_run(Path("a/b/run")):
        Path("a/b/run/model").touch()
    assert everything() == ["a", "a/b", "a/b/run", "a/b/run/model"]


# --- invalid folders


def test_an_output_below_a_file_or_at_a_broken_link_is_refused_before_anything_loads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("file").touch()
    Path("nowhere").symlink_to("gone")
    Path("loop").symlink_to("loop")

    refused = [one_line(capsys, "train", "general", "-o", output) for output in ("file/run", "file/run/deeper", "nowhere", "loop")]

    file, leads = Path("file").absolute(), "is a link that leads nowhere; make the folder that it names, or give another -o"
    assert refused == [
        (2, f"sftchat: error: output folder 'file/run' cannot be made: '{file}' is a file\n"),
        (2, f"sftchat: error: output folder 'file/run/deeper' cannot be made: '{file}' is a file\n"),
        (2, f"sftchat: error: output 'nowhere' {leads}\n"),
        (2, f"sftchat: error: output 'loop' {leads}\n"),
    ]
    assert everything() == ["file", "loop", "nowhere"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which not even root can make another")
def test_a_folder_that_the_system_refuses_to_make_is_one_line(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = one_line(capsys, *training(tiny_checkpoint, "/proc/run"))

    assert code in (2, 3)
    assert line.startswith("sftchat: error: output folder '/proc/run' cannot be ")


def test_a_run_folder_may_be_a_link(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("disk").mkdir()
    Path("run").symlink_to("disk")

    code = main(list(map(str, training(tiny_checkpoint, "run"))))

    assert (code, *capsys.readouterr()) == (0, "", "")
    assert Path("run").is_symlink()
    assert read_manifest(Path("disk")) is not None
    assert [path for path in everything() if path.startswith(".") or "/." in path] == []


# --- a full disk


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "reason", "left"),
    [
        (1_000, "file too large", []),  # not even the manifest
        (20_000, "file too large; --resume goes on once there is room", ["run", "run/sftchat.json"]),  # not the weights
        (
            150_000,  # not the state of the optimizer
            "a file could not be written to its end; is the disk full?; --resume goes on once there is room",
            ["run", "run/sftchat.json"],
        ),
    ],
)
def test_a_training_on_a_full_disk_is_one_line_and_leaves_nothing_incomplete(
    room: int, reason: str, left: list[str], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    model = make_checkpoint(tmp_path_factory.mktemp("model") / "tiny")
    words = training(model, "run", "--save-steps", 1)

    done = with_little_room(*words, room=room, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (3, "", f"sftchat: error: run folder 'run' cannot be written: {reason}\n")
    assert everything() == left


# --- files without rows


def test_a_sparse_file_is_one_line_for_any_size(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("sparse.jsonl").open("wb") as file:
        file.truncate(5 << 30)

    refused = [
        one_line(capsys, *words) for words in (("data", "convert", "sparse.jsonl", "out", "--to", "text"), ("data", "show", "sparse.jsonl"))
    ]

    assert refused == [(2, f"sftchat: error: sparse.jsonl: the file is binary or damaged: it holds NUL bytes; give {EXPECTED_INPUT}\n")] * 2


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        ('{"text": "', "f:1: the line is longer than 1 MiB; give one JSON object a line (JSONL) or one JSON array of objects, in UTF-8"),
        ('[{"text": "', "f: the array is longer than 1 MiB; give one JSON object a line (JSONL)"),
    ],
)
def test_an_endless_line_or_element_is_not_read_into_memory(begin: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("f").write_text(begin + "x" * (4 << 20), encoding="utf-8")
    for module in (reading, parsing):
        monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(reading, "MAX_ARRAY_BYTES", 1 << 20)

    def problems() -> list[str]:
        try:
            return list(map(str, iter_rows("f")))
        except DataError as error:
            return [str(error)]

    assert problems() == [words]


def test_a_line_of_the_maximum_length_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    row = b'{"text": "' + b"x" * 100 + b'"}\n'
    Path("f").write_bytes(row * 2 + row[:-1])
    monkeypatch.setattr(parsing, "MAX_BYTES", len(row))

    assert [value for _, value in iter_rows("f")] == [{"text": "x" * 100}] * 3  # type: ignore[misc]
