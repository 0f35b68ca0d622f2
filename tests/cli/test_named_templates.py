"""A model with several named chat templates, from rows to export: tool_use renders rows with tools, and all templates are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftchat.cli import main
from sftchat.models.manifest import read_manifest
from tests.conftest import make_checkpoint
from tests.templates.test_foreign_templates import CALLED, LOOK, chat
from tests.templates.test_named import NAMED

ROWS: list[Any] = [
    {"messages": chat("q", "a")},
    {"messages": CALLED, "tools": [LOOK]},
    {"messages": chat("r", "b")},
    {"messages": CALLED, "tools": [LOOK]},
]
WITH_TOOLS = "<|im_start|>system\nTools: look<|im_end|>"
TRAINED = '<|im_start|>assistant\n〖look {"at": "sky"}<|im_end|>〗'


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from transformers import AutoTokenizer

    monkeypatch.chdir(tmp_path)
    folder = make_checkpoint(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = NAMED
    tokenizer.save_pretrained(folder)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return folder


def saved_templates(folder: str) -> dict[str, str]:
    files = {"default": Path(folder, "chat_template.jinja")}
    files |= {path.stem: path for path in Path(folder, "additional_chat_templates").glob("*")}
    return {name: path.read_text(encoding="utf-8") for name, path in files.items()}


def test_commands_on_rows_select_the_template_by_tools_or_by_the_given_name(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def step(*words: str) -> tuple[int, str, str]:
        """Exit code and what was printed."""
        return main(list(words)), *capsys.readouterr()

    code, out, _ = step("data", "show", "rows.jsonl", "--model", "base", "-q")
    assert (code, out.count(WITH_TOOLS), out.count(TRAINED)) == (0, 4, 2)
    assert step("data", "check", "rows.jsonl", "--model", "base", "--near", "0", "-q", "--policy", "duplicate=keep")[0] == 0
    code, out, _ = step("data", "check", "rows.jsonl", "--model", "base", "--near", "0", "-q", "--template-name", "default")
    assert code == 1
    assert "rows.jsonl:2: chat template 'chatml' leaves out tool 'look'; try --template-name tool_use\n" in out
    assert step("data", "show", "rows.jsonl", "--model", "base", "-n", "1", "--template-name", "tool_use", "-q")[1].count("Tools:") == 1
    code, *_ = step("data", "filter", "rows.jsonl", "out.jsonl", "--model", "base", "--template-name", "default", "-q", "--json")
    assert (code, len(Path("out.jsonl").read_text().splitlines())) == (0, 2)
    assert step("data", "show", "rows.jsonl", "--template-name", "rag")[::2] == (
        2, "sftchat: error: --template-name needs --model, for which the rows are rendered\n"
    )  # fmt: skip
    assert step("ask", "base", "hi", "--template-name", "chat")[::2] == (
        2, "sftchat: error: unknown chat template name 'chat' (available: default, rag, tool_use)\n"
    )  # fmt: skip
    code, out, _ = step("inspect", "base")
    assert code == 0
    assert "templates           default, rag, tool_use; tool_use with tools, else default\n" in out
    assert (
        "templates           default, rag, tool_use; rag for every conversation\n" in step("inspect", "base", "--template-name", "rag")[1]
    )


@pytest.mark.slow
def test_a_trained_a_merged_and_an_exported_model_keep_every_template_and_the_name(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def step(*words: str) -> str:
        """Return the output of a command that must succeed."""
        assert main(list(words)) == 0, (words, capsys.readouterr().err)
        return capsys.readouterr().out

    train = ("train", "--data", "rows.jsonl", "--model", "base", "--max-steps", "2", "--eval-steps", "0", "--save-steps", "1", "-q")
    step(*train, "--method", "lora", "-o", "run")
    step(*train, "-o", "named", "--template-name", "tool_use")
    step("merge", "run", "-o", "merged", "-q", "--force")
    step("export", "merged", "-o", "exported", "--ollama", "-q")
    step("export", "merged", "-o", "plain", "--ollama", "--template", "chatml", "-q")
    step("merge", "run", "-o", "merged-named", "-q", "--force", "--template-name", "tool_use")

    for folder in ("run", "named", "merged", "exported", "merged-named"):
        assert saved_templates(folder) == NAMED
    assert saved_templates("plain") == {"default": NAMED["default"]}
    for folder, name in (("run", ""), ("named", "tool_use"), ("merged", ""), ("merged-named", "tool_use")):
        manifest = read_manifest(Path(folder))
        assert manifest is not None
        assert (manifest.template_name, manifest.rows) == (name, 6)
    assert WITH_TOOLS in step("data", "show", "rows.jsonl", "--model", "merged", "-q")
    assert step("data", "show", "rows.jsonl", "--model", "named", "-n", "1", "-q").count("Tools:") == 1
    assert "; tool_use for every conversation\n" in step("inspect", "named")
    step("ask", "named", "hi", "--max-new-tokens", "2")
