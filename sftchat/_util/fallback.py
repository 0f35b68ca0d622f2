"""Warnings about optimizations that do not work with the installed libraries and are replaced by a slower way with the same results.

Some optimizations use private parts of libraries, which a newer release may change. Each such use is in one place and has a fallback:
``inference.cpu`` compares logits when a model is opened, ``inference.scheduler`` falls back to static batches, ``inference.open`` imports whole
libraries where importing parts fails, ``training.packing`` compares logits before the first step, ``training.trainer`` completes incomplete
checkpoints, and the terminal view falls back to the plain one. ``tests/test_fallback.py`` checks that private names of libraries are used nowhere
else, and ``pyproject.toml`` allows the minor releases that were tested.
"""

from __future__ import annotations

import warnings
from functools import cache

from sftchat.errors import SftchatWarning, in_one_line


@cache
def report_fallback(what: str, reason: str) -> None:
    """Warn about a fallback, once for each ``what`` and ``reason``.

    Args:
        what: The optimization, as a noun phrase in the singular, such as ``"the packed copy of the weights"``.
        reason: Why it cannot be used, in one line.
    """
    warnings.warn(
        f"{what} does not work with the installed libraries ({reason}); a slower way with the same results is used",
        SftchatWarning,
        stacklevel=3,
    )


def reason_of(error: BaseException | None) -> str:
    """Return the reason for ``report_fallback``: a library's error in one line; for None, that the results differ."""
    return "its results differ" if error is None else in_one_line(error)
