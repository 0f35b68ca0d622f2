"""Validation with the task's metric: the score at a step equals that of ``sftchat eval``, and the best weights are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftchat import DataError, Example, Message, Reply, Score, Task, UsageError, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.models.fingerprint import folder_identity
from sftchat.models.manifest import Manifest, read_manifest
from sftchat.plugins.manager import Registry, load_plugins
from sftchat.training.callbacks import ScoringResult
from sftchat.training.run import TrainingJob, TrainingListener, train
from sftchat.training.validation import ValidationHistory, validation_from_file, validation_from_generator, validation_from_rows

WORDS = ["red", "blue", "green", "gold"]
ROWS = [Example((Message(role="user", content=f"say {word} {n}"),), word, source=f"rows:{n}") for n in range(15) for word in WORDS]


def shared_letters(example: Example, reply: Reply) -> Score:
    """Partial credit, so that a half-trained model has a score worth comparing."""
    gold = example.gold or ""
    hits = sum(a == b for a, b in zip(reply.text, gold, strict=False))
    right = reply.text == gold
    return Score({"n": 1, "right": float(right), "hits": hits / max(1, len(gold))}, reply.text, () if right else ("wrong",))


TASK = Task(
    "colours", "says colours", lambda n, seed: [ROWS[(seed + i) % len(ROWS)] for i in range(n)], shared_letters,
    (rate("letters", "hits"), rate("accuracy", "right")),
)  # fmt: skip
REGISTRY = Registry(load_plugins([]).manager, {"colours": TASK})


def fit(model: Path, output: Path, listener: TrainingListener | None = None, **given: Any) -> Manifest:
    options = {key: given.pop(key) for key in ("resume", "validation") if key in given}
    task = given.pop("task", TASK)
    chosen = {
        "max_steps": 6,
        "batch_size": 4,
        "eval_steps": 2,
        "validation_items": 8,
        "precision": "float32",
        "learning_rate": 1e-2,
        **given,
    }
    return train(TrainingJob(task, str(model), output, ROWS, ({"file": "rows"},), chosen, **options), listener or TrainingListener())


@pytest.mark.parametrize(("method", "precision"), [pytest.param("full", "float32", marks=pytest.mark.slow), ("lora", "bfloat16")])
def test_the_score_at_a_step_equals_that_of_eval_for_the_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, precision: str
) -> None:
    """Also in mixed precision: the weights are float32 then, and ``eval`` does not depend on the training precision."""
    run = tmp_path / "run"
    heard: list[ScoringResult] = []

    manifest = fit(
        tiny_checkpoint, run, TrainingListener(on_scoring=heard.append), method=method, precision=precision, save_steps=2, save_limit=9
    )

    assert list(manifest.scores) == ["0", "2", "4", "6"]
    assert [scored.step for scored in heard] == [0, 2, 4, 6]
    models = [str(tiny_checkpoint), *(str(run / f"checkpoint-{step}") for step in (2, 4, 6))]
    code = main(
        ["eval", *models, "--task", "colours", "--evalset", str(run / "validation.jsonl"), "--json", "--quiet"],
        obj=Session(given_registry=REGISTRY),
    )
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    told = [{metric["name"]: metric["value"] for metric in result["metrics"]} for result in report["results"]]
    assert told == [pytest.approx(values, abs=1e-9) for values in manifest.scores.values()]
    assert len({values["letters"] for values in told}) > 1, "scores that never change compare nothing"


def test_the_run_is_its_best_checkpoint_which_is_never_deleted(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Scorer that gives step 2 the best score, by counting its calls."""
    asked = iter([0.1] * 8 + [0.9] * 8 + [0.2] * 8 + [0.3] * 8)
    falling = Task("colours", "", TASK.generate, lambda e, r: Score({"n": 1, "hits": next(asked)}), (rate("letters", "hits"),))
    run = tmp_path / "run"

    manifest = fit(tiny_checkpoint, run, task=falling, save_steps=1, save_limit=1)

    assert (manifest.chosen_step, manifest.best_checkpoint, manifest.steps) == (2, "checkpoint-2", 6)
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-6"]
    assert folder_identity(run) == folder_identity(run / "checkpoint-2") != folder_identity(run / "checkpoint-6")
    assert not list(run.glob("optimizer*"))
    assert {step: round(values["letters"], 9) for step, values in manifest.scores.items()} == {"0": 0.1, "2": 0.9, "4": 0.2, "6": 0.3}
    assert read_manifest(run) == manifest


def test_training_ends_when_scores_stall(tiny_checkpoint: Path, tmp_path: Path) -> None:
    asked = iter([0.1] * 8 + [0.9] * 8 + [0.2] * 8 + [0.3] * 8)
    falling = Task("colours", "", TASK.generate, lambda e, r: Score({"n": 1, "hits": next(asked)}), (rate("letters", "hits"),))

    manifest = fit(tiny_checkpoint, tmp_path / "run", task=falling, max_steps=40, patience=2)

    assert (manifest.steps, manifest.chosen_step) == (6, 2)


def test_the_best_step_is_the_earliest_of_those_that_tie_and_never_the_base_model() -> None:
    curve = ValidationHistory("f1").add(0, {"f1": 0.9}).add(10, {"f1": 0.5}).add(20, {"f1": 0.6}).add(30, {"f1": 0.6})

    assert (curve.best_step, curve.has_stalled(1), curve.has_stalled(2), curve.has_stalled(0)) == (20, True, False, False)
    errors = ValidationHistory("errors", higher_is_better=False).add(0, {"errors": 0.9}).add(10, {"errors": 0.5}).add(20, {"errors": 0.6})
    assert errors.best_step == 10


def test_validation_rows_are_not_trained_on() -> None:
    left, validation = validation_from_rows([*ROWS, *ROWS[:3]], 5, seed=0)

    prompts = {example.messages[-1]["content"] for example in validation.examples}
    assert len(prompts) == 5
    assert not prompts & {example.messages[-1]["content"] for example in left}
    assert validation_from_rows(ROWS, 5, seed=0)[1] == validation_from_rows(ROWS, 5, seed=0)[1] != validation_from_rows(ROWS, 5, seed=1)[1]


def test_generated_items_are_of_another_seed_and_not_trained_on() -> None:
    left, validation = validation_from_generator(TASK, ROWS, 10, 0, {})

    prompts = {example.messages[-1]["content"] for example in validation.examples}
    assert (len(prompts), len(left)) == (10, len(ROWS) - 10)
    assert not prompts & {example.messages[-1]["content"] for example in left}


def test_too_few_rows_for_validation_are_reported_with_the_option_to_use() -> None:
    with pytest.raises(DataError, match=r"^4 rows are too few to keep some for validation; give --validation FILE, or --eval-steps 0$"):
        validation_from_rows(ROWS[:4], 5, seed=0)


def test_a_validation_file_without_gold_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "?"}], "gold": null}\n', encoding="utf-8")

    with pytest.raises(DataError, match=r"items\.jsonl:1: "):
        validation_from_file(str(path), 10)


def test_a_validation_file_without_scoring_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="^--validation is scored every --eval-steps steps; give --eval-steps N$"):
        fit(tiny_checkpoint, tmp_path / "run", eval_steps=0, validation=str(tmp_path / "items.jsonl"))
