"""``--dry-run``: a few real steps, the longest batch first, tell whether a training fits into memory and when it would end."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import TrainerCallback

from sftchat.errors import EngineError, first_line
from sftchat.inference.memory import is_out_of_memory
from sftchat.training.dataset import RenderedRows
from sftchat.training.prepare import TrainingSetup
from sftchat.training.trainer import Hooks, Trainer, arguments, collate, table

MEASURED_BATCHES = 12
"""Batches of rows of all lengths by which the speed is measured, fewer where these take long."""

FIRST_TIMED_STEP = 2
"""The step from which time is taken: the first reserves memory, the second allocates what the optimizer keeps."""

MAX_MEASURING_SECONDS = 10.0
"""Seconds of measuring after which no further batch is begun."""

MEMORY_ADVICE = "lower --max-length or --batch-size (with --accumulation for the same effective batch), add --gradient-checkpointing, or use --method lora"


@dataclass(frozen=True)
class DryRun:
    """What a dry run found.

    Attributes:
        longest: Tokens of the longest row.
        rows_at_once: Rows computed at once: the batch size, or less where memory ran out.
        peak_bytes: The most memory in use: of the accelerator, or of the whole process on a CPU.
        tokens_per_second: Of rows of all lengths, prompt and reply.
        steps: Optimiser steps of the training.
        seconds: How long all of them would take, without scoring and saving.
    """

    longest: int
    rows_at_once: int
    peak_bytes: int
    tokens_per_second: float
    steps: int
    seconds: float


class _Clock(TrainerCallback):  # type: ignore[misc]
    """When each step began, and when the last ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        if len(self.times) > FIRST_TIMED_STEP and now - self.times[FIRST_TIMED_STEP] > MAX_MEASURING_SECONDS:
            control.should_training_stop = True
        if control.should_training_stop or state.global_step == state.max_steps:
            self.times.append(now)


def perform_dry_run(ready: TrainingSetup) -> DryRun:
    """Train on the longest rows, then on some of all lengths; the weights in memory are spoilt, nothing is written.

    Args:
        ready: What would be trained.

    Raises:
        EngineError: When one row alone does not fit into memory; says what to change.
    """
    config = ready.config
    rows, size = ready.rows, min(config.batch_size, len(ready.rows.ids))
    order = sorted(range(len(rows.ids)), key=lambda row: -len(rows.ids[row]))
    usual = max(2, min(MEASURED_BATCHES, len(order) // size))
    batches = [order[:size], *([order[(k + i * usual) % len(order)] for i in range(size)] for k in range(usual))]
    chosen = [row for batch in batches for row in batch]
    sample = RenderedRows(tuple(rows.ids[row] for row in chosen), tuple(rows.labels[row] for row in chosen))
    short = replace(
        config, batch_size=size, accumulation=1, max_steps=len(batches), eval_steps=0, patience=0, save_steps=0, report_to=(), warmup=0.0,
    )  # fmt: skip
    clock, at_once = _Clock(), [size]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=ready.model, args=arguments(short, folder, config.precision, ready.device), data_collator=collate, train_dataset=table(sample),
            processing_class=ready.renderer.tokenizer, callbacks=[clock], packed=ready.attention.packed, in_order=True, hooks=Hooks(smaller=at_once.append),
        )  # fmt: skip
        if ready.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        try:
            trainer.train()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise EngineError(f"the dry run failed: {first_line(error)}") from error
            raise EngineError(f"one row of {len(rows.ids[order[0]])} tokens does not fit into memory: {MEMORY_ADVICE}") from error
    measured = batches[FIRST_TIMED_STEP : len(clock.times) - 1]
    speed = sum(len(rows.ids[row]) for batch in measured for row in batch) / (clock.times[-1] - clock.times[FIRST_TIMED_STEP])
    batch = config.batch_size * config.accumulation
    a_pass = -(-len(rows.ids) // batch)
    steps = config.max_steps or round(a_pass * config.epochs)
    return DryRun(len(rows.ids[order[0]]), at_once[-1], _peak(ready.device), speed, steps, rows.tokens * steps / a_pass / speed)


def _peak(device: str) -> int:
    """The most memory that was in use."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated())
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
