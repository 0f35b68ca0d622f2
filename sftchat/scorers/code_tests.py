"""The scorer ``python_tests``, which runs the Python code of a reply with the tests of its row."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from sftchat.errors import SftchatWarning, UsageError
from sftchat.scorers.base import ACCURACY, Answers, Scorer, decided
from sftchat.scorers.code_runner import Job, missing_protections, run_code
from sftchat.scorers.consent import require_consent
from sftchat.types import Example, Reply, Score

MAX_CHARACTERS = 200_000
"""Maximum length of a program; a longer one is a syntax error."""
MAX_SECONDS, MIN_MEMORY_MB = 600.0, 64
_FENCES = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


def python_tests(*, completion: bool = False, extract: str = "fence", seconds: float = 5.0, memory_mb: int = 1024) -> Scorer:
    """Score whether the Python code of a reply passes the tests of its row.

    The row's metadata has ``tests``: statements, or a list of them (as MBPP's assertions), or a definition of ``check(candidate)`` (as HumanEval's),
    which needs the name of the function in ``entry_point``, or of ``unittest.TestCase`` classes. With ``{"tests": "assert double(3) == 6"}``, the reply
    ``def double(n): return 2 * n`` is right. The code runs in a process of its own, see ``isolated``.

    Args:
        completion: Whether a reply continues the code of the prompt's last turn, as in HumanEval.
        extract: Where the code stands, see ``EXTRACTIONS``; with ``fence``, the last code block that defines ``entry_point`` if any does.
        seconds: Maximum CPU time of a reply with its tests.
        memory_mb: Maximum memory in MB.

    Raises:
        UsageError: When nobody allowed running code, an argument is out of range, or the system is Windows.
    """
    require_consent("python_tests")
    if sys.platform == "win32":
        raise UsageError("the scorer python_tests needs Linux or macOS; on Windows, use WSL")
    if not 0 < seconds <= MAX_SECONDS or memory_mb < MIN_MEMORY_MB:
        limits = f"seconds at most {MAX_SECONDS:g} and memory_mb at least {MIN_MEMORY_MB}"
        raise UsageError(f"seconds is {seconds:g} and memory_mb is {memory_mb}, must be above 0, {limits}")
    answers = Answers(extract)
    if missing := missing_protections():
        warnings.warn(
            SftchatWarning(
                f"this system does not protect {' and '.join(missing)} from the code of replies; run this in a container without network"
            ),
            stacklevel=2,
        )

    def program(example: Example, text: str) -> str:
        """Return the program of a reply; empty when it is no Python."""
        entry_point = str(example.metadata.get("entry_point", ""))
        answer = _code(text, entry_point) if extract == "fence" else answers.of(text)[0]
        prompt = _code(str(example.messages[-1]["content"]), entry_point) if completion and example.messages else ""
        candidates = _completions(prompt, answer) if completion else (answer,)
        return next((candidate for candidate in candidates if _is_python(candidate)), "")

    def score(example: Example, reply: Reply) -> Score:
        code = program(example, reply.text)
        if not code.strip():
            return decided(False, "", reply, "syntax_error")
        entry_point = str(example.metadata.get("entry_point", ""))
        outcome = run_code(Job(code, _tests(example.metadata.get("tests")), entry_point, seconds, memory_mb))
        return decided(not outcome.error, code, reply, outcome.error)

    def validate_row(example: Example) -> Iterable[str]:
        tests, entry_point = _tests(example.metadata.get("tests")), example.metadata.get("entry_point", "")
        if not tests.strip():
            yield "the row has no metadata 'tests' with Python statements"
        elif not _is_python(tests):
            yield "the metadata 'tests' is no Python"
        elif re.search(r"^def check\(", tests, re.MULTILINE) and not entry_point:
            yield "the metadata 'tests' defines check(candidate), so the row needs the metadata 'entry_point'"
        if not isinstance(entry_point, str):
            yield "the metadata 'entry_point' is no name"
        if example.gold and not program(example, example.gold).strip():
            yield "the gold reply is no Python"

    settings = {"completion": completion, "extract": extract, "seconds": seconds, "memory_mb": memory_mb}
    return Scorer("python_tests", score, (ACCURACY,), validate_row, settings)


def _tests(value: Any) -> str:
    """Return the tests of a row as one text."""
    if isinstance(value, list):
        return "\n".join(item for item in value if isinstance(item, str))
    return value if isinstance(value, str) else ""


def _code(text: str, entry_point: str) -> str:
    """Return the code in a text: of its code blocks the last that defines the entry point, or else the last; the whole text without a block."""
    blocks = [match[1] for match in _FENCES.findall(text)]
    if not blocks:
        return text.strip("\n")
    definition = re.compile(rf"^(?:async )?(?:def|class) {re.escape(entry_point)}\b", re.MULTILINE)
    defining = [block for block in blocks if entry_point and definition.search(block)]
    chosen: str = (defining or blocks)[-1]
    return chosen.rstrip("\n")


def _completions(prompt: str, answer: str) -> Iterable[str]:
    """Yield ways to continue a prompt; the first that is Python is the program.

    The answer may be the whole function again, which then replaces that of the prompt; it may have lost the white space of its first line, and it may go
    on with other text after the function.
    """
    body, lines = f"{prompt}\n{answer}", answer.split("\n")
    end = next(
        (number for number, line in enumerate(lines) if number and line and not line[0].isspace() and line[0] not in "#)]}"), len(lines)
    )
    yield body
    yield f"{prompt}{answer}"
    yield f"{prompt}\n    {answer}"
    yield "\n".join((prompt, *lines[:end]))
    yield "\n".join((prompt, f"    {lines[0]}", *lines[1:end]))


def _is_python(code: str) -> bool:
    if len(code) > MAX_CHARACTERS:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            statements = ast.parse(code).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # ValueError: a NUL or half a surrogate
        return False
    return not any(isinstance(statement, ast.Return) for statement in statements)  # outside a function, which ``ast.parse`` accepts
