"""The general task from the command line, in separate processes: found by its entry point, without heavy imports."""

from __future__ import annotations

import json
from pathlib import Path

from tests.test_import_layers import HEAVY, run_light


def test_generating_and_checking_data_loads_no_heavy_library(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    words = ["data", "generate", "general", "-n", "300", "-o", str(rows), "--option", "kinds=counting,format", "--quiet"]

    assert run_light(words, *HEAVY, "prompt_toolkit", "numpy", "scipy", "nltk") == (0, "")
    assert {json.loads(line)["kind"] for line in rows.read_text(encoding="utf-8").splitlines()} == {"counting", "format"}
    assert run_light(["data", "check", str(rows), "--task", "general"], *HEAVY, "prompt_toolkit", "nltk")[0] == 0


def test_gating_stored_replies_loads_no_model_library(tmp_path: Path) -> None:
    """A CI job that gates replies installs no torch."""
    gold, replies = tmp_path / "gold.jsonl", tmp_path / "replies.jsonl"
    metadata = {"constraints": [{"check": "mentions", "any": ["小明"]}]}
    item = {"id": "1", "messages": [{"role": "user", "content": "我是小明。我是谁？"}], "gold": "小明", "metadata": metadata}
    gold.write_text(json.dumps(item) + "\n", encoding="utf-8")
    replies.write_text('{"id": "1", "reply": "你叫小明"}\n', encoding="utf-8")
    words = ["eval", "--task", "general", "--evalset", str(gold), "--replies", str(replies), "--min", "accuracy=1", "--quiet"]

    code, said = run_light(words, *HEAVY, "prompt_toolkit")

    assert code == 0, said
