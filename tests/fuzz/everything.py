"""All fuzz targets by name, and the folder of their corpus."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.fuzz import databases, models, results, rows, settings, texts
from tests.fuzz.target import Target

CORPUS = Path(__file__).parent.parent / "corpus"
"""Inputs that found an error or have unique coverage; ``tests/test_fuzz.py`` runs all of them."""

TARGETS: dict[str, Target] = {
    **rows.TARGETS,
    **results.TARGETS,
    **databases.TARGETS,
    **settings.TARGETS,
    **models.TARGETS,
    **texts.TARGETS,
}


def corpus_of(name: str) -> dict[str, bytes]:
    """Read the inputs of a target's corpus by name, in file order: one row per input, as text if it is UTF-8, else in base64."""
    path = CORPUS / f"{name}.jsonl"
    rows = map(json.loads, path.read_text("ascii").splitlines()) if path.is_file() else ()
    return {row["name"]: row["text"].encode() if "text" in row else base64.b64decode(row["base64"]) for row in rows}


def add_to_corpus(name: str, input_name: str, content: bytes) -> None:
    """Append an input to the corpus of a target."""
    try:
        row = {"name": input_name, "text": content.decode()}
    except UnicodeDecodeError:
        row = {"name": input_name, "base64": base64.b64encode(content).decode()}
    with (CORPUS / f"{name}.jsonl").open("a", encoding="ascii") as file:
        file.write(json.dumps(row) + "\n")
