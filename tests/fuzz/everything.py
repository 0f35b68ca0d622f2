"""All targets by name, and where their corpus is kept."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz import databases, models, results, rows, settings, texts
from tests.fuzz.target import Target

CORPUS = Path(__file__).parent.parent / "corpus"
"""Inputs that found something or reach what others do not; ``tests/test_fuzz.py`` runs them all."""

TARGETS: dict[str, Target] = {
    **rows.TARGETS,
    **results.TARGETS,
    **databases.TARGETS,
    **settings.TARGETS,
    **models.TARGETS,
    **texts.TARGETS,
}


def kept(name: str) -> list[Path]:
    """The corpus of a target."""
    return sorted((CORPUS / name).iterdir()) if (CORPUS / name).is_dir() else []
