"""Compare this program with transformers, TRL, lm-evaluation-harness, Soup and llama.cpp on SmolLM2-135M-Instruct.

    sftchat fetch smollm2
    python scripts/bench_real.py
    python scripts/bench_real.py --only a c --rounds 2 --llama-server build/bin/llama-server

Five measures:

    a  one reply of 128 tokens: tokens per second after the first one
    b  time to the first token after a prompt of 1,500 tokens
    c  128 evaluation replies: prompts of evalsets/general-en.jsonl, log-normal lengths of 8 to 200 tokens; tokens per second
    d  training on 40 rows in batches of 8, float32: TRL with its defaults, and sftchat, with LoRA and in full; processor seconds
    e  a LoRA training of 60 rows as a whole command, one thread: Soup, which adapts two layers of a block, and sftchat, which adapts all seven; seconds
       and peak memory

All contestants generate the same number of tokens from the same token ids, without a stop token; nothing is cached between calls. GGUF files are written
by `sftchat export`'s own functions. Each round measures every contestant once, after a warm-up; the best round counts. llama.cpp's threads wait
actively, so it is loaded for its own measurements only. What it reads or computes is given as a share of the machine's speed (roofline, Williams et
al. 2009), which is measured in the same run. lm-evaluation-harness and Soup are installed into environments of their own in the cache folder. A
contestant that fails is reported and left out. The script exits with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import bench_command
import bench_train
import numpy as np
import torch
from bench_eval import Workload, matrix_speed, memory_speed, reply_lengths
from contestants import (
    HARNESS,
    SOUP,
    Contestant,
    environment_python,
    llama_contestants,
    local_contestants,
    open_harness,
    soup_command,
)
from datasets import disable_progress_bars

from sftchat._util.files import cache_folder
from sftchat.data.formats import read_examples
from sftchat.errors import SftchatError, in_one_line
from sftchat.evaluation.gguf_export import export_gguf
from sftchat.models.loading import Loaded, load
from sftchat.models.reference import resolve
from sftchat.training.config import TrainingConfig
from sftchat.training.prepare import create_adapter
from sftchat.training.rows import render_rows

EVALSET = Path(__file__).parent.parent / "evalsets" / "general-en.jsonl"
GOALS: dict[str, dict[str, float]] = {"a": {"llama.cpp": 1.3}, "b": {"llama.cpp": 2.0}, "c": {"llama.cpp": 3.5, "harness": 3.0}}
"""Minimum speed-up over the best contestant of a group, by measure."""
TRAINING_GOALS = {"lora": 3.0, "full": 2.3}
"""Minimum speed-up over TRL, by method."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measures; the defaults are those of the published figures."""

    decoded: int = 128
    prompt: int = 1500
    replies: int = 128
    longest_reply: int = 200
    rows: int = 40
    batch_size: int = 8
    command_rows: int = 60
    command_steps: int = 15


QUICK = Sizes(decoded=12, prompt=150, replies=8, longest_reply=10, rows=8, batch_size=2, command_rows=12, command_steps=2)


@dataclass(frozen=True)
class Machine:
    """Measured speed of the machine.

    Attributes:
        flops: Floating-point operations per second of a large matrix product, in float32.
        bandwidth: Bytes per second of reading memory.
    """

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Measure:
    """A measure of generation.

    Attributes:
        title: What it measures.
        workload: Prompts and lengths.
        speed: Tokens per second of an open contestant.
        share: Share of the machine's speed, given the contestant and its tokens per second.
    """

    title: str
    workload: Workload
    speed: Callable[[Any, Workload], float]
    share: Callable[[Contestant, float], str]


def decoding_speed(backend: Any, workload: Workload) -> float:
    """Return the tokens per second of one reply after its first token."""
    first, last = backend.stream(workload)
    return float((workload.lengths[0] - 1) / (last - first))


def prefill_speed(backend: Any, workload: Workload) -> float:
    """Return the prompt tokens per second until the first token of a reply."""
    first, _ = backend.stream(workload)
    return float(len(workload.prompts[0]) / first)


def batch_speed(backend: Any, workload: Workload) -> float:
    """Return the reply tokens per second over all requests."""
    start = perf_counter()
    seconds = backend.batch(workload) or perf_counter() - start
    return float(sum(workload.lengths) / seconds)


def make_measures(loaded: Loaded, machine: Machine, sizes: Sizes) -> dict[str, Measure]:
    """Make the prompts and lengths of measures a, b and c."""
    renderer, model = loaded.renderer, loaded.model
    questions = [renderer.prompt_text(example.messages) for example in islice(read_examples(EVALSET), sizes.replies)]
    prompts = [tuple(renderer.tokenizer.encode(question)) for question in questions]
    lengths = tuple(min(length, sizes.longest_reply) for length in reply_lengths(np.random.default_rng(0), len(questions)))
    ids = renderer.tokenizer.encode("\n".join(example.messages[-1]["content"] for example in read_examples(EVALSET)))[: sizes.prompt]
    text = renderer.tokenizer.decode(ids)
    head = model.get_output_embeddings().weight.numel()
    layers = model.num_parameters() - (head if model.config.tie_word_embeddings else 2 * head)

    def share_of_bandwidth(contestant: Contestant, speed: float) -> str:
        return f"{contestant.weight_bytes * speed / machine.bandwidth:.0%} of memory"

    def share_of_flops(flops_per_token: float, speed: float) -> str:
        return f"{flops_per_token * speed / machine.flops:.0%} of FLOP/s"

    batch_flops = 2 * (layers * (sum(map(len, prompts)) / sum(lengths) + 1) + head)
    return {
        "a": Measure(f"one reply of {sizes.decoded} tokens", Workload((questions[0],), (prompts[0],), (sizes.decoded,)), decoding_speed, share_of_bandwidth),
        "b": Measure(
            f"first token after {len(ids):,} tokens", Workload((text,), (tuple(renderer.tokenizer.encode(text)),), (2,)), prefill_speed,
            lambda contestant, speed: f"{len(ids) / speed:.2f} s, {share_of_flops(2 * layers, speed)}",
        ),
        "c": Measure(
            f"{len(questions)} replies, {sum(lengths):,} tokens", Workload(tuple(questions), tuple(prompts), lengths), batch_speed,
            lambda contestant, speed: share_of_flops(batch_flops, speed),
        ),
    }  # fmt: skip


def run_measure(letter: str, measure: Measure, contestants: Sequence[Contestant], rounds: int) -> bool:
    """Measure all contestants in turn, print the table and the goals; returns whether a goal is missed."""
    entrants = [contestant for contestant in contestants if letter in contestant.measures]
    problems = {contestant.name: contestant.reason for contestant in entrants if contestant.reason}
    speeds: dict[str, float] = {}
    for _ in range(rounds):
        for contestant in entrants:
            if contestant.name in problems:
                continue
            try:
                with contestant.open() as backend:
                    if contestant.group != "harness":  # which warms up itself
                        measure.speed(backend, warm_up(measure.workload))
                    speed = measure.speed(backend, measure.workload)
            except Exception as error:  # any library may raise anything: the others are measured nevertheless
                problems[contestant.name] = in_one_line(error) or type(error).__name__
                continue
            speeds[contestant.name] = max(speeds.get(contestant.name, 0.0), speed)
    print(f"\n| {letter}: {measure.title} | tokens/s | share of the machine |\n|---|---:|---:|")
    for contestant in entrants:
        if contestant.name in problems:
            print(f"| {contestant.name} | – | skipped: {problems[contestant.name]} |")
        else:
            print(f"| {contestant.name} | {speeds[contestant.name]:.1f} | {measure.share(contestant, speeds[contestant.name])} |")
    sys.stdout.flush()
    return judge(letter, entrants, {name: speed for name, speed in speeds.items() if name not in problems})


def warm_up(workload: Workload) -> Workload:
    """Return a small part of a workload, which allocates memory and starts threads."""
    first = workload.first(4)
    texts = tuple(text[:200] for text in first.texts)
    return Workload(texts, tuple(prompt[:64] for prompt in first.prompts), tuple(min(length, 4) for length in first.lengths))


def judge(letter: str, entrants: Sequence[Contestant], speeds: dict[str, float]) -> bool:
    """Print our speed-up over the best of every group; returns whether a goal is missed."""

    def best(group: str) -> tuple[float, str]:
        return max(((speeds[one.name], one.name) for one in entrants if one.group == group and one.name in speeds), default=(0.0, ""))

    missed = False
    ours, our_name = best("ours")
    for group in ("llama.cpp", "harness", "transformers"):
        speed, name = best(group)
        if ours and speed:
            goal = GOALS[letter].get(group)
            is_missed = goal is not None and ours / speed < goal
            missed |= is_missed
            print(
                f"{our_name} is {ours / speed:.2f} times {name}{f' (goal {goal:g})' if goal else ''}{': MISSED' if is_missed else ''}",
                flush=True,
            )
    return missed


def run_training(loaded: Loaded, sizes: Sizes, rounds: int) -> bool:
    """Train with TRL and with sftchat, print the table and the goals; returns whether a goal is missed."""
    disable_progress_bars()
    rows = render_rows(islice(read_examples(EVALSET), sizes.rows), loaded.renderer, 1024)
    steps = len(rows.ids) // sizes.batch_size
    tokenizer, missed = loaded.renderer.tokenizer, False
    print(
        f"\n| d: {steps} steps, {rows.tokens:,} tokens | TRL, processor s | sftchat, processor s | faster by | goal | first losses differ by |\n|---|---:|---:|---:|---:|---:|"
    )
    for method, goal in TRAINING_GOALS.items():
        timers: dict[str, list[bench_train.StepTimer]] = {name: [] for name in bench_train.TRAINERS}
        for _ in range(rounds):
            for name in timers:
                start = load(loaded.reference, dtype="float32", device="cpu").model.train() if loaded.reference else loaded.model
                torch.manual_seed(0)
                start = create_adapter(start, TrainingConfig(method=method, lora_rank=8, lora_dropout=0.0), "bench")
                timers[name].append(bench_train.measure(name, start, tokenizer, rows, steps, sizes.batch_size))
        seconds = {name: bench_train.fastest_seconds(rounds_of) for name, rounds_of in timers.items()}
        ratio, gap = seconds["trl"] / seconds["sftchat"], bench_train.loss_gap(timers["trl"][0], timers["sftchat"][0], steps=1)
        is_missed = ratio < goal or gap > bench_train.MAX_LOSS_GAP
        missed |= is_missed
        print(
            f"| {method} | {seconds['trl']:.1f} | {seconds['sftchat']:.1f} | {ratio:.2f} × | {goal:g} ×{' MISSED' if is_missed else ''} | {gap:.0e} |",
            flush=True,
        )
    return missed


def run_command(model: str, sizes: Sizes, rounds: int, soup: Path) -> None:
    """Measure a short LoRA training as a whole command, with Soup and with sftchat, and print the table.

    Args:
        model: The model, as the user gave it.
        sizes: Numbers of rows and steps.
        rounds: Number of measurements; the fastest counts.
        soup: Folder of Soup's environment; it is made if it does not exist.
    """
    checkpoint = resolve(model).folder
    assert checkpoint is not None
    soup_python, reason = environment_python(soup, SOUP, ("torch", "transformers", "peft", "trl", "datasets", "accelerate"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "SOUP_NO_AUDIT_LOG": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    results: dict[str, tuple[float, float]] = {}
    problems = {"soup train": reason} if reason else {}
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        data = Path(folder) / "rows.jsonl"
        examples = islice(read_examples(EVALSET), sizes.command_rows)
        rows = [{"messages": [*example.messages, {"role": "assistant", "content": example.gold}]} for example in examples]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        options = ["--method", "lora", "--lora-rank", "8", "--batch-size", "4", "--max-steps", str(sizes.command_steps), "-q"]
        ours = [sys.executable, "-m", "sftchat", "train", "general", "--model", str(checkpoint.resolve()), "--data", str(data), *options]
        for number in range(rounds):
            commands = {
                "sftchat train": [*ours, "-o", f"{folder}/run{number}"],
                "soup train": soup_command(soup_python.absolute(), checkpoint.resolve(), data, Path(folder) / f"soup{number}"),
            }
            for name in [name for name in commands if name not in problems]:
                try:
                    measured = bench_command.measure(commands[name], environment)
                except SystemExit as error:  # the other one is measured nevertheless
                    problems[name] = in_one_line(error)
                else:
                    results[name] = min(results.get(name, measured), measured)
    print(f"\n| e: {sizes.command_steps} steps of LoRA on {sizes.command_rows} rows as a command | seconds | peak MB |\n|---|---:|---:|")
    for name in commands:
        seconds, megabytes = results.get(name, (0.0, 0.0))
        print(
            f"| {name} | – | skipped: {problems[name]} |" if name in problems else f"| {name} | {seconds:.1f} | {megabytes:.0f} |",
            flush=True,
        )


def open_contestants(
    loaded: Loaded, folder: Path, workload: Workload, program: str, environment: Path, *, with_harness: bool
) -> Iterator[Contestant]:
    """Yield all contestants; writes the GGUF files.

    Args:
        loaded: The model in float32.
        folder: Folder for GGUF files and the harness's workload.
        workload: Workload of measure c, which the harness's process is started with.
        program: A native ``llama-server``; empty for none.
        environment: Folder of the harness's environment.
        with_harness: Whether the harness takes part.
    """
    assert loaded.reference is not None
    assert loaded.reference.folder is not None
    reference, parameters = loaded.reference, loaded.model.num_parameters()
    load_once = cache(lambda dtype: load(reference, dtype=dtype, device="cpu"))
    yield from local_contestants(load_once, parameters)
    files = [file.path for file in export_gguf(loaded, folder, "smollm2", ("f16", "q8_0"), None, lambda title: nullcontext())]
    yield from llama_contestants(files, program, context=16_384)
    if with_harness:
        python, reason = environment_python(environment, HARNESS, ("torch", "transformers"))
        yield Contestant(
            "lm-evaluation-harness",
            "harness",
            "c",
            4 * parameters,
            partial(open_harness, python, loaded.reference.folder, workload, folder),
            reason,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measures and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sftchat:smollm2", help="a Llama checkpoint")
    parser.add_argument("--only", nargs="+", choices=list("abcde"), default=list("abcde"), metavar="LETTER", help="measures: a b c d e")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each contestant; the best counts")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs; goals mean nothing")
    parser.add_argument(
        "--llama-server", default="", metavar="PATH", help="a native llama-server to measure too  [default: the one on the PATH]"
    )
    parser.add_argument(
        "--harness",
        type=Path,
        metavar="FOLDER",
        help="environment of lm-evaluation-harness; made if missing  [default: in the cache folder]",
    )
    parser.add_argument("--soup", type=Path, metavar="FOLDER", help="environment of Soup; made if missing  [default: in the cache folder]")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    try:
        if "e" in options.only:  # first: Linux counts the memory of this process in that of a child
            run_command(options.model, sizes, options.rounds, options.soup or cache_folder() / "soup")
        loaded = load(resolve(options.model), dtype="float32", device="cpu")
    except SftchatError as error:
        parser.error(in_one_line(error))
    machine = Machine(matrix_speed(torch.float32), memory_speed())
    print(
        f"{options.model}, {loaded.model.num_parameters() / 1e6:.1f} M parameters, {torch.get_num_threads()} threads; "
        f"matrix product {machine.flops / 1e9:.0f} GFLOP/s in float32, memory {machine.bandwidth / 1e9:.1f} GB/s",
        flush=True,
    )
    missed = False
    measures = {letter: measure for letter, measure in make_measures(loaded, machine, sizes).items() if letter in options.only}
    if measures:
        with tempfile.TemporaryDirectory() as folder:
            workload = measures["c"].workload if "c" in measures else Workload((), (), ())
            environment = options.harness or cache_folder() / "lm-evaluation-harness"
            contestants = list(
                open_contestants(
                    loaded, Path(folder), workload, options.llama_server or find_native(), environment, with_harness="c" in measures
                )
            )
            for letter, measure in measures.items():
                missed |= run_measure(letter, measure, contestants, options.rounds)
            del contestants
    if "d" in options.only:
        missed |= run_training(loaded, sizes, options.rounds)
    return int(missed)


def find_native() -> str:
    """Return the ``llama-server`` on the PATH; empty if there is none."""
    import shutil

    return shutil.which("llama-server") or ""


if __name__ == "__main__":
    raise SystemExit(main())
