"""Row check of the general task."""

from __future__ import annotations

from sftchat import DataError, Example
from sftchat_general.constraints import violations
from sftchat_general.generate import KINDS
from sftchat_general.scorer import read_constraints

EVALSET_KINDS = ("facts", "reading", "instructions", "conversation")
"""Kinds of the evalset ``general-en``, which the generator does not have."""

_KNOWN = (*KINDS, *EVALSET_KINDS)


def validate_row(example: Example) -> tuple[str, ...]:
    """Return the problems of a row, each a short lower-case phrase.

    Reports a missing or empty gold, an unknown kind, a malformed constraint, and a gold that breaks a constraint of its own row.
    """
    if example.gold is None:
        return ("no gold",)
    problems = [] if example.gold.strip() else ["empty gold"]
    kind = example.metadata.get("kind")
    if kind is not None and kind not in _KNOWN:
        problems.append(f"unknown kind {kind!r}, must be one of {', '.join(_KNOWN)}")
    try:
        constraints = read_constraints(example)
    except DataError as error:
        return (*problems, str(error).removeprefix(f"{example.source or example.id}: "))
    errors = violations(constraints, example.gold, example.messages[-1]["content"])
    return (*problems, *(f"the gold breaks a constraint of its row: {error}" for error in errors))
