"""What a prompt says about the reply to come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftchat.engine import Engine, Inspects, Renders, Request
from sftchat.errors import SftchatError
from sftchat.thinking import opens_thoughts
from sftchat.types import Message

QUESTION = Message(role="user", content="?")


def begins_with_thoughts(engine: Engine | None, arguments: Mapping[str, Any] | None = None, adapter: str = "") -> bool:
    """Whether the engine's template opens the thoughts of its replies; False where that cannot be known, as of a server.

    Args:
        engine: What answers; None while it loads.
        arguments: Arguments of the chat template, over the engine's own.
        adapter: What the engine answers with.
    """
    try:
        if (arguments or adapter) and isinstance(engine, Inspects):
            tokens = engine.prompt_tokens(Request("look", (QUESTION,), adapter=adapter, template_arguments=arguments or {}))
            return opens_thoughts("".join(token.text for token in tokens))
        return isinstance(engine, Renders) and opens_thoughts(engine.render([QUESTION]))
    except SftchatError:
        return False  # the template refuses the question or the arguments; the request itself says so
