"""Select the tasks that score, and assign option values to them."""

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


def chosen_tasks(registry: Registry, names: Sequence[str], models: Sequence[str]) -> tuple[Task, ...]:
    """Return the named tasks, else the task that the models were trained on, else the only installed task.

    Raises:
        UsageError: When a name is unknown or repeated, or when none is given and several are possible.
    """
    if names:
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"--task {name} stands twice")
        return tuple(registry.task(name) for name in names)
    trained = trained_tasks(models)
    if len(set(trained.values())) > 1:
        told = ", ".join(f"{model} on {task}" for model, task in trained.items())
        raise UsageError(f"the models were trained on different tasks ({told}); choose one with --task")
    if trained:
        return (registry.task(next(iter(trained.values()))),)
    if len(registry.tasks) == 1:
        return tuple(registry.tasks.values())
    known = ", ".join(sorted(registry.tasks)) or "none; see 'sftchat plugins'"
    raise UsageError(f"no model says which task it was trained on; choose one with --task (available: {known})")


@dataclass(frozen=True)
class Addresses:
    """Assigns option values to the tasks that score: ``TASK=WORD``, ``TASK:METRIC``.

    Attributes:
        tasks: Those that score, at least one.
        known: Names of all installed tasks.
    """

    tasks: Sequence[Task]
    known: Collection[str]

    @property
    def names(self) -> list[str]:
        """Names of the tasks that score."""
        return [task.name for task in self.tasks]

    def split(self, word: str, sign: str, option: str) -> tuple[str, str]:
        """Split a word into its task and the rest; without a task prefix, no task and the whole word.

        Args:
            word: As typed.
            sign: The separator, ``=`` or ``:``.
            option: The option, for the message.

        Raises:
            UsageError: When it begins with a task that does not score, with a misspelt task name that is not a file, or
                another word before an existing file.
        """
        name, found, rest = word.partition(sign)
        if not found:
            return "", word
        if name in self.names:
            return name, rest
        scoring = f"--task {' --task '.join(self.names)}"
        if name in self.known:
            raise UsageError(f"{option} {word} is for task '{name}', which is not evaluated: this is {scoring}; add --task {name}")
        near = get_close_matches(name, {*self.known, *self.names}, n=1, cutoff=0.75)
        if near and "/" not in name and not Path(word).exists():
            raise UsageError(f"{option} {word}: no task '{name}' and no such file; did you mean {option} {near[0]}{sign}{rest}?")
        if sign == "=" and "/" not in name and Path(rest).is_file() and not Path(word).exists():
            raise UsageError(f"{option} {word}: no task '{name}' and no such file (available: {', '.join(sorted(self.known))})")
        return "", word

    def by_task(self, words: Iterable[str], option: str, shared: Callable[[str], bool] | None = None) -> dict[str, tuple[str, ...]]:
        """Assign ``TASK=WORD`` to that task, and a word alone to the only task.

        Args:
            words: As typed.
            option: The option, for the message.
            shared: Whether a word alone may apply to all of several tasks.

        Raises:
            UsageError: When a word names none of several tasks, or one that does not score.
        """
        found: dict[str, tuple[str, ...]] = dict.fromkeys(self.names, ())
        for word in words:
            name, rest = self.split(word, "=", option)
            if name:
                found[name] = (*found[name], rest)
            elif len(self.tasks) == 1 or (shared is not None and shared(word)):
                found = {name: (*given, word) for name, given in found.items()}
            else:
                raise UsageError(f"{option} {word} does not say for which task; write {option} {self.names[0]}={word}")
        return found

    def one_each(self, words: Iterable[str], option: str, shared: Callable[[str], bool] | None = None) -> dict[str, str | None]:
        """Like ``by_task``, for options that a task may have once; None for tasks without a value.

        Raises:
            UsageError: When a task has two values.
        """
        found: dict[str, str | None] = {}
        for name, given in self.by_task(words, option, shared).items():
            if len(given) > 1:
                raise UsageError(f"{option} is given twice: {given[0]} and {given[1]}")
            found[name] = given[0] if given else None
        return found

    def gate_options_of(self, options: GateOptions) -> Mapping[str, GateOptions]:
        """Return the gate options of each task: ``TASK:METRIC…`` is for that task, ``METRIC…`` for every one that has the metric.

        Raises:
            UsageError: When no task has a metric.
        """
        of_task = {task.name: replace(options, gated=(), floors=(), lower_floors=(), must_pass=()) for task in self.tasks}
        for kind, option in (("gated", "--gate"), ("floors", "--min"), ("lower_floors", "--min-lower")):
            for word in getattr(options, kind):
                name, rest = self.split(word, ":", option)
                metric = rest.partition("=")[0]
                # the options of a single task name its unknown metrics themselves
                having = [task.name for task in self.tasks if len(self.tasks) == 1 or metric in {own.name for own in task.metrics}]
                if not (addressed := [name] if name else having):
                    raise UsageError(f"none of the tasks {', '.join(of_task)} has a metric '{metric}'")
                for task in addressed:
                    more: dict[str, Any] = {kind: (*getattr(of_task[task], kind), rest)}
                    of_task[task] = replace(of_task[task], **more)
        for task, words in self.by_task(options.must_pass, "--must-pass").items():
            of_task[task] = replace(of_task[task], must_pass=words)
        return of_task


def is_model(word: str) -> bool:
    """Return whether a baseline is a model, which can be evaluated on any task, and not a file."""
    from sftchat.evaluation.baseline import is_missing_file

    return not Path(word).is_file() and not is_missing_file(word)
