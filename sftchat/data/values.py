"""Values of a row: check that they are text, and format them for messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sftchat.errors import DataError


def text(value: Any, where: str, *, empty: bool = False) -> str:
    """Return the value if it is text.

    Args:
        value: Value in the row.
        where: Its key, for messages.
        empty: Allow empty text.

    Raises:
        DataError: When it is not text, or empty.
    """
    if not isinstance(value, str):
        raise DataError(f"{where} is {abbreviate(value)}, must be text")
    if not value.strip() and not empty:
        raise DataError(f"{where} is empty; fill it or remove the row")
    return value


def keys_of(row: Mapping[str, Any]) -> str:
    """Format the keys of an object for a message; empty values are noted."""
    return ", ".join(abbreviate(key) + (" (null)" if value is None else "") for key, value in row.items()) or "none"


def abbreviate(value: Any, width: int = 40) -> str:
    """Format a value as in the file, cut to a width that fits a message."""
    written = json.dumps(value, ensure_ascii=False, default=repr)
    return written if len(written) <= width else written[: width - 1] + "…"
