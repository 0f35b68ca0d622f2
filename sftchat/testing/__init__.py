"""The kit for plugin authors: what their tests import.

    ScriptedEngine        an engine that says what it is told to say
    check_task            holds a task to the contract
    chat_with             types lines into a chat, and says what each of them showed
    plugin_manager_with   a registry with the plugins of a test and no others

Fixtures for pytest are in ``sftchat.testing.fixtures``, and ``chat_on_screen``, which presses keys in a chat and says what a person sees, in
``sftchat.testing.terminal``.
"""

from __future__ import annotations

from sftchat.testing.chat import Shown, chat_with
from sftchat.testing.contract import BrokenContract, check_task, contract_faults
from sftchat.testing.garbage import garbage
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
    "garbage",
    "plugin_manager_with",
]
