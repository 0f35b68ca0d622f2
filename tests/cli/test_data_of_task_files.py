"""``sftchat data`` reads the rows of a task file as its evaluation does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import Engine, Request
from sftchat.plugins.manager import load_plugins
from sftchat.testing import ScriptedEngine

TASK = """
system = "Sort it."
prompt = "Ticket: {text}"
columns = { gold = "queue" }
scorer = { name = "choice", labels = ["printer", "invoice"] }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("tickets.toml").write_text(TASK, encoding="utf-8")
    Path("rows.csv").write_text("text,queue\npaper jam,printer\nwrong sum,invoice\n", encoding="utf-8")
    return tmp_path


def rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def test_check_reports_a_gold_reply_that_is_no_label(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.csv").write_text("text,queue\npaper jam,printer\nhours,other\n", encoding="utf-8")

    assert main(["data", "check", "rows.csv", "--task", "tickets.toml"]) == 0
    assert main(["data", "check", "bad.csv", "--task", "tickets.toml"]) == 1
    assert "bad.csv:3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "words"), [("best-of", ("tickets.toml", "s:one", "-k", "2")), ("distill", ("s:one", "--task", "tickets.toml"))]
)
def test_prompts_are_rendered_and_have_the_system_prompt(folder: Path, verb: str, words: tuple[str, ...]) -> None:
    asked: list[Request] = []

    def reply(request: Request) -> str:
        asked.append(request)
        return "printer"

    def open_engine(name: str, **options: Any) -> Engine:
        return ScriptedEngine(reply, name=name)

    code = main(["data", verb, *words, "--prompts", "rows.csv", "-o", "out.jsonl", "--quiet"], obj=Session(open_engine, load_plugins()))

    assert code in (0, 1)
    assert asked[0].messages == ({"role": "system", "content": "Sort it."}, {"role": "user", "content": "Ticket: paper jam"})
    assert "Ticket: paper jam" in [message["content"] for message in rows("out.jsonl")[0]["messages"]]
    assert main(["data", "check", "out.jsonl", "--task", "tickets.toml"]) == 0


def test_filter_scores_by_the_gold_reply(folder: Path) -> None:
    assert main(["data", "filter", "rows.csv", "kept.jsonl", "--task", "tickets.toml", "--keep", "1", "--quiet"]) == 0
    assert len(rows("kept.jsonl")) == 1
