"""Consent to run code that models wrote: given by the option ``--allow-code``, or by ``code_allowed`` in Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sftchat.errors import UsageError

_ALLOWED: ContextVar[bool] = ContextVar("sftchat_code_allowed", default=False)


@contextmanager
def code_allowed() -> Iterator[None]:
    """Allow scorers that run code of replies to be made within the ``with`` block; a task file cannot give this consent."""
    token = _ALLOWED.set(True)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def require_consent(scorer: str) -> None:
    """Raise unless code of replies may be run.

    Args:
        scorer: Name of the scorer that runs it.

    Raises:
        UsageError: When nobody has allowed it.
    """
    if not _ALLOWED.get():
        raise UsageError(f"the scorer {scorer} runs code that the model wrote; allow it with --allow-code")
