"""A training killed at any moment resumes with the same losses and weights, and nothing else is resumed."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from sftchat import ModelError, UsageError
from sftchat.models.manifest import read_manifest, write_manifest
from sftchat.training.checkpoints import check_unchanged, list_checkpoints, prune
from sftchat.training.run import TrainingListener, train
from tests.training.killed import die, job


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(job(str(tiny_checkpoint), folder))
    return folder


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Forks processes with torch already imported."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.training.killed", "trl", "peft", "datasets"])
    return context


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "step", "told"),
    [
        ("step", 1, "the run has no complete checkpoint yet: it starts again from the base model"),
        ("step", 5, "continuing from checkpoint-4"),
        ("save", 6, "ignored as incomplete: checkpoint-6"),
        ("publish", 8, "continuing from checkpoint-8"),
        ("eval", 1, "continuing from checkpoint-3"),
        ("eval", 2, "continuing from checkpoint-6"),
    ],
)
def test_a_killed_run_ends_like_an_uninterrupted_one(
    processes: ForkServerContext, tiny_checkpoint: Path, whole: Path, tmp_path: Path, moment: str, step: int, told: str
) -> None:
    folder, heard = tmp_path / "run", []
    died = processes.Process(target=die, args=(str(tiny_checkpoint), str(folder), moment, step))
    died.start()
    died.join()
    assert died.exitcode == -signal.SIGKILL
    assert not (folder / "adapter_config.json").exists()

    resumed = train(job(str(tiny_checkpoint), folder, resume=True), TrainingListener(on_message=heard.append))

    expected = read_manifest(whole)
    assert expected is not None
    assert any(told in words for words in heard), heard
    assert resumed.final_loss == pytest.approx(expected.final_loss, abs=1e-6)
    assert (resumed.scores, resumed.chosen_step, resumed.steps) == (expected.scores, expected.chosen_step, expected.steps)
    assert losses(folder) == pytest.approx(losses(whole), abs=1e-6)
    assert (folder / "adapter_model.safetensors").read_bytes() == (whole / "adapter_model.safetensors").read_bytes()
    assert not (folder / ".unfinished").exists()


def losses(run: Path) -> list[float]:
    """Return every reported loss, from the state of the last checkpoint."""
    state = json.loads((run / "checkpoint-8" / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_a_finished_run_is_not_resumed(tiny_checkpoint: Path, whole: Path) -> None:
    with pytest.raises(UsageError, match="ended at step 8: there is nothing to resume; train into another folder$"):
        train(job(str(tiny_checkpoint), whole, resume=True))


def test_a_changed_hyper_parameter_is_named(tiny_checkpoint: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copytree(whole / "checkpoint-6", folder / "checkpoint-6")
    shutil.copy(whole / "checkpoint-6" / "sftchat.json", folder)

    with pytest.raises(UsageError) as error:
        train(job(str(tiny_checkpoint), folder, resume=True, learning_rate=1e-3, save_steps=4))

    assert str(error.value) == (
        f"cannot resume '{folder}': --learning-rate was 0.01, is now 0.001; undo that, or train into another folder"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": ({"file": "rows", "sha256": "1"},)}, "rows changed (sha256 was 0, is now 1)"),
        ({"data": ({"generator": "t", "n": 3},)}, "the rows come from generator t, n 3, came from rows"),
        ({"base_identity": "x", "base": "other"}, "the base model has other weights (BASE, now other)"),
        ({"template_hash": "x", "template": "plain"}, "the chat template changed (chatml, now plain)"),
        ({"tokens_hash": "x"}, "the rows render to other tokens (tokens hash was HASH, is now x)"),
        ({"validation": {}}, "the validation items changed"),
        ({"method": "full"}, "the method was lora, is now full"),
    ],
)
def test_changes_are_reported(whole: Path, change: dict[str, Any], words: str) -> None:
    before = read_manifest(whole)
    assert before is not None

    with pytest.raises(UsageError) as error:
        check_unchanged(Path("run"), before, replace(before, **change))

    expected = words.replace("BASE", before.base).replace("HASH", before.tokens_hash[:12])
    assert str(error.value) == f"cannot resume 'run': {expected}; undo that, or train into another folder"
    check_unchanged(Path("run"), before, before)


@pytest.mark.parametrize("missing", ["sftchat.json", "optimizer.pt", "adapter_model.safetensors", "trainer_state.json"])
def test_an_incomplete_checkpoint_is_not_resumed_from(whole: Path, tmp_path: Path, missing: str) -> None:
    shutil.copytree(whole / "checkpoint-6", tmp_path / "checkpoint-6")
    shutil.copytree(whole / "checkpoint-6", tmp_path / "checkpoint-7")
    (tmp_path / "checkpoint-7" / missing).unlink()

    assert list_checkpoints(tmp_path) == ([tmp_path / "checkpoint-6"], [tmp_path / "checkpoint-7"])


@pytest.mark.parametrize("name", ["trainer_state.json", "adapter_model.safetensors", "optimizer.pt"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_checkpoint_with_a_truncated_file_is_not_resumed_from(whole: Path, tmp_path: Path, name: str, kept: float) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    last = list_checkpoints(run)[0][-1]
    content = (last / name).read_bytes()
    (last / name).write_bytes(content[: int(len(content) * kept)])

    assert last not in list_checkpoints(run)[0]
    assert last in list_checkpoints(run)[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: {key: value * float("nan") for key, value in tensors.items()}, "holds NaN; copy it again"),
        (
            lambda tensors: dict(list(tensors.items())[1:]),
            r"1 of \d+ tensors are not in its files .*; delete it to go on from an earlier one",
        ),
        (lambda tensors: dict(list(tensors.items())[:0]), "tensors are not in its files"),
    ],
    ids=["not finite", "one missing", "all missing"],
)
def test_a_checkpoint_with_damaged_weights_is_not_resumed_from(
    tiny_checkpoint: Path, whole: Path, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], words: str
) -> None:
    from safetensors.torch import load_file, save_file

    run = tmp_path / "run"
    run.mkdir()
    shutil.copytree(whole / "checkpoint-6", run / "checkpoint-6")
    shutil.copy(whole / "checkpoint-6" / "sftchat.json", run)
    weights = run / "checkpoint-6" / "adapter_model.safetensors"
    save_file(change(load_file(weights)), weights, {"format": "pt"})

    with pytest.raises(ModelError, match=words):
        train(job(str(tiny_checkpoint), run, resume=True))

    assert weights.is_file()


def test_the_last_and_the_best_checkpoint_are_kept_for_any_limit(whole: Path, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        shutil.copytree(whole / "checkpoint-6", tmp_path / f"checkpoint-{step}")

    prune(tmp_path, 3, best=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]
    prune(tmp_path, 1, best=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-5"]


def test_values_that_json_writes_differently_are_not_changes(whole: Path, tmp_path: Path) -> None:
    before = read_manifest(whole)
    assert before is not None
    given = replace(before, data=({"generator": "t", "options": {"kinds": ("a", "b")}},))
    write_manifest(tmp_path, given)

    check_unchanged(Path("run"), read_manifest(tmp_path) or before, given)
