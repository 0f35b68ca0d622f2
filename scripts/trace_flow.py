"""Print the files and functions of sftchat that a command enters.

Calls during the import of a module are left out.

    python scripts/trace_flow.py [FLOW ...] [--functions]

FLOW is ask, train, chat or eval; by default all are traced. Each flow runs a command on the embedded model, in a separate process and a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent / "sftchat"
OPTIMIZED = 0x1
"""Code flag that functions have, and modules and class bodies lack (``inspect.CO_OPTIMIZED``)."""


@dataclass(frozen=True)
class Flow:
    """A command to trace.

    Attributes:
        words: Arguments of ``sftchat``.
        limit: Maximum number of files of the package that it should enter.
        typed: Text for its standard input.
        before: Arguments of a command that runs first and is not traced.
    """

    words: tuple[str, ...]
    limit: int
    typed: str = ""
    before: tuple[str, ...] = ()


_EVAL = ("eval", "sftchat:nano", "--task", "general", "--evalset", "four.jsonl", "--quiet")
FLOWS: Mapping[str, Flow] = {
    "ask": Flow(("ask", "sftchat:nano", "你好", "--max-new-tokens", "4"), 25),
    "train": Flow(("train", "general", "-n", "16", "--max-steps", "1", "-o", "run", "--quiet"), 28),
    "chat": Flow(("chat", "sftchat:nano", "./copy"), 35, typed="你好\n/exit\n"),
    "eval": Flow((*_EVAL, "-o", "report", "--baseline", "base.jsonl"), 45, before=(*_EVAL, "--update-baseline", "base.jsonl")),
}


def trace(words: Sequence[str], output: Path) -> int:
    """Run a command in this process and write the entered functions as JSON, by file.

    Args:
        words: Arguments of ``sftchat``.
        output: The file to write.

    Returns:
        The command's exit code.
    """
    entered: set[CodeType] = set()

    def record_call(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code in entered or not code.co_flags & OPTIMIZED or not code.co_filename.startswith(str(PACKAGE)):
            return
        if not _while_importing(frame):
            entered.add(code)

    from sftchat.cli import main

    threading.setprofile(record_call)
    sys.setprofile(record_call)
    code = main(list(words))
    sys.setprofile(None)
    files: dict[str, list[str]] = {}
    for function in sorted(entered, key=lambda code: (code.co_filename, code.co_firstlineno)):
        name = Path(function.co_filename).relative_to(PACKAGE).as_posix()
        files.setdefault(name, []).append(function.co_qualname)
    output.write_text(json.dumps(files), "utf-8")
    return code


def _while_importing(frame: FrameType | None) -> bool:
    """Return whether a frame is within the import of a module of the package."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            return True
        frame = frame.f_back
    return False


def entered_files(flow: Flow) -> dict[str, list[str]]:
    """Return the files that a flow enters, each with its functions.

    Raises:
        SystemExit: The command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "SFTCHAT_DATA_DIR": f"{folder}/data",
            "SFTCHAT_CACHE_DIR": f"{folder}/cache",
            "SFTCHAT_CONFIG_DIR": folder,
        }

        def run(*words: str, typed: str = "") -> None:
            done = subprocess.run(
                [sys.executable, *words], cwd=folder, env=environment, input=typed, text=True, encoding="utf-8", capture_output=True
            )
            if done.returncode:
                raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")

        items = (PACKAGE.parent / "evalsets" / "general.jsonl").read_text("utf-8").splitlines(keepends=True)
        Path(folder, "four.jsonl").write_text("".join(items[:4]), "utf-8")
        shutil.copytree(PACKAGE / "models" / "nano", Path(folder, "copy"))
        if flow.before:
            run("-m", "sftchat", *flow.before)
        run(str(Path(__file__).resolve()), "--trace", f"{folder}/entered.json", *flow.words, typed=flow.typed)
        entered: dict[str, list[str]] = json.loads(Path(folder, "entered.json").read_text("utf-8"))
        return entered


def main() -> None:
    """Print each flow's files."""
    if sys.argv[1:2] == ["--trace"]:
        sys.exit(trace(sys.argv[3:], Path(sys.argv[2])))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flows", nargs="*", metavar="FLOW", help=", ".join(FLOWS))
    parser.add_argument("--functions", action="store_true", help="print the functions too")
    arguments = parser.parse_args()
    for name in arguments.flows or FLOWS:
        if name not in FLOWS:
            parser.error(f"no such flow: {name}")
        flow = FLOWS[name]
        files = entered_files(flow)
        print(f"{name}: {len(files)} files (limit {flow.limit}), {sum(map(len, files.values()))} functions: sftchat {' '.join(flow.words)}")
        for file, functions in files.items():
            print(f"  {file}" + (f": {', '.join(functions)}" if arguments.functions else ""))


if __name__ == "__main__":
    main()
