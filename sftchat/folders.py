"""Folders for results: made when they are needed, gone again when nothing was put into them, or there as a whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def made_folder(folder: Path, *, ours: bool = False) -> Iterator[None]:
    """Make a folder and those above it while the block runs; when it ends, those that were made and hold nothing are removed.

    Whatever fails before it has written anything, on a full disk too, so leaves nothing behind.

    Args:
        folder: May be there already, and then stays.
        ours: Remove the folder when it is empty though it was there before.

    Raises:
        OSError: When a folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()] or ([folder] if ours else [])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            with suppress(OSError):  # it holds results
                path.rmdir()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder under a temporary name, which becomes another that is missing when the block ends well, and is removed when it does not.

    What a killed process left under that name goes when the next one begins.

    Raises:
        OSError: When a folder cannot be made or renamed.
    """
    draft = folder.with_name(f".{folder.name}.partial")
    with made_folder(folder.parent):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            yield draft
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
