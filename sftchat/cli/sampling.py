"""The sampling flags of every verb that generates, and what they make of a task's defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from sftchat.errors import UsageError
from sftchat.task import Task
from sftchat.types import SamplingParams

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS = (
    click.option("--max-new-tokens", type=int, metavar="N", help="Most tokens of a reply."),
    click.option("--temperature", type=float, metavar="X", help="0 is greedy, up to 2."),
    click.option("--top-p", type=float, metavar="X", help="Sample from the likeliest tokens that together reach this probability."),
    click.option("--top-k", type=int, metavar="N", help="Sample from this many likeliest tokens; 0 is all."),
    click.option("--seed", type=int, metavar="S", help="Seed of the samples."),
)
FLAGS = ("max_new_tokens", "temperature", "top_p", "top_k", "seed")
"""The keyword arguments that ``sampling_options`` adds."""


def sampling_options(command: F) -> F:
    """Add ``--max-new-tokens``, ``--temperature``, ``--top-p``, ``--top-k`` and ``--seed``."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def chosen_sampling(task: Task | None, options: dict[str, Any], begin: SamplingParams | None = None) -> SamplingParams:
    """Take the sampling flags out of the options of a command and put them over the task's defaults.

    Args:
        task: Whose sampling to begin with; None for the program's own.
        options: The keyword arguments of the command; the flags are removed from it.
        begin: What to begin with instead, such as what a conversation had that goes on.

    Raises:
        UsageError: When a value is out of its range.
    """
    given = {name: value for name in FLAGS if (value := options.pop(name)) is not None}
    try:
        return replace(begin or (task.sampling if task is not None else SamplingParams()), **given)
    except ValueError as error:
        raise UsageError(str(error)) from None
