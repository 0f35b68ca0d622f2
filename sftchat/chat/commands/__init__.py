"""Built-in chat commands, registered through the plugin hook; one module for each topic."""

from __future__ import annotations

from collections.abc import Iterable

from sftchat.chat.commands import (
    data,
    display,
    general,
    inspect_probs,
    inspect_prompt,
    likelihood,
    models,
    navigation,
    samples,
    scoring,
    sessions,
    settings,
)  # fmt: skip
from sftchat.chat.context import ChatCommand
from sftchat.plugins.spec import hookimpl

TOPICS = (general, navigation, settings, sessions, models, inspect_prompt, inspect_probs, likelihood, samples, data, scoring, display)
BUILTINS: tuple[ChatCommand, ...] = tuple(command for topic in TOPICS for command in topic.COMMANDS)
"""Built-in commands in the order of ``/help``; those of plugins follow."""


@hookimpl
def sftchat_register_chat_commands() -> Iterable[ChatCommand]:
    """Register the built-in commands."""
    return BUILTINS
