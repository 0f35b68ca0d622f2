"""Unusual files: read-only folders, links, devices."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from tests.conftest import make_checkpoint
from tests.hardening_kit import EVAL, fill, said
from tests.read_only import run_read_only


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder with only the files of ``fill``."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path)
    return tmp_path


# --- read-only folders

REFUSED = {
    "data generate general -n 3 -o out.jsonl -q": (3, "out.jsonl: cannot be written: read-only file system"),
    "data convert gold.jsonl out.jsonl --to messages -q": (3, "out.jsonl: cannot be written: read-only file system"),
    "data convert gold.jsonl gold.jsonl --to messages --overwrite -q": (3, "gold.jsonl: cannot be written: read-only file system"),
    "data filter gold.jsonl out.jsonl -q": (3, "out.jsonl: cannot be written: read-only file system"),
    "data distill yes:x --prompts gold.jsonl -o out.jsonl -q": (3, "out.jsonl.samples.jsonl: cannot be written: read-only file system"),
    "data best-of general yes:x --prompts gold.jsonl -o o.jsonl -q": (3, "o.jsonl.samples.jsonl: cannot be written: read-only file system"),
    f"{EVAL} -o report": (2, "output folder 'report' cannot be made: '{folder}' is not writable"),
    f"{EVAL} --junit j.xml": (2, "--junit 'j.xml' may not be written; give another file"),
    f"{EVAL} --markdown m.md": (2, "--markdown 'm.md' may not be written; give another file"),
    f"{EVAL} --html h.html": (2, "--html 'h.html' may not be written; give another file"),
    f"{EVAL} --update-baseline b.jsonl": (2, "baseline 'b.jsonl' may not be written; give another file"),
    "new-plugin mine": (2, "output folder 'mine' cannot be made: '{folder}' is not writable"),
    "new-task mine": (3, "mine.csv: cannot be written: read-only file system"),
    "train general --data gold.jsonl -o run": (2, "output folder 'run' cannot be made: '{folder}' is not writable"),
    "export sftchat:nano --ollama -o out": (2, "output folder 'out' cannot be made: '{folder}' is not writable"),
    "merge lora -o out": (2, "output folder 'out' cannot be made: '{folder}' is not writable"),
    "demo -o demo": (3, "'demo': read-only file system; the system refused it, --traceback shows where"),
}
READ = ["data check gold.jsonl -q", "data show gold.jsonl --json", EVAL, "ask yes:x hi", "compare yes:x yes:y -q hi", "cache", "plugins"]
TYPED = "hi\n/export t.md\n/export t.jsonl\n/good\n/gold\nbye\n"


def test_a_read_only_folder_is_one_line_for_writers_and_nothing_for_readers(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder)

    *done, talk = run_read_only(folder, [*((words, "") for words in (*REFUSED, *READ)), ("chat yes:x", TYPED)])

    assert {words: (code, err) for words, (code, _, err) in zip(REFUSED, done, strict=False)} == {
        words: (code, f"sftchat: error: {line.format(folder=folder)}\n") for words, (code, line) in REFUSED.items()
    }
    assert [code for code, _, _ in done[len(REFUSED) :]] == [0] * len(READ)
    files = ("t.md", "t.jsonl", "chat-rows/messages.jsonl", "chat-rows/evalset.jsonl")
    assert talk == (3, "yes\nyes\n", "".join(f"sftchat: error: {name}: cannot be written: read-only file system\n" for name in files))


@pytest.mark.slow
def test_a_model_in_a_read_only_folder_replies_is_scored_and_is_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder)
    make_checkpoint(folder / "tiny")
    elsewhere = tmp_path / "run"
    train = f"train general --model tiny --data gold.jsonl --max-steps 1 -q -o {elsewhere}"

    done = run_read_only(
        folder, [("inspect tiny", ""), ("ask tiny hi --max-new-tokens 1", ""), (EVAL.replace("yes:x", "tiny"), ""), (train, "")]
    )

    assert [code for code, _, _ in done] == [0, 0, 0, 0]
    assert "".join(err for _, _, err in done).splitlines() == [
        f"sftchat: replies are not cached: cannot use '{folder}/cache/replies.sqlite': read-only file system; $SFTCHAT_CACHE_DIR chooses another "
        "folder, 'sftchat cache prune --all' empties this one",
        f"sftchat: this evaluation is not recorded for 'sftchat history': cannot use '{folder}/cache/ledger.sqlite': read-only file system; "
        "$SFTCHAT_CACHE_DIR chooses another folder, 'sftchat cache prune --ledger --all' empties this one",
    ]


# --- links and devices


@pytest.mark.parametrize(
    "words",
    [
        "data convert gold.jsonl link --to messages --overwrite",
        *(f"{EVAL} {option} link" for option in ("--html", "--junit", "--update-baseline")),
    ],
)
def test_a_link_to_a_file_stays_a_link_and_the_file_is_written(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "elsewhere").mkdir()
    (here / "link").symlink_to("elsewhere/real")

    for _ in range(2):
        code, err = said(capsys, words)
        assert code == 0, err

    assert (here / "link").is_symlink()
    assert [path.name for path in (here / "elsewhere").iterdir()] == ["real"]
    assert (here / "elsewhere" / "real").stat().st_size > 0


def test_a_pipe_is_written_into_and_never_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((here / "pipe").read_text(encoding="utf-8")), daemon=True)
    reader.start()

    code, err = said(capsys, f"{EVAL} --junit pipe")
    reader.join(10)

    assert (code, err, (here / "pipe").is_fifo()) == (0, "", True)
    assert read[0].startswith("<?xml")


def test_an_input_may_be_a_link(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gold.jsonl", "replies.jsonl"):
        (here / name).rename(here / f"real-{name}")
        (here / name).symlink_to(f"real-{name}")
    (here / "run").symlink_to(here / "model", target_is_directory=True)
    shutil.copytree(Path(__file__).parent.parent / "sftchat" / "models" / "nano", here / "model")

    codes = [
        said(capsys, words)
        for words in ("data check gold.jsonl -q", "eval --task general --evalset gold.jsonl --replies replies.jsonl --quiet")
    ]

    assert codes == [(0, ""), (0, "")]
    assert said(capsys, "diff run run") == (
        3,
        "sftchat: error: 'run' has no manifest (sftchat.json); only what sftchat trained can be compared\n",
    )
