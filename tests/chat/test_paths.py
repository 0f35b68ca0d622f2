"""Completion of paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftchat.chat.commands.arguments import MAX_PATH_COMPLETIONS, complete_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("runs/a", "runs/b", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("rows.jsonl", "rows.json", "read me.txt", "对话.json", ".secret.json"):
        (tmp_path / name).touch()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    return tmp_path


def test_files_of_the_right_kind_and_folders_are_offered(folder: Path) -> None:
    assert list(complete_path(f"{folder}/r")) == [f"{folder}/{name}" for name in ("read me.txt", "rows.json", "rows.jsonl", "runs/")]
    assert list(complete_path(f"{folder}/runs/")) == [f"{folder}/runs/a/", f"{folder}/runs/b/"]


def test_hidden_files_are_offered_only_after_a_dot(folder: Path) -> None:
    assert list(complete_path(f"{folder}/.")) == [f"{folder}/.hidden/", f"{folder}/.secret.json"]


def test_home_and_relative_paths_stay_as_they_were_typed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)

    assert list(complete_path("~/ru")) == ["~/runs/"]
    assert list(complete_path("ru")) == ["runs/"]
    assert "runs/" in list(complete_path(""))


@pytest.mark.parametrize("typed", ["/no/such/folder/x", "~nobody-of-this-name/x", "a\0b/", "rows.json/x"])
def test_an_empty_or_missing_folder_offers_nothing(typed: str) -> None:
    assert list(complete_path(typed)) == []


def test_a_huge_folder_is_offered_partly(tmp_path: Path) -> None:
    for number in range(MAX_PATH_COMPLETIONS + 5):
        (tmp_path / f"{number}").touch()

    assert len(list(complete_path(f"{tmp_path}/"))) == MAX_PATH_COMPLETIONS
