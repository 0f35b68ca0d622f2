"""sftchat: chat with, score and gate fine-tuned language models.

``load``, ``evaluate``, ``train`` and ``chat`` do from Python what the commands do; the other names are for plugins.

This module is the public API. Each name is imported from its module on first use, and none of them loads a model library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sftchat.api.chat import chat
    from sftchat.api.evaluation import evaluate
    from sftchat.api.model import Model, load
    from sftchat.api.report import EvaluationReport
    from sftchat.api.training import Run, train
    from sftchat.chat.context import ChatCommand, ChatContext
    from sftchat.engine import Chunk, Engine, EngineType, Request
    from sftchat.errors import (
        DataError,
        EngineError,
        MissingExtraError,
        ModelError,
        NotComparableError,
        PluginError,
        SftchatError,
        UsageError,
    )
    from sftchat.plugins.spec import PLUGIN_API, hookimpl
    from sftchat.task import DemoConfig, ForgettingConfig, Metric, Task, TrainingDefaults, rate, ratio
    from sftchat.types import Example, Message, Reply, SamplingParams, Score

    __version__: str

__all__ = [
    "PLUGIN_API", "ChatCommand", "ChatContext", "Chunk", "DataError", "DemoConfig", "Engine", "EngineError", "EngineType", "EvaluationReport", "Example",
    "ForgettingConfig", "Message", "Metric", "MissingExtraError", "Model", "ModelError", "NotComparableError", "PluginError", "Reply", "Request",
    "Run", "SamplingParams", "Score", "SftchatError", "Task", "TrainingDefaults", "UsageError", "chat", "evaluate", "hookimpl", "load", "rate",
    "ratio", "train",
]  # fmt: skip

_MODULES = {
    "sftchat.api.evaluation": ("evaluate",),
    "sftchat.api.model": ("Model", "load"),
    "sftchat.api.report": ("EvaluationReport",),
    "sftchat.api.training": ("Run", "train"),
    "sftchat.chat.context": ("ChatCommand", "ChatContext"),
    "sftchat.engine": ("Chunk", "Engine", "EngineType", "Request"),
    "sftchat.errors": tuple(name for name in __all__ if name.endswith("Error")),
    "sftchat.plugins.spec": ("PLUGIN_API", "hookimpl"),
    "sftchat.task": ("DemoConfig", "ForgettingConfig", "Metric", "Task", "TrainingDefaults", "rate", "ratio"),
    "sftchat.types": ("Example", "Message", "Reply", "SamplingParams", "Score"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_RENAMED = {"Demonstration": "DemoConfig"}


def __getattr__(name: str) -> Any:
    """Import a public name from its module, or look up the version, on first use."""
    if name == "__version__":
        from sftchat._util.versions import installed_version

        return installed_version("sftchat")
    if name in _RENAMED:
        from sftchat._util.renamed import warn_renamed

        warn_renamed(f"sftchat.{name}", f"sftchat.{_RENAMED[name]}")
        return __getattr__(_RENAMED[name])
    if name == "chat":  # the package of that name is callable
        return importlib.import_module("sftchat.chat")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sftchat' has no attribute '{name}'")
    value = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
