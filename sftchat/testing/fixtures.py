"""Pytest fixtures; in ``conftest.py``, write ``pytest_plugins = ["sftchat.testing.fixtures"]``.

They are not registered as a pytest plugin, because pytest would then import sftchat before the measurement of coverage starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def sftchat_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home folder, used for caches, sessions and settings instead of the user's; turn the Hub and colours off."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.delenv("SFTCHAT_CACHE_DIR", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    return home


@pytest.fixture
def run_sftchat(sftchat_home: Path, tmp_path: Path) -> Run:
    """Return a function that runs the installed program in ``tmp_path``: ``run_sftchat("data", "generate", …, input="…")``.

    The function returns a ``subprocess.CompletedProcess`` with ``returncode``, ``stdout`` and ``stderr``.
    """

    def run(*words: object, input: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sftchat", *map(str, words)]
        return subprocess.run(command, input=input, cwd=tmp_path, env=dict(os.environ), capture_output=True, encoding="utf-8", check=False)

    return run
