"""`sftchat demo` with a task that is learned in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftchat import DemoConfig, Example, Message, Reply, Score, Task, TrainingDefaults, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import Registry, load_plugins


def generate(n: int, seed: int, *, words: str = "red") -> list[Example]:
    return [Example((Message(role="user", content=f"{words} {seed * 1000 + i}?"),), "好的。", id=f"{words}-{seed}-{i}") for i in range(n)]


def score(example: Example, reply: Reply) -> Score:
    right = reply.text == example.gold
    return Score({"n": 1, "right": float(right)}, reply.text, () if right else ("wrong",))


TASK = Task(
    "agree",
    "says 好的。",
    generate,
    score,
    (rate("accuracy", "right"),),
    training_defaults=lambda method, parameters: TrainingDefaults(learning_rate=1e-3, batch_size=8),
    demonstration=DemoConfig(rows=240, items=12, held_out={"new numbers": {}, "new words": {"words": "blue"}}),
)


@pytest.mark.slow
def test_the_demo_runs_completely_and_leaves_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(given_registry=Registry(load_plugins([]).manager, {"agree": TASK}))

    code = main(["demo", "-o", str(tmp_path / "demo")], obj=session)

    told = capsys.readouterr().out
    chapters = [
        "1. data",
        "2. the base model",
        "3. training",
        "4. the tuned model",
        "5. paired comparison",
        "6. before and after",
        "7. the gate",
        "done in",
    ]
    assert [told.find(chapter) for chapter in chapters] == sorted(told.find(chapter) for chapter in chapters)
    assert all(chapter in told for chapter in chapters)
    assert code == 0, told
    assert "accuracy 0.000" in told
    assert "accuracy 1.000" in told
    assert "verdict: pass\n  exit code 0" in told
    manifest = json.loads((tmp_path / "demo" / "run" / "sftchat.json").read_text(encoding="utf-8"))
    assert (manifest["task"], manifest["base"], manifest["rows"]) == ("agree", "sftchat:nano", 240)
    assert len((tmp_path / "demo" / "new-words.jsonl").read_text(encoding="utf-8").splitlines()) == 12


def test_the_demo_refuses_a_folder_with_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    session = Session(given_registry=Registry(load_plugins([]).manager, {"agree": TASK}))

    assert main(["demo", "-o", str(tmp_path)], obj=session) == 2
    assert capsys.readouterr().err == f"sftchat: error: output folder '{tmp_path}' is not empty; give another -o\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
