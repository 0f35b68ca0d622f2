"""Chooses the tasks that score, and assigns option values to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftchat.errors import UsageError
from sftchat.models.manifest import trained_tasks

if TYPE_CHECKING:
    from sftchat.evaluation.gate import GateOptions
    from sftchat.plugins.manager import Registry
    from sftchat.task import Task


def choose_tasks(registry: Registry, names: Sequence[str], models: Sequence[str]) -> tuple[Task, ...]:
    """Return the named tasks; without names, the task that the models were trained on, else the only installed task.

    Raises:
        UsageError: When a name is unknown or repeated, or when no name is given and the task is not unique.
    """
    if names:
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"--task {name} stands twice")
        return tuple(registry.task(name) for name in names)
    trained = trained_tasks(models)
    if len(set(trained.values())) > 1:
        trained_on = ", ".join(f"{model} on {task}" for model, task in trained.items())
        raise UsageError(f"the models were trained on different tasks ({trained_on}); choose one with --task")
    if trained:
        return (registry.task(next(iter(trained.values()))),)
    if len(registry.tasks) == 1:
        return tuple(registry.tasks.values())
    available = ", ".join(sorted(registry.tasks)) or "none; see 'sftchat plugins'"
    raise UsageError(f"no model says which task it was trained on; choose one with --task (available: {available})")


@dataclass(frozen=True)
class TaskOptions:
    """Assigns the values of options to the tasks that score; a value may begin with its task, as ``TASK=WORD`` or ``TASK:METRIC``.

    Attributes:
        tasks: The tasks that score, at least one.
        installed: Names of all installed tasks.
    """

    tasks: Sequence[Task]
    installed: Collection[str]

    @property
    def names(self) -> list[str]:
        """Names of the tasks that score."""
        return [task.name for task in self.tasks]

    def split(self, word: str, sign: str, option: str) -> tuple[str, str]:
        """Split a word into the name of its task and the value; without the prefix, the name is empty and the value is the word.

        Args:
            word: As typed.
            sign: The separator, ``=`` or ``:``.
            option: The option, for the message.

        Raises:
            UsageError: When the prefix is an installed task that does not score, or seems to be a misspelt task: it is similar to one, or an
                existing file follows the ``=``.
        """
        name, separator, value = word.partition(sign)
        if not separator:
            return "", word
        if name in self.names:
            return name, value
        task_flags = f"--task {' --task '.join(self.names)}"
        if name in self.installed:
            raise UsageError(f"{option} {word} is for task '{name}', which is not evaluated: this is {task_flags}; add --task {name}")
        similar = get_close_matches(name, {*self.installed, *self.names}, n=1, cutoff=0.75)
        if similar and "/" not in name and not Path(word).exists():
            raise UsageError(f"{option} {word}: no task '{name}' and no such file; did you mean {option} {similar[0]}{sign}{value}?")
        if sign == "=" and "/" not in name and Path(value).is_file() and not Path(word).exists():
            raise UsageError(f"{option} {word}: no task '{name}' and no such file (available: {', '.join(sorted(self.installed))})")
        return "", word

    def by_task(self, words: Iterable[str], option: str, applies_to_all: Callable[[str], bool] | None = None) -> dict[str, tuple[str, ...]]:
        """Return the words of each task, by its name: ``TASK=WORD`` is for that task, and ``WORD`` for the only task.

        Args:
            words: As typed.
            option: The option, for the message.
            applies_to_all: Returns whether a word without a task is for all tasks if there are several.

        Raises:
            UsageError: When a word names no task although there are several, or one that does not score.
        """
        by_name: dict[str, tuple[str, ...]] = dict.fromkeys(self.names, ())
        for word in words:
            name, value = self.split(word, "=", option)
            if name:
                by_name[name] = (*by_name[name], value)
            elif len(self.tasks) == 1 or (applies_to_all is not None and applies_to_all(word)):
                by_name = {name: (*assigned, word) for name, assigned in by_name.items()}
            else:
                raise UsageError(f"{option} {word} does not say for which task; write {option} {self.names[0]}={word}")
        return by_name

    def one_each(self, words: Iterable[str], option: str, applies_to_all: Callable[[str], bool] | None = None) -> dict[str, str | None]:
        """Return the word of each task, like ``by_task``, for options that a task may have once; None for tasks without a word.

        Raises:
            UsageError: When a task has two values.
        """
        by_name: dict[str, str | None] = {}
        for name, assigned in self.by_task(words, option, applies_to_all).items():
            if len(assigned) > 1:
                raise UsageError(f"{option} is given twice: {assigned[0]} and {assigned[1]}")
            by_name[name] = assigned[0] if assigned else None
        return by_name

    def gate_options_of(self, options: GateOptions) -> Mapping[str, GateOptions]:
        """Return the gate options of each task: ``TASK:METRIC…`` is for that task, ``METRIC…`` for every task that has the metric.

        Raises:
            UsageError: When no task has a metric.
        """
        of_task = {task.name: replace(options, gated=(), floors=(), lower_floors=(), must_pass=()) for task in self.tasks}
        for field_name, option in (("gated", "--gate"), ("floors", "--min"), ("lower_floors", "--min-lower")):
            for word in getattr(options, field_name):
                name, value = self.split(word, ":", option)
                metric = value.partition("=")[0]
                if name or len(self.tasks) == 1:  # an unknown metric of a single task is reported when its options are checked
                    chosen = [name or self.names[0]]
                else:
                    chosen = [task.name for task in self.tasks if metric in (task_metric.name for task_metric in task.metrics)]
                if not chosen:
                    raise UsageError(f"none of the tasks {', '.join(of_task)} has a metric '{metric}'")
                for task in chosen:
                    extended: dict[str, Any] = {field_name: (*getattr(of_task[task], field_name), value)}
                    of_task[task] = replace(of_task[task], **extended)
        for task, words in self.by_task(options.must_pass, "--must-pass").items():
            of_task[task] = replace(of_task[task], must_pass=words)
        return of_task


def is_model(word: str) -> bool:
    """Return whether a word of ``--baseline`` is a model, which can be evaluated on any task, and not a file."""
    from sftchat.evaluation.baseline import is_missing_file

    return not Path(word).is_file() and not is_missing_file(word)
