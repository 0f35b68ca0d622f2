"""Helpers for scripts that call the command line: print each command before it runs, and format two models' scores as a Markdown row."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(*words: object) -> int:
    """Print and run an ``sftchat`` command; returns its exit code."""
    line = [str(word) for word in words]
    print(f"\n$ sftchat {shlex.join(line)}", flush=True)
    return subprocess.run([sys.executable, "-m", "sftchat", *line], check=False).returncode


def must(*words: object) -> None:
    """Run a required command; when it fails, the script ends with its exit code."""
    if code := run(*words):
        sys.exit(code)


def compare(candidate: object, baseline: object, report: Path, *words: object) -> None:
    """Evaluate one model against another, ignoring the gate; the script ends when the evaluation fails."""
    if (code := run("eval", candidate, "--baseline", baseline, *words, "-o", report, "--overwrite", "--quiet")) > 1:
        sys.exit(code)


def comparison(report: Path, metric: str) -> dict[str, Any]:
    """Return the values of a metric in the only comparison of a report: ``baseline``, ``candidate``, ``difference``, ``low``, ``high`` and ``p``."""
    (found,) = json.loads((report / "report.json").read_text(encoding="utf-8"))["comparisons"]
    line: dict[str, Any] = next(each for each in found["metrics"] if each["name"] == metric)
    return line


def table_line(name: str, found: dict[str, Any]) -> str:
    """Format a comparison as a line of a table: name, baseline, candidate, difference with its interval, p."""
    difference = f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    p = f"{found['p']:.3f}" if found["p"] >= 0.001 else "< 0.001"
    return f"| {name} | {found['baseline']:.3f} | {found['candidate']:.3f} | {difference} | {p} |"
