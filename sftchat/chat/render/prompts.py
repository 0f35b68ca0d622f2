"""What the prompt determines about the reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftchat.engine import Engine, Inspects, Renders, Request
from sftchat.errors import SftchatError
from sftchat.thinking import opens_thoughts
from sftchat.types import Message

QUESTION = Message(role="user", content="?")


def begins_with_thoughts(engine: Engine | None, arguments: Mapping[str, Any] | None = None, adapter: str = "") -> bool:
    """Return whether the chat template opens the thoughts of a reply; False when unknown, for example behind a server.

    Args:
        engine: The engine; None while it loads.
        arguments: Chat template arguments that override the engine's own.
        adapter: Adapter that replies.
    """
    try:
        if (arguments or adapter) and isinstance(engine, Inspects):
            tokens = engine.prompt_tokens(Request("look", (QUESTION,), adapter=adapter, template_arguments=arguments or {}))
            return opens_thoughts("".join(token.text for token in tokens))
        return isinstance(engine, Renders) and opens_thoughts(engine.render([QUESTION]))
    except SftchatError:
        return False  # the template rejects the message or the arguments; the request itself reports the error
