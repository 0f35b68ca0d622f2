"""Hook specifications for plugins; each hook registers objects or reports an event."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from sftchat.engine import EngineType
from sftchat.task import Task

if TYPE_CHECKING:
    from sftchat.chat.context import ChatCommand
    from sftchat.evaluation.report import Report
    from sftchat.training.config import TrainingConfig

ENTRY_POINT_GROUP = "sftchat"
"""Entry points of this group are loaded as plugins."""

PLUGIN_API = 1
"""Version of what plugins are promised: the hooks and the public names. A number that a plugin may state as ``sftchat_plugin_api``."""

RELEASES = {1: ">=0.1"}
"""Which releases of sftchat have which version of the plugin interface."""

hookspec = pluggy.HookspecMarker("sftchat")
hookimpl = pluggy.HookimplMarker("sftchat")
"""Marks a function of a plugin as the implementation of the hook of that name."""


@hookspec
def sftchat_register_tasks() -> Iterable[Task]:  # type: ignore[empty-body]
    """Return the tasks of this plugin."""


@hookspec
def sftchat_register_engines() -> Iterable[EngineType]:  # type: ignore[empty-body]
    """Return the engine types of this plugin."""


@hookspec
def sftchat_register_chat_commands() -> Iterable[ChatCommand]:  # type: ignore[empty-body]
    """Return the chat commands of this plugin."""


@hookspec
def sftchat_trainer_callbacks(task: Task, config: TrainingConfig) -> Iterable[Any]:  # type: ignore[empty-body]
    """Return transformers ``TrainerCallback`` objects for a training that is about to start."""


@hookspec
def sftchat_eval_finished(report: Report, output_dir: Path | None) -> None:
    """Called when an evaluation has finished and its files, if any, are written."""
