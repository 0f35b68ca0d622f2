"""The programs that ``bench_real.py`` compares: each opens a model and generates replies of given lengths, without a stop token."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol
from urllib.request import Request as HttpRequest

import torch
from bench_eval import Workload, generate_in_batches, generate_with_engine
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from sftchat.engine import Request
from sftchat.inference.cpu import optimize_for_inference
from sftchat.inference.linears import can_pack
from sftchat.inference.llama_server import load_server, open_local_url
from sftchat.inference.local import TransformersEngine
from sftchat.models.loading import Loaded
from sftchat.types import SamplingParams

HARNESS = "lm_eval[hf]==0.4.13"
SOUP = "soup-cli==0.77.0"
LLAMA_SLOTS = (8, 32)
"""Numbers of parallel requests that llama.cpp is measured with."""
STATIC_BATCH = 32
HARNESS_BATCH = 32
NO_BFLOAT16 = "this CPU does not multiply bfloat16"


class Backend(Protocol):
    """An open model."""

    def stream(self, workload: Workload) -> list[float]:
        """Reply to the first request, and return the seconds until the arrival of the first token and of the last."""

    def batch(self, workload: Workload) -> float | None:
        """Reply to all requests; returns the seconds if the backend measures them itself."""


@dataclass(frozen=True)
class Contestant:
    """A program with a precision.

    Attributes:
        name: Name in the table.
        group: ``ours``, ``transformers``, ``llama.cpp`` or ``harness``.
        measures: Letters of the measures that it takes part in.
        weight_bytes: Bytes of the weights, which a decoding step reads.
        open: Opens it; closing stops its threads.
        reason: Why it is skipped; empty if it is not.
    """

    name: str
    group: str
    measures: str
    weight_bytes: float
    open: Callable[[], AbstractContextManager[Backend]]
    reason: str = ""


@dataclass(frozen=True)
class OurEngine:
    """sftchat's engine; every call starts without cached prompts."""

    loaded: Loaded
    batch_size: int = 128

    def stream(self, workload: Workload) -> list[float]:
        """See ``Backend``."""
        engine = TransformersEngine("bench", self.loaded)
        request = Request("r", prompt=workload.texts[0], sampling=SamplingParams(max_new_tokens=workload.lengths[0]))
        start = time.perf_counter()
        times = [time.perf_counter() - start for chunk in engine.generate([request]) if chunk.token_ids]
        return [times[0], times[-1]]

    def batch(self, workload: Workload) -> None:
        """See ``Backend``."""
        replies = generate_with_engine(self.loaded, workload, self.batch_size)
        if [len(reply) for reply in replies] != list(workload.lengths):
            raise RuntimeError("replies of other lengths")


class _Times(BaseStreamer):  # type: ignore[misc]
    """Records when tokens arrive; the first call brings the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


@dataclass(frozen=True)
class PlainGenerate:
    """transformers' ``generate``, with static batches for many requests."""

    loaded: Loaded

    def stream(self, workload: Workload) -> list[float]:
        """See ``Backend``."""
        ids, streamer = torch.tensor([workload.prompts[0]]), _Times()
        start = time.perf_counter()
        self.loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=workload.lengths[0], do_sample=False, streamer=streamer
        )
        return [streamer.times[1] - start, streamer.times[-1] - start]

    def batch(self, workload: Workload) -> None:
        """See ``Backend``."""
        generate_in_batches(self.loaded, workload, STATIC_BATCH)


Complete = Callable[[Mapping[str, Any], Callable[[Mapping[str, Any]], bool]], str]
"""Sends a request and passes every event on, as ``Server.complete``."""


@dataclass(frozen=True)
class LlamaCpp:
    """A server of llama.cpp, in this process or native.

    Attributes:
        complete: Sends a request.
        slots: Number of parallel requests.
    """

    complete: Complete
    slots: int

    def stream(self, workload: Workload) -> list[float]:
        """See ``Backend``."""
        return self._answer(workload.prompts[0], workload.lengths[0])

    def batch(self, workload: Workload) -> None:
        """See ``Backend``."""
        with ThreadPoolExecutor(self.slots) as pool:
            list(pool.map(self._answer, workload.prompts, workload.lengths))

    def _answer(self, prompt: Sequence[int], length: int) -> list[float]:
        start, times, counts = time.perf_counter(), [], []

        def receive(event: Mapping[str, Any]) -> bool:
            if "error" in event:
                raise RuntimeError(str(event["error"]))
            times.append(time.perf_counter() - start)
            counts.append((event.get("usage") or {}).get("completion_tokens", 0))
            return False

        body = {
            "prompt": list(prompt), "max_tokens": length, "stream": True, "temperature": 0, "ignore_eos": True, "cache_prompt": False,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        error = self.complete(body, receive)
        if error or max(counts, default=0) != length:
            raise RuntimeError(error or f"a reply of {max(counts, default=0)} tokens instead of {length}")
        return [times[0], times[-1]]


@contextmanager
def open_llama_server(path: Path, slots: int) -> Iterator[LlamaCpp]:
    """Load a file with the llama.cpp that the extra ``gguf`` installs."""
    server = load_server(path, slots=slots)
    try:
        yield LlamaCpp(server.complete, slots)
    finally:
        server.close()


@contextmanager
def open_native_server(program: str, path: Path, slots: int, context: int) -> Iterator[LlamaCpp]:
    """Start a native ``llama-server``, on as many threads as this process has processors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", path, "-c", context, "-np", slots, "-t", torch.get_num_threads(), "--port", port, "--kv-unified"]
    process = subprocess.Popen([program, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(process, address)
        yield LlamaCpp(partial(complete_over_http, address, ""), slots)
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(process: subprocess.Popen[bytes], address: str) -> None:
    for _ in range(240):
        if process.poll() is not None:
            raise RuntimeError(f"llama-server exited with {process.returncode}")
        try:
            with open_local_url(HttpRequest(f"{address}/health")):
                return
        except OSError:
            time.sleep(0.25)
    raise RuntimeError("llama-server does not answer")


def complete_over_http(address: str, key: str, body: Mapping[str, Any], receive: Callable[[Mapping[str, Any]], bool]) -> str:
    """Send a request to a server of llama.cpp and pass its events on; returns an error, empty if there was none.

    Args:
        address: URL of the server, without a path.
        key: Its API key; empty for none.
    """
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    with open_local_url(HttpRequest(f"{address}/v1/completions", json.dumps(body).encode(), headers)) as response:
        for line in response:
            data = line.strip().removeprefix(b"data: ")
            if data.startswith(b"{") and receive(json.loads(data)):
                break
    return ""


@dataclass(frozen=True)
class Harness:
    """lm-evaluation-harness in a process of its own, which measures its time without loading."""

    process: subprocess.Popen[str]

    def stream(self, workload: Workload) -> list[float]:
        """Raise an error: the harness takes no single request."""
        raise NotImplementedError

    def batch(self, workload: Workload) -> float:
        """See ``Backend``; the workload is that of the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the harness ended; its messages are above")
        return float(line)


@contextmanager
def open_harness(python: Path, model: Path, workload: Workload, folder: Path) -> Iterator[Harness]:
    """Start the harness's own process for a workload."""
    file = folder / "workload.json"
    file.write_text(json.dumps({"prompts": workload.texts, "ids": workload.prompts, "lengths": workload.lengths}), encoding="utf-8")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [str(python), str(Path(__file__).with_name("harness_driver.py")), str(model), str(file), str(HARNESS_BATCH)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for line in process.stdout:  # until its warnings end
                if line == "ready\n":
                    break
            yield Harness(process)
        finally:
            process.stdin.close()
            process.wait(60)


def environment_python(folder: Path, requirement: str, shared: Sequence[str]) -> tuple[Path, str]:
    """Return the Python of an environment, which is made if it does not exist, and why it cannot be used; empty if it can.

    Args:
        folder: The environment.
        requirement: The package that it is for.
        shared: Packages that it gets in the versions of this environment.
    """
    python = folder / "bin" / "python"
    if python.is_file():
        return python, ""
    packages = [requirement, *(f"{name}=={version(name).partition('+')[0]}" for name in shared)]
    if uv := shutil.which("uv"):
        commands = [[uv, "venv", "-q", "--python", sys.executable, folder], [uv, "pip", "install", "-q", "--python", python, *packages]]
    else:
        commands = [[sys.executable, "-m", "venv", folder], [python, "-m", "pip", "install", "-q", *packages]]
    for command in commands:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return python, f"{requirement} cannot be installed: {lines[-1]}"
    return python, ""


SOUP_CONFIG = """base: {model}
task: sft
data: {{train: {data}, format: chatml, val_split: 0, max_length: 1024}}
training:
  epochs: 1
  lr: 2e-4
  batch_size: 4
  gradient_accumulation_steps: 1
  lora: {{r: 8, alpha: 16, target_modules: auto}}
  quantization: none
output: {output}
"""
"""Configuration of Soup for one epoch of measure e; ``auto`` adapts queries and values alone."""


def soup_command(python: Path, model: Path, data: Path, output: Path) -> list[str]:
    """Write Soup's configuration and return the command that trains with it, in batches of four rows and for one epoch.

    Args:
        python: Python of an environment with Soup.
        model: Folder of the checkpoint.
        data: Rows, in a folder that is the working directory of the command: Soup reads and writes nothing outside it.
        output: Folder for the adapter, in the same folder.
    """
    config = data.with_suffix(".yaml")
    config.write_text(SOUP_CONFIG.format(model=model, data=data.name, output=output.name), encoding="utf-8")
    return [str(python.with_name("soup")), "train", "--yes", "-c", config.name]


def local_contestants(load: Callable[[str], Loaded], parameters: int) -> Iterator[Contestant]:
    """Yield sftchat and transformers in each precision.

    Args:
        load: Loads the model in a dtype.
        parameters: Its number of parameters.
    """
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        reason = "" if can_pack(getattr(torch, dtype)) else NO_BFLOAT16
        yield Contestant(f"sftchat {dtype}", "ours", "abc", size * parameters, _opener(load, dtype), reason)
        yield Contestant(f"transformers {dtype}", "transformers", "abc", size * parameters, _opener(load, dtype, plain=True), reason)
    # without bfloat16 products, a long prompt or a batch is no case for eight bits
    yield Contestant("sftchat int8", "ours", "abc" if can_pack(torch.bfloat16) else "a", parameters, _opener(load, "bfloat16", int8=True))


def _opener(
    load: Callable[[str], Loaded], dtype: str, *, int8: bool = False, plain: bool = False
) -> Callable[[], AbstractContextManager[Backend]]:
    """Return a function that opens a model, which is loaded once."""
    opened: list[Backend] = []

    @contextmanager
    def open_local() -> Iterator[Backend]:
        if not opened:
            loaded = load(dtype)
            loaded = replace(loaded, model=deepcopy(loaded.model), stop_ids=())
            loaded.model.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0)
            if not plain:
                optimize_for_inference(loaded.model, int8=int8)
            opened.append(PlainGenerate(loaded) if plain else OurEngine(loaded))
        yield opened[0]

    return open_local


def llama_contestants(files: Sequence[Path], program: str, context: int) -> Iterator[Contestant]:
    """Yield llama.cpp for each file and number of slots: the installed package, and a native server if there is one.

    Args:
        files: GGUF files.
        program: A native ``llama-server``; empty for none.
        context: Number of tokens that all requests of the native server share.
    """
    for file in files:
        name, size = file.stem.rpartition("-")[2], file.stat().st_size
        for slots in LLAMA_SLOTS:
            measures = "abc" if slots == LLAMA_SLOTS[0] else "c"
            yield Contestant(f"llama.cpp {name}, {slots} slots", "llama.cpp", measures, size, partial(open_llama_server, file, slots))
            if program:
                opener = partial(open_native_server, program, file, slots, context)
                yield Contestant(f"native llama.cpp {name}, {slots} slots", "llama.cpp", measures, size, opener)
