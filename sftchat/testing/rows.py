"""Contract clauses on the rows of the generator and of the evalsets."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sftchat.data.generate import generate_examples
from sftchat.errors import PluginError, SftchatError
from sftchat.evaluation.evalset import read_evalset
from sftchat.task import Task, row_problems
from sftchat.types import Example


def generate_rows(task: Task, n: int, seed: int, options: Mapping[str, Any]) -> tuple[list[Example], list[str]]:
    """Return rows of the generator, and violations of its contract."""
    try:
        rows = _generate_with_random_state(task, n, seed, options, state=1)
        same_seed_rows = _generate_with_random_state(task, n, seed, options, state=2)
        next_seed_rows = _generate_with_random_state(task, n, seed + 1, options, state=1)
    except SftchatError as error:
        return [], [f"does not generate: {error}"]
    faults = []
    if rows != same_seed_rows:
        row = next(index for index, (first, second) in enumerate(zip(rows, same_seed_rows, strict=True)) if first != second)
        faults.append(
            f"the same seed gives other rows (row {row} differs); draw from random.Random(f'{{seed}}-{{index}}') and from nothing else"
        )
    if [_without_id(example) for example in rows] == [_without_id(example) for example in next_seed_rows]:
        faults.append(f"seeds {seed} and {seed + 1} give the same rows; make them depend on the seed")
    return rows, faults


def row_faults(task: Task, examples: Iterable[Example]) -> Iterator[str]:
    """Yield violations of single rows; the same violation only for the first row that has it."""
    rows = list(examples)
    reported: set[str] = set()
    for index, example in enumerate(rows):
        for fault in _faults_of_row(task, example):
            if fault not in reported:
                reported.add(fault)
                yield f"row {index}: {fault}"


def evalset_faults(task: Task) -> tuple[list[Example], list[str]]:
    """Return the rows of all evalsets, and the errors of those that cannot be read."""
    examples: list[Example] = []
    faults: list[str] = []
    for name, path in task.evalsets.items():
        try:
            examples += read_evalset(path).examples
        except (SftchatError, OSError) as error:
            faults.append(f"evalset '{name}' cannot be read: {error}")
    return examples, faults


def _generate_with_random_state(task: Task, n: int, seed: int, options: Mapping[str, Any], state: int) -> list[Example]:
    """Generate rows with the global random generator seeded with ``state``, on which the rows must not depend."""
    previous_state = random.getstate()
    random.seed(state)
    try:
        return list(generate_examples(task, n, seed, options))
    finally:
        random.setstate(previous_state)


def _without_id(example: Example) -> tuple[Any, ...]:
    """Return messages and gold of a row; its id often includes the seed."""
    return example.messages, example.gold


def _faults_of_row(task: Task, example: Example) -> Iterator[str]:
    if not example.messages:
        yield "has no messages"
        return
    if example.messages[-1].get("role") != "user":
        yield f"ends with the role {example.messages[-1].get('role')!r}; the turn before the gold reply is the user's"
    if example.gold is None:
        yield "has no gold reply, so there is nothing to learn from it"
    elif not example.gold:
        yield "has an empty gold reply, so there is nothing to learn from it"
    try:
        problems = row_problems(task, example)
    except PluginError as error:
        yield str(error)
        return
    for problem in problems:
        yield f"the task's own row check finds: {problem}"
