"""``sftchat demo``: train a model on a task, and show by its scores what it learned; offline, in minutes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sftchat._util.files import create_folder
from sftchat.cli.options import complete_model, complete_task
from sftchat.cli.session import Session, stdout
from sftchat.errors import UsageError, unknown_name_message

if TYPE_CHECKING:
    from sftchat.plugins.manager import Registry
    from sftchat.task import DemoConfig, Task

BASE = "sftchat:nano"


@click.command()
@click.argument("task_name", metavar="[TASK]", required=False, shell_complete=complete_task)
@click.option(
    "--model",
    default=BASE,
    show_default=True,
    metavar="MODEL",
    shell_complete=complete_model,
    help="The base model. Another than the default also forgets: the demo shows what, and prevents it.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Keep data and models here.  [default: a temporary folder]"
)
@click.pass_obj
def command(session: Session, task_name: str | None, model: str, output: Path | None) -> int:
    """Fine-tune a model on a task, score it before and after, and show what changed.

    The embedded model runs on two CPU cores in under five minutes and needs no network. A model that can already converse, such as sftchat:smollm2,
    takes about ten: it learns the task and forgets something else, the gate fails, and after the same training with replayed rows it does not.

    \b
    sftchat demo
    sftchat demo relation -o demo
    sftchat demo --model sftchat:smollm2
    """
    from sftchat.models.loading import require_local

    task, config = _choose_task(session.registry, task_name, forgetting=model != BASE)
    folder = output or Path(tempfile.mkdtemp(prefix="sftchat-demo-"))
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"output folder '{folder}' is not empty; give another -o")
    require_local("the demo")
    with create_folder(folder, remove_if_empty=output is None):
        if model == BASE:
            from sftchat.cli.demo.learning import LearningDemo

            return LearningDemo(session, task, config, folder, stdout()).run()
        from sftchat.cli.demo.forgetting import ForgettingDemo

        assert config.forgetting is not None
        return ForgettingDemo(session, task, config.forgetting, model, folder, stdout()).run()


def _choose_task(registry: Registry, name: str | None, *, forgetting: bool) -> tuple[Task, DemoConfig]:
    """Return the named task, or the first with a demo of the kind, and its demo configuration."""
    configs = {
        task.name: task.demonstration
        for task in registry.tasks.values()
        if task.demonstration is not None and (task.demonstration.forgetting is not None or not forgetting)
    }
    kind = f"demonstration with a model other than {BASE}" if forgetting else "demonstration"
    if name is not None:
        registry.task(name)
        if name not in configs:
            raise UsageError(unknown_name_message(kind, name, configs))
    elif not configs:
        raise UsageError(f"no installed task has a {kind}; see 'sftchat plugins'")
    task_name = name or next(iter(configs))
    return registry.task(task_name), configs[task_name]
