"""Runs the code of a reply with its tests in a process of its own, with few rights and with limits."""

from __future__ import annotations

import contextlib
import marshal
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

PROGRAM = Path(__file__).with_name("isolated.py")
MAX_ANSWER_BYTES = 4096
PROTECTIONS = ("files", "processes and network")
"""What ``isolated`` can protect, if the system allows."""
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""The whole environment of the code: no variables of the user, so no keys."""

CodeError = Literal["", "syntax_error", "failed_test", "runtime_error", "timeout", "memory"]
_ERRORS: dict[str, CodeError] = {
    "": "",
    "syntax_error": "syntax_error",
    "failed_test": "failed_test",
    "runtime_error": "runtime_error",
    "memory": "memory",
}


@dataclass(frozen=True)
class Job:
    """Code with its tests and limits.

    Attributes:
        code: The program of the reply.
        tests: Its tests, see ``isolated.run``.
        entry_point: Name of the tested function; may be empty.
        seconds: Maximum CPU time in seconds; on the clock it may take twice as long and a second.
        memory_mb: Maximum address space in MB.
    """

    code: str
    tests: str = ""
    entry_point: str = ""
    seconds: float = 5.0
    memory_mb: int = 1024


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    Attributes:
        error: Error class; empty when all tests passed.
        message: Name of the exception, or the message of a failed assertion, as the code reports it.
        protections: Those of ``PROTECTIONS`` that the system has.
    """

    error: CodeError
    message: str = ""
    protections: tuple[str, ...] = ()


@lru_cache(maxsize=4096)
def run_code(job: Job) -> Outcome:
    """Run a job; the outcome of an equal job is remembered."""
    folder = Path(tempfile.mkdtemp(prefix="sftchat-code-"))
    try:
        return _run_in(folder, job)
    finally:
        with contextlib.suppress(OSError):
            folder.chmod(0o700)
        with contextlib.suppress(RecursionError):  # where files are not protected, code can nest folders deeply
            shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def missing_protections() -> tuple[str, ...]:
    """Return those of ``PROTECTIONS`` that this system lacks, by starting the process once."""
    return tuple(name for name in PROTECTIONS if name not in run_code(Job("pass")).protections)


def _run_in(folder: Path, job: Job) -> Outcome:
    secret = secrets.token_hex(16)
    request = {
        "code": job.code,
        "tests": job.tests,
        "entry_point": job.entry_point,
        "folder": str(folder),
        "seconds": job.seconds,
        "memory_bytes": job.memory_mb << 20,
    }
    answer_read, answer_write = os.pipe()
    secret_read, secret_write = os.pipe()
    descriptors = [answer_read, answer_write, secret_read, secret_write]
    started = time.monotonic()
    try:
        os.write(secret_write, secret.encode())
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(PROGRAM), str(answer_write), str(secret_read)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=ENVIRONMENT,
            pass_fds=(answer_write, secret_read),
            start_new_session=True,
        )
        os.close(answer_write)
        descriptors.remove(answer_write)
        try:
            answer = _ask(process, marshal.dumps(request), answer_read, time.monotonic() + 2 * job.seconds + 1)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    except subprocess.TimeoutExpired:
        return Outcome("timeout")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if not answer and process.returncode == -signal.SIGXCPU:
        return Outcome("timeout")
    if not answer and process.returncode == -signal.SIGKILL:  # by the limit on CPU time, or by the system for lack of memory
        return Outcome("timeout" if time.monotonic() - started >= job.seconds else "memory")
    return _outcome(answer, secret)


def _ask(process: subprocess.Popen[bytes], request: bytes, answer: int, deadline: float) -> bytes:
    """Send the request to the process and return its answer; empty when it ended without one.

    Raises:
        TimeoutExpired: When neither happened before the deadline.
    """
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(request)
    ready, _, _ = select.select([answer], [], [], max(0.0, deadline - time.monotonic()))
    found = os.read(answer, MAX_ANSWER_BYTES) if ready else b""
    if not found:
        process.wait(timeout=max(0.0, deadline - time.monotonic()))
    return found


def _outcome(answer: bytes, secret: str) -> Outcome:
    """Read the answer of the process, which the code may have written itself; only the secret makes it right."""
    lines = answer.decode("ascii", "replace").split("\n", 3)
    if len(lines) < 4:
        return Outcome("runtime_error", "the process ended before its tests")
    error = _ERRORS.get(lines[0], "runtime_error")
    if not error and not secrets.compare_digest(lines[1].encode(), secret.encode()):
        error = "runtime_error"
    return Outcome(error, lines[3], tuple(name for name in PROTECTIONS if name in lines[2].split(",")))
