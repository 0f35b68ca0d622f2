"""Services of a chat other than its models."""

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
    """Default ``load``: no more models can be opened."""
    raise UsageError(f"this conversation cannot open '{model}': it keeps the models it began with")


def _unknown(model: str) -> str:
    """Default ``identify``: the identity is unknown."""
    return ""


@dataclass(frozen=True)
class Models:
    """Functions that open more models during a chat.

    Attributes:
        check: Validates MODEL from names and files alone, without loading; raises ``SftchatError``.
        load: Opens a model; slow, called on an engine thread.
        identify: Returns a hash of everything that decides the model's replies, empty when unknown. May read all weights: call it on an
            engine thread.
    """

    check: Callable[[str], object] = _closed
    load: Callable[[str], Engine] = _closed
    identify: Callable[[str], str] = _unknown


@dataclass(frozen=True)
class ChatServices:
    """Services that commands can use, other than the models.

    Attributes:
        scorer: Scores replies; None when the chat has no task.
        session: Saves the conversation.
        models: Opens more models.
        rows: Appends replies to data files.
    """

    scorer: GoldScorer | None = None
    session: Session = field(default_factory=Session)
    models: Models = field(default_factory=Models)
    rows: Rows = field(default_factory=Rows)

    @property
    def task(self) -> Task | None:
        """The task whose scorer scores replies; None when there is none."""
        return self.scorer.task if self.scorer is not None else None
