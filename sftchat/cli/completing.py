"""Shell completion of tasks, models and files; ``_SFTCHAT_COMPLETE=bash_source sftchat`` prints the setup for bash (also zsh, fish)."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem


def complete_task(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete names of installed tasks."""
    from sftchat.plugins.manager import load_plugins

    tasks = load_plugins().tasks
    return [CompletionItem(name, help=task.description) for name, task in tasks.items() if name.startswith(incomplete)]


def complete_model(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete with the embedded model and the runs below this folder, else with folders."""
    from sftchat.models.reference import NANO
    from sftchat.models.runs import find_runs

    known = [(NANO, "embedded"), *((run.model, run.about) for run in find_runs(Path()))]
    found = [CompletionItem(name, help=about) for name, about in known if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="dir")]


def complete_file(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete files."""
    return [CompletionItem(incomplete, type="file")]
