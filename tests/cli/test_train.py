"""``sftchat train`` as typed: what it says while the task's metric runs a training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sftchat import Example, Message, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.shared import Session
from sftchat.models.manifest import read_manifest
from sftchat.plugins import Registry, load_plugins

ROWS = [Example((Message(role="user", content=f"说 {n}"),), "好") for n in range(40)]


def score(example: Example, reply: Reply) -> Score:
    return Score({"n": 1, "right": float(reply.text == example.gold)})


TASK = Task("agree", "says 好", lambda n, seed: [ROWS[(seed + i) % 40] for i in range(n)], score, (rate("accuracy", "right"),))


def test_scores_are_told_as_they_come_and_the_chosen_step_at_the_end(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = "--rows 32 --eval-steps 2 --validation-items 5 --max-steps 4 --batch-size 4 --precision float32 --learning-rate 1e-6"

    code = main(
        ["train", "agree", "--model", str(tiny_checkpoint), "-o", str(run), *words.split()],
        obj=Session(given_registry=Registry(load_plugins([]).manager, {"agree": TASK})),
    )

    told = capsys.readouterr().err
    assert code == 0, told
    assert "scored every 2 steps on 5 generated items: another seed\n" in told
    lines = re.findall(
        r"^(base model|step \d): accuracy 0\.000 \[0\.000, 0\.\d+\] on 5 items, \d+ s(; best 0\.000 at step 2)?$", told, flags=re.M
    )
    assert lines == [("base model", ""), ("step 2", ""), ("step 4", "; best 0.000 at step 2")]
    assert "the weights are those of step 2: accuracy 0.000, base model 0.000\n" in told
    assert f"warning: no step scored better than the base model; {tiny_checkpoint} as it is may be the better choice\n" in told
    manifest = read_manifest(run)
    assert manifest is not None
    assert (manifest.chosen_step, manifest.steps, list(manifest.scores)) == (2, 4, ["0", "2", "4"])
    assert manifest.validation["source"] == "5 generated items: another seed"
    assert len((run / "validation.jsonl").read_text(encoding="utf-8").splitlines()) == 5
