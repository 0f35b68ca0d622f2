"""The relation task through the command line, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.test_walls import HEAVY, run_light


def test_a_reader_that_leaves_is_no_failed_gate() -> None:
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
