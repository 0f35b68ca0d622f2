"""llama.cpp's server in this process: the only module that imports xllamacpp."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from sftchat.errors import ModelError, in_one_line
from sftchat.models.gguf import GgufHeader, read_header

SLOTS = 8
"""Maximum number of requests that llama.cpp decodes together."""
CONTEXT_LIMIT = 16_384
"""Maximum number of tokens for which memory is reserved, all requests together; a model with a shorter context reserves that."""
MIN_CONTEXT = 4096
"""Number of tokens that several requests share at least, if the model's own context is shorter."""
LOG_ERRORS = 1
"""llama.cpp's log level at which it reports errors only."""
LOG_PREFIX = re.compile(r"^[\d.]+ [A-Z] (\w+: )?")
"""Time, level and function at the beginning of a line of llama.cpp's log."""


def load_server(path: Path, *, slots: int = SLOTS) -> Server:
    """Load a GGUF file with llama.cpp, on the CPU; see ``Server``.

    Raises:
        ModelError: When the file is damaged, or llama.cpp cannot load it.
    """
    return Server(read_header(path), uses_accelerator=False, slots=slots)


class Server:
    """llama.cpp's server in this process, for one model.

    Args:
        header: Header of the file.
        uses_accelerator: Whether layers may run on an accelerator.
        slots: Maximum number of requests that are decoded together.

    Attributes:
        context_length: Maximum number of tokens of one request, prompt and reply together.
        capacity: Maximum number of tokens of all running requests together.
    """

    def __init__(self, header: GgufHeader, *, uses_accelerator: bool, slots: int = SLOTS) -> None:
        import xllamacpp

        self.context_length = min(header.context_length, CONTEXT_LIMIT)
        self.capacity = max(self.context_length, MIN_CONTEXT)
        self._key = secrets.token_urlsafe(16)  # the server also listens on a local port
        params = xllamacpp.CommonParams()
        params.model.path = str(header.path)
        params.n_ctx = self.capacity
        params.n_parallel = slots
        params.kv_unified = True
        params.cache_ram_mib = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads()
        params.n_threads_http = 1
        params.api_keys = [self._key]
        params.ui = params.endpoint_slots = params.endpoint_metrics = False
        params.use_jinja = False
        params.chat_template = "chatml"  # built in; the one in the file is not trusted, and only used by sftchat
        params.warmup = False
        params.verbosity = LOG_ERRORS
        if not uses_accelerator:
            params.n_gpu_layers = 0
        with _captured_log() as read_log:
            try:
                self._server = xllamacpp.Server(params)
            except Exception as error:  # a C++ exception
                lines = [LOG_PREFIX.sub("", line) for line in read_log()]
                reason = next((line for line in lines if "error" in line.lower() or "failed" in line.lower()), in_one_line(error))
                raise ModelError(f"llama.cpp cannot load '{header.path}' (architecture '{header.architecture}'): {reason}") from error
            self._wait_until_listening()

    def _wait_until_listening(self) -> None:
        """Wait for the server's own threads: unloading it before they run blocks for ever."""
        for _ in range(200):
            try:
                with open_local_url(Request(f"{self._server.listening_address}/health")):
                    return
            except OSError:
                time.sleep(0.05)

    def complete(self, body: Mapping[str, Any], receive: Callable[[Mapping[str, Any]], bool]) -> str:
        """Generate one reply; blocks until it is complete. Threads may call this at the same time.

        Args:
            body: Request in the format of OpenAI's completions, with llama.cpp's extensions.
            receive: Called with every event in this thread; returns True to cancel.

        Returns:
            The error of llama.cpp or of ``receive`` in one line; empty if there was none.
        """
        errors: list[str] = []

        def guarded(event: Mapping[str, Any]) -> bool:
            try:
                return receive(event)
            except Exception as error:  # it must not pass through C++
                errors.append(in_one_line(error))
                return True

        try:
            self._server.handle_completions(dict(body), guarded)
        except Exception as error:  # a C++ exception
            errors.append(in_one_line(error))
        return errors[0] if errors else ""

    def tokenize(self, text: str) -> list[int]:
        """Tokenize a text; special tokens in it are recognized."""
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = Request(f"{self._server.listening_address}/tokenize", body, headers)
        with open_local_url(request) as response:
            tokens: list[int] = json.load(response)["tokens"]
        return tokens

    def close(self) -> None:
        """Unload the model."""
        del self._server


def open_local_url(request: Request) -> Any:
    """Open an address of this machine, whatever proxies are configured."""
    return build_opener(ProxyHandler({})).open(request, timeout=60)


@contextmanager
def _captured_log() -> Iterator[Callable[[], list[str]]]:
    """Capture what llama.cpp writes to standard error; yields a function that returns the lines so far."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile("w+") as log:
        os.dup2(log.fileno(), 2)

        def read() -> list[str]:
            log.seek(0)
            return [line.strip() for line in log if line.strip()]

        try:
            yield read
        finally:
            os.dup2(original, 2)
            os.close(original)


def _threads() -> int:
    """Return the number of threads: ``OMP_NUM_THREADS``, else one for each processor of this process, since llama.cpp's threads wait actively."""
    configured = os.environ.get("OMP_NUM_THREADS", "")
    if configured.isdecimal() and int(configured):
        return int(configured)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
