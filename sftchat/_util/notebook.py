"""Output in a cell of a notebook: a line that is replaced, and no advice of a library on widgets."""

from __future__ import annotations

import sys
import time
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sftchat.text import sanitize_lines

INTERVAL = 0.2
"""Minimum time between two states of a line, in seconds: a notebook stores each of them in its history of messages."""


class NotebookLine:
    """A line below a cell that is replaced whenever it changes, so that it is one output however often that is."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._next_time = 0.0

    def show(self, text: str, *, last: bool = False) -> None:
        """Show a text in place of the present one.

        Args:
            text: The text; its escape sequences are shown as text.
            last: Whether to show it even if the present one is younger than ``INTERVAL``.
        """
        now = time.monotonic()
        if now < self._next_time and not last:
            return
        self._next_time = now + INTERVAL
        bundle = {"text/plain": sanitize_lines(text)}
        if self._handle is None:
            self._handle = import_module("IPython.display").display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def import_tqdm() -> None:
    """Import tqdm, which model libraries import, without its warning that a notebook has no ipywidgets; sftchat shows no bars of tqdm."""
    if not in_notebook() or find_spec("tqdm") is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("tqdm.auto")
