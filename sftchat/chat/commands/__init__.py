"""The commands every chat has, registered as any plugin registers its own; one module a topic."""

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
"""Listed in this order by ``/help``; the commands of other plugins follow."""


@hookimpl
def sftchat_register_chat_commands() -> Iterable[ChatCommand]:
    """Register the commands."""
    return BUILTINS
