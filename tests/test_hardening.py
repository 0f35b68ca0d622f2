"""Damaged, hostile or missing input: one line reports it, nothing is lost, and no terminal is controlled."""

from __future__ import annotations

import json
import resource
import signal
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftchat import EngineType, Example, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import Registry, load_plugins
from sftchat.testing import ScriptedEngine
from tests.conftest import make_checkpoint


def one_line(capsys: pytest.CaptureFixture[str], *words: object, obj: object = None) -> tuple[int, str]:
    """Exit code and the one line of an error."""
    code = main(list(map(str, words)), obj=obj)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    return code, err


# --- damaged files

HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**63),
        struct.pack("<Q", len(HEADER)) + HEADER,
        struct.pack("<Q", 4) + b"{{{{" + b"\0" * 8,
        b"PK\x03\x04 a pickle in a zip",
        b"not weights at all" * 100,
    ],
)
def test_damaged_weights_are_one_line(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_checkpoint(tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(content)

    code, line = one_line(capsys, "ask", folder, "hi")

    assert code == 3
    assert line.startswith(f"sftchat: error: model of '{folder}' could not be loaded: ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "sftchat.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model_type": 5}'])
def test_a_checkpoint_with_a_damaged_file_is_one_line_or_works_without_it(
    name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_checkpoint(tmp_path / "broken")
    (folder / name).write_bytes(content)

    code = main(["ask", str(folder), "hi", "--max-new-tokens", "1"])

    out, err = capsys.readouterr()
    assert code in (0, 2, 3)
    assert err.count("\n") == (code != 0), err
    assert (out == "") == (code != 0)


def loop(folder: Path) -> Path:
    """A link that leads to itself."""
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


@pytest.mark.parametrize(
    "words",
    [
        ("data", "check", "{}"),
        ("data", "show", "{}"),
        ("data", "convert", "{}", "-", "--to", "text"),
        ("ask", "{}", "hi"),
        ("inspect", "{}"),
        ("train", "general", "--data", "{}", "-o", "run"),
        ("eval", "--task", "general", "--replies", "{}"),
        ("eval", "--task", "general", "--evalset", "{}", "--replies", "{}"),
        ("new-plugin", "mine", "-o", "{}"),
        ("new-task", "mine", "--evalset", "{}"),
    ],
)
def test_a_link_to_itself_is_one_line(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = loop(tmp_path)

    code = main([word.format(path) for word in words])

    err = capsys.readouterr().err
    assert code in (1, 2, 3)
    assert "Traceback" not in err
    assert str(path) in err or "a" in err


# --- a full disk

LITTLE = 2000
"""Bytes that a file may have in these tests."""


def with_little_room(*words: object, room: int = LITTLE, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program with a limit on file sizes, which simulates a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    # -B: Python would not notice a truncated compiled module, and the next import would fail
    command = [sys.executable, "-B", "-m", "sftchat", *map(str, words)]
    return subprocess.run(command, cwd=cwd, preexec_fn=limit, capture_output=True, text=True, check=False)


def test_rows_that_do_not_fit_on_the_disk_leave_only_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("old")

    done = with_little_room("data", "generate", "general", "-n", 100, "-o", "rows.jsonl", "--overwrite", "--quiet", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "sftchat: error: rows.jsonl: cannot be written: file too large\n"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("rows.jsonl", "old")]


def test_a_project_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    done = with_little_room("new-plugin", "mine", "-o", "a/mine", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "sftchat: error: the project cannot be written to 'a/mine': File too large\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [("--html", "a/b/report.html"), ("-o", "a/out"), ("--update-baseline", "base.jsonl")])
def test_a_result_that_does_not_fit_on_the_disk_is_one_line_and_never_a_pass(given: tuple[str, str], tmp_path: Path) -> None:
    item = {"id": "1", "messages": [{"role": "user", "content": "甲" * 900}], "gold": "无"}
    (tmp_path / "gold.jsonl").write_text(json.dumps(item) + "\n", encoding="utf-8")
    (tmp_path / "replies.jsonl").write_text(json.dumps({"id": "1", "reply": "无" + " " * LITTLE}) + "\n", encoding="utf-8")
    words = ("eval", "--task", "general", "--evalset", "gold.jsonl", "--replies", "replies.jsonl", "--min", "accuracy=0", *given, "--quiet")

    done = with_little_room(*words, cwd=tmp_path)

    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].endswith("file too large; the system refused it, --traceback shows where")
    assert "Traceback" not in done.stderr
    assert "verdict" not in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["gold.jsonl", "replies.jsonl"]


# --- no network

OFFLINE = """
import socket, sys

def refuse(*_, **__):
    raise AssertionError("something reached for the network")

for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse
from sftchat.cli import main

for words in (
    ["data", "generate", "general", "-n", "8", "-o", "rows.jsonl", "--quiet"],
    ["data", "check", "rows.jsonl", "--task", "general", "--quiet"],
    ["train", "general", "--data", "rows.jsonl", "--max-steps", "2", "-o", "run", "--quiet"],
    ["eval", "run", "--limit", "2", "--quiet"],
    ["ask", "run", "你好", "--max-new-tokens", "2"],
    ["inspect", "run"],
):
    code = main(words)
    assert code == 0, (words, code)
"""


@pytest.mark.slow
def test_nothing_uses_the_network_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")

    done = subprocess.run([sys.executable, "-c", OFFLINE], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


# --- text that would control a terminal

HOSTILE = st.text(st.sampled_from("a甲 \x1b[]2J;\x07\x00\x08\x7f\x9b\x85\u202e\u2066\u200b\u2028\ud800\r\t"), min_size=1, max_size=12)


def commands_in(text: str) -> list[str]:
    """Return the characters that may control a terminal or reorder its text."""
    return [ascii(c) for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\u200d"]


def hostile_registry(fault: str, group: str) -> Registry:
    """Task whose scorer uses outside text as names of error classes and slices."""

    def score(example: Example, reply: Reply) -> Score:
        right = reply.text == example.gold
        return Score({"n": 1, "right": float(right)}, reply.text, () if right else (fault,), {group: {"n": 1, "right": float(right)}})

    task = Task("quiz", fault, lambda n, seed: (), score, (rate("accuracy", "right"),), validate_row=lambda example: [fault])
    engine = EngineType("s", fault, lambda rest, options: ScriptedEngine([]))
    return Registry(load_plugins([]).manager, {"quiz": task}, {"s": engine})


@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(HOSTILE, min_size=6, max_size=6, unique=True))
def test_nothing_in_an_evaluation_controls_a_terminal(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    identity, prompt, gold, reply, fault, group = (text.replace("\ud800", "") or "x" for text in texts)
    rows = [{"id": f"{identity}{n}", "messages": [{"role": "user", "content": f"q{prompt}"}], "gold": f"g{gold}"} for n in range(3)]
    (folder / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def open_engine(model: str, **options: Any) -> ScriptedEngine:
        return ScriptedEngine(lambda request: f"g{gold}" if model == "s:good" else f"r{reply}", name=model)

    session = Session(open_engine, hostile_registry(fault, group))
    base = ["eval", "--task", "quiz", "--evalset", str(folder / "gold.jsonl"), "--quiet"]
    main([*base, "s:bad"], obj=session)
    main([*base, "s:good", "--update-baseline", str(folder / "base.jsonl")], obj=session)
    main([*base, "s:bad", "--baseline", str(folder / "base.jsonl"), "--must-pass", f"{identity}0"], obj=session)
    main([*base, "s:bad", "--ids", fault], obj=session)
    main(["plugins"], obj=session)
    shown: Iterable[str] = capsys.readouterr()

    assert [commands_in(text) for text in shown] == [[], []]


@given(words=st.lists(HOSTILE, min_size=1, max_size=3), verb=st.sampled_from(["", "eval", "train", "data", "inspect", "new-plugin"]))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_quotation_in_an_error_controls_a_terminal(words: list[str], verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*filter(None, [verb]), *(f"x{word}" for word in words)], obj=Session(given_registry=load_plugins([])))

    out, err = capsys.readouterr()
    assert code in (0, 1, 2, 3)
    assert commands_in(out + err) == []


def test_terminal_controls_are_recognised() -> None:
    assert commands_in("\x1b[2J\u202e") == ["'\\x1b'", "'\\u202e'"]
    assert commands_in("plain 甲\n") == []
