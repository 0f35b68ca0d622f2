"""docs/judge.md is followed from first to last, with scripted models and a scripted judge."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from sftchat.api.session import Session
from sftchat.cli import main
from sftchat.engine import Engine, Request
from sftchat.testing import ScriptedEngine
from tests.distributions import ROOT
from tests.pages import Command, follow_with

PAGE = (ROOT / "docs" / "judge.md").read_text(encoding="utf-8")
NEW = {"The printer does not turn on.": "Press the switch at the back.", "Can I return an opened cartridge?": "Yes, within 14 days."}
"""Replies of ``runs/support``; ``I do not know.`` to other questions."""


def judge(request: Request) -> str:
    """Rate long replies as good; prefer the first reply to the question on paper, and the longer one otherwise."""
    prompt = request.messages[-1]["content"]
    lengths = {tag: len(prompt.split(f"<{tag}>\n")[-1].split(f"\n</{tag}>")[0]) for tag in ("reply", "reply_a", "reply_b")}
    if "<reply>" in prompt:
        return json.dumps({"helpful": 5 if lengths["reply"] > 20 else 2, "tone": "polite", "reason": "by length"})
    winner = "A" if "paper jam" in prompt or lengths["reply_a"] > lengths["reply_b"] else "B"
    return json.dumps({"winner": winner, "reason": "by length"})


def open_scripted(model: str, **options: Any) -> Engine:
    if model == "runs/support":
        return ScriptedEngine(lambda request: NEW.get(request.messages[-1]["content"], "I do not know."), name=model)
    return ScriptedEngine(
        judge if "judge" in model else lambda request: "No." if "jam" not in request.messages[-1]["content"] else "Maybe."
    )


def test_the_commands_of_the_page_have_the_output_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("support", "old"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}", encoding="utf-8")
        (folder / "model.safetensors").write_bytes(b"")

    def run(command: Command) -> str:
        code = main(shlex.split(command.line)[1:], obj=Session(open_scripted, identify_engine=lambda model, **options: ""))
        out, err = capsys.readouterr()
        assert code == command.code, f"{command.line}\n{err}"
        return out + err

    follow_with(PAGE, tmp_path, run)
