"""docs/judge.md is followed from first to last, with scripted models."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from sftchat.cli import main
from tests.distributions import ROOT
from tests.pages import Command, follow_with

PAGE = (ROOT / "docs" / "judge.md").read_text(encoding="utf-8")


def test_the_commands_of_the_page_have_the_output_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(command: Command) -> str:
        code = main(shlex.split(command.line)[1:])
        out, err = capsys.readouterr()
        assert code == command.code, f"{command.line}\n{err}"
        return out + err

    follow_with(PAGE, tmp_path, run)
