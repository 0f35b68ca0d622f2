"""Run commands with a folder mounted read-only: not even root can write there, and file modes stay as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = """
import contextlib, dataclasses, io, json, os, sys
os.chdir(sys.argv[1])
from sftchat import EngineType
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import load_plugins
from sftchat.testing import ScriptedEngine

def says_yes(rest, options):
    return ScriptedEngine(lambda request: "yes", name=f"yes:{rest}")

registry = dataclasses.replace(load_plugins(), engines={"yes": EngineType("yes", "says yes", says_yes)})
found = []
for words, stdin in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words, obj=Session(given_registry=registry))
    found.append((code, out.getvalue(), err.getvalue()))
json.dump(found, sys.stdout)
"""
"""Program that runs commands, given as JSON, one after the other; ``yes:NAME`` is a model."""
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def mounted(folder: Path, *command: str) -> list[str]:
    """Return a command that runs with a folder mounted read-only, in its own mount namespace."""
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, str(folder), *command]


def run_read_only(folder: Path, commands: list[tuple[str, str]]) -> list[tuple[int, str, str]]:
    """Run commands of the program in a read-only folder; skips the test without permission to mount.

    Args:
        folder: The folder.
        commands: Words and standard input of each.

    Returns:
        Exit code, standard output and standard error of each.
    """
    try:
        allowed = subprocess.run(mounted(folder, "true"), capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("needs Linux with user namespaces, to mount a folder read-only")
    given = json.dumps([(words.split(), stdin) for words, stdin in commands])
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(folder / "data"), "SFTCHAT_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        mounted(folder, sys.executable, "-B", "-c", RUNNER, str(folder)),
        input=given, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [tuple(one) for one in json.loads(done.stdout)]
