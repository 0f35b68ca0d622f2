"""Rows of Parquet files and of data sets on the Hugging Face Hub, streamed through ``datasets``; the only module of the package that
imports it.

Streaming always reads the current data; nothing is cached.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from datetime import date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sftchat.errors import DataError, MissingExtraError, first_line

HUB = "hf://datasets/"
"""Prefix of a data set on the Hub."""
PARQUET = b"PAR1"
"""First bytes of a Parquet file."""

_REFERENCE = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<config>[\w.-]+))?(?:#(?P<split>[\w.-]+))?")


def parquet_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a Parquet file row by row; the source of a row is ``file:N``, from 1.

    Raises:
        DataError: When the file is damaged.
        MissingExtraError: When ``datasets`` is not installed.
    """
    yield from _stream(path, "the Parquet file cannot be read", "parquet", data_files=str(Path(path).absolute()), split="train")


def hub_rows(reference: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a data set from the Hub row by row; the source of a row is ``reference:N``, from 1.

    Args:
        reference: ``hf://datasets/ORG/NAME[@REVISION][/CONFIG][#SPLIT]``; the default split is ``train``.

    Raises:
        DataError: When the reference is malformed, or the data set cannot be fetched.
        MissingExtraError: When ``datasets`` is not installed.
    """
    match = _REFERENCE.fullmatch(reference.removeprefix(HUB))
    if match is None:
        raise DataError(f"is no data set of the Hub; write {HUB}ORG/NAME[@REVISION][/CONFIG][#SPLIT]", reference)
    yield from _stream(
        reference, "the data set cannot be fetched from the Hub", match["name"], match["config"], revision=match["revision"], split=match["split"] or "train"
    )  # fmt: skip


def _stream(source: str, failure: str, *words: str | None, **options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream the result of ``load_dataset`` as JSON values."""
    if find_spec("datasets") is None:
        raise MissingExtraError(f"reading '{source}'")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    import pyarrow

    for name in ("datasets", "huggingface_hub"):  # errors are reported here, on one line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    rows = 0
    try:
        for row in datasets.load_dataset(*words, streaming=True, **options):
            rows += 1
            yield f"{source}:{rows}", {key: _plain(value) for key, value in row.items()}
    except (ValueError, OSError, pyarrow.ArrowException, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{failure}: {first_line(error).rstrip('.')}", f"{source}:{rows + 1}" if rows else source) from error
    if not rows:
        raise DataError("the table has no rows", source)


def _plain(value: Any) -> Any:
    """Convert a value to JSON types; dates and times become text."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, (date, datetime)) else value
