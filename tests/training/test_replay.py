"""``train --replay``: rows of other tasks and files in the training."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import Example, Message, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.errors import UsageError
from sftchat.models.fingerprint import file_hash
from sftchat.models.manifest import read_manifest
from sftchat.plugins.manager import Registry, load_plugins
from sftchat.training.replay import Replay, collect_replay_rows, parse_replays


def make_task(name: str) -> Task:
    def generate(n: int, seed: int) -> list[Example]:
        return [Example((Message(role="user", content=f"{name} {seed} {i}"),), f"{name}!", f"{name}-{i}") for i in range(n)]

    def score(example: Example, reply: Reply) -> Score:
        return Score({"n": 1, "right": float(reply.text == example.gold)})

    return Task(name, f"says {name}", generate, score, (rate("accuracy", "right"),))


TASKS = {name: make_task(name) for name in ("old", "new", "other")}


def write_rows(path: Path, n: int) -> Path:
    lines = (json.dumps({"prompt": f"question {i}", "completion": f"answer {i}"}) for i in range(n))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_replay_is_a_task_or_a_file_with_its_share(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "a=b.jsonl", 3)

    replays = parse_replays(["old=0.2", f"{rows}=1/4", "hf://datasets/org/name=5e-2"], TASKS, "new")

    assert replays == (
        Replay("old", Fraction(1, 5), TASKS["old"]),
        Replay(str(rows), Fraction(1, 4)),
        Replay("hf://datasets/org/name", Fraction(1, 20)),
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["old"], "--replay is 'old', must be TASK=SHARE or FILE=SHARE, such as general=0.2"),
        (["=0.2"], "--replay is '=0.2', must be TASK=SHARE or FILE=SHARE, such as general=0.2"),
        *(
            ([f"old={share}"], f"--replay is 'old={share}', its share must be a number above 0 and below 1, such as 0.2")
            for share in ("", "0", "1", "-0.1", "20%", "nan", "inf", "1/0", "1e400")
        ),
        (["new=0.2"], "--replay names 'new', the task that is trained; name another task, or a file"),
        (["old=0.2", "old=0.3"], "--replay names 'old' twice; give it once"),
        (["odl=0.2"], "--replay: unknown task 'odl'; did you mean 'old'? (available: new, old, other); nor is it a file"),
        (
            ["old=0.5", "other=0.5"],
            "the shares of --replay add up to 1 or more, which leaves no room for the rows of the training; lower them",
        ),
    ],
)
def test_a_replay_that_cannot_be_is_refused(arguments: list[str], problem: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_replays(arguments, TASKS, "new")

    assert str(refused.value) == problem


@given(st.integers(1, 200), st.lists(st.fractions(Fraction(1, 1000), Fraction(2, 5)), min_size=1, max_size=2), st.integers(0, 99))
def test_each_source_gets_its_share_of_all_rows_to_the_nearest_row(rows: int, shares: list[Fraction], seed: int) -> None:
    replays = [Replay(name, share, TASKS[name]) for name, share in zip(("old", "other"), shares, strict=False)]

    examples, sources = collect_replay_rows(replays, rows, seed)

    total = rows / (1 - sum(shares))
    for replay, source in zip(replays, sources, strict=True):
        exact = float(replay.share * total)
        assert source == {"generator": replay.source, "n": source["n"], "seed": seed, "options": {}, "replay": float(replay.share)}
        assert abs(source["n"] - exact) <= 0.5 or (exact < 1 and source["n"] == 1)
    assert len(examples) == sum(source["n"] for source in sources)


def test_rows_of_a_file_are_drawn_without_replacement_in_its_order(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 50)
    replay = Replay(str(file), Fraction(1, 5))

    drawn, sources = collect_replay_rows([replay], 80, seed=3)
    again, _ = collect_replay_rows([replay], 80, seed=3)
    other, _ = collect_replay_rows([replay], 80, seed=4)

    numbers = [int(example.messages[-1]["content"].removeprefix("question ")) for example in drawn]
    assert len(numbers) == 20
    assert numbers == sorted(set(numbers))
    assert drawn == again
    assert drawn != other
    assert sources == ({"file": str(file), "sha256": file_hash(file), "n": 20, "seed": 3, "replay": 0.2},)


def test_a_file_with_too_few_rows_is_refused_with_the_numbers(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 19)

    with pytest.raises(UsageError) as refused:
        collect_replay_rows([Replay(str(file), Fraction(1, 5))], 80, seed=3)

    assert str(refused.value) == f"--replay {file}: a share of 0.2 needs 20 rows and the file has 19; lower the share, or add rows"


def test_a_training_learns_replayed_rows_and_records_them(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = write_rows(tmp_path / "rows.jsonl", 10), tmp_path / "run"
    session = Session(given_registry=Registry(load_plugins([]).manager, TASKS))
    words = "--rows 12 --max-steps 2 --eval-steps 1 --validation-items 3 --batch-size 4 --precision float32 --learning-rate 1e-6"

    code = main(
        [
            "train",
            "new",
            "--model",
            str(tiny_checkpoint),
            "--replay",
            "old=0.25",
            "--replay",
            f"{file}=0.25",
            "-o",
            str(run),
            *words.split(),
        ],
        obj=session,
    )

    printed = capsys.readouterr().err
    assert code == 0, printed
    assert "replayed among them: 6 of old\n" in printed
    assert f"replayed among them: 6 of {file}\n" in printed
    manifest = read_manifest(run)
    assert manifest is not None
    assert (manifest.rows, manifest.data) == (
        24,
        (
            {"generator": "new", "n": 12, "seed": 0, "options": {}},
            {"generator": "old", "n": 6, "seed": 0, "options": {}, "replay": 0.25},
            {"file": str(file), "sha256": file_hash(file), "n": 6, "seed": 0, "replay": 0.25},
        ),
    )
    items = [json.loads(line) for line in (run / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {item["gold"] for item in items} == {"new!"}
