"""Run many commands in one process and report for each its exit code, its output, and whether it imported torch.

Reads ``[[word, …], …]`` from standard input, and writes as many JSON objects to standard output.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

from sftchat.cli import main

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")


class TooLateError(BaseException):
    """Raised when a command imports a model library, which ends its cheap checks; a BaseException, so that no handler catches it."""


def refuse_imports(event: str, arguments: Sequence[Any]) -> None:
    """Stop at the import of a model library, so that the next command starts without it."""
    if event == "import" and str(arguments[0]).partition(".")[0] in HEAVY:
        raise TooLateError(arguments[0])


def ended(words: list[str]) -> dict[str, object]:
    """Return the result of one command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: int | str = main(words)
        except BaseException as error:
            code = repr(error)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "heavy": [name for name in HEAVY if name in sys.modules]}


if __name__ == "__main__":
    commands = json.load(sys.stdin)
    sys.stdin = io.StringIO("")
    sys.addaudithook(refuse_imports)
    for words in commands:
        sys.stdout.write(json.dumps(ended(words)) + "\n")
