"""Fixture for ``sftchat eval``: an evalset, scripted models, and no installed plugin."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat import EngineError, Example, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import Engine, EngineType, Request
from sftchat.evaluation.report.view import Report
from sftchat.plugins import spec as hookspecs
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine


def right_or_wrong(example: Example, reply: Reply) -> Score:
    right = reply.text == example.gold
    return Score({"n": 1, "right": int(right)}, reply.text, () if right else ("wrong",))


ROWS = [{"id": f"i{n}", "messages": [{"role": "user", "content": f"question {n}"}], "gold": f"answer {n}"} for n in range(8)]


@dataclass
class Desk:
    """Folder with an evalset, and a program with scripted models; records opened models and reports."""

    folder: Path
    registry: Registry
    capsys: pytest.CaptureFixture[str]
    engines: dict[str, Callable[[Request], Any]]
    opened: list[str] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    closed: list[Engine] = field(default_factory=list)

    def open(self, model: str, **options: Any) -> Engine:
        self.opened.append(model)
        self.options.append(options)
        engine = ScriptedEngine(self.engines[model], name=model)
        self.closed.append(engine)
        return engine

    def run(self, *words: object) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        code = main(["eval", *map(str, words)], obj=Session(self.open, self.registry))
        out, err = self.capsys.readouterr()
        return code, out, err


class Listener:
    """Plugin that receives finished evaluations."""

    def __init__(self) -> None:
        self.heard: list[tuple[Report, Path | None]] = []

    @hookspecs.hookimpl
    def sftchat_eval_finished(self, report: Report, output_dir: Path | None) -> None:
        self.heard.append((report, output_dir))


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], listener: Listener, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    task = Task("quiz", "a quiz", lambda n, seed: (), right_or_wrong, (rate("accuracy", "right"),), evalsets={"gold": gold})
    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)
    manager.register(listener)
    opened = {"s": EngineType("s", "scripted", lambda rest, options: ScriptedEngine([]))}

    def number(request: Request) -> int:
        return int(request.messages[-1]["content"].split()[1])

    def interrupted(request: Request) -> str:
        if number(request) == 2:
            raise KeyboardInterrupt
        return "x"

    def dying(request: Request) -> str | Exception:
        return EngineError("server gone") if number(request) == 3 else "x"

    return Desk(
        tmp_path,
        Registry(manager, {"quiz": task}, opened),
        capsys,
        {
            "s:good": lambda request: f"answer {number(request)}",
            "s:half": lambda request: f"answer {number(request) % 4}",
            "s:bad": lambda request: "x",
            "s:flaky": lambda request: Reply("", "error") if number(request) == 2 else f"answer {number(request)}",
            "s:interrupted": interrupted,
            "s:dying": dying,
        },
    )
