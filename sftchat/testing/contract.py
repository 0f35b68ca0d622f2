"""Checks a task against its contract, for the tests of plugin authors and of built-in tasks."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

from sftchat.task import Task
from sftchat.testing.rendering import rendering_faults
from sftchat.testing.rows import evalset_faults, generate_rows, row_faults
from sftchat.testing.scores import ScoredReply, garbage_faults, gold_faults, metric_faults, speed_faults
from sftchat.types import Example

DEFAULT_ROWS = 100
MAX_SCORING_MILLISECONDS = 20.0


class BrokenContract(AssertionError):
    """A task violates the contract.

    Attributes:
        faults: One message for each violated clause.
    """

    def __init__(self, task: Task, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join((f"task '{task.name}' breaks its contract:", *(f"- {fault}" for fault in faults))))
        self.faults = faults


def check_task(
    task: Task,
    *,
    rows: int = DEFAULT_ROWS,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    milliseconds: float = MAX_SCORING_MILLISECONDS,
    model: str = "sftchat:nano",
) -> None:
    """Check a task against the contract that sftchat relies on.

    The generator is deterministic in its seed, independent of the global ``random`` state, and differs between seeds; ids are unique; every
    row ends with a user turn, has a gold reply and passes the task's own check; evalsets can be read. A gold reply gets the top score
    without an error class. For any other reply, the scorer does not raise, returns the same count keys, and is deterministic. More wrong
    replies never improve a metric, and metrics accept numbers and arrays. The template renders every row and trains the token that ends a
    reply. Nothing is printed, and scoring is fast enough for use in a chat.

    The clause on the template requires ``sftchat[local]`` and is skipped without it.

    Args:
        task: The task.
        rows: Number of rows to generate, at least 10.
        seed: Seed of the rows and of the garbage replies.
        options: Generator options without defaults.
        milliseconds: Maximum CPU time to score one reply.
        model: Model whose tokenizer renders the rows: the one to be trained.

    Raises:
        BrokenContract: With one line for each violated clause.
    """
    faults = tuple(contract_faults(task, rows=rows, seed=seed, options=options, milliseconds=milliseconds, model=model))
    if faults:
        raise BrokenContract(task, faults)


def contract_faults(
    task: Task,
    *,
    rows: int = DEFAULT_ROWS,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    milliseconds: float = MAX_SCORING_MILLISECONDS,
    model: str = "sftchat:nano",
) -> Iterator[str]:
    """Yield the violations that ``check_task`` raises, one line each; the arguments are the same."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        faults = list(_check_clauses(task, rows, seed, dict(options or {}), milliseconds, model))
    yield from faults
    if output.getvalue():
        yield f"prints to standard output, where results of commands go: {output.getvalue()[:60]!r}"


def _check_clauses(task: Task, rows: int, seed: int, options: dict[str, Any], milliseconds: float, model: str) -> Iterator[str]:
    """Check each clause; without rows that have a gold reply, skip those on scores, metrics and the template."""
    examples, faults = generate_rows(task, rows, seed, options)
    yield from faults
    yield from row_faults(task, examples)
    with_gold: list[Example] = [example for example in examples if example.gold is not None and example.messages]
    held_out, faults = evalset_faults(task)
    yield from faults
    if not with_gold:
        return
    gold_scores = [ScoredReply.of(task, example, example.gold or "") for example in (*with_gold, *held_out)]
    yield from gold_faults(task, gold_scores)
    garbage_scores, faults = garbage_faults(task, with_gold, seed)
    yield from faults
    if all(scored.score is not None for scored in gold_scores) and garbage_scores:
        yield from metric_faults(task, gold_scores[: len(with_gold)], garbage_scores)
        yield from speed_faults(task, with_gold, milliseconds)
    yield from rendering_faults(task, with_gold, model)
