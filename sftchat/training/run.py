"""One training from a job to a folder that can be talked to: trainer, scores, checkpoints, the best weights, the proof of what was saved."""

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
"""Reports whose mean is the final loss."""
MEMORY_ADVICE = "lower --batch-size, --max-length or --validation-items, add --gradient-checkpointing, or use --method lora"


def _silent(*_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class TrainingListener:
    """Who is told how a training goes.

    Attributes:
        started: Called once, when all is ready for the first step.
        tell: Called at every report of the loss.
        scored: Called after every scoring.
        stopping: Called when Ctrl-C asked for a stop after the current step.
        remark: Called with a line about something unusual.
    """

    started: Callable[[TrainingSetup], None] = _silent
    tell: Callable[[Progress], None] = _silent
    scored: Callable[[Scored], None] = _silent
    stopping: Callable[[], None] = _silent
    remark: Callable[[str], None] = _silent


def train(job: TrainingJob, registry: Registry, audience: TrainingListener | None = None) -> Manifest:
    """Fine-tune and leave a folder that ``eval``, ``chat`` and transformers load.

    Args:
        job: What to do.
        registry: The loaded plugins, for their trainer callbacks.
        audience: Who is told; nobody by default.

    Returns:
        The manifest that was written.

    Raises:
        UsageError: A folder that is taken, by another process too, an option out of range, a run that cannot be resumed with these rows.
        DataError: No row to learn from.
        ModelError: A model that cannot be loaded, or whose template fails the proof.
        EngineError: When training itself fails.
        SftchatError: When the folder cannot be written to; what was saved before is whole.
        KeyboardInterrupt: When it was stopped; a checkpoint of the last step is kept.
    """
    with locked(job.output) if is_main_process() else nullcontext():
        run = Run(job, registry, audience or TrainingListener(), prepare(job, registry))
        with cleanup_on_write_error(job.output):
            return run.carry_out()


class Run:
    """A training under way: what has been scored, and where its files are.

    Args:
        job: What to do.
        registry: The loaded plugins.
        audience: Who is told.
        ready: Everything known before the first step.
    """

    def __init__(self, job: TrainingJob, registry: Registry, audience: TrainingListener, ready: TrainingSetup) -> None:
        self.job, self.registry, self.ready = job, registry, ready
        self.audience = audience if is_main_process() else TrainingListener()
        self.output = job.output
        self.curve = ValidationHistory(job.task.metric.name, job.task.metric.higher_is_better)

    def carry_out(self) -> Manifest:
        """Train, save and prove."""
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
            if state["global_step"] >= state["max_steps"]:  # the trainer would do a step too many
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
        """The trainer with everything that listens to it."""
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
        """Where to go on from; what is broken is named and taken away."""
        whole, broken = checkpoints(self.output)
        if broken:
            self.audience.remark(f"ignored as incomplete: {', '.join(path.name for path in broken)}")
        if is_main_process():
            clear_unfinished(self.output, broken)
        if not whole:
            self.audience.remark("the run has no complete checkpoint yet: it starts again from the base model")
            return None
        if any(whole[-1].glob("*.safetensors")):  # not shards, which only the launcher can read
            check_saved(whole[-1], self.ready.model)
        self.audience.remark(f"continuing from {whole[-1].name}")
        manifest = read_manifest(whole[-1])
        if manifest is not None:
            self.curve = read_curve(self.curve.metric, self.curve.higher_is_better, manifest.scores)
        return whole[-1]

    def _score(self, step: int) -> tuple[dict[str, float], bool]:
        """Score the model as it is now."""
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
        """The manifest after some steps, for weights of one of them."""
        best = f"checkpoint-{self.curve.best}" if self.curve.best and (self.output / f"checkpoint-{self.curve.best}").is_dir() else ""
        return replace(self.ready.manifest, steps=steps, chosen_step=chosen, scores=self.curve.as_manifest(), best_checkpoint=best)

    def _complete(self, folder: Path, step: int) -> None:
        """Put beside a checkpoint's weights what is needed to talk to it."""
        complete_checkpoint(folder, self.ready.model, self.ready.renderer)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that nobody reads, and that would count as weights
        write_manifest(folder, self._manifest(step, step))

    def _saved(self, run: Path) -> None:
        """Let the run name its best checkpoint, and delete those that are one too many."""
        write_manifest(run, replace(self._manifest(0, 0)))
        prune(run, self.ready.config.save_limit, self.curve.best)

    def _smaller(self, rows: int) -> None:
        """Say that memory ran out."""
        self.audience.remark(f"out of memory: {rows} rows at once from here on, the effective batch as before")

    def _finish(self, trainer: Trainer | None, step: int, history: list[dict[str, Any]], seconds: float) -> Manifest:
        """Make the best weights, else the last, the run's own, and prove what was saved; without a trainer both are checkpoints."""
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
    """Let TensorBoard's callback, which knows no argument for it, write into a folder; where the user named one, it stays."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]
