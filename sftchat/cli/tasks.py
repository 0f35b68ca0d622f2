"""Which tasks score, and which words of a command belong to which of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftchat.errors import UsageError

if TYPE_CHECKING:
    from sftchat.evaluation.rules import Demands
    from sftchat.plugins import Registry
    from sftchat.task import Task


def chosen_tasks(registry: Registry, names: Sequence[str], models: Sequence[str]) -> tuple[Task, ...]:
    """The tasks asked for, else the one the models were trained on, else the only one there is.

    Raises:
        UsageError: When a name is unknown or comes twice, or when none is given and there is a choice.
    """
    if names:
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"--task {name} stands twice")
        return tuple(registry.task(name) for name in names)
    trained = trained_on(models)
    if len(set(trained.values())) > 1:
        told = ", ".join(f"{model} on {task}" for model, task in trained.items())
        raise UsageError(f"the models were trained on different tasks ({told}); choose one with --task")
    if trained:
        return (registry.task(next(iter(trained.values()))),)
    if len(registry.tasks) == 1:
        return tuple(registry.tasks.values())
    known = ", ".join(sorted(registry.tasks)) or "none; see 'sftchat plugins'"
    raise UsageError(f"no model says which task it was trained on; choose one with --task (available: {known})")


def trained_on(models: Iterable[str]) -> dict[str, str]:
    """The task that each model was trained on, of those that say so.

    Raises:
        ModelError: When a manifest cannot be read.
    """
    from sftchat.models.manifest import find_manifest

    return {model: manifest.task for model in models if (manifest := find_manifest(model)) is not None and manifest.task}


def by_task(
    words: Iterable[str], tasks: Sequence[Task], option: str, shared: Callable[[str], bool] | None = None
) -> dict[str, tuple[str, ...]]:
    """Give ``TASK=WORD`` to that task, and a word alone to the only task.

    Args:
        words: As typed.
        tasks: Those that score.
        option: Where they were typed, for the message.
        shared: Whether a word alone may be for all of several tasks.

    Raises:
        UsageError: When a word does not say which of several tasks it is for.
    """
    names = [task.name for task in tasks]
    found: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    for word in words:
        name, equals, rest = word.partition("=")
        if equals and name in found:
            found[name] = (*found[name], rest)
        elif len(names) == 1 or (shared is not None and shared(word)):
            found = {name: (*given, word) for name, given in found.items()}
        else:
            raise UsageError(f"{option} {word} does not say for which task; write {option} {names[0]}={word}")
    return found


def one_each(
    words: Iterable[str], tasks: Sequence[Task], option: str, shared: Callable[[str], bool] | None = None
) -> dict[str, str | None]:
    """The same for options that a task may have once; None where it has none.

    Raises:
        UsageError: When one has two.
    """
    found: dict[str, str | None] = {}
    for name, given in by_task(words, tasks, option, shared).items():
        if len(given) > 1:
            raise UsageError(f"{option} is given twice: {given[0]} and {given[1]}")
        found[name] = given[0] if given else None
    return found


def is_model(word: str) -> bool:
    """Whether a baseline is a model, which can be asked about any task, and no file."""
    path = Path(word)
    return not path.is_file() and path.suffix != ".jsonl"


def demands_of(demands: Demands, tasks: Sequence[Task]) -> Mapping[str, Demands]:
    """The demands on each task: ``TASK:METRIC…`` is for that task, ``METRIC…`` for every one that has the metric.

    Raises:
        UsageError: When no task has a metric.
    """
    from dataclasses import replace

    if len(tasks) == 1:
        return {tasks[0].name: demands}
    found = {task.name: replace(demands, gated=(), floors=(), lower_floors=(), must_pass=()) for task in tasks}
    for kind in ("gated", "floors", "lower_floors"):
        for word in getattr(demands, kind):
            name, colon, rest = word.partition(":")
            addressed = bool(colon) and name in found
            metric = word.partition("=")[0]
            whose = [name] if addressed else [task.name for task in tasks if metric in {one.name for one in task.metrics}]
            if not whose:
                raise UsageError(f"none of the tasks {', '.join(found)} has a metric '{metric}'")
            for task in whose:
                more: dict[str, Any] = {kind: (*getattr(found[task], kind), rest if addressed else word)}
                found[task] = replace(found[task], **more)
    for task, words in by_task(demands.must_pass, tasks, "--must-pass").items():
        found[task] = replace(found[task], must_pass=words)
    return found
