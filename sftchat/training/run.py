"""Runs a training: trainer, scoring, checkpoints, selection of the best weights, and the parity proof of the saved model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from sftchat._util.parsing import load_json, read_text
from sftchat.errors import EngineError, UsageError, first_line
from sftchat.inference.distributed import is_main_process
from sftchat.inference.kv_cache import is_out_of_memory
from sftchat.models.load_checks import check_saved
from sftchat.models.loading import saved_tokenizer, stop_ids, unwrapped
from sftchat.models.manifest import Manifest, read_manifest, write_manifest
from sftchat.task import Task
from sftchat.templates.parity import check_parity
from sftchat.training.callbacks import GracefulStop, PeriodicScoring, ProgressReporter, ScoringResult, TrainingStatus, guard_callback
from sftchat.training.checkpoints import (
    STATE_FILE,
    UNFINISHED,
    cleanup_on_write_error,
    clear_unfinished,
    complete_checkpoint,
    list_checkpoints,
    lock_run,
    prune,
    publish,
    write_error_reason,
)
from sftchat.training.config import TrainingConfig
from sftchat.training.packing import restore_attention
from sftchat.training.prepare import TrainingJob, TrainingSetup, prepare, require_parity
from sftchat.training.trainer import Hooks, Trainer, collate, sft_config, to_dataset
from sftchat.training.validation import ValidationHistory, read_history, score_model

__all__ = ["TrainingJob", "TrainingListener", "TrainingSetup", "train"]

PluginCallbacks: TypeAlias = Callable[[Task, TrainingConfig], Iterable[tuple[str, Any]]]

LAST_LOSSES = 5
"""Number of last reported losses whose mean is the final loss."""
MEMORY_ADVICE = "lower --batch-size, --max-length or --validation-items, add --gradient-checkpointing, or use --method lora"


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class TrainingListener:
    """Callbacks of a training.

    Attributes:
        on_start: Called once, before the first step.
        on_progress: Called at every report of the loss.
        on_scoring: Called after every scoring.
        on_stopping: Called when Ctrl-C requested a stop after the current step.
        on_message: Called with a line about something unusual.
    """

    on_start: Callable[[TrainingSetup], None] = _ignore
    on_progress: Callable[[TrainingStatus], None] = _ignore
    on_scoring: Callable[[ScoringResult], None] = _ignore
    on_stopping: Callable[[], None] = _ignore
    on_message: Callable[[str], None] = _ignore


def no_callbacks(task: Task, config: TrainingConfig) -> Iterable[tuple[str, Any]]:
    """Return no trainer callbacks of plugins."""
    return ()


def train(
    job: TrainingJob,
    listener: TrainingListener | None = None,
    *,
    engine_types: Collection[str] = (),
    plugin_callbacks: PluginCallbacks = no_callbacks,
) -> Manifest:
    """Fine-tune a model and write a folder that ``eval``, ``chat`` and transformers can load.

    Args:
        job: The training job.
        listener: Callbacks; none by default.
        engine_types: Schemes of the installed engines, whose models cannot be trained here.
        plugin_callbacks: Returns transformers callbacks for the task and the config, each with the name of its plugin.

    Returns:
        The manifest that was written.

    Raises:
        UsageError: When the folder has other files or another run, or is in use, an option is out of range, or the run cannot be resumed with these
            rows.
        DataError: When there is no row to train on.
        ModelError: When the model cannot be loaded, or its template fails the parity proof.
        EngineError: When training itself fails.
        SftchatError: When the folder cannot be written to; earlier checkpoints stay complete.
        KeyboardInterrupt: When the user stopped the training; there is a checkpoint of the last step.
    """
    with lock_run(job.output) if is_main_process() else nullcontext():
        listener = listener or TrainingListener()
        setup = prepare(job, engine_types, listener.on_message if is_main_process() else _ignore)
        run = TrainingRun(job, setup, listener, plugin_callbacks)
        with cleanup_on_write_error(job.output):
            return run.execute()


class TrainingRun:
    """A running training with its scores and files.

    Args:
        job: The training job.
        setup: The prepared training.
        listener: Callbacks.
        plugin_callbacks: As for ``train``.
    """

    def __init__(self, job: TrainingJob, setup: TrainingSetup, listener: TrainingListener, plugin_callbacks: PluginCallbacks) -> None:
        self.job, self.setup, self.plugin_callbacks = job, setup, plugin_callbacks
        self.listener = listener if is_main_process() else TrainingListener()
        self.output = job.output
        self.history = ValidationHistory(job.task.metric.name, job.task.metric.higher_is_better)

    def execute(self) -> Manifest:
        """Train, save the model and prove parity."""
        setup = self.setup
        setup.renderer.tokenizer.chat_template = setup.renderer.saved
        checkpoint = self._find_checkpoint() if self.job.resume else None
        if is_main_process():
            if setup.validation is not None:
                setup.validation.write(self.output)
            if checkpoint is None:
                write_manifest(self.output, setup.manifest)
        if checkpoint is not None:
            state = load_json(read_text(checkpoint / STATE_FILE))
            if state["global_step"] >= state["max_steps"]:  # the trainer would run one step too many
                # not 0 seconds, by which a manifest says that the training has not ended
                return self._finish(None, state["global_step"], state["log_history"], seconds=0.1)
        stopper = GracefulStop()
        trainer = self._create_trainer(stopper, is_resumed=checkpoint is not None)
        self.listener.on_start(setup)
        started_at = time.monotonic()
        try:
            with stopper.on_interrupt(self.listener.on_stopping):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (RuntimeError, MemoryError) as error:
            if write_error_reason(error):
                raise
            advice = f"; {MEMORY_ADVICE}" if is_out_of_memory(error) else ""
            raise EngineError(f"training failed at step {trainer.state.global_step}: {first_line(error)}{advice}") from error
        if stopper.requested and trainer.state.global_step < trainer.state.max_steps:
            raise KeyboardInterrupt
        manifest = self._finish(trainer, trainer.state.global_step, trainer.state.log_history, time.monotonic() - started_at)
        trainer.end()
        return manifest

    def _create_trainer(self, stopper: GracefulStop, is_resumed: bool) -> Trainer:
        setup, config = self.setup, self.setup.config
        arguments = sft_config(config, str(self.output), config.precision, setup.device)
        arguments.eval_on_start = config.eval_steps > 0 and not is_resumed
        hooks = Hooks(
            score=self._score if setup.validation else None,
            complete=self._complete,
            after_checkpoint=self._after_checkpoint,
            on_smaller_batch=self._report_smaller_batch,
        )
        scoring = PeriodicScoring(config.eval_steps, lambda: self.history.has_stalled(config.patience))
        from_plugins = [guard_callback(name, callback) for name, callback in self.plugin_callbacks(self.job.task, config)]
        with _tensorboard_folder(self.output / "runs"):
            trainer = Trainer(
                model=setup.model, args=arguments, data_collator=collate, train_dataset=to_dataset(setup.rows), processing_class=setup.renderer.tokenizer,
                callbacks=[ProgressReporter(self.listener.on_progress), scoring, stopper, *from_plugins],
                packed=setup.attention.packed, hooks=hooks,
            )  # fmt: skip
        if config.eval_steps and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            raise UsageError(
                "a model whose weights are sharded cannot generate while it trains; leave --eval-steps out and score the checkpoints"
            )
        if trainer.is_fsdp_enabled and (state_dict_type := trainer.accelerator.state.fsdp_plugin.state_dict_type.name) != "FULL_STATE_DICT":
            raise UsageError(
                f"with fsdp_state_dict_type {state_dict_type} no weights would be saved that a model could be loaded from; set FULL_STATE_DICT"
            )
        return trainer

    def _find_checkpoint(self) -> Path | None:
        """Return the checkpoint to resume from, None without a complete one, and read the history of its scores; incomplete ones are deleted."""
        complete, incomplete = list_checkpoints(self.output)
        if incomplete:
            self.listener.on_message(f"ignored as incomplete: {', '.join(path.name for path in incomplete)}")
        if is_main_process():
            clear_unfinished(self.output, incomplete)
        if not complete:
            self.listener.on_message("the run has no complete checkpoint yet: it starts again from the base model")
            return None
        latest = complete[-1]
        if any(latest.glob("*.safetensors")):  # not for sharded checkpoints, which only the launcher can read
            check_saved(latest, self.setup.model)
        self.listener.on_message(f"continuing from {latest.name}")
        manifest = read_manifest(latest)
        if manifest is not None:
            self.history = read_history(self.history.metric, self.history.higher_is_better, manifest.scores)
        return latest

    def _score(self, step: int) -> tuple[dict[str, float], bool]:
        """Score the current model; return the metrics, and whether this step is the best so far."""
        validation = self.setup.validation
        assert validation is not None
        started_at = time.monotonic()
        result = score_model(self.setup.model, self.setup.renderer, self.job.task, validation.examples, "validation")
        self.history = self.history.add(step, {metric.name: metric.value for metric in result.metrics})
        primary, best_step = result.metric(self.history.metric), self.history.best_step or 0
        self.listener.on_scoring(
            ScoringResult(
                step=step, metric=primary.name, value=primary.value, low=primary.low, high=primary.high, items=len(result.items),
                best=best_step, best_value=self.history.value(best_step), seconds=time.monotonic() - started_at,
            )
        )  # fmt: skip
        return dict(self.history.scores[step]), best_step == step

    def _current_manifest(self, steps: int, chosen_step: int) -> Manifest:
        """Return the manifest after ``steps`` steps, for the weights of step ``chosen_step``; both are 0 while the training runs."""
        best_step = self.history.best_step
        has_checkpoint = best_step is not None and (self.output / f"checkpoint-{best_step}").is_dir()
        best_checkpoint = f"checkpoint-{best_step}" if has_checkpoint else ""
        scores = self.history.as_manifest()
        return replace(self.setup.manifest, steps=steps, chosen_step=chosen_step, scores=scores, best_checkpoint=best_checkpoint)

    def _complete(self, folder: Path, step: int) -> None:
        """Add what inference needs to a checkpoint's weights, and the manifest."""
        complete_checkpoint(folder, self.setup.model, self.setup.renderer)
        (folder / "training_args.bin").unlink(missing_ok=True)  # an unused pickle that would count as weights
        write_manifest(folder, self._current_manifest(step, step))

    def _after_checkpoint(self, run: Path) -> None:
        """Record the best checkpoint in the run's manifest, and delete surplus checkpoints."""
        write_manifest(run, self._current_manifest(0, 0))
        prune(run, self.setup.config.save_limit, self.history.best_step)

    def _report_smaller_batch(self, rows: int) -> None:
        self.listener.on_message(f"out of memory: {rows} rows at once from here on, the effective batch as before")

    def _finish(self, trainer: Trainer | None, step: int, log_history: list[dict[str, Any]], seconds: float) -> Manifest:
        """Publish the best weights, or the last if none were scored, and prove parity.

        Args:
            trainer: Trainer with the weights of the last step in memory; None if they are only in its checkpoint.
            step: The last step.
            log_history: The trainer's log, with the reported losses.
            seconds: Duration of the training.
        """
        model, renderer = self.setup.model, self.setup.renderer
        chosen_step = self.history.best_step or step
        restore_attention(model)
        final = self.output / UNFINISHED / "final"
        is_in_memory = trainer is not None and chosen_step == step
        if trainer is not None and is_in_memory:
            trainer.save_model(str(final))
        losses = [entry["loss"] for entry in log_history if "loss" in entry][-LAST_LOSSES:]
        final_loss = round(sum(losses) / len(losses), 8) if losses else None
        manifest = replace(self._current_manifest(step, chosen_step), seconds=round(seconds, 1), final_loss=final_loss)
        if is_main_process():
            if is_in_memory:
                if not any(final.glob("*.safetensors")):
                    raise EngineError(
                        "the launcher's settings kept the weights in shards, which no model can be loaded from; have them saved whole"
                    )
                complete_checkpoint(final, model, renderer)
                publish(final, self.output, move=True)
            else:
                publish(self.output / f"checkpoint-{chosen_step}", self.output)
            clear_unfinished(self.output)
            write_manifest(self.output, manifest)
            if not self.job.force:
                require_parity(check_parity(renderer, stop_ids(unwrapped(model), renderer), saved_tokenizer(self.output)))
        return manifest


@contextmanager
def _tensorboard_folder(folder: Path) -> Iterator[None]:
    """Set TensorBoard's folder through the environment, its callback's only setting for it, unless the user has set it."""
    variable = "TENSORBOARD_LOGGING_DIR"
    if variable in os.environ:
        yield
        return
    os.environ[variable] = str(folder)
    try:
        yield
    finally:
        del os.environ[variable]
