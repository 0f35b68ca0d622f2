"""Test helpers for plugin authors.

    ScriptedEngine        an engine with scripted replies
    check_task            checks a task against the contract
    chat_with             types lines into a chat and returns the output after each
    garbage_replies       replies for testing that a scorer accepts any text
    plugin_manager_with   a registry with the given plugins only

``sftchat.testing.fixtures`` has pytest fixtures, and ``sftchat.testing.terminal`` has ``chat_on_screen``, which types keys into a chat on an emulated
terminal.
"""

from __future__ import annotations

from typing import Any

from sftchat._util.renamed import warn_renamed
from sftchat.testing.chat import Shown, chat_with
from sftchat.testing.contract import BrokenContract, check_task, contract_faults
from sftchat.testing.fuzz import garbage_replies
from sftchat.testing.registry import plugin_manager_with
from sftchat.testing.scripted import Replies, Script, ScriptedEngine

__all__ = [
    "BrokenContract",
    "Replies",
    "Script",
    "ScriptedEngine",
    "Shown",
    "chat_with",
    "check_task",
    "contract_faults",
    "garbage_replies",
    "plugin_manager_with",
]


def __getattr__(name: str) -> Any:
    """Return a name by its former name, with a deprecation warning."""
    if name != "garbage":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_renamed("sftchat.testing.garbage", "garbage_replies")
    return garbage_replies
