"""Run a training: trainer, scoring, checkpoints, selection of the best weights, and the parity proof of the saved model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftchat._util.parsing import load_json, read_text
from sftchat.errors import EngineError, UsageError, first_line
from sftchat.inference.distributed import is_main_process
from sftchat.inference.memory import is_out_of_memory
from sftchat.models.loading import stop_ids, unwrapped
from sftchat.models.manifest import Manifest, read_manifest, write_manifest
from sftchat.models.weight_check import check_saved
from sftchat.plugins.manager import Registry
from sftchat.templates.parity import prove
from sftchat.training.callbacks import Progress, Reporter, Scored, ScoreNowAndThen, StopWhenAsked, guarded
from sftchat.training.checkpoints import (
    STATE_FILE,
    UNFINISHED,
    checkpoints,
    cleanup_on_write_error,
    clear_unfinished,
    complete_checkpoint,
    locked,
    os_write_error,
    prune,
    publish,
)
from sftchat.training.packing import restore_attention
from sftchat.training.prepare import TrainingJob, TrainingSetup, prepare, refuse_unproved
from sftchat.training.scoring import score_model
from sftchat.training.trainer import Hooks, Trainer, arguments, collate, table
from sftchat.training.validation import ValidationHistory, read_curve

__all__ = ["TrainingJob", "TrainingListener", "TrainingSetup", "train"]

LAST_LOSSES = 5
"""Number of reports whose mean is the final loss."""
MEMORY_ADVICE = "lower --batch-size, --max-length or --validation-items, add --gradient-checkpointing, or use --method lora"


def _silent(*_: object) -> None:
    """Ignore any arguments."""


@dataclass(frozen=True)
class TrainingListener:
    """Callbacks of a training.

    Attributes:
        started: Called once, before the first step.
        tell: Called at every report of the loss.
        scored: Called after every scoring.
        stopping: Called when Ctrl-C requested a stop after the current step.
        remark: Called with a line about something unusual.
    """

    started: Callable[[TrainingSetup], None] = _silent
    tell: Callable[[Progress], None] = _silent
    scored: Callable[[Scored], None] = _silent
    stopping: Callable[[], None] = _silent
    remark: Callable[[str], None] = _silent


def train(job: TrainingJob, registry: Registry, audience: TrainingListener | None = None) -> Manifest:
    """Fine-tune a model and write a folder that ``eval``, ``chat`` and transformers can load.

    Args:
        job: The training job.
        registry: Loaded plugins, for their trainer callbacks.
        audience: Callbacks; none by default.

    Returns:
        The manifest that was written.

    Raises:
        UsageError: When the folder is taken or in use, an option is out of range, or the run cannot be resumed with these rows.
        DataError: When there is no row to train on.
        ModelError: When the model cannot be loaded, or its template fails the parity proof.
        EngineError: When training itself fails.
        SftchatError: When the folder cannot be written to; earlier checkpoints stay complete.
        KeyboardInterrupt: When it was stopped; a checkpoint of the last step is kept.
    """
    with locked(job.output) if is_main_process() else nullcontext():
        run = Run(job, registry, audience or TrainingListener(), prepare(job, registry))
        with cleanup_on_write_error(job.output):
            return run.carry_out()


class Run:
    """A running training with its scores and files.

    Args:
        job: The training job.
        registry: Loaded plugins.
        audience: Callbacks.
        ready: The prepared training.
    """

    def __init__(self, job: TrainingJob, registry: Registry, audience: TrainingListener, ready: TrainingSetup) -> None:
        self.job, self.registry, self.ready = job, registry, ready
        self.audience = audience if is_main_process() else TrainingListener()
        self.output = job.output
        self.curve = ValidationHistory(job.task.metric.name, job.task.metric.higher_is_better)

    def carry_out(self) -> Manifest:
        """Train, save the model and prove parity."""
        ready = self.ready
        ready.renderer.tokenizer.chat_template = ready.renderer.saved
        checkpoint = self._checkpoint() if self.job.resume else None
        if is_main_process():
            if ready.validation is not None:
                ready.validation.write(self.output)
            if checkpoint is None:
                write_manifest(self.output, ready.manifest)
        if checkpoint is not None:
            state = load_json(read_text(checkpoint / STATE_FILE))
            if state["global_step"] >= state["max_steps"]:  # the trainer would run one step too many
                return self._finish(None, state["global_step"], state["log_history"], 0.1)
        stopper = StopWhenAsked()
        trainer = self._trainer(stopper, resumed=checkpoint is not None)
        self.audience.started(ready)
        before = time.monotonic()
        try:
            with stopper.listening(self.audience.stopping):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (RuntimeError, MemoryError) as error:
            if os_write_error(error):
                raise
            knobs = f"; {MEMORY_ADVICE}" if is_out_of_memory(error) else ""
            raise EngineError(f"training failed at step {trainer.state.global_step}: {first_line(error)}{knobs}") from error
        if stopper.asked and trainer.state.global_step < trainer.state.max_steps:
            raise KeyboardInterrupt
        manifest = self._finish(trainer, trainer.state.global_step, trainer.state.log_history, time.monotonic() - before)
        trainer.end()
        return manifest

    def _trainer(self, stopper: StopWhenAsked, resumed: bool) -> Trainer:
        """Build the trainer with its callbacks."""
        ready, config = self.ready, self.ready.config
        settings = arguments(config, str(self.output), config.precision, ready.device)
        settings.eval_on_start = config.eval_steps > 0 and not resumed
        hooks = Hooks(self._score if ready.validation else None, self._complete, self._saved, self._smaller)
        pace = ScoreNowAndThen(config.eval_steps, lambda: self.curve.stalled(config.patience))
        plugged = [guarded(name, callback) for name, callback in self.registry.trainer_callbacks(self.job.task, config)]
        with _tensorboard_under(self.output / "runs"):
            trainer = Trainer(
                model=ready.model, args=settings, data_collator=collate, train_dataset=table(ready.rows), processing_class=ready.renderer.tokenizer,
                callbacks=[Reporter(self.audience.tell), pace, stopper, *plugged],
                packed=ready.attention.packed, hooks=hooks,
            )  # fmt: skip
        if config.eval_steps and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            raise UsageError(
                "a model whose weights are sharded cannot generate while it trains; leave --eval-steps out and score the checkpoints"
            )
        if trainer.is_fsdp_enabled and (kind := trainer.accelerator.state.fsdp_plugin.state_dict_type.name) != "FULL_STATE_DICT":
            raise UsageError(
                f"with fsdp_state_dict_type {kind} no weights would be saved that a model could be loaded from; set FULL_STATE_DICT"
            )
        return trainer

    def _checkpoint(self) -> Path | None:
        """Return the checkpoint to resume from; incomplete ones are reported and deleted."""
        whole, broken = checkpoints(self.output)
        if broken:
            self.audience.remark(f"ignored as incomplete: {', '.join(path.name for path in broken)}")
        if is_main_process():
            clear_unfinished(self.output, broken)
        if not whole:
            self.audience.remark("the run has no complete checkpoint yet: it starts again from the base model")
            return None
        if any(whole[-1].glob("*.safetensors")):  # not for sharded checkpoints, which only the launcher can read
            check_saved(whole[-1], self.ready.model)
        self.audience.remark(f"continuing from {whole[-1].name}")
        manifest = read_manifest(whole[-1])
        if manifest is not None:
            self.curve = read_curve(self.curve.metric, self.curve.higher_is_better, manifest.scores)
        return whole[-1]

    def _score(self, step: int) -> tuple[dict[str, float], bool]:
        """Score the current model."""
        validation = self.ready.validation
        assert validation is not None
        before = time.monotonic()
        result = score_model(self.ready.model, self.ready.renderer, self.job.task, validation.examples, "validation")
        self.curve = self.curve.add(step, {metric.name: metric.value for metric in result.metrics})
        primary, best = result.metric(self.curve.metric), self.curve.best or 0
        self.audience.scored(
            Scored(
                step, primary.name, primary.value, primary.low, primary.high, len(result.items), best, self.curve.value(best), time.monotonic() - before
            )
        )  # fmt: skip
        return dict(self.curve.scores[step]), best == step

    def _manifest(self, steps: int, chosen: int) -> Manifest:
        """Return the manifest after ``steps`` steps, for the weights of step ``chosen``."""
        best = f"checkpoint-{self.curve.best}" if self.curve.best and (self.output / f"checkpoint-{self.curve.best}").is_dir() else ""
        return replace(self.ready.manifest, steps=steps, chosen_step=chosen, scores=self.curve.as_manifest(), best_checkpoint=best)

    def _complete(self, folder: Path, step: int) -> None:
        """Add what inference needs to a checkpoint's weights."""
        complete_checkpoint(folder, self.ready.model, self.ready.renderer)
        (folder / "training_args.bin").unlink(missing_ok=True)  # an unused pickle that would count as weights
        write_manifest(folder, self._manifest(step, step))

    def _saved(self, run: Path) -> None:
        """Record the best checkpoint in the run's manifest, and delete surplus checkpoints."""
        write_manifest(run, replace(self._manifest(0, 0)))
        prune(run, self.ready.config.save_limit, self.curve.best)

    def _smaller(self, rows: int) -> None:
        """Report that memory ran out."""
        self.audience.remark(f"out of memory: {rows} rows at once from here on, the effective batch as before")

    def _finish(self, trainer: Trainer | None, step: int, history: list[dict[str, Any]], seconds: float) -> Manifest:
        """Publish the best weights, or the last without scores, and prove parity; without a trainer the weights come from a checkpoint."""
        model, renderer = self.ready.model, self.ready.renderer
        chosen = self.curve.best or step
        restore_attention(model)
        final = self.output / UNFINISHED / "final"
        if trainer is not None and chosen == step:
            trainer.save_model(str(final))
        losses = [entry["loss"] for entry in history if "loss" in entry][-LAST_LOSSES:]
        manifest = replace(
            self._manifest(step, chosen), seconds=round(seconds, 1), final_loss=round(sum(losses) / len(losses), 8) if losses else None
        )
        if is_main_process():
            if trainer is not None and chosen == step:
                if not any(final.glob("*.safetensors")):
                    raise EngineError(
                        "the launcher's settings kept the weights in shards, which no model can be loaded from; have them saved whole"
                    )
                complete_checkpoint(final, model, renderer)
                publish(final, self.output, only_move=True)
            else:
                publish(self.output / f"checkpoint-{chosen}", self.output)
            clear_unfinished(self.output)
            write_manifest(self.output, manifest)
            if not self.job.force:
                refuse_unproved(prove(renderer, stop_ids(unwrapped(model), renderer), self.output))
        return manifest


@contextmanager
def _tensorboard_under(folder: Path) -> Iterator[None]:
    """Set TensorBoard's folder through the environment, its callback's only setting for it, unless the user has set it."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]
