"""The relation task from the command line, mostly in separate processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sftchat.cli import main
from tests.test_import_layers import HEAVY, run_light


def test_a_closed_pipe_is_not_a_failed_gate() -> None:
    program = (
        "import sys; from sftchat.cli import main; sys.exit(main(['data', 'generate', 'relation', '-n', '20000', '-o', '-', '--quiet']))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        complaints = process.stderr.read()

    assert (process.returncode, complaints) == (141, b"")


def test_generating_data_loads_no_heavy_library(tmp_path: Path) -> None:
    words = ["data", "generate", "relation", "-n", "3", "-o", str(tmp_path / "rows.jsonl"), "--quiet"]

    assert run_light(words, *HEAVY, "prompt_toolkit", "numpy", "scipy") == (0, "")


def test_gating_stored_replies_loads_no_model_library(tmp_path: Path) -> None:
    """A CI job that gates replies installs no torch."""
    gold, replies = tmp_path / "gold.jsonl", tmp_path / "replies.jsonl"
    gold.write_text(
        '{"id": "1", "messages": [{"role": "user", "content": "韩立拜墨大夫为师。"}], "gold": "墨大夫-韩立:师徒"}\n', encoding="utf-8"
    )
    replies.write_text('{"id": "1", "reply": "墨大夫-韩立:师徒"}\n', encoding="utf-8")
    words = ["eval", "--task", "relation", "--evalset", str(gold), "--replies", str(replies), "--min", "f1=1", "--quiet"]

    code, said = run_light(words, *HEAVY, "prompt_toolkit")

    assert code == 0, said


@pytest.mark.parametrize(
    ("changed", "reply", "code", "verdict"),
    [
        (180, "李小红-王小明:夫妻", 0, "fine against old.jsonl: f1 +0.0 points [-1.8, +1.8], p = 1, no item changed its counts"),
        (
            1,
            "王小明-李小芳:夫妻",
            0,
            "inconclusive against old.jsonl: a drop of 2.4 points of f1 cannot be excluded, the margin is 2; about ",
        ),
        (20, "王小明-小红:夫妻", 1, "regressed, worse than old.jsonl: f1 -10.5 points"),
    ],
)
def test_the_gate_tests_completely_right_triples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changed: int, reply: str, code: int, verdict: str
) -> None:
    """Character overlap, or partial credit for names, would rank these three in reverse order."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, *values: dict[str, object]) -> None:
        rows = [json.dumps({"id": f"i{n:03}"} | value, ensure_ascii=False) + "\n" for n, value in enumerate(values)]
        Path(name).write_text("".join(rows), encoding="utf-8")

    couple, wrong = {"reply": "王小明-李小红:夫妻"}, {"reply": "无"}
    text = [{"role": "user", "content": "王小明与李小红是夫妻，李小芳在旁。"}]
    write("gold.jsonl", *[{"messages": text, "gold": couple["reply"]}] * 200)
    write("old.jsonl", *[wrong] * 20, *[couple] * 180)
    write("new.jsonl", *[wrong] * 20, *[{"reply": reply}] * changed, *[couple] * (180 - changed))

    words = ["--task", "relation", "--evalset", "gold.jsonl", "--replies", "new.jsonl", "--baseline", "old.jsonl", "--quiet"]

    assert main(["eval", *words]) == code
    assert capsys.readouterr().err.startswith(f"new.jsonl on gold.jsonl: {verdict}")
