"""Third-party distributions: built by their own backend, installed into a folder, and run by a Python with that folder on its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def install(source: Path, work: Path) -> Path:
    """Build the wheel of a copy of ``source`` and unpack it; returns the folder for the path."""
    copy = shutil.copytree(source, work / "source", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from hatchling.build import build_wheel; print(build_wheel('dist'))"
    (copy / "dist").mkdir()
    wheel = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, check=True).stdout.split()[-1]
    shutil.unpack_archive(copy / "dist" / wheel, work / "site", "zip")
    return work / "site"


def python(site: Path, *words: object, input: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with the installed distribution and this checkout on its path."""
    path = os.pathsep.join(map(str, (site, ROOT, ROOT / "plugins")))
    command = [sys.executable, *map(str, words)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, input=input, cwd=cwd, capture_output=True, text=True, check=False
    )


def sftchat(site: Path, *words: object, input: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    return python(site, "-m", "sftchat", *words, input=input, cwd=cwd)
