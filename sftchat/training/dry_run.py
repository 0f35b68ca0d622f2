"""``--dry-run``: run a few real steps, the longest batch first, to measure memory use and estimate the training time."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from transformers import TrainerCallback

from sftchat.errors import EngineError, first_line
from sftchat.inference.kv_cache import is_out_of_memory
from sftchat.training.prepare import TrainingSetup
from sftchat.training.rows import RenderedRows
from sftchat.training.trainer import Hooks, Trainer, collate, sft_config, to_dataset

MEASURED_BATCHES = 12
"""Number of batches of typical lengths for measuring speed; fewer when they take long."""

FIRST_TIMED_STEP = 2
"""Index of the first timed step: the two before it reserve memory and allocate the optimizer state."""

MAX_MEASURING_SECONDS = 10.0
"""Measuring time in seconds after which no further batch is started."""

MEMORY_ADVICE = "lower --max-length or --batch-size (with --accumulation for the same effective batch), add --gradient-checkpointing, or use --method lora"


@dataclass(frozen=True)
class DryRun:
    """Result of a dry run.

    Attributes:
        longest: Length of the longest row in tokens.
        rows_at_once: Rows per forward pass: the batch size, or less if memory ran out.
        peak_bytes: Peak memory: of the accelerator, or of the whole process on a CPU.
        tokens_per_second: Speed on rows of all lengths, prompt and reply tokens together.
        steps: Optimiser steps of the training.
        seconds: Estimated time of all steps, without scoring and saving.
    """

    longest: int
    rows_at_once: int
    peak_bytes: int
    tokens_per_second: float
    steps: int
    seconds: float


class _StepClock(TrainerCallback):  # type: ignore[misc]
    """Records the start of each step and the end of the last, and ends the training when measuring takes too long."""

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


def perform_dry_run(setup: TrainingSetup) -> DryRun:
    """Train on the longest rows, then on some of all lengths. The weights in memory are changed; nothing is written.

    Args:
        setup: The training to measure.

    Raises:
        EngineError: When a single row does not fit into memory; recommends what to change.
    """
    config = setup.config
    rows, size = setup.rows, min(config.batch_size, len(setup.rows.ids))
    longest_first = sorted(range(len(rows.ids)), key=lambda row: -len(rows.ids[row]))
    longest = len(rows.ids[longest_first[0]])
    typical_batches = max(2, min(MEASURED_BATCHES, len(longest_first) // size))
    batches = [longest_first[:size]]
    for first in range(typical_batches):  # each takes rows at equal distances in the order of length, so that all have similar lengths
        batches.append([longest_first[(first + number * typical_batches) % len(longest_first)] for number in range(size)])
    row_indices = [row for batch in batches for row in batch]
    sample = RenderedRows(tuple(rows.ids[row] for row in row_indices), tuple(rows.labels[row] for row in row_indices))
    short_config = replace(
        config, batch_size=size, accumulation=1, max_steps=len(batches), eval_steps=0, patience=0, save_steps=0, report_to=(), warmup=0.0,
    )  # fmt: skip
    clock, rows_at_once = _StepClock(), [size]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=setup.model, args=sft_config(short_config, folder, config.precision, setup.device), data_collator=collate, train_dataset=to_dataset(sample),
            processing_class=setup.renderer.tokenizer, callbacks=[clock], packed=setup.attention.packed, in_order=True, hooks=Hooks(on_smaller_batch=rows_at_once.append),
        )  # fmt: skip
        if setup.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        try:
            trainer.train()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise EngineError(f"the dry run failed: {first_line(error)}") from error
            raise EngineError(f"one row of {longest} tokens does not fit into memory: {MEMORY_ADVICE}") from error
    timed_batches = batches[FIRST_TIMED_STEP : len(clock.times) - 1]
    timed_tokens = sum(len(rows.ids[row]) for batch in timed_batches for row in batch)
    tokens_per_second = timed_tokens / (clock.times[-1] - clock.times[FIRST_TIMED_STEP])
    steps_per_epoch = ceil(len(rows.ids) / (config.batch_size * config.accumulation))
    steps = config.max_steps or round(steps_per_epoch * config.epochs)
    seconds = rows.tokens * steps / steps_per_epoch / tokens_per_second
    return DryRun(longest, rows_at_once[-1], _peak_memory(setup.device), tokens_per_second, steps, seconds)


def _peak_memory(device: str) -> int:
    """Return the peak memory in bytes."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated())
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
