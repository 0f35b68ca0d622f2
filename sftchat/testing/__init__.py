"""The kit for plugin authors: what their tests import."""

from __future__ import annotations

from sftchat.testing.scripted import Replies, Script, ScriptedEngine

__all__ = ["Replies", "Script", "ScriptedEngine"]
