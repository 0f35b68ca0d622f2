"""Damaged files: sparse files of gigabytes, and truncated files."""

from __future__ import annotations

import io
import json
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sftchat.chat.sessions import SCHEMA as TALKS
from sftchat.evaluation.reply_cache import TABLES as REPLIES
from tests.hardening_kit import EVAL, fill, said


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder with only the files of ``fill``."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path)
    return tmp_path


# --- sparse files


@contextmanager
def little_memory(more: int) -> Iterator[None]:
    """Limit the memory of the process to a little more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


HOLES = [
    "eval --task general --evalset gold.jsonl --replies holes.jsonl",
    "eval --task general --evalset holes.jsonl --replies replies.jsonl",
    f"{EVAL} --baseline holes.jsonl",
    f"{EVAL} --update-baseline holes.jsonl",
    f"{EVAL} --must-pass holes.jsonl",
    f"{EVAL} --only failing --from holes",
    "ask yes:x --questions holes.jsonl",
    "ask yes:x --questions holes.txt",
    "train general --config holes.toml",
    "train general --config holes.yaml",
    "diff holes holes",
    "ask holes hi",
    "data best-of general yes:x --prompts gold.jsonl --samples holes.jsonl -o out.jsonl",
]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs to know how much memory a process has")
@pytest.mark.parametrize("words", HOLES)
def test_a_file_of_gigabytes_is_refused_with_little_memory(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "holes").mkdir()
    for name in (
        "holes.jsonl",
        "holes.txt",
        "holes.toml",
        "holes.yaml",
        "holes/sftchat.json",
        "holes/report.json",
        "holes/adapter_config.json",
    ):
        with (here / name).open("wb") as file:
            file.truncate(5 << 30)
    (here / "holes/adapter_model.safetensors").touch()
    said(capsys, EVAL)  # imports take memory too

    with little_memory(600 << 20):
        code, err = said(capsys, words)

    assert code in (2, 3)
    assert (err.count("\n"), err[:15]) == (1, "sftchat: error:"), err


# --- truncated files


def cuts(content: bytes) -> Iterator[bytes]:
    """Yield damaged contents: empty, truncated, without the last byte, and with zeros in the middle."""
    size = len(content)
    yield from (content[:cut] for cut in sorted({0, 1, 15, 100, size // 3, size // 2, size - 1}))
    yield content[: size // 2] + b"\0" * min(64, size // 4) + content[size // 2 + min(64, size // 4) :]


MANIFEST = json.dumps({"task": "general", "base": "b", "base_identity": "", "method": "full", "config": {}, "data": [], "rows": 1, "tokens_hash": "",
                       "template": "chatml", "template_hash": ""})  # fmt: skip
CUT = {
    "gold.jsonl": "data check gold.jsonl|data convert gold.jsonl out.jsonl --to messages --overwrite|eval --task general --evalset gold.jsonl --replies replies.jsonl|ask yes:x --questions gold.jsonl",
    "replies.jsonl": "eval --task general --evalset gold.jsonl --replies replies.jsonl",
    "base.jsonl": f"{EVAL} --baseline base.jsonl|{EVAL} --update-baseline base.jsonl|{EVAL} --only failing --from base.jsonl",
    "report/report.json": f"{EVAL} --only failing --from report|{EVAL} --only newly-broken --from report",
    "report/replies.jsonl": f"{EVAL} --only failing --from report|eval --task general --evalset gold.jsonl --replies report/replies.jsonl",
    "run/sftchat.json": "diff run run|ask run hi|train general --resume -o run",
    "samples.jsonl": "data best-of general yes:x --prompts gold.jsonl --samples samples.jsonl -o out.jsonl --overwrite -q",
    "cache/replies.sqlite": f"cache|cache prune --model ab|{EVAL}|cache prune --all",
    "sftchat/sessions.sqlite": "chat yes:x --continue|chat yes:x --session 1",
}


@pytest.mark.parametrize("name", CUT)
def test_a_truncated_file_is_at_most_one_line(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SFTCHAT_CACHE_DIR", str(here / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(here))
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n"))
    for words in (f"{EVAL} -o report", f"{EVAL} --update-baseline base.jsonl", "data best-of general yes:x --prompts gold.jsonl --samples samples.jsonl -o out.jsonl -q"):  # fmt: skip
        assert said(capsys, words)[0] == 0
    (here / "run" / "checkpoint-1").mkdir(parents=True)
    (here / "run" / "sftchat.json").write_text(MANIFEST)
    for path, tables in (("cache/replies.sqlite", REPLIES), ("sftchat/sessions.sqlite", TALKS)):
        (here / path).parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(here / path)) as connection:
            connection.executescript(f"{tables} PRAGMA user_version = 1;")
    whole = (here / name).read_bytes()

    for content in cuts(whole):
        for words in CUT[name].split("|"):
            for beside in (here / name).parent.glob(f"{(here / name).name}-*"):
                beside.unlink()
            (here / name).write_bytes(content)
            code, err = said(capsys, words)
            assert code in (0, 1, 2, 3, 4)
            assert "Traceback" not in err
            if code in (2, 3):
                assert err.splitlines()[-1].startswith("sftchat: error: "), err
