"""Chooses the tasks that score, changes them by the options of a command, and assigns option values to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sftchat.cli.options import add_options, allow_code_option
from sftchat.errors import UsageError
from sftchat.models.manifest import trained_tasks

if TYPE_CHECKING:
    from sftchat.data.task_overrides import TaskOverrides
    from sftchat.evaluation.gate_options import GateOptions
    from sftchat.plugins.manager import Registry
    from sftchat.scorers import Scorer
    from sftchat.task import Task

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)
override_options = add_options(
    click.option("--scorer", metavar="NAME", help="Score with a ready-made scorer, such as exact, choice or json_fields, without a task."),
    click.option(
        "--scorer-option",
        "scorer_options",
        multiple=True,
        metavar="NAME=VALUE",
        help="Argument of the scorer, as JSON or text; repeatable.",
    ),
    click.option("--labels", default="", metavar="A,B,…", help="Labels of the scorer choice.  [default: the gold replies of the evalset]"),
    allow_code_option,
    click.option("--system", metavar="TEXT", help="System prompt of the rows that have none."),
    click.option(
        "--prompt", "prompt_template", default="", metavar="TEXT", help="Prompt over the columns of a row, such as 'Summarise: {text}'."
    ),
    click.option(
        "--map",
        "columns",
        multiple=True,
        metavar="NAME=COLUMN",
        help="Read COLUMN of the evalset under NAME, such as prompt or gold; repeatable.",
    ),
    click.option(
        "--few-shot",
        type=click.IntRange(min=0),
        metavar="N",
        help="Solved examples before each item: the task's, else similar other items.",
    ),
    click.option("--few-shot-file", type=_FILE, metavar="FILE", help="Take the examples from this file."),
    click.option(
        "-k",
        "--samples",
        type=click.IntRange(min=1),
        metavar="N",
        help="Replies to each item, with pass@k and majority; needs --temperature.",
    ),
    click.option("--max-new-tokens", type=int, metavar="N", help="Maximum number of tokens of a reply.  [default: the task's, else 256]"),
    click.option(
        "--temperature", type=float, metavar="X", help="Sampling temperature, from 0 (greedy) to 2.  [default: the task's, else 0]"
    ),
    click.option("--top-p", type=float, metavar="X", help="Sample from the likeliest tokens that together reach this probability."),
    click.option("--top-k", type=int, metavar="N", help="Sample from the N likeliest tokens; 0: from all."),
    click.option("--stop", multiple=True, metavar="TEXT", help="Text that ends a reply and is not part of it; repeatable."),
    click.option(
        "--thinking",
        type=click.Choice(["drop", "keep", "off"]),
        help="Score answers without thoughts, with them, or ask the model for none.  [default: drop]",
    ),
    click.option("--raw-prompt", is_flag=True, help="Send prompts without a chat template, for base models."),
)
"""Options that change a task for one evaluation, see ``take_overrides``."""


def take_overrides(options: dict[str, Any], evalsets: Sequence[Path]) -> TaskOverrides:
    """Remove the options of ``override_options`` from a command's options, and return the changes to the task.

    Args:
        options: Keyword arguments of the command.
        evalsets: Files of the evalsets, whose gold replies are the labels of ``choice`` when none are given.

    Raises:
        UsageError: When an option has an invalid value.
        DataError: When an evalset cannot be read.
    """
    from sftchat.data.row_options import parse_column_map
    from sftchat.data.task_overrides import TaskOverrides

    columns = parse_column_map(options.pop("columns"))
    prompt = options.pop("prompt_template")
    names = ("max_new_tokens", "temperature", "top_p", "top_k", "stop")
    sampling = {name: value for name in names if (value := options.pop(name)) not in (None, ())}
    name, pairs, labels = (options.pop(option) for option in ("scorer", "scorer_options", "labels"))
    if name is None and (pairs or labels):
        raise UsageError(
            f"{'--labels' if labels else '--scorer-option'} is for a ready-made scorer; add --scorer {'choice' if labels else 'NAME'}"
        )
    arguments = _parse_scorer_options(pairs)
    if labels:
        arguments["labels"] = [label.strip() for label in labels.split(",") if label.strip()]
    if name == "choice" and "labels" not in arguments:
        arguments["labels"] = _labels_of(evalsets, columns, prompt)
    return TaskOverrides(
        columns=columns,
        prompt=prompt,
        sampling=sampling,
        scorer=None if name is None else _make_scorer(name, arguments),
        **{field: options.pop(field) for field in ("system", "few_shot", "few_shot_file", "samples", "thinking", "raw_prompt")},
    )


def _make_scorer(name: str, arguments: Mapping[str, Any]) -> Scorer:
    from sftchat.scorers import make_scorer

    return make_scorer(name, arguments)


def _parse_scorer_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Parse ``NAME=VALUE`` words; a value that is not JSON is text."""
    from sftchat._util.parsing import load_json

    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--scorer-option {pair} must be NAME=VALUE, such as tolerance=0.01")
        try:
            arguments[name] = load_json(text)
        except ValueError:
            arguments[name] = text
    return arguments


def _labels_of(evalsets: Sequence[Path], columns: Mapping[str, str], prompt: str) -> list[str]:
    """Return the distinct gold replies of evalsets, sorted."""
    from sftchat.api.rows import gold_labels
    from sftchat.data.row_options import RowOptions
    from sftchat.evaluation.evalset import read_evalset

    if not evalsets:
        raise UsageError("--scorer choice needs --labels A,B,…, or an --evalset whose gold replies are the labels")
    return gold_labels(
        (example for path in evalsets for example in read_evalset(path, row_options=RowOptions(columns=columns, prompt=prompt)).examples),
        "--labels A,B,…",
    )


def choose_tasks(registry: Registry, names: Sequence[str], models: Sequence[str], overrides: TaskOverrides) -> tuple[Task, ...]:
    """Return the tasks that score, with the changes of the options.

    These are the named tasks; without names, a task of the scorer, if one is given; else the task that the models were trained on, else the only
    installed task.

    Raises:
        UsageError: When a name is unknown or repeated, or when no name is given and the task is not unique.
    """
    if names:
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"--task {name} stands twice")
        return tuple(overrides.apply(registry.task(name)) for name in names)
    if overrides.scorer is not None:
        from sftchat.data.task_file import make_task

        return (overrides.apply(make_task(overrides.scorer.name, overrides.scorer)),)
    return (overrides.apply(_task_of_models(registry, models)),)


def _task_of_models(registry: Registry, models: Sequence[str]) -> Task:
    """Return the task that models were trained on, else the only installed task."""
    trained = trained_tasks(models)
    if len(set(trained.values())) > 1:
        trained_on = ", ".join(f"{model} on {task}" for model, task in trained.items())
        raise UsageError(f"the models were trained on different tasks ({trained_on}); choose one with --task")
    if trained:
        name = next(iter(trained.values()))
        if name not in registry.tasks:
            raise UsageError(
                f"the models were trained on the task '{name}', which is not installed; if it is in a file, give --task FILE.toml"
            )
        return registry.task(name)
    if len(registry.tasks) == 1:
        return next(iter(registry.tasks.values()))
    available = ", ".join(sorted(registry.tasks)) or "none; see 'sftchat plugins'"
    raise UsageError(
        f"no model says which task it was trained on; choose one with --task (available: {available}), or score without one by --scorer NAME"
    )


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
