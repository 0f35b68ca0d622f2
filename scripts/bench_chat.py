"""Time a chat: the first prompt, Ctrl-C, the first token of a late turn, and the speed of a reply.

    python scripts/bench_chat.py [start] [turn] [decode] [lookup] [--run RUN] [--small]

``start``   seconds until the prompt of ``sftchat chat sftchat:nano`` accepts input, in a real terminal, best of five; and the seconds from Ctrl-C to
            the next prompt, during prefill of 4,000 tokens and during a reply.
``turn``    time to the first token at turn 10 of a conversation of 2,000 tokens: ours, without the prompt cache, and ``transformers serve`` with its own client.
``decode``  tokens per second after the first token: ours without prompt lookup, and ``generate``; a random Llama of 135M parameters in bfloat16 and with int8
            weights.
``lookup``  the same for ``--run``, a checkpoint of the relation task, with and without prompt lookup and with ``generate``, whose replies must be equal.

Every comparison is made in one run on one machine; only the ratios are meaningful. ``--small`` leaves out the 135M model. On a shared machine use
``--processor-time`` with ``OMP_NUM_THREADS=1``: the last two sections then measure processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from bench_eval import load_135m, load_nano
from record_chat import PASTE, Terminal
from transformers import Qwen3Config, Qwen3ForCausalLM

from sftchat.engine import Chunk, Request
from sftchat.inference import sequence as lookup
from sftchat.inference.cpu import optimize_for_inference
from sftchat.inference.local import TransformersEngine
from sftchat.models.loading import Loaded, load
from sftchat.models.reference import resolve
from sftchat.plugins.manager import load_plugins
from sftchat.types import Message, SamplingParams

CHAT = [sys.executable, "-m", "sftchat", "chat"]
TURNS, HISTORY = 10, 2000
now = time.perf_counter
"""Elapsed time or processor time, in seconds."""


def line(what: str, value: str, goal: str = "") -> None:
    """Print one row of the table."""
    print(f"| {what} | {value} | {goal} |", flush=True)


def user(content: str) -> Message:
    """Return a user message."""
    return Message(role="user", content=content)


def long_model(folder: Path) -> Path:
    """Save a random model with the embedded model's shape and tokenizer and a context of 8,192 tokens."""
    loaded = load_nano("float32")
    torch.manual_seed(1)  # other seeds give only parts of characters
    config = Qwen3Config(**loaded.model.config.to_dict() | {"max_position_embeddings": 8192})
    Qwen3ForCausalLM(config).save_pretrained(folder)
    loaded.renderer.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(loaded.renderer.source, encoding="utf-8")
    return folder


def seconds_to_prompt() -> float:
    """Return the seconds from the start of the program to a prompt that accepts input."""
    start = time.perf_counter()
    terminal = Terminal([*CHAT, "sftchat:nano"], 80, 24)
    terminal.until(">")
    seconds = time.perf_counter() - start
    terminal.type("\x03\x03\x04")
    terminal.process.wait()
    return seconds


def seconds_to_stop(model: Path, message: str, reading: bool) -> float:
    """Return the seconds from Ctrl-C to the next prompt, pressed during a reply or during prefill."""
    terminal = Terminal([*CHAT, str(model), "--max-new-tokens", "1500"], 100, 24)
    terminal.wait("ready")
    terminal.type(PASTE.format(message) + "\r")
    terminal.until("ctrl-c stops" if reading else "tokens/s")
    time.sleep(0.1)
    start = time.perf_counter()
    terminal.type("\x03")
    terminal.until("stopped; the message is taken back" if reading else "stopped; the partial reply is kept")
    terminal.until("ready")
    seconds = time.perf_counter() - start
    terminal.type("\x04")
    terminal.process.wait()
    return seconds


def start_section(folder: Path) -> None:
    """The prompt and Ctrl-C."""
    line("prompt usable after", f"{min(seconds_to_prompt() for _ in range(5)) * 1000:.0f} ms", "≤ 400 ms")
    model = long_model(folder)
    for what, message in (("in a reply", "hello"), ("while 4,000 tokens are read", "长" * 4000)):
        times = [1000 * seconds_to_stop(model, message, len(message) > 10) for _ in range(5)]
        line(f"Ctrl-C {what}", f"{min(times):.0f}–{max(times):.0f} ms", "≤ one token + 50 ms")


def talk(engine: TransformersEngine) -> tuple[Message, ...]:
    """Return nine turns of about 2,000 rendered tokens with a question at the end."""
    messages: list[Message] = []
    for turn in range(TURNS - 1):
        messages += [user(f"{turn} 问"), Message(role="assistant", content="答" * (HISTORY // (TURNS - 1) - 12))]
    return (*messages, user("最后一问"))


def first_token(chunks: Iterator[Chunk]) -> float:
    """Return the seconds to the first token."""
    start = time.perf_counter()
    for chunk in chunks:
        if chunk.token_ids:
            break
    seconds = time.perf_counter() - start
    chunks.close()  # type: ignore[attr-defined]
    return seconds


def turn_section(folder: Path) -> None:
    """The first token of turn 10."""
    loaded = load_nano("float32")
    model = long_model(folder) if not (folder / "config.json").exists() else folder
    loaded = Loaded(Qwen3ForCausalLM.from_pretrained(model, dtype=torch.float32).eval(), loaded.renderer, (), None)
    engine = TransformersEngine("bench", loaded)
    messages, sampling = talk(engine), SamplingParams(max_new_tokens=4)
    reused, anew = [], []
    for _ in range(5):
        engine.prompt_cache.clear()
        anew.append(first_token(engine.generate([Request("anew", messages, sampling=sampling)])))
        engine.prompt_cache.clear()
        for _ in engine.generate([Request("before", messages[:-1], sampling=sampling)]):
            pass  # the prompt cache after the ninth turn
        reused.append(first_token(engine.generate([Request("reused", messages, sampling=sampling)])))
    here = min(reused)
    line("first token at turn 10", f"{here * 1000:.1f} ms")
    line("  everything fed again", f"{min(anew) * 1000:.1f} ms, {min(anew) / here:.1f} ×", "≥ 10 ×")
    with served(model) as (url, name):
        served_seconds = asyncio.run(client_seconds(url, name, messages))
    line("  transformers serve, its own client", f"{served_seconds * 1000:.1f} ms, {served_seconds / here:.1f} ×", "≥ 5 ×")


@contextmanager
def served(model: Path) -> Iterator[tuple[str, str]]:
    """Run ``transformers serve`` on loopback; yields its address and the model's name."""
    import httpx2

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(model)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*program, *options], env=os.environ | {"HF_HUB_OFFLINE": "1"}, **quiet) as server:  # type: ignore[call-overload]
        try:
            while True:
                if server.poll() is not None:
                    raise SystemExit("transformers serve ended; it needs pip install 'transformers[serving]'")
                try:
                    httpx2.get(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except httpx2.TransportError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}", str(model)
        finally:
            server.terminate()


async def client_seconds(url: str, model: str, messages: Sequence[Message]) -> float:
    """Return the seconds to the first text with a request of ``transformers chat``, best of five."""
    from huggingface_hub import AsyncInferenceClient

    async def once() -> float:
        start = time.perf_counter()
        stream = await client.chat_completion(list(messages), model=model, max_tokens=16, stream=True)  # type: ignore[arg-type]
        first = 0.0
        async for part in stream:
            if not first and part.choices and part.choices[0].delta.content:
                first = time.perf_counter() - start
        if not first:
            raise SystemExit("transformers serve said nothing")
        return first

    async with AsyncInferenceClient(base_url=url) as client:
        return min([await once() for _ in range(5)])


Timed = tuple[float, tuple[int, ...]]
"""Seconds from the first token of a reply to its last, and the number of tokens."""


def ours(engine: TransformersEngine, request: Request) -> Timed:
    """A reply of the engine."""
    ids: list[int] = []
    first = 0.0
    for chunk in engine.generate([request]):
        ids += chunk.token_ids
        first = first or (now() if ids else 0.0)
    return now() - first, tuple(ids)


def theirs(loaded: Loaded, ids: Sequence[int], count: int, stop: Sequence[int] = ()) -> Timed:
    """A reply of transformers' ``generate`` with a streamer, as in ``transformers chat``."""
    from transformers.generation.streamers import BaseStreamer

    class Clock(BaseStreamer):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(now())

        def end(self) -> None:
            """Do nothing."""

    clock, prompt = Clock(), torch.tensor([list(ids)])
    mask, ends = torch.ones_like(prompt), list(stop) or -1  # the model's own stop tokens must not end the timed reply
    said = loaded.model.generate(
        prompt, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=ends, streamer=clock
    )[0, len(ids) :].tolist()
    return clock.times[-1] - clock.times[1], tuple(said[:-1] if said[-1] in stop else said)  # the first put is the prompt


def best(replies: Iterable[Timed]) -> float:
    """Return the highest speed among the replies, in tokens per second after the first."""
    return max((len(ids) - 1) / seconds for seconds, ids in replies)


@contextmanager
def unguessed() -> Iterator[None]:
    """Turn prompt lookup off, because a random model repeats itself and would favour it."""
    usual, lookup.NGRAM_SIZES = lookup.NGRAM_SIZES, (1_000_000,)  # longer than any repetition
    try:
        yield
    finally:
        lookup.NGRAM_SIZES = usual


def compared(title: str, loaded: Loaded, goal: str, count: int = 200) -> float:
    """Time one model with our engine and with ``generate``; returns the speed of ``generate``."""
    prompt = loaded.renderer.tokenizer.decode(range(300, 340))
    ids = loaded.renderer.tokenizer.encode(prompt)
    request = Request("r", prompt=prompt, sampling=SamplingParams(max_new_tokens=count))
    others = best(theirs(loaded, ids, count) for _ in range(3))
    optimize_for_inference(loaded.model)
    engine = TransformersEngine("bench", loaded)
    with unguessed():
        here = best(ours(engine, request) for _ in range(3))
    line(f"{title}: ours, generate", f"{here:.0f}, {others:.0f} tokens/s, {here / others:.2f} ×", goal)
    return others


def decode_section(small: bool) -> None:
    """Return the speed of one reply."""
    compared("embedded model, float32", load_nano("float32"), "≥ 1.0 ×")
    if not small:
        quantized(compared("135M, bfloat16", load_135m("bfloat16"), "≥ 1.0 ×", 60))


def quantized(others: float) -> None:
    """Time the 135M model with int8 weights against ``generate`` in bfloat16."""
    loaded = load_135m("bfloat16")
    optimize_for_inference(loaded.model, int8=True)  # as with --quantize int8
    request = Request("r", prompt=loaded.renderer.tokenizer.decode(range(300, 340)), sampling=SamplingParams(max_new_tokens=60))
    engine = TransformersEngine("bench", loaded)
    with unguessed():
        here = best(ours(engine, request) for _ in range(3))
    line("135M, int8: ours, generate in bfloat16", f"{here:.0f}, {others:.0f} tokens/s, {here / others:.2f} ×", "≥ 1.5 ×")


def looked_up(run: str) -> None:
    """Time a checkpoint of the relation task: ``generate``, ours without prompt lookup, ours."""
    task = load_plugins().task("relation")
    loaded = load(resolve(run, schemes=()), dtype="float32", device="cpu")
    examples = [example for example in task.generate(60, 7) if "\n" in (example.gold or "")]
    requests = [Request(example.id, example.messages, sampling=task.sampling) for example in examples]
    prompts = [loaded.renderer.prompt_ids(example.messages) for example in examples]

    def rate(replies: Sequence[Timed]) -> float:
        return sum(len(ids) - 1 for _, ids in replies) / sum(seconds for seconds, _ in replies)

    others = [theirs(loaded, ids, task.sampling.max_new_tokens, loaded.stop_ids) for ids in prompts]
    optimize_for_inference(loaded.model)  # as in load_engine
    engine = TransformersEngine("bench", loaded)
    passes: list[int] = []
    loaded.model.register_forward_pre_hook(lambda *_: passes.append(1))
    with unguessed():
        plain = [ours(engine, request) for request in requests]
    without = len(passes)
    found = [ours(engine, request) for request in requests]
    line("  passes without and with prompt lookup", f"{without}, {len(passes) - without}")
    one, two, four = (pass_seconds(loaded, count) for count in (1, 2, 4))
    line("  a pass over two and over four tokens against one", f"{two / one:.2f} ×, {four / one:.2f} ×")
    same = sum(one[1] == two[1] == three[1] for one, two, three in zip(others, plain, found, strict=True))
    line(
        f"relation extraction, {len(requests)} passages: ours with prompt lookup, without, generate",
        f"{rate(found):.0f}, {rate(plain):.0f}, {rate(others):.0f} tokens/s, {rate(found) / rate(others):.2f} ×, {same} of {len(requests)} alike",
        "≥ 1.5 ×, all alike",
    )


@torch.inference_mode()
def pass_seconds(loaded: Loaded, count: int) -> float:
    """Return the seconds of a forward pass over several tokens with logits for each, as for checking a guess."""
    ids, times = torch.tensor([range(300, 300 + count)]), []
    for _ in range(50):
        start = now()
        loaded.model(input_ids=ids, use_cache=False)
        times.append(now() - start)
    return min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    parser.add_argument("--run", default="", help="a checkpoint of the relation task, for prompt lookup")
    parser.add_argument("--processor-time", action="store_true", help="decode and lookup count the processor's seconds")
    parser.add_argument("--small", action="store_true", help="leave out the 135M model")
    args = parser.parse_args()
    if args.processor_time:
        global now
        now = time.process_time
    sections = args.sections or ["start", "turn", "decode", "lookup"]
    print("| what | measured | goal |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "long"
        if "start" in sections:
            start_section(folder)
        if "turn" in sections:
            turn_section(folder)
        if "decode" in sections:
            decode_section(args.small)
        if "lookup" in sections and args.run:
            looked_up(args.run)


if __name__ == "__main__":
    main()
