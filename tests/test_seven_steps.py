"""Check, show, train, eval, merge, export: from a file of rows to a model for Ollama, as a user types it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.models.manifest import read_manifest
from sftchat.plugins.manager import Registry, load_plugins
from tests.cli.test_train import TASK
from tests.templates.shipped import SHIPPED
from tests.test_recipes import with_template

LAKES = {"Garda": "346", "Como": "410", "Iseo": "251", "Orta": "143"}
FUNCTION = {
    "name": "depth",
    "description": "The depth of a lake.",
    "parameters": {"type": "object", "properties": {"lake": {"type": "string"}}, "required": ["lake"]},
}


def csv_file() -> tuple[str, list[str]]:
    """Questions and answers under other names, with quotes and an end of line in a value."""
    lines = [f'"How deep, in metres, is ""{lake}""?\nBe brief.",{depth},{number}' for number, (lake, depth) in enumerate(LAKES.items())]
    Path("rows.csv").write_text("\ufeffquestion,answer,page\r\n" + "\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    return "rows.csv", ["--map", "prompt=question", "--map", "completion=answer"]


def sharegpt_file() -> tuple[str, list[str]]:
    """ShareGPT with tools as JSON text, a call after text, and an assistant's greeting first."""
    rows = [
        {
            "conversations": [
                {"from": "gpt", "value": "Ask me about lakes."},
                {"from": "human", "value": f"How deep is {lake}?"},
                {"from": "gpt", "value": "I measure."},
                {"from": "function_call", "value": json.dumps({"name": "depth", "arguments": {"lake": lake}})},
                {"from": "observation", "value": depth},
                {"from": "gpt", "value": f"{depth} metres."},
            ],
            "tools": json.dumps([FUNCTION]),
        }
        for lake, depth in LAKES.items()
    ]
    return _written("rows.jsonl", rows), ["--leading-assistant", "drop"]


def openai_file() -> tuple[str, list[str]]:
    """OpenAI's older function calls, content in parts, a reply with weight 0, and two user turns in a row."""
    rows = [
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "You know lakes."}]},
                {"role": "user", "content": "Hello."},
                {"role": "assistant", "content": "What now?", "weight": 0},
                {"role": "user", "content": f"I swim in {lake}."},
                {"role": "user", "content": "How deep is it?"},
                {"role": "assistant", "content": None, "function_call": {"name": "depth", "arguments": json.dumps({"lake": lake})}},
                {"role": "function", "name": "depth", "content": depth},
                {"role": "assistant", "content": f"{depth} metres."},
            ],
            "functions": [FUNCTION],
        }
        for lake, depth in LAKES.items()
    ]
    return _written("rows.jsonl", rows), ["--merge-turns"]


def _written(name: str, rows: list[Any]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


@pytest.mark.slow
@pytest.mark.parametrize("make", [csv_file, sharegpt_file, openai_file])
def test_a_file_of_rows_becomes_a_model_for_ollama_in_seven_steps(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with_template(SHIPPED["qwen2_5"])(tmp_path / "base")
    session = Session(given_registry=Registry(load_plugins([]).manager, {"general": replace(TASK, name="general")}))

    def step(*words: str) -> str:
        """Return the output of a command that must succeed."""
        assert main(list(words), obj=session) == 0, (words, capsys.readouterr().err)
        return capsys.readouterr().out

    file, read = make()
    assert step("data", "check", file, *read, "--model", "base", "--near", "0", "-q") == ""
    shown = step("data", "show", file, *read, "--model", "base", "-n", "1", "-q")
    assert shown.count("〖") == shown.count("<|im_end|>〗") >= 1
    assert "346" in shown.rpartition("〖")[2]
    step("data", "convert", file, "gold.jsonl", *read, "--to", "evalset", "-q")
    step("train", "--data", file, *read, "--model", "base", "--method", "lora", "-o", "run", "--max-steps", "2", "-q")
    manifest = read_manifest(Path("run"))
    assert manifest is not None
    assert (manifest.task, manifest.rows) == ("general", 4)
    assert json.loads(step("eval", "run", "--evalset", "gold.jsonl", "--limit", "1", "--json", "--quiet"))["results"][0]["metrics"]
    step("merge", "run", "-o", "merged", "-q")
    step("export", "merged", "-o", "exported", "--ollama", "-q")
    assert Path("exported/Modelfile").is_file()
