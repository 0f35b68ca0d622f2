"""Report that an optimisation does not work with the installed libraries, so that a plain way was taken: slower, with the same results."""

from __future__ import annotations

import warnings
from functools import cache

from sftchat.errors import SftchatWarning, in_one_line


@cache
def report_fallback(what: str, reason: str) -> None:
    """Warn that a plain way is taken, once for each ``what`` and ``reason``.

    Args:
        what: The optimisation, as a noun phrase in the singular, such as ``"the packed copy of the weights"``.
        reason: Why it cannot be used, in one line.
    """
    warnings.warn(
        f"{what} does not work with the installed libraries ({reason}); a slower way with the same results is used",
        SftchatWarning,
        stacklevel=3,
    )


def reason_of(error: BaseException | None) -> str:
    """The reason for ``report_fallback``: a library's error in one line, or that the results differed.

    Args:
        error: What was raised; None where nothing was.
    """
    return "its results differ" if error is None else in_one_line(error)
