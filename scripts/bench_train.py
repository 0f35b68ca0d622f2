"""Compare training with TRL's defaults and with sftchat: trained tokens per second, losses, peak memory.

    python scripts/bench_train.py                     # sftchat:nano
    python scripts/bench_train.py --vocabulary 32768  # a random model of the same shape with a larger vocabulary

Both train on the same ids and labels, in the same batches and order, with the same weights, optimizer and learning rates, in float32. "TRL" is
``SFTTrainer`` with its defaults, except those that a CPU does not support (``use_cpu``, no bf16). So it pads batches, recomputes activations, and computes
the head at every position. The losses of each step must agree to 1e-3.

Time is the processor time of all threads of this process, so that other programs matter less. TRL and sftchat alternate, and for each step the fastest of
all rounds counts. Memory is the peak of a new process for each trainer, minus its memory before the first step. The script exits with 1 when a goal is
missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from transformers import Qwen3ForCausalLM, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from sftchat.data.generate import generate_examples
from sftchat.models.loading import load_model, load_tokenizer
from sftchat.models.reference import resolve
from sftchat.plugins.manager import load_plugins
from sftchat.templates.renderer import choose_renderer
from sftchat.training.config import TrainingConfig
from sftchat.training.packing import choose_attention, restore_attention
from sftchat.training.rows import RenderedRows, render_rows
from sftchat.training.trainer import Trainer, collate, sft_config, to_dataset

GOAL_SMALL_VOCABULARY, GOAL_LARGE_VOCABULARY, LARGE_VOCABULARY = 2.0, 3.0, 32_000
MAX_LOSS_GAP = 1e-3


@dataclass
class StepTimer(TrainerCallback):  # type: ignore[misc]
    """Callback that records processor seconds and loss of every step."""

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    step_start: float = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the start of the step."""
        self.step_start = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the processor seconds of the step."""
        self.seconds.append(time.process_time() - self.step_start)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Record the loss."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def train_with_trl(model: Any, tokenizer: Any, rows: RenderedRows, steps: int, batch_size: int, folder: str, timer: StepTimer) -> None:
    """Train with ``SFTTrainer`` and its defaults, on the rows in their order."""
    config = SFTConfig(
        output_dir=folder, use_cpu=True, bf16=False, max_steps=steps, per_device_train_batch_size=batch_size, learning_rate=1e-3,
        train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(model=model, args=config, train_dataset=to_dataset(rows), processing_class=tokenizer, callbacks=[timer])
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def train_with_sftchat(model: Any, tokenizer: Any, rows: RenderedRows, steps: int, batch_size: int, folder: str, timer: StepTimer) -> None:
    """Train with sftchat's trainer, on the rows in the same order, with TRL's schedule."""
    attention = choose_attention(model, max(map(len, rows.ids)))
    config = TrainingConfig(max_steps=steps, batch_size=batch_size, learning_rate=1e-3, warmup=0.0, schedule="linear", logging_steps=1)
    trainer = Trainer(
        model=model, args=sft_config(config, folder, "float32", "cpu"), train_dataset=to_dataset(rows), data_collator=collate, processing_class=tokenizer,
        callbacks=[timer], packed=attention.packed, in_order=True,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    restore_attention(model)


TRAINERS: dict[str, Callable[..., None]] = {"trl": train_with_trl, "sftchat": train_with_sftchat}


def prepare(vocabulary: int, count: int) -> tuple[Any, Any, RenderedRows]:
    """Load model, tokenizer and rows."""
    reference = resolve("sftchat:nano")
    tokenizer = load_tokenizer(reference)
    task = load_plugins().task("relation")
    rows = render_rows(generate_examples(task, count, 1, {}), choose_renderer(tokenizer), 512)
    model = load_model(reference, dtype="float32", device="cpu")
    if vocabulary:
        config = deepcopy(model.config)
        config.vocab_size = vocabulary
        set_seed(0)
        model = Qwen3ForCausalLM(config)
    return model, tokenizer, rows


def measure(name: str, start: Any, tokenizer: Any, rows: RenderedRows, steps: int, batch_size: int) -> StepTimer:
    """Train a copy of ``start`` with the named trainer, and return its times and losses."""
    timer = StepTimer()
    with tempfile.TemporaryDirectory() as folder:
        set_seed(0)
        TRAINERS[name](deepcopy(start), tokenizer, rows, steps, batch_size, folder, timer)
    return timer


WARM_UP_STEPS = 2
"""Number of steps that allocate memory and make kernels, and are not counted."""


def fastest_seconds(rounds: Sequence[StepTimer]) -> float:
    """Return the processor seconds of the counted steps, for each the fastest of all rounds."""
    return sum(min(times) for times in zip(*(timer.seconds[WARM_UP_STEPS:] for timer in rounds), strict=True))


def loss_gap(first: StepTimer, second: StepTimer, steps: int | None = None) -> float:
    """Return the largest relative difference of two trainings' losses at the same step.

    Args:
        first: A training.
        second: Another one with the same number of steps.
        steps: Number of first steps to compare: Adam turns rounding differences of small gradients into whole steps. None compares all.
    """
    return max(abs(a - b) / abs(a) for a, b in list(zip(first.losses, second.losses, strict=True))[:steps])


def peak_megabytes(name: str, options: argparse.Namespace) -> float:
    """Return the peak megabytes of a fresh process minus its memory before training."""
    words = ["--vocabulary", options.vocabulary, "--batch-size", options.batch_size, "--steps", 3, "--only", name]
    done = subprocess.run([sys.executable, __file__, *map(str, words)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of both trainers, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=0, help="vocabulary size of a random model; 0 is the embedded model")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=list(TRAINERS), help="train with this trainer only, and print the peak in MB")
    options = parser.parse_args(arguments)
    model, tokenizer, rows = prepare(options.vocabulary, options.steps * options.batch_size)
    if options.only:
        before = psutil.Process().memory_info().rss
        measure(options.only, model, tokenizer, rows, options.steps, options.batch_size)
        import resource

        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6)
        return 0
    share = rows.trained_tokens / rows.tokens
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, vocabulary {model.config.vocab_size:,}, {len(rows.ids)} rows, "
        f"{rows.tokens / len(rows.ids):.0f} tokens a row, {share:.0%} trained, batch {options.batch_size}, {torch.get_num_threads()} threads"
    )
    timers: dict[str, list[StepTimer]] = {name: [] for name in TRAINERS}
    for _ in range(options.rounds):
        for name in TRAINERS:
            timers[name].append(measure(name, model, tokenizer, rows, options.steps, options.batch_size))
    seconds = {name: fastest_seconds(rounds) for name, rounds in timers.items()}
    trained = sum(label >= 0 for row in rows.labels[WARM_UP_STEPS * options.batch_size :] for label in row)
    for name in TRAINERS:
        print(f"{name:<9}{trained / seconds[name]:8.0f} trained tokens per processor second")
    gap = loss_gap(timers["trl"][0], timers["sftchat"][0])
    ratio, goal = (
        seconds["trl"] / seconds["sftchat"],
        GOAL_LARGE_VOCABULARY if model.config.vocab_size >= LARGE_VOCABULARY else GOAL_SMALL_VOCABULARY,
    )
    print(f"sftchat is {ratio:.2f} times TRL (goal {goal:g})")
    print(f"losses differ by at most {gap:.1e} over {options.steps} steps (allowed {MAX_LOSS_GAP:g})", flush=True)
    memory = {name: peak_megabytes(name, options) for name in TRAINERS}
    print(f"peak memory {memory['trl']:.0f} MB and {memory['sftchat']:.0f} MB: {memory['sftchat'] / memory['trl']:.2f} of TRL's")
    return int(ratio < goal or gap > MAX_LOSS_GAP)


if __name__ == "__main__":
    raise SystemExit(main())
