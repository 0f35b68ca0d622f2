"""What a talk has beside its models."""

from __future__ import annotations

from dataclasses import dataclass

from sftchat.task import Task


@dataclass(frozen=True)
class Desk:
    """What commands find beside the models.

    Attributes:
        task: Whose scorer judges replies; None for none.
    """

    task: Task | None = None
