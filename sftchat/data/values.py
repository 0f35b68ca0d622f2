"""Values of a row: checked for being text, and put into messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sftchat.errors import DataError


def text(value: Any, where: str, *, empty: bool = False) -> str:
    """The value, if it is text.

    Args:
        value: What the row holds.
        where: Its key, for messages.
        empty: Empty text is allowed.

    Raises:
        DataError: It is something else, or empty.
    """
    if not isinstance(value, str):
        raise DataError(f"{where} is {abbreviate(value)}, must be text")
    if not value.strip() and not empty:
        raise DataError(f"{where} is empty; fill it or remove the row")
    return value


def keys_of(row: Mapping[str, Any]) -> str:
    """The keys of an object for a message, with a note at those that hold nothing."""
    return ", ".join(abbreviate(key) + (" (null)" if value is None else "") for key, value in row.items()) or "none"


def abbreviate(value: Any, width: int = 40) -> str:
    """A value as it stands in the file, cut to a length that fits a message."""
    written = json.dumps(value, ensure_ascii=False, default=repr)
    return written if len(written) <= width else written[: width - 1] + "…"
