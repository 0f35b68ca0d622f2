"""Compare ways to generate the replies of an evaluation: the engine, a ``generate`` loop, static batches and transformers' continuous batching.

    python scripts/bench_eval.py                      # sftchat:nano in float32, 500 requests
    python scripts/bench_eval.py --model 135m         # a random Llama of 135M parameters in bfloat16

Reply lengths are log-normal (8 to 200 tokens, mean 32). The token limit of each request sets its length, without a stop token, so that all ways do the
same work; no engine uses the limit for scheduling. The script prints the reply tokens per second of elapsed time (generation only) and the engine's
speed-up. It also prints each speed as a share of what the machine can reach at that batch size (roofline, Williams et al. 2009), computed from the speed
of a large matrix product and of reading memory in the same run. It exits with 1 when a goal is missed or a float32 reply differs from the loop's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM

from sftchat.engine import Request
from sftchat.inference.cpu import optimize_for_inference
from sftchat.inference.local import TransformersEngine
from sftchat.models.loading import Loaded, load
from sftchat.models.reference import resolve
from sftchat.types import SamplingParams

STATIC_BATCH_SIZES = (16, 32, 64, 128)
GOALS = {"nano": (12.0, 3.0), "135m": (6.0, 2.5)}
"""Minimum speed-up over the loop and over the best static batches."""


@dataclass(frozen=True)
class Workload:
    """Prompts as text and as ids, and the number of tokens of each reply."""

    texts: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]

    def first(self, count: int) -> Workload:
        """Return the first ``count`` requests."""
        return Workload(self.texts[:count], self.prompts[:count], self.lengths[:count])


Replies = list[list[int]]


def reply_lengths(random: np.random.Generator, count: int) -> tuple[int, ...]:
    """Draw log-normal reply lengths of 8 to 200 tokens, 32 on average."""
    lengths = np.clip(np.exp(random.normal(np.log(32) - 0.32, 0.8, 100_000)), 8, 200)
    return tuple(map(int, np.clip(lengths * 32 / lengths.mean(), 8, 200).round().astype(int)[:count]))


def make_workload(tokenizer: Any, count: int, longest: int = 64, seed: int = 0) -> Workload:
    """Make prompts of 16 to ``longest`` random tokens (a few more after decoding and encoding), and log-normal reply lengths."""
    random = np.random.default_rng(seed)
    lengths = reply_lengths(random, count)
    texts = tuple(tokenizer.decode(random.integers(300, 6000, int(random.integers(16, longest + 1))).tolist()) for _ in range(count))
    return Workload(texts, tuple(tuple(tokenizer.encode(text)) for text in texts), lengths)


def load_nano(dtype: str) -> Loaded:
    """Return the embedded model without stop tokens."""
    loaded = load(resolve("sftchat:nano", schemes=()), dtype=dtype, device="cpu")
    return Loaded(loaded.model, loaded.renderer, (), None)


def load_135m(dtype: str) -> Loaded:
    """Return a random Llama of the size of SmolLM-135M, with the embedded model's tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        tie_word_embeddings=True, max_position_embeddings=2048, bos_token_id=None, eos_token_id=None, initializer_range=0.1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    return Loaded(model, load_nano("float32").renderer, (), None)


def generate_with_engine(loaded: Loaded, workload: Workload, batch_size: int) -> Replies:
    """Generate with our engine, as ``sftchat eval`` does."""
    engine = TransformersEngine("bench", loaded, batch_size)
    requests = [
        Request(str(i), prompt=text, sampling=SamplingParams(max_new_tokens=n))
        for i, (text, n) in enumerate(zip(workload.texts, workload.lengths, strict=True))
    ]
    replies: Replies = [[] for _ in requests]
    for chunk in engine.generate(requests):
        replies[int(chunk.request_id)].extend(chunk.token_ids)
    return replies


def generate_in_batches(loaded: Loaded, workload: Workload, batch_size: int) -> Replies:
    """Generate with ``generate`` in batches sorted by prompt length, each up to its longest reply; with ``batch_size`` 1 one by one, unsorted."""
    order = list(range(len(workload.prompts)))
    if batch_size > 1:
        order.sort(key=lambda i: len(workload.prompts[i]))
    replies: Replies = [[] for _ in order]
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        width = max(len(workload.prompts[i]) for i in batch)
        ids = torch.tensor([[0] * (width - len(workload.prompts[i])) + list(workload.prompts[i]) for i in batch])
        mask = torch.tensor([[0] * (width - len(workload.prompts[i])) + [1] * len(workload.prompts[i]) for i in batch])
        longest = max(workload.lengths[i] for i in batch)
        output = loaded.model.generate(ids, attention_mask=mask, max_new_tokens=longest, do_sample=False, pad_token_id=0)
        for i, row in zip(batch, output[:, width:].tolist(), strict=True):
            replies[i] = row[: workload.lengths[i]]
    return replies


def generate_continuously(loaded: Loaded, workload: Workload) -> Replies:
    """Generate with ``generate_batch`` and a limit per request."""
    generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=200)
    # the default on a CPU takes most of the memory; these blocks hold every request at once
    batching = ContinuousBatchingConfig(page_size=256, num_blocks=2 * len(workload.prompts), max_batch_tokens=512)
    replies: Replies = [[] for _ in workload.prompts]
    with loaded.model.continuous_batching_context_manager(generation_config=generation, continuous_batching_config=batching) as manager:
        for i, (prompt, n) in enumerate(zip(workload.prompts, workload.lengths, strict=True)):
            manager.add_request(list(prompt), request_id=str(i), max_new_tokens=n, eos_token_id=-1)
        unfinished = len(workload.prompts)
        while unfinished:
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                if result.error:
                    raise RuntimeError(f"generate_batch failed: {result.error}")
                replies[int(result.request_id)] = list(result.generated_tokens)
                unfinished -= 1
    return replies


def matrix_speed(dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of a large matrix product."""
    a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    return 2 * 2048**3 / _best_seconds(lambda: a @ b)


def memory_speed() -> float:
    """Return the bytes per second of reading memory, for a sum over 1 GB."""
    x = torch.ones(1 << 28)
    return 4 * x.numel() / _best_seconds(lambda: x.sum())


def _best_seconds(job: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        before = time.perf_counter()
        job()
        times.append(time.perf_counter() - before)
    return min(times)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line per way of generating."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(GOALS), default="nano")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--longest-prompt", type=int, default=64, help="tokens; the shortest has 16")
    parser.add_argument("--loop-requests", type=int, default=0, help="requests for the loop; 0 is all")
    parser.add_argument("--batch-size", type=int, default=128, help="batch size of the engine")
    parser.add_argument("--static", type=int, nargs="+", default=list(STATIC_BATCH_SIZES), help="batch sizes of static batches")
    parser.add_argument("--dtype", default="")
    parser.add_argument("--only", nargs="+", default=["ours", "loop", "static", "generate_batch"])
    options = parser.parse_args(arguments)
    dtype = options.dtype or ("float32" if options.model == "nano" else "bfloat16")
    loaded = {"nano": load_nano, "135m": load_135m}[options.model](dtype)
    loaded.model.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0)
    workload = make_workload(loaded.renderer.tokenizer, options.requests, options.longest_prompt)
    flops, bandwidth = matrix_speed(loaded.model.dtype), memory_speed()
    weights = sum(p.numel() for p in loaded.model.parameters())
    print(
        f"{options.model} {dtype}, {weights / 1e6:.1f}M parameters, {torch.get_num_threads()} threads, {len(workload.prompts)} requests, "
        f"{sum(map(len, workload.prompts))} tokens of prompts, {sum(workload.lengths)} of replies; "
        f"matrix product {flops / 1e9:.0f} GFLOP/s, memory {bandwidth / 1e9:.1f} GB/s"
    )
    speeds: dict[str, float] = {}
    replies: dict[str, Replies] = {}

    def measure(name: str, rows: int, part: Workload, generate: Callable[[Workload], Replies]) -> None:
        generate(part.first(min(4, rows)))  # warm-up: starts threads, makes kernels, allocates memory
        before = time.perf_counter()
        replies[name] = generate(part)
        seconds = time.perf_counter() - before
        speeds[name] = sum(part.lengths) / seconds
        if any(len(reply) != length for reply, length in zip(replies[name], part.lengths, strict=True)):
            raise RuntimeError(f"{name} generated replies of other lengths")
        # roofline: a decoding step takes as long as its products or as reading all weights; prefill is limited by its products
        weight_bytes = weights * loaded.model.dtype.itemsize
        step_seconds = max(2 * weights * rows / flops, weight_bytes / bandwidth)
        prefill_seconds = 2 * weights * sum(map(len, part.prompts)) / flops
        share = (sum(part.lengths) / rows * step_seconds + prefill_seconds) / seconds
        note = "" if len(part.prompts) == len(workload.prompts) else f" (on the first {len(part.prompts)} requests)"
        print(f"{name:<16}{speeds[name]:8.0f} tokens/s {seconds:7.1f} s {share:6.0%} of the roofline at {rows} rows{note}", flush=True)

    if "ours" in options.only:
        packed = Loaded(deepcopy(loaded.model), loaded.renderer, (), None)
        optimize_for_inference(packed.model)  # as load_engine does
        measure("ours", options.batch_size, workload, lambda part: generate_with_engine(packed, part, options.batch_size))
        del packed
    if "loop" in options.only:
        measure(
            "loop", 1, workload.first(options.loop_requests or len(workload.prompts)), lambda part: generate_in_batches(loaded, part, 1)
        )
    if "static" in options.only:
        for size in options.static:
            measure(f"static {size}", size, workload, lambda part, size=size: generate_in_batches(loaded, part, size))  # type: ignore[misc]
    if "generate_batch" in options.only:
        measure("generate_batch", len(workload.prompts), workload, lambda part: generate_continuously(loaded, part))
    return report(options.model, dtype, speeds, replies)


def report(model: str, dtype: str, speeds: dict[str, float], replies: dict[str, Replies]) -> int:
    """Print the engine's speed-up and how many of its replies equal the loop's; return 1 when a goal is missed."""
    failed = False
    best_static_speed = max((speed for name, speed in speeds.items() if name.startswith("static")), default=None)
    for name, speed, goal in (
        ("the loop", speeds.get("loop"), GOALS[model][0]),
        ("the best static batches", best_static_speed, GOALS[model][1]),
    ):
        if speed is not None and "ours" in speeds:
            ratio = speeds["ours"] / speed
            failed |= ratio < goal
            print(f"ours is {ratio:.1f} times {name} (goal {goal:g}){'' if ratio >= goal else ': MISSED'}")
    if "loop" in replies and "ours" in replies:
        pairs = list(zip(replies["loop"], replies["ours"], strict=False))
        equal_replies = sum(a == b for a, b in pairs)
        failed |= dtype == "float32" and equal_replies < len(pairs)
        print(f"{equal_replies} of {len(pairs)} replies are the loop's, token by token")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
