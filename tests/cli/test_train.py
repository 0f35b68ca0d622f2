"""``sftchat train``: its output while the task's metric validates a training."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pyarrow
import pytest
from datasets import load_dataset
from pyarrow import parquet

from sftchat import Example, Message, Reply, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.data.formats import examples_hash, to_example
from sftchat.models.fingerprint import file_hash
from sftchat.models.manifest import Manifest, read_manifest
from sftchat.plugins.manager import Registry, load_plugins
from sftchat.training.rows import collect_rows

ROWS = [Example((Message(role="user", content=f"说 {n}"),), "好") for n in range(40)]


def score(example: Example, reply: Reply) -> Score:
    return Score({"n": 1, "right": float(reply.text == example.gold)})


TASK = Task("agree", "says 好", lambda n, seed: [ROWS[(seed + i) % 40] for i in range(n)], score, (rate("accuracy", "right"),))


def test_scores_are_printed_during_training_and_the_chosen_step_at_the_end(
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


def trained_on(checkpoint: Path, *words: str) -> Manifest:
    """The manifest of a training of one step."""
    session = Session(given_registry=Registry(load_plugins([]).manager, {"agree": TASK}))
    assert main(["train", "agree", "--model", str(checkpoint), "-o", "run", "--max-steps", "1", "-q", *words], obj=session) == 0
    manifest = read_manifest(Path("run"))
    assert manifest is not None
    return manifest


TABLE = [{"prompt": "说", "completion": "好"}, {"prompt": "问", "completion": "答"}]


def test_rows_come_from_parquet_from_the_hub_and_from_a_pipe_as_for_data(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parquet.write_table(pyarrow.Table.from_pylist(TABLE), "f.parquet")
    monkeypatch.setattr(
        "datasets.load_dataset", lambda *words, **options: TABLE if words[0] != "parquet" else load_dataset(*words, **options)
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"".join(json.dumps(row).encode() + b"\n" for row in TABLE))))

    words = ("--data", "f.parquet", "--data", "hf://datasets/org/name", "--data", "-")
    scored = ("--validation", "hf://datasets/org/gold@v1", "--eval-steps", "1")
    manifest = trained_on(tiny_checkpoint, *words, *scored)

    hashed = examples_hash(map(to_example, TABLE))
    assert manifest.rows == 6
    assert manifest.data == (
        {"file": "f.parquet", "sha256": file_hash(Path("f.parquet"))},
        {"file": "hf://datasets/org/name", "sha256": hashed},
        {"file": "stdin", "sha256": hashed},
    )
    assert (manifest.validation["file"], manifest.validation["source"]) == (
        "hf://datasets/org/gold@v1",
        "the first 2 rows of hf://datasets/org/gold@v1",
    )


def test_a_data_set_of_the_hub_is_identified_by_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    def now() -> tuple[list[Example], str]:
        rows, (entry,) = collect_rows(TASK, ("hf://datasets/org/name",))
        return rows, entry["sha256"]

    monkeypatch.setattr("datasets.load_dataset", lambda *words, **options: TABLE)
    before = now()
    assert now() == before
    monkeypatch.setattr("datasets.load_dataset", lambda *words, **options: TABLE[:1])
    assert now() == (before[0][:1], examples_hash(before[0][:1]))
    assert now()[1] != before[1]
