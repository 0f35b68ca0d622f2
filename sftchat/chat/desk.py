"""What a talk has beside its models."""

from __future__ import annotations

from dataclasses import dataclass, field

from sftchat.chat.session import Session
from sftchat.task import Task


@dataclass(frozen=True)
class Desk:
    """What commands find beside the models.

    Attributes:
        task: Whose scorer judges replies; None for none.
        session: Keeps the talk.
    """

    task: Task | None = None
    session: Session = field(default_factory=Session)
