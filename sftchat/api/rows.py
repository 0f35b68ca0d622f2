"""Rows that come from Python: lists of dicts, data frames and data sets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from sftchat.errors import UsageError
from sftchat.types import Example

Rows = Iterable[Mapping[str, Any] | Example] | Any
"""Rows as dicts or examples in any iterable, as a pandas or polars ``DataFrame``, or as a ``datasets.Dataset``."""


def to_rows(rows: Rows) -> list[Mapping[str, Any] | Example]:
    """Return rows as dicts or examples; missing values of a data frame become None.

    Args:
        rows: See ``Rows``.

    Raises:
        UsageError: When they are something else.
    """
    if isinstance(rows, (str, bytes, Mapping)):
        raise UsageError(f"rows are {type(rows).__name__}, must be a list of dicts, a DataFrame or a datasets.Dataset")
    if hasattr(rows, "to_dicts"):  # polars
        rows = rows.to_dicts()
    elif hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # pandas
        rows = rows.to_dict("records")
    try:
        given = list(rows)
    except TypeError:
        raise UsageError(f"rows are {type(rows).__name__}, must be a list of dicts, a DataFrame or a datasets.Dataset") from None
    converted: list[Mapping[str, Any] | Example] = []
    for number, row in enumerate(given, start=1):
        if isinstance(row, Example):
            converted.append(row)
        elif isinstance(row, Mapping):
            converted.append({str(key): _to_json(value) for key, value in row.items()})
        else:
            raise UsageError(f"row {number} is {type(row).__name__}, must be a dict or an sftchat.Example")
    return converted


MAX_LABELS = 50
"""Maximum number of labels that are taken from the gold replies of an evalset."""


def gold_labels(examples: Iterable[Example], remedy: str) -> list[str]:
    """Return the distinct gold replies, sorted: the labels of the scorer ``choice`` when none are given.

    Args:
        examples: Examples with gold replies.
        remedy: How to give labels, for the message.

    Raises:
        UsageError: When they are more than ``MAX_LABELS``.
    """
    labels = sorted({(example.gold or "").strip() for example in examples})
    if len(labels) > MAX_LABELS:
        raise UsageError(f"the evalset has {len(labels)} different gold replies, too many for labels; give {remedy}, or another scorer")
    return labels


def _to_json(value: Any) -> Any:
    """Return a value as JSON types: NumPy scalars and arrays as numbers and lists, NaN as None, dates as text."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(member) for member in value]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return _to_json(value.tolist())
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
