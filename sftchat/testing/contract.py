"""The contract of a task, as one check that plugin authors run in their tests and that first-party tasks pass."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

from sftchat.task import Task
from sftchat.testing.rendering import rendering_faults
from sftchat.testing.rows import evalset_faults, generated, row_faults
from sftchat.testing.scores import Scored, garbage_faults, gold_faults, metric_faults, speed_faults
from sftchat.types import Example

ROWS = 100
MILLISECONDS = 20.0


class BrokenContract(AssertionError):
    """A task that does not keep the contract.

    Attributes:
        faults: One message for every clause that fails.
    """

    def __init__(self, task: Task, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join((f"task '{task.name}' breaks its contract:", *(f"- {fault}" for fault in faults))))
        self.faults = faults


def check_task(
    task: Task,
    *,
    rows: int = ROWS,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    milliseconds: float = MILLISECONDS,
    model: str = "sftchat:nano",
) -> None:
    """Hold a task to the contract that everything else in sftchat relies on.

    The same seed gives the same rows, another seed others, whatever the state of Python's own random numbers; ids are unique; every row ends
    with a user turn and has a gold reply, and the task finds no problem in it; evalsets can be read. A gold reply scores top against itself,
    without a fault; whatever else a reply is, the scorer does not raise, counts the same keys and gives the same score again; more wrong replies
    never make a metric better, and metrics take numbers and arrays alike. The template renders every row and trains the token that
    stops a reply. Nothing is printed, and a reply is scored fast enough to be marked while somebody chats.

    The clause on the template needs ``sftchat[local]``; where that is not installed it is left out.

    Args:
        task: The task.
        rows: How many rows to draw from its generator, at least 10.
        seed: Of those rows and of the garbage.
        options: Options of the generator that have no default.
        milliseconds: CPU time that scoring one reply may take.
        model: Whose tokenizer renders the rows: the one to be trained.

    Raises:
        BrokenContract: With one readable line for every clause that fails.
    """
    faults = tuple(contract_faults(task, rows=rows, seed=seed, options=options, milliseconds=milliseconds, model=model))
    if faults:
        raise BrokenContract(task, faults)


def contract_faults(
    task: Task,
    *,
    rows: int = ROWS,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    milliseconds: float = MILLISECONDS,
    model: str = "sftchat:nano",
) -> Iterator[str]:
    """The same as lines instead of an error; nothing when the task keeps the contract. Arguments as for ``check_task``."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        faults = list(_faults(task, rows, seed, dict(options or {}), milliseconds, model))
    yield from faults
    if said.getvalue():
        yield f"prints to standard output, where results of commands go: {said.getvalue()[:60]!r}"


def _faults(task: Task, rows: int, seed: int, options: dict[str, Any], milliseconds: float, model: str) -> Iterator[str]:
    """Every clause in turn; what needs good rows is skipped where there are none."""
    examples, faults = generated(task, rows, seed, options)
    yield from faults
    yield from row_faults(task, examples)
    gold: list[Example] = [example for example in examples if example.gold is not None and example.messages]
    held_out, faults = evalset_faults(task)
    yield from faults
    if not gold:
        return
    right = [Scored.of(task, example, example.gold or "") for example in (*gold, *held_out)]
    yield from gold_faults(task, right)
    wrong, faults = garbage_faults(task, gold, seed)
    yield from faults
    if all(scored.score is not None for scored in right) and wrong:
        yield from metric_faults(task, right[: len(gold)], wrong)
        yield from speed_faults(task, gold, milliseconds)
    yield from rendering_faults(task, gold, model)
