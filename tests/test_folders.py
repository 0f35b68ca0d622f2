"""Folders for results are removed again when nothing was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftchat._util.files import atomic_folder, create_folder


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_created_empty_folders_are_removed_and_earlier_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    with create_folder(tmp_path / "a/b/c"):
        assert everything(tmp_path) == ["a", "a/b", "a/b/c"]
    assert everything(tmp_path) == ["a"]

    with create_folder(tmp_path / "a/b/c"):
        (tmp_path / "a/b/report").touch()
    assert everything(tmp_path) == ["a", "a/b", "a/b/report"]


def test_an_earlier_folder_is_removed_only_when_it_is_ours(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
        with create_folder(tmp_path / name, remove_if_empty=name == "ours"):
            pass

    assert everything(tmp_path) == ["theirs"]


def test_a_folder_that_cannot_be_made_leaves_no_parent_folders(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"), create_folder(tmp_path / "a" / "b" / ("c" * 300)):
        pass

    assert everything(tmp_path) == []


def test_a_folder_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    (tmp_path / "a/.model.partial").mkdir(parents=True)  # of a killed process
    (tmp_path / "a/.model.partial/half").touch()

    with atomic_folder(tmp_path / "a/model") as draft:
        (draft / "weights").touch()
        assert not (tmp_path / "a/model").exists()

    assert everything(tmp_path) == ["a", "a/model", "a/model/weights"]


def test_a_block_that_fails_leaves_no_folders(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"), atomic_folder(tmp_path / "a/model") as draft:
        (draft / "deeper/weights").touch()

    assert everything(tmp_path) == []
