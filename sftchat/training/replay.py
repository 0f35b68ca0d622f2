"""Replay: rows of another task, or of a file, added to the training rows, so that the model keeps what it could do before."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from sftchat.data.formats import examples_hash, read_examples
from sftchat.data.generate import generate_examples, parse_options
from sftchat.data.tables import HUB
from sftchat.errors import UsageError, unknown_name_message
from sftchat.models.fingerprint import file_hash
from sftchat.task import Task
from sftchat.types import Example


@dataclass(frozen=True)
class Replay:
    """A request for rows to add.

    Attributes:
        source: Name of a task, whose generator makes the rows, or a file of rows, or a data set of the Hub.
        share: Share of the added rows in all rows, above 0 and below 1.
        task: The task; None for a file.
    """

    source: str
    share: Fraction
    task: Task | None = None


def parse_replays(arguments: Iterable[str], tasks: Mapping[str, Task], trained: str = "") -> tuple[Replay, ...]:
    """Parse the values of ``--replay``.

    Args:
        arguments: Such as ``general=0.2`` or ``old-rows.jsonl=0.1``.
        tasks: The installed tasks by name.
        trained: Name of the task whose generator makes the training rows; empty when they are read from files.

    Raises:
        UsageError: When an argument is no ``SOURCE=SHARE``, a source is unknown or given twice, or the shares leave no room for the training rows.
    """
    replays: list[Replay] = []
    for argument in arguments:
        source, equals, number = argument.rpartition("=")
        if not equals or not source:
            raise UsageError(f"--replay is '{argument}', must be TASK=SHARE or FILE=SHARE, such as general=0.2")
        if source == trained:
            raise UsageError(f"--replay names '{source}', the task that is trained; name another task, or a file")
        if any(source == replay.source for replay in replays):
            raise UsageError(f"--replay names '{source}' twice; give it once")
        if source not in tasks and not source.startswith(HUB) and not Path(source).is_file():
            raise UsageError(f"--replay: {unknown_name_message('task', source, tasks)}; nor is it a file")
        replays.append(Replay(source, _parse_share(argument, number), tasks.get(source)))
    if sum(replay.share for replay in replays) >= 1:
        raise UsageError("the shares of --replay add up to 1 or more, which leaves no room for the rows of the training; lower them")
    return tuple(replays)


def _parse_share(argument: str, number: str) -> Fraction:
    try:
        share = Fraction(number.strip())
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise UsageError(f"--replay is '{argument}', its share must be a number above 0 and below 1, such as 0.2")
    return share


def collect_replay_rows(replays: Sequence[Replay], rows: int, seed: int) -> tuple[list[Example], tuple[dict[str, Any], ...]]:
    """Generate or read the rows to add, so many that each source has its share of all rows.

    Rows of a file are drawn at random without replacement and keep their order.

    Args:
        replays: The requests.
        rows: Number of training rows without them.
        seed: Seed of the generators and of the draw.

    Returns:
        The rows, and their sources as stored in the manifest: as of training rows, with the share under ``replay``.

    Raises:
        UsageError: When a file has too few rows, or a generator needs an option.
        DataError: When a file cannot be read.
    """
    own_share = 1 - sum(replay.share for replay in replays)
    examples: list[Example] = []
    sources: list[dict[str, Any]] = []
    for replay in replays:
        count = max(round(rows * replay.share / own_share), 1)
        share = {"replay": float(replay.share)}
        if replay.task is not None:
            options = parse_options(replay.task, ())
            examples += generate_examples(replay.task, count, seed, options)
            sources.append({"generator": replay.task.name, "n": count, "seed": seed, "options": options, **share})
            continue
        from_file = list(read_examples(replay.source))
        if len(from_file) < count:
            raise UsageError(
                f"--replay {replay.source}: a share of {float(replay.share):g} needs {count:,} rows and the file has {len(from_file):,}; "
                f"lower the share, or add rows"
            )
        indices = sorted(random.Random(f"replay-{seed}").sample(range(len(from_file)), count))
        examples += [from_file[index] for index in indices]
        file = Path(replay.source)
        sources.append(
            {
                "file": replay.source,
                "sha256": file_hash(file) if file.is_file() else examples_hash(from_file),
                "n": count,
                "seed": seed,
                **share,
            }
        )
    return examples, tuple(sources)
