"""Helpers for scripts that call the command line: print each command before it runs, and format two models' scores as a Markdown row."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(*words: object) -> int:
    """Print and run an ``sftchat`` command, and return its exit code."""
    line = [str(word) for word in words]
    print(f"\n$ sftchat {shlex.join(line)}", flush=True)
    return subprocess.run([sys.executable, "-m", "sftchat", *line], check=False).returncode


def run_or_exit(*words: object) -> None:
    """Run a command; end the script with the command's exit code when it fails."""
    if code := run(*words):
        sys.exit(code)


def compare(candidate: object, baseline: object, report: Path, *words: object) -> None:
    """Evaluate one model against another; end the script when the evaluation fails, but not when only the gate does (exit code 1)."""
    if (code := run("eval", candidate, "--baseline", baseline, *words, "-o", report, "--overwrite", "--quiet")) > 1:
        sys.exit(code)


def read_comparison(report: Path, metric: str) -> dict[str, Any]:
    """Return the values of a metric in the only comparison of a report: ``baseline``, ``candidate``, ``difference``, ``low``, ``high`` and ``p``."""
    (comparison,) = json.loads((report / "report.json").read_text(encoding="utf-8"))["comparisons"]
    values: dict[str, Any] = next(row for row in comparison["metrics"] if row["name"] == metric)
    return values


def table_line(name: str, values: dict[str, Any]) -> str:
    """Format the values of a comparison as a row of a table: name, baseline, candidate, difference with its interval, p."""
    difference = f"{values['difference']:+.3f} [{values['low']:+.3f}, {values['high']:+.3f}]"
    p = f"{values['p']:.3f}" if values["p"] >= 0.001 else "< 0.001"
    return f"| {name} | {values['baseline']:.3f} | {values['candidate']:.3f} | {difference} | {p} |"
