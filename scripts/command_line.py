"""Scripts that only call the command line: each command is printed before it runs."""

from __future__ import annotations

import shlex
import subprocess
import sys


def run(*words: object) -> int:
    """Print and run an ``sftchat`` command; returns its exit code."""
    line = [str(word) for word in words]
    print(f"\n$ sftchat {shlex.join(line)}", flush=True)
    return subprocess.run([sys.executable, "-m", "sftchat", *line], check=False).returncode


def must(*words: object) -> None:
    """Run a command that the rest depends on; the script ends with its exit code when it fails."""
    if code := run(*words):
        sys.exit(code)
