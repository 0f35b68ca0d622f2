"""Time a chat: the first prompt, Ctrl-C, the first token of a late turn, and the speed of a reply.

    python scripts/bench_chat.py [start] [turn] [decode] [lookup] [--run RUN] [--small]

``start``   the time until ``sftchat chat sftchat:nano`` accepts input in a terminal, best of five; and the time from Ctrl-C to the next input line,
            during a reply and during the prefill of 4,000 tokens.
``turn``    the time to the first token at turn 10 of a conversation of 2,000 tokens: with the prompt cache, without it, and of ``transformers serve`` with
            its own client.
``decode``  tokens per second after the first token, of our engine without prompt lookup and of ``generate``: the embedded model in float32, and a random
            Llama of 135M parameters in bfloat16 and with int8 weights.
``lookup``  the same for ``--run``, a checkpoint of the relation task: our engine with and without prompt lookup, and ``generate``. The replies must be
            equal.

Only the ratios are meaningful: both sides of a comparison are measured in one run on one machine. ``--small`` leaves out the 135M model. On a shared
machine use ``--processor-time`` with ``OMP_NUM_THREADS=1``: the last two sections then measure processor time.
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
from typing import Any, NamedTuple

import torch
from bench_eval import load_135m, load_nano
from record_chat import PASTE, Terminal
from transformers import Qwen3Config, Qwen3ForCausalLM

from sftchat.engine import Chunk, Request
from sftchat.inference import sequence
from sftchat.inference.cpu import optimize_for_inference
from sftchat.inference.local import TransformersEngine
from sftchat.models.loading import Loaded, load
from sftchat.models.reference import resolve
from sftchat.plugins.manager import load_plugins
from sftchat.types import Message, SamplingParams

CHAT = [sys.executable, "-m", "sftchat", "chat"]
TURNS, HISTORY = 10, 2000
now = time.perf_counter
"""Clock in seconds: of elapsed time, or of processor time with ``--processor-time``."""


def print_row(what: str, value: str, goal: str = "") -> None:
    """Print one row of the table."""
    print(f"| {what} | {value} | {goal} |", flush=True)


def user_message(content: str) -> Message:
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
    """Return the seconds from the start of the program until its input line accepts input."""
    start = time.perf_counter()
    terminal = Terminal([*CHAT, "sftchat:nano"], 80, 24)
    terminal.until(">")
    seconds = time.perf_counter() - start
    terminal.type("\x03\x03\x04")  # Ctrl-C twice, Ctrl-D
    terminal.process.wait()
    return seconds


def seconds_to_stop(model: Path, message: str, during_prefill: bool) -> float:
    """Return the seconds from Ctrl-C, pressed during a reply or during prefill, to the next input line."""
    terminal = Terminal([*CHAT, str(model), "--max-new-tokens", "1500"], 100, 24)
    terminal.wait("ready")
    terminal.type(PASTE.format(message) + "\r")
    terminal.until("ctrl-c stops" if during_prefill else "tokens/s")
    time.sleep(0.1)
    start = time.perf_counter()
    terminal.type("\x03")
    terminal.until("stopped; the message is taken back" if during_prefill else "stopped; the partial reply is kept")
    terminal.until("ready")
    seconds = time.perf_counter() - start
    terminal.type("\x04")
    terminal.process.wait()
    return seconds


def start_section(folder: Path) -> None:
    """Print the rows on start-up and Ctrl-C."""
    print_row("start until a line can be typed", f"{min(seconds_to_prompt() for _ in range(5)) * 1000:.0f} ms", "≤ 400 ms")
    model = long_model(folder)
    for what, message in (("during a reply", "hello"), ("during the prefill of 4,000 tokens", "长" * 4000)):
        times = [1000 * seconds_to_stop(model, message, during_prefill="prefill" in what) for _ in range(5)]
        print_row(f"Ctrl-C {what}", f"{min(times):.0f}–{max(times):.0f} ms", "≤ one token + 50 ms")


def long_conversation(engine: TransformersEngine) -> tuple[Message, ...]:
    """Return nine turns of about 2,000 rendered tokens with a question at the end."""
    messages: list[Message] = []
    for turn in range(TURNS - 1):
        messages += [user_message(f"{turn} 问"), Message(role="assistant", content="答" * (HISTORY // (TURNS - 1) - 12))]
    return (*messages, user_message("最后一问"))


def first_token(chunks: Iterator[Chunk]) -> float:
    """Return the seconds to the first token, and cancel the rest."""
    start = time.perf_counter()
    for chunk in chunks:
        if chunk.token_ids:
            break
    seconds = time.perf_counter() - start
    chunks.close()  # type: ignore[attr-defined]
    return seconds


def turn_section(folder: Path) -> None:
    """Print the rows on the first token of turn 10."""
    loaded = load_nano("float32")
    model = long_model(folder) if not (folder / "config.json").exists() else folder
    loaded = Loaded(Qwen3ForCausalLM.from_pretrained(model, dtype=torch.float32).eval(), loaded.renderer, (), None)
    engine = TransformersEngine("bench", loaded)
    messages, sampling = long_conversation(engine), SamplingParams(max_new_tokens=4)
    cached, uncached = [], []
    for _ in range(5):
        engine.prompt_cache.clear()
        uncached.append(first_token(engine.generate([Request("uncached", messages, sampling=sampling)])))
        engine.prompt_cache.clear()
        for _ in engine.generate([Request("before", messages[:-1], sampling=sampling)]):
            pass  # fills the prompt cache with the first nine turns
        cached.append(first_token(engine.generate([Request("cached", messages, sampling=sampling)])))
    engine_seconds = min(cached)
    print_row("first token at turn 10", f"{engine_seconds * 1000:.1f} ms")
    print_row("  without the prompt cache", f"{min(uncached) * 1000:.1f} ms, {min(uncached) / engine_seconds:.1f} ×", "≥ 10 ×")
    with served(model) as (url, name):
        served_seconds = asyncio.run(client_seconds(url, name, messages))
    print_row("  transformers serve, its own client", f"{served_seconds * 1000:.1f} ms, {served_seconds / engine_seconds:.1f} ×", "≥ 5 ×")


@contextmanager
def served(model: Path) -> Iterator[tuple[str, str]]:
    """Run ``transformers serve`` on this machine; yield its address and the model's name."""
    import httpx2

    with socket.socket() as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
    program = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(model)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    no_output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*program, *options], env=os.environ | {"HF_HUB_OFFLINE": "1"}, **no_output) as server:  # type: ignore[call-overload]
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
    """Return the seconds to the first text, best of five, with the client of ``transformers chat``."""
    from huggingface_hub import AsyncInferenceClient

    async def once() -> float:
        start = time.perf_counter()
        stream = await client.chat_completion(list(messages), model=model, max_tokens=16, stream=True)  # type: ignore[arg-type]
        first = 0.0
        async for part in stream:
            if not first and part.choices and part.choices[0].delta.content:
                first = time.perf_counter() - start
        if not first:
            raise SystemExit("transformers serve sent no text")
        return first

    async with AsyncInferenceClient(base_url=url) as client:
        return min([await once() for _ in range(5)])


class TimedReply(NamedTuple):
    """The token ids of a reply, and the seconds from its first token to its last."""

    seconds: float
    ids: tuple[int, ...]


def time_engine(engine: TransformersEngine, request: Request) -> TimedReply:
    """Generate a reply with our engine."""
    ids: list[int] = []
    first = 0.0
    for chunk in engine.generate([request]):
        ids += chunk.token_ids
        first = first or (now() if ids else 0.0)
    return TimedReply(now() - first, tuple(ids))


def time_generate(loaded: Loaded, ids: Sequence[int], count: int, stop: Sequence[int] = ()) -> TimedReply:
    """Generate a reply with transformers' ``generate`` and a streamer, as ``transformers chat`` does."""
    from transformers.generation.streamers import BaseStreamer

    class Clock(BaseStreamer):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(now())

        def end(self) -> None:
            """Do nothing."""

    clock, prompt = Clock(), torch.tensor([list(ids)])
    reply_ids = loaded.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, do_sample=False, pad_token_id=0, streamer=clock,
        eos_token_id=list(stop) or -1,  # without -1 the model's own stop tokens would end the reply
    )[0, len(ids) :].tolist()  # fmt: skip
    if reply_ids[-1] in stop:
        reply_ids.pop()
    first_token_time = clock.times[1]  # the streamer gets the prompt first
    return TimedReply(clock.times[-1] - first_token_time, tuple(reply_ids))


def best_speed(replies: Iterable[TimedReply]) -> float:
    """Return the highest speed among the replies, in tokens per second after the first token."""
    return max((len(reply.ids) - 1) / reply.seconds for reply in replies)


def total_speed(replies: Sequence[TimedReply]) -> float:
    """Return the speed over all replies, in tokens per second after the first token of each."""
    return sum(len(reply.ids) - 1 for reply in replies) / sum(reply.seconds for reply in replies)


@contextmanager
def without_prompt_lookup() -> Iterator[None]:
    """Turn prompt lookup off, because a random model repeats itself and would favour it."""
    ngram_sizes, sequence.NGRAM_SIZES = sequence.NGRAM_SIZES, (1_000_000,)  # longer than any repetition
    try:
        yield
    finally:
        sequence.NGRAM_SIZES = ngram_sizes


def compare_with_generate(title: str, loaded: Loaded, goal: str, count: int = 200) -> float:
    """Time one model with our engine and with ``generate``; return the speed of ``generate``."""
    prompt = loaded.renderer.tokenizer.decode(range(300, 340))
    ids = loaded.renderer.tokenizer.encode(prompt)
    request = Request("r", prompt=prompt, sampling=SamplingParams(max_new_tokens=count))
    generate_speed = best_speed(time_generate(loaded, ids, count) for _ in range(3))
    optimize_for_inference(loaded.model)
    engine = TransformersEngine("bench", loaded)
    with without_prompt_lookup():
        engine_speed = best_speed(time_engine(engine, request) for _ in range(3))
    print_row(f"{title}: ours, generate", f"{engine_speed:.0f}, {generate_speed:.0f} tokens/s, {engine_speed / generate_speed:.2f} ×", goal)
    return generate_speed


def decode_section(small: bool) -> None:
    """Print the rows on the speed of one reply."""
    compare_with_generate("embedded model, float32", load_nano("float32"), "≥ 1.0 ×")
    if not small:
        time_int8(compare_with_generate("135M, bfloat16", load_135m("bfloat16"), "≥ 1.0 ×", 60))


def time_int8(generate_speed: float) -> None:
    """Time the 135M model with int8 weights against ``generate`` in bfloat16."""
    loaded = load_135m("bfloat16")
    optimize_for_inference(loaded.model, int8=True)  # as with --quantize int8
    request = Request("r", prompt=loaded.renderer.tokenizer.decode(range(300, 340)), sampling=SamplingParams(max_new_tokens=60))
    engine = TransformersEngine("bench", loaded)
    with without_prompt_lookup():
        engine_speed = best_speed(time_engine(engine, request) for _ in range(3))
    print_row(
        "135M, int8: ours, generate in bfloat16",
        f"{engine_speed:.0f}, {generate_speed:.0f} tokens/s, {engine_speed / generate_speed:.2f} ×",
        "≥ 1.5 ×",
    )


def lookup_section(run: str) -> None:
    """Print the rows on prompt lookup, with a checkpoint of the relation task."""
    task = load_plugins().task("relation")
    loaded = load(resolve(run, schemes=()), dtype="float32", device="cpu")
    examples = [example for example in task.generate(60, 7) if "\n" in (example.gold or "")]
    requests = [Request(example.id, example.messages, sampling=task.sampling) for example in examples]
    prompts = [loaded.renderer.prompt_ids(example.messages) for example in examples]

    generate_replies = [time_generate(loaded, ids, task.sampling.max_new_tokens, loaded.stop_ids) for ids in prompts]
    optimize_for_inference(loaded.model)  # as in load_engine
    engine = TransformersEngine("bench", loaded)
    passes: list[int] = []
    loaded.model.register_forward_pre_hook(lambda *_: passes.append(1))
    with without_prompt_lookup():
        replies_without_lookup = [time_engine(engine, request) for request in requests]
    passes_without_lookup = len(passes)
    replies_with_lookup = [time_engine(engine, request) for request in requests]
    print_row("  passes without and with prompt lookup", f"{passes_without_lookup}, {len(passes) - passes_without_lookup}")
    one_token, two_tokens, four_tokens = (pass_seconds(loaded, count) for count in (1, 2, 4))
    print_row("  a pass over two and over four tokens against one", f"{two_tokens / one_token:.2f} ×, {four_tokens / one_token:.2f} ×")
    replies = zip(generate_replies, replies_without_lookup, replies_with_lookup, strict=True)
    equal_replies = sum(generated.ids == without.ids == with_lookup.ids for generated, without, with_lookup in replies)
    generate_speed, speed_without, speed_with = map(total_speed, (generate_replies, replies_without_lookup, replies_with_lookup))
    print_row(
        f"relation extraction, {len(requests)} passages: ours with prompt lookup, without, generate",
        f"{speed_with:.0f}, {speed_without:.0f}, {generate_speed:.0f} tokens/s, {speed_with / generate_speed:.2f} ×, "
        f"{equal_replies} of {len(requests)} replies equal",
        "≥ 1.5 ×, all equal",
    )


@torch.inference_mode()
def pass_seconds(loaded: Loaded, count: int) -> float:
    """Return the seconds of a forward pass over ``count`` tokens with logits for each, which verifies the tokens that prompt lookup proposes."""
    ids, times = torch.tensor([range(300, 300 + count)]), []
    for _ in range(50):
        start = now()
        loaded.model(input_ids=ids, use_cache=False)
        times.append(now() - start)
    return min(times)


def main() -> None:
    """Print the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    parser.add_argument("--run", default="", help="a checkpoint of the relation task, for prompt lookup")
    parser.add_argument("--processor-time", action="store_true", help="measure processor time in decode and lookup")
    parser.add_argument("--small", action="store_true", help="leave out the 135M model")
    args = parser.parse_args()
    if args.processor_time:
        global now
        now = time.process_time
    sections = args.sections or ["start", "turn", "decode", "lookup"]
    print("| what | measured | goal |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "long"
        if "start" in sections:
            start_section(folder)
        if "turn" in sections:
            turn_section(folder)
        if "decode" in sections:
            decode_section(args.small)
        if "lookup" in sections and args.run:
            lookup_section(args.run)


if __name__ == "__main__":
    main()
