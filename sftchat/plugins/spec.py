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
    from sftchat.evaluation.report.view import Report
    from sftchat.training.config import TrainingConfig

ENTRY_POINT_GROUP = "sftchat"
"""Entry point group of plugins."""

PLUGIN_API = 1
"""Version of the plugin interface, i.e. of hooks and public names. A plugin may define ``sftchat_plugin_api`` with the version that it needs."""

RELEASES = {1: ">=0.1"}
"""For each version of the plugin interface, the version specifier of the sftchat releases that support it."""

hookspec = pluggy.HookspecMarker("sftchat")
hookimpl = pluggy.HookimplMarker("sftchat")
"""Marks a plugin function as the implementation of the hook of the same name."""


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
