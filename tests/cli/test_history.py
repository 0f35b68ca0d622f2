"""``sftchat history`` after evaluations of scripted models, through pipes and on a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.evaluation.ledger import read_results
from sftchat.evaluation.ledger_file import ledger_path
from tests.cli.conftest import ROWS, Desk


def show(desk: Desk, *words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``sftchat history``, with times replaced."""
    code = main(["history", *map(str, words)], obj=Session(desk.open, desk.registry))
    out, err = desk.capsys.readouterr()
    return code, re.sub(r"\d\d-\d\d \d\d:\d\d", "MM-DD hh:mm", out), err


def test_evaluations_are_listed_with_intervals_and_changes(desk: Desk) -> None:
    assert show(desk) == (0, f"no results in {ledger_path()}; 'sftchat eval' records them\n", "")
    assert show(desk, "--json") == (0, "[]\n", "")
    assert show(desk, "quiz") == (2, "", f"sftchat: error: no results in {ledger_path()}; 'sftchat eval' records them\n")
    desk.run("s:half")
    desk.run("s:bad", "--limit", 3)
    desk.run("s:good", "--baseline", "s:half", "--min", "accuracy=0.9")

    assert show(desk) == (
        0,
        "quiz on gold.jsonl, 8 items\n"
        "when         model   accuracy  95 % interval   0.2                1    change\n"
        "MM-DD hh:mm  s:half     0.500  [0.215, 0.785]  ├──────█──────┤\n"
        "MM-DD hh:mm  s:bad      0.000  [0.000, 0.561]                          3 of 8\n"
        "MM-DD hh:mm  s:good     1.000  [0.676, 1.000]             ├───────█  ~ +0.500  ✓\n"
        "\n"
        "~ not significant against the run before   ✓ verdict pass\n",
        "",
    )
    found = json.loads(show(desk, "quiz", "--json")[1])
    assert [(run["result"]["model"], run["before"], run["won"]) for run in found[0]["runs"]] == [
        ("s:half", None, []), ("s:bad", None, []), ("s:good", 1, ["i4", "i5", "i6", "i7"]),
    ]  # fmt: skip


def test_what_is_recorded_of_an_evaluation(desk: Desk) -> None:
    desk.run("s:half", "s:flaky", "--baseline", "s:bad", "-o", "out")
    desk.run("--replies", "out/replies.1.jsonl", "--baseline", "out/replies.2.jsonl")
    desk.run("s:half", "--dtype", "float32", "--seed", 3)

    results = read_results(ledger_path())
    greedy = {"max_new_tokens": 256, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "stop": []}
    assert [(one.role, one.model, one.requested, one.answered, one.right, one.failed, one.verdict, one.complete) for one in results] == [
        ("baseline", "s:bad", 8, 8, 0, 0, "", True),
        ("model", "s:half", 8, 8, 4, 0, "pass", True),
        ("model", "s:flaky", 8, 7, 7, 1, "could not judge", False),
        ("model", "out/replies.1.jsonl", 8, 8, 4, 0, "inconclusive", True),
        ("model", "s:half", 8, 8, 4, 0, "not asked", True),
    ]
    assert [one.settings for one in results[2:]] == [
        {"sampling": greedy}, {"replies": "stored"}, {"sampling": greedy, "options": {"dtype": "float32"}},
    ]  # fmt: skip
    assert [(one.evalset.name, one.evalset.size, one.replies) for one in results[1:2]] == [
        ("gold.jsonl", 8, str(Path("out/replies.1.jsonl").absolute()))
    ]
    assert len({one.evaluation for one in results}) == 3
    assert (results[1].sampling, results[3].sampling) == (greedy | {"seed": 0}, None)


def test_a_changed_evalset_starts_a_new_section_with_a_line(desk: Desk) -> None:
    desk.run("s:half")
    (desk.folder / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:6]), encoding="utf-8")
    desk.run("s:half")

    lines = show(desk)[1].split("\n\n")
    assert [section.split("\n")[0] for section in lines[:2]] == [
        "quiz on gold.jsonl, 8 items",
        "gold.jsonl has other content than in the runs above: 6 items, before 8",
    ]
    assert "quiz on gold.jsonl, 6 items" in lines[1]


def test_an_item_is_shown_by_run(desk: Desk) -> None:
    for model in ("s:half", "s:good", "s:bad"):
        desk.run(model)

    assert show(desk, "--item", "i5", "--task", "quiz") == (
        0,
        "i5 of quiz on gold.jsonl, right in 1 of 3 runs\n"
        "when         model   item         reply    faults\n"
        "MM-DD hh:mm  s:half  wrong                 wrong\n"
        "MM-DD hh:mm  s:good  right, won   changed\n"
        "MM-DD hh:mm  s:bad   wrong, lost  changed  wrong\n"
        "\n",
        "",
    )
    (section,) = json.loads(show(desk, "--item", "i0", "--json")[1])
    assert [(run["item"]["right"], run["change"], run["same_reply"]) for run in section["runs"]] == [
        (True, "", None), (True, "", True), (False, "lost", False),
    ]  # fmt: skip


def test_results_are_selected(desk: Desk) -> None:
    for model in ("s:half", "s:good", "s:bad"):
        desk.run(model)

    assert [run["result"]["model"] for run in json.loads(show(desk, "--limit", 2, "--json")[1])[0]["runs"]] == ["s:good", "s:bad"]
    (section,) = json.loads(show(desk, "quiz", "--evalset", "old/gold.jsonl", "--model", "s:bad", "--json")[1])
    assert [(run["result"]["model"], run["before"]) for run in section["runs"]] == [("s:bad", None)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("quizz",), "no results: unknown task 'quizz'; did you mean 'quiz'? (available: quiz)"),
        (("--evalset", "x.jsonl"), "no results: unknown evalset 'x.jsonl'; did you mean 'gold.jsonl'? (available: gold.jsonl)"),
        (("--model", "s:hal"), "no results: unknown model 's:hal'; did you mean 's:half'? (available: s:half)"),
        (("--item", "i9"), "--item i9: no such item in the items of 1 results; 'sftchat history' lists the results"),
        (("a", "--task", "b"), "TASK 'a' and --task b differ; leave one of them out"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(desk: Desk, words: tuple[str, ...], message: str) -> None:
    desk.run("s:half")

    assert show(desk, *words) == (2, "", f"sftchat: error: {message}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal_no_line_is_wider_than_it_and_colours_can_be_turned_off(
    desk: Desk, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl
    import pty
    import struct
    import termios

    for model in ("s:bad", "s:half", "s:good"):
        desk.run(model, "--min", "accuracy=0.4")
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setenv("TERM", "xterm-256color")

    def on_terminal() -> str:
        reader, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        command = [sys.executable, "-m", "sftchat", "history"]
        subprocess.run(command, stdin=terminal, stdout=terminal, stderr=terminal, check=True, timeout=60)
        written = os.read(reader, 100_000).decode()
        os.close(terminal)
        os.close(reader)
        return written.replace("\r\n", "\n")

    plain = on_terminal()
    monkeypatch.delenv("NO_COLOR")
    coloured = on_terminal()

    text = re.sub(r"\x1b\[[\d;]*m", "", plain)
    assert [line for line in text.split("\n") if len(line) > columns] == []
    assert ("█" in plain, "\x1b[3" in plain, "\x1b[3" in coloured) == (True, False, True)
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == text
