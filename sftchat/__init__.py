"""sftchat: talk to, score and gate fine-tuned language models.

The names below are what a plugin or a script imports; they load no model library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sftchat.chat.context import ChatCommand, ChatContext
from sftchat.engine import Chunk, Engine, EngineType, Request
from sftchat.errors import DataError, EngineError, MissingExtraError, ModelError, NotComparableError, PluginError, SftchatError, UsageError
from sftchat.plugins.spec import PLUGIN_API, hookimpl
from sftchat.task import Demonstration, Metric, Task, TrainingDefaults, rate, ratio
from sftchat.types import Example, Message, Reply, SamplingParams, Score

if TYPE_CHECKING:
    __version__: str

__all__ = [
    "PLUGIN_API",
    "ChatCommand",
    "ChatContext",
    "Chunk",
    "DataError",
    "Demonstration",
    "Engine",
    "EngineError",
    "EngineType",
    "Example",
    "Message",
    "Metric",
    "MissingExtraError",
    "ModelError",
    "NotComparableError",
    "PluginError",
    "Reply",
    "Request",
    "SamplingParams",
    "Score",
    "SftchatError",
    "Task",
    "TrainingDefaults",
    "UsageError",
    "hookimpl",
    "rate",
    "ratio",
]


def __getattr__(name: str) -> Any:
    """Look the version up only when somebody asks: importlib.metadata is slow to import."""
    if name == "__version__":
        from importlib.metadata import version

        return version("sftchat")
    raise AttributeError(f"module 'sftchat' has no attribute '{name}'")
