"""What a prompt says about the reply to come."""

from __future__ import annotations

from sftchat.engines.base import Engine, Renders
from sftchat.types import Message


def opens_thoughts(engine: Engine | None) -> bool:
    """Whether the engine's template ends the prompt within ``<think>``, as those of models that always think do."""
    return isinstance(engine, Renders) and engine.render([Message(role="user", content="?")]).rstrip().endswith("<think>")
