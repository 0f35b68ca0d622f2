"""A training that kills itself at a chosen moment, run by test_resuming in a separate process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from sftchat import Example, Message, Score, Task, rate
from sftchat.plugins.manager import Registry, load_plugins
from sftchat.training import checkpoints as output
from sftchat.training import run
from sftchat.training.trainer import Trainer

WORDS = ["red", "blue", "green", "gold"]
ROWS = [Example((Message(role="user", content=f"say {word} {n}"),), word, source=f"rows:{n}") for n in range(15) for word in WORDS]
TASK = Task(
    "colours", "", lambda n, seed: ROWS[:n], lambda e, r: Score({"n": 1, "right": float(r.text == e.gold)}), (rate("right", "right"),)
)
REGISTRY = Registry(load_plugins([]).manager, {"colours": TASK})
GIVEN = {
    "max_steps": 8, "batch_size": 4, "accumulation": 2, "save_steps": 3, "save_limit": 9, "eval_steps": 4, "validation_items": 4, "precision": "float32",
    "learning_rate": 1e-2, "method": "lora", "lora_dropout": 0.1,
}  # fmt: skip


def job(model: str, folder: Path, resume: bool = False, **given: Any) -> run.TrainingJob:
    return run.TrainingJob(TASK, model, folder, ROWS, ({"file": "rows", "sha256": "0"},), {**GIVEN, **given}, resume=resume)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str, step: int) -> None:
    """Replace the function called at a moment by one that kills the process during it."""
    if moment == "step":
        real = Trainer._step_in_parts

        def half_a_step(self: Trainer, *rest: Any) -> Any:
            if self.state.global_step == step:
                kill()
            return real(self, *rest)

        Trainer._step_in_parts = half_a_step  # type: ignore[method-assign]
    elif moment == "publish":

        def half_a_publication(source: Path, folder: Path, move: bool = False) -> None:
            (folder / "adapter_model.safetensors").write_bytes((source / "adapter_model.safetensors").read_bytes()[:100])
            kill()

        run.publish = half_a_publication  # type: ignore[attr-defined]
    elif moment == "save":
        whole = output.complete_checkpoint

        def half_a_save(folder: Path, *rest: Any) -> None:
            if folder.name == f"checkpoint-{step}":
                kill()
            whole(folder, *rest)

        run.complete_checkpoint = half_a_save  # type: ignore[attr-defined]
    else:
        score = run.score_model
        asked = iter(range(100))

        def half_an_eval(*rest: Any) -> Any:
            if next(asked) == step:
                kill()
            return score(*rest)

        run.score_model = half_an_eval  # type: ignore[attr-defined]


def die(model: str, folder: str, moment: str, step: int) -> None:
    """Train until killed."""
    arm(moment, step)
    run.train(job(model, Path(folder)))
