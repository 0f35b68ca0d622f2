"""Shell completion, requested as a shell does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sftchat.cli import VERBS
from tests.conftest import make_checkpoint


def offered(folder: Path, *words: str) -> list[str]:
    """Return bash's completions of the last word: kinds and values, separated by commas."""
    asked = {"_SFTCHAT_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("sftchat", *words)), "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [sys.executable, "-m", "sftchat"], cwd=folder, env=os.environ | asked, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_options_are_offered(tmp_path: Path) -> None:
    assert offered(tmp_path, "e") == [f"plain,{verb}" for verb in VERBS if verb.startswith("e")]
    assert offered(tmp_path, "train", "--method", "q") == ["plain,qlora"]


@pytest.mark.parametrize(
    "words", [("train",), ("data", "generate"), ("eval", "--task"), ("ask", "sftchat:nano", "--task"), ("chat", "--task")]
)
def test_tasks_are_offered(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert offered(tmp_path, *words, "rel") == ["plain,relation"]


def test_models_are_the_embedded_one_and_the_runs_of_this_folder_else_folders(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "runs" / "first")

    assert offered(tmp_path, "inspect", "s") == ["plain,sftchat:nano"]
    assert offered(tmp_path, "eval", "sftchat:nano", "runs/f") == ["plain,runs/first"]
    assert offered(tmp_path, "chat", "elsewhere/") == ["dir,elsewhere/"]


def test_files_are_completed_by_the_shell(tmp_path: Path) -> None:
    assert offered(tmp_path, "data", "check", "ro") == ["file,ro"]
