"""The commands every chat has, registered as any plugin registers its own; one module a topic."""

from __future__ import annotations

from collections.abc import Iterable

from sftchat.chat.builtin import display, general, inside, likelihoods, likely, models, rating, samples, scoring, sessions, settings, tree
from sftchat.commands import ChatCommand
from sftchat.hookspecs import hookimpl

TOPICS = (general, tree, settings, sessions, models, inside, likely, likelihoods, samples, rating, scoring, display)
BUILTINS: tuple[ChatCommand, ...] = tuple(command for topic in TOPICS for command in topic.COMMANDS)
"""Listed in this order by ``/help``; the commands of other plugins follow."""


@hookimpl
def sftchat_register_chat_commands() -> Iterable[ChatCommand]:
    """Register the commands."""
    return BUILTINS
