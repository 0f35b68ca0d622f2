"""Differences between two training runs, from their manifests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sftchat.models.manifest import Manifest
from sftchat.models.provenance import scores_by_step

SECTIONS = ("task", "base", "data", "template", "hyper-parameters", "versions", "outcome", "scores")
"""Sections of a comparison, in the order of training."""


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        section: One of ``SECTIONS``.
        name: Name of the value.
        left: Value in the first run, as in JSON; None if absent.
        right: Value in the second run.
    """

    section: str
    name: str
    left: Any
    right: Any


def differences(left: Manifest, right: Manifest) -> tuple[Difference, ...]:
    """Return all differences of two manifests, in the order of ``SECTIONS``."""
    first, second = dict(_facts(left)), dict(_facts(right))
    keys = sorted(dict.fromkeys((*first, *second)), key=lambda key: SECTIONS.index(key[0]))
    return tuple(
        Difference(section, name, first.get((section, name)), second.get((section, name)))
        for section, name in keys
        if first.get((section, name)) != second.get((section, name))
    )


def same_sections(found: tuple[Difference, ...]) -> tuple[str, ...]:
    """Return the sections without a difference."""
    return tuple(section for section in SECTIONS if section not in {difference.section for difference in found})


def shown(value: Any) -> str:
    """Format a value for a table cell: text unchanged, None as a dash, others as JSON."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _facts(manifest: Manifest) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield every value of a manifest with its section and name."""
    yield ("task", "task"), manifest.task
    yield ("base", "model"), manifest.base
    yield ("base", "weights"), manifest.base_identity[:12]
    for number, source in enumerate(manifest.data, 1):
        yield from _source(number if len(manifest.data) > 1 else 0, source)
    yield ("data", "rows"), manifest.rows
    yield ("data", "rendered tokens"), manifest.tokens_hash[:12]
    yield ("template", "name"), manifest.template
    yield ("template", "source and arguments"), manifest.template_hash[:12]
    if manifest.template_name:
        yield ("template", "of several"), manifest.template_name
    for name, value in manifest.template_arguments.items():
        yield ("template", name), value
    for name, value in {"method": manifest.method, **manifest.config}.items():
        yield ("hyper-parameters", name), value
    for name, value in manifest.versions.items():
        yield ("versions", name), value
    yield ("outcome", "steps"), manifest.steps
    yield ("outcome", "final loss"), manifest.final_loss
    yield ("outcome", "chosen step"), manifest.chosen_step or None
    for name, value in manifest.validation.items():
        yield ("scores", name.replace("_", " ")), value
    for step, words in scores_by_step(manifest.scores):
        yield ("scores", f"step {step}"), words


def _source(number: int, source: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield the values of one data source."""
    place = f" {number}" if number else ""
    for name, value in source.items():
        short = str(value)[:12] if name == "sha256" else value
        yield ("data", f"{name}{place}"), short
