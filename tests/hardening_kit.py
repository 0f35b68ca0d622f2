"""A folder with an evalset and replies, and commands that run in it with a model that always replies yes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sftchat import EngineType
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import load_plugins
from sftchat.testing import ScriptedEngine

ITEMS = [{"id": str(n), "messages": [{"role": "user", "content": f"question {n}"}], "gold": "yes"} for n in range(3)]
EVAL = "eval yes:x --task general --evalset gold.jsonl --quiet"
ENGINE = EngineType("yes", "says yes", lambda rest, options: ScriptedEngine(lambda request: "yes", name=f"yes:{rest}"))


def fill(folder: Path) -> None:
    """Put an evalset, replies and a config into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "gold.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    (folder / "replies.jsonl").write_text("".join(json.dumps({"id": item["id"], "reply": "yes"}) + "\n" for item in ITEMS))


def said(capsys: pytest.CaptureFixture[str], words: str) -> tuple[int, str]:
    """Exit code and standard error of a command; ``yes:NAME`` is a model."""
    code = main(words.split(), obj=Session(given_registry=dataclasses.replace(load_plugins(), engines={"yes": ENGINE})))
    return code, capsys.readouterr().err
