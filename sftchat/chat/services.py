"""What a talk has beside its models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sftchat.chat.rows import Rows
from sftchat.chat.scorer import GoldScorer
from sftchat.chat.sessions import Session
from sftchat.engine import Engine
from sftchat.errors import UsageError
from sftchat.task import Task


def _closed(model: str) -> Engine:
    """Refuse to open another model."""
    raise UsageError(f"this conversation cannot open '{model}': it keeps the models it began with")


def _unknown(model: str) -> str:
    """Know no identity."""
    return ""


@dataclass(frozen=True)
class Models:
    """How a talk opens more models.

    Attributes:
        check: Refuses what cannot name a model, from names and files alone; raises ``SftchatError``.
        load: Opens one; slow, called in a worker.
        identify: Hash of what decides a model's replies, empty when unknown; it may read all weights, so it is called in a worker.
    """

    check: Callable[[str], object] = _closed
    load: Callable[[str], Engine] = _closed
    identify: Callable[[str], str] = _unknown


@dataclass(frozen=True)
class ChatServices:
    """What commands find beside the models.

    Attributes:
        judge: Marks replies; None where the talk has no task.
        session: Keeps the talk.
        models: How more models are opened.
        rows: Where replies become data.
    """

    judge: GoldScorer | None = None
    session: Session = field(default_factory=Session)
    models: Models = field(default_factory=Models)
    rows: Rows = field(default_factory=Rows)

    @property
    def task(self) -> Task | None:
        """Whose scorer judges replies; None for none."""
        return self.judge.task if self.judge is not None else None
