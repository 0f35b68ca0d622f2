"""Were some of the items in what a checkpoint was trained on, and what does it score without them?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sftchat.data.formats import read_examples
from sftchat.data.generating import generate_examples
from sftchat.data.leakage import find_leaks
from sftchat.data.row_options import recorded_options
from sftchat.errors import SftchatError
from sftchat.evaluation.evaluate import summarise
from sftchat.evaluation.items import Outcome
from sftchat.evaluation.results import LeakCheck, ModelResult
from sftchat.evaluation.scored import held
from sftchat.models.identity import file_hash
from sftchat.models.manifest import Manifest
from sftchat.task import Task
from sftchat.types import Example

MOST_ROWS = 200_000
"""Training sets larger than this are not compared unasked: it would take longer than ten seconds."""


def check_leaks(result: ModelResult, manifest: Manifest, task: Task, tasks: Mapping[str, Task], *, seed: int = 0) -> LeakCheck:
    """Compare the items of a result with the rows its checkpoint was trained on.

    Args:
        result: What the checkpoint scored.
        manifest: Says what it was trained on: files, with the hash of their bytes, or a call of a task's generator.
        task: Scored the result.
        tasks: By name; a generator's rows are made again, the same seed giving the same rows.
        seed: Of the resampling.

    Raises:
        PluginError: When a metric cannot be computed.
    """
    if manifest.rows > MOST_ROWS:
        return LeakCheck(
            (), (), (f"{manifest.rows:,} rows are too many to compare unasked; 'sftchat data check EVALSET --against FILE' does",)
        )
    unchecked: list[str] = []
    outcomes: tuple[Outcome, ...] = (*result.items, *result.failures)
    leaks = find_leaks([outcome.example for outcome in outcomes], _rows(manifest.data, tasks, unchecked))
    seen = {leak.id for leak in leaks}
    rest = [outcome for outcome in outcomes if outcome.example.id not in seen]
    clean = summarise(result.model, task, held(rest), result.evalset, seed=seed).metrics if leaks and rest else ()
    return LeakCheck(leaks, clean, tuple(unchecked))


def _rows(sources: Iterable[Mapping[str, Any]], tasks: Mapping[str, Task], unchecked: list[str]) -> Iterator[Example]:
    """The training rows of every source; one that is not what it was is noted instead."""
    for source in sources:
        try:
            yield from _source(source, tasks)
        except (SftchatError, OSError, KeyError) as error:
            words = error.args[0] if isinstance(error, SftchatError) and error.args else type(error).__name__
            unchecked.append(f"{source.get('file') or source.get('generator') or source}: {words}")


def _source(source: Mapping[str, Any], tasks: Mapping[str, Task]) -> Iterator[Example]:
    """The rows of one source.

    Raises:
        SftchatError: When they are not what the checkpoint was trained on.
    """
    if "generator" in source:
        if source["generator"] not in tasks:
            raise SftchatError(f"task '{source['generator']}' is not installed")
        yield from generate_examples(tasks[source["generator"]], source["n"], source["seed"], source["options"])
        return
    if source["file"].startswith("hf://"):
        raise SftchatError("data of the Hub is not fetched again for this")
    path = Path(source["file"])
    if not path.is_file():
        raise SftchatError("no such file any more")
    if file_hash(path) != source["sha256"]:
        raise SftchatError("the file was changed after the training")
    yield from read_examples(path, recorded_options(source))
