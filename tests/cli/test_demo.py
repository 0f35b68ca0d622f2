"""`sftchat demo` with a task that is learned in seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sftchat import DemoConfig, Example, ForgettingConfig, Message, Reply, Score, Task, TrainingDefaults, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.models.fingerprint import file_hash
from sftchat.models.manifest import read_manifest
from sftchat.models.reference import resolve
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


def other_generate(n: int, seed: int) -> list[Example]:
    return [Example((Message(role="user", content=f"第 {seed * 1000 + i} 天"),), "晴天。", id=f"day-{seed}-{i}") for i in range(n)]


def write_evalset(path: Path, rows: list[Example]) -> Path:
    items = ({"id": row.id, "messages": [dict(message) for message in row.messages], "gold": row.gold} for row in rows)
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return path


def forgetting_tasks(folder: Path, rows: int = 160) -> dict[str, Task]:
    """Return the task ``agree``, and the task ``weather`` that is forgotten; both with an evalset of 12 items."""
    config = ForgettingConfig(
        rows=rows,
        options={"words": "blue"},
        evalset="agreements",
        other_task="weather",
        other_evalset="days",
        items=10,
        settings={"method": "full", "batch_size": 8, "epochs": 1.0},
        replay=0.25,
        questions=("red 1?", "第 7 天"),
    )
    demo = DemoConfig(rows=240, items=12, held_out={"new numbers": {}}, forgetting=config)
    agreements = write_evalset(folder / "agreements.jsonl", generate(12, 99, words="blue"))
    days = write_evalset(folder / "days.jsonl", other_generate(12, 99))
    return {
        "agree": replace(TASK, demonstration=demo, evalsets={"agreements": agreements}),
        "weather": replace(TASK, name="weather", generate=other_generate, demonstration=None, evalsets={"days": days}),
    }


@pytest.mark.slow
def test_a_model_forgets_without_replay_and_keeps_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks, base, folder = forgetting_tasks(tmp_path), tmp_path / "base", tmp_path / "demo"
    session = Session(given_registry=Registry(load_plugins([]).manager, tasks))
    assert main(["train", "weather", "--rows", "240", "--epochs", "1", "-q", "-o", str(base)], obj=session) == 0
    capsys.readouterr()

    code = main(["demo", "--model", str(base), "-o", str(folder)], obj=session)

    printed = capsys.readouterr().out
    assert code == 0, printed
    scored = "--task agree --evalset agree=agreements --task weather --evalset weather=days --limit 10"
    trained = f"$ sftchat train agree --model {base} --rows 160 --option words=blue"
    own = folder / "own-replies.jsonl"
    settings = "--method full --batch-size 8 --epochs 1"
    sections = [
        f"1. {base} before training",
        f"$ sftchat eval {base} {scored}\n",
        "2. training on agree alone",
        f"{trained} {settings} -o {folder / 'alone'}\n",
        "3. the gate over both tasks",
        f"$ sftchat eval {folder / 'alone'} {scored} --baseline {base}\n",
        "exit code 1",
        "4. the model's own replies to prompts of weather, to be replayed",
        f"$ sftchat data generate weather -n 80 -o {folder / 'prompts.jsonl'} --quiet\n",
        f"$ sftchat data best-of weather {base} --prompts {folder / 'prompts.jsonl'} -k 1 --temperature 0 --min-score 0 -o {own} --quiet\n",
        "5. the same training with 25% of such rows",
        f"{trained} --replay {own}=0.25 {settings} -o {folder / 'replayed'}\n",
        "6. the gate again",
        f"$ sftchat eval {folder / 'replayed'} {scored} --baseline {base}\n",
        "exit code 0",
        "7. the same questions to all three",
        "8. summary",
        "done in",
    ]
    positions = [printed.find(section) for section in sections]
    assert -1 not in positions, [section for section, position in zip(sections, positions, strict=True) if position < 0]
    assert positions == sorted(positions)
    manifest = read_manifest(folder / "replayed")
    assert manifest is not None
    assert manifest.data[1] == {"file": str(own), "sha256": file_hash(own), "n": 53, "seed": 0, "replay": 0.25}


@pytest.mark.slow
def test_a_demo_that_shows_no_forgetting_says_so_and_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One step of training changes nothing that a gate could find."""
    session = Session(given_registry=Registry(load_plugins([]).manager, forgetting_tasks(tmp_path, rows=8)))
    embedded = resolve("sftchat:nano").folder

    code = main(["demo", "agree", "--model", str(embedded), "-o", str(tmp_path / "demo")], obj=session)

    printed = capsys.readouterr().out
    assert code == 3, printed
    assert "This run did not show what the demo is about" in printed


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["weather"], "unknown demonstration with a model other than sftchat:nano 'weather' (available: agree)"),
        (["agree"], "no folder 'nowhere'"),
    ],
)
def test_a_demo_that_cannot_be_is_refused_before_anything_is_written(
    words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(given_registry=Registry(load_plugins([]).manager, forgetting_tasks(tmp_path)))

    assert main(["demo", *words, "--model", "nowhere", "-o", str(tmp_path / "demo")], obj=session) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
