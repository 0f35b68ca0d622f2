"""What is wrong with a row of the general task, as far as the row itself can tell."""

from __future__ import annotations

from sftchat import DataError, Example
from sftchat_general.constraints import violations
from sftchat_general.generate import KINDS
from sftchat_general.scorer import read_constraints


def validate_row(example: Example) -> tuple[str, ...]:
    """Say what is wrong with a row, one short lower-case phrase a fault; empty when nothing is.

    Reports a missing or empty gold, an unknown kind, a malformed constraint, and a gold that breaks a constraint of its own row.
    """
    if example.gold is None:
        return ("no gold",)
    problems = [] if example.gold.strip() else ["empty gold"]
    kind = example.metadata.get("kind")
    if kind is not None and kind not in KINDS:
        problems.append(f"unknown kind {kind!r}, must be one of {', '.join(KINDS)}")
    try:
        constraints = read_constraints(example)
    except DataError as error:
        return (*problems, str(error).removeprefix(f"{example.source or example.id}: "))
    faults = violations(constraints, example.gold, example.messages[-1]["content"])
    return (*problems, *(f"the gold breaks a constraint of its row: {fault}" for fault in faults))
