"""The published recipe's noise: `sftchat data check` finds every noisy row and no clean one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftchat.cli import main


def run(*words: str) -> int:
    return main(["data", *words])


def test_the_noisy_rows_of_the_published_recipe_are_flagged_and_no_clean_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("generate", "relation", "-n", "400", "-o", "f", "--option", "preset=article", "-q") == 0
    noisy = []
    for number, line in enumerate(Path("f").read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        # a sentence is noisy when its text contradicts its label; patterns are identified by number
        labels = [line.rpartition(":")[2] for line in row["output"].splitlines()]
        if any(pattern in SAYS and label not in SAYS[pattern] for pattern, label in zip(row["form_ids"], labels, strict=True)):
            noisy.append(number)
    assert 100 < len(noisy) < 300
    assert run("check", "f", "--task", "relation", "--json", "-q") == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert sorted({int(one["source"].rpartition(":")[2]) for one in found["problems"] if one["class"] == "task"}) == noisy
    assert run("check", "f", "--task", "relation", "-q", "--policy", "task=drop", "--policy", "conflict=drop", "-o", "clean") == 0
    capsys.readouterr()
    assert run("check", "clean", "--task", "relation") == 0
    assert len(Path("clean").read_text(encoding="utf-8").splitlines()) == 400 - len(noisy)


SAYS = {
    3: {"夫妻", "恋人"},
    5: {"师徒", "师父", "师傅", "师尊"},
    6: {"兄弟", "姐妹", "同门", "好友", "战友", "师兄弟", "师姐", "师妹"},
    7: {"夫妻", "恋人"},
}
"""Relations that a pattern of the recipe may state without a contradiction: love, discipleship, brotherhood."""
