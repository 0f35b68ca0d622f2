"""What is to be evaluated, with every cheap check made before the first model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sftchat.errors import DataError, UsageError
from sftchat.evaluation.evalset import Evalset, all_examples, read_evalset
from sftchat.evaluation.replies import match, read_replies
from sftchat.task import Task
from sftchat.types import Example, Reply, SamplingParams

REPORT = "report.json"


@dataclass(frozen=True)
class Source:
    """Where replies come from: a model to be opened, or a file.

    Attributes:
        name: What the user typed.
        file: What its replies are called in the output folder.
        stored: The replies of the file; None for a model.
    """

    name: str
    file: str
    stored: Mapping[str, Reply | str] | None = None


@dataclass(frozen=True)
class Plan:
    """An evaluation that can begin.

    Attributes:
        task: Scores the replies.
        evalsets: What is asked, at least one.
        sources: Who is asked, at least one.
        baseline: With whom they are compared.
        sampling: How replies are generated.
        seed: Of the statistics.
        output: Folder of the results.
    """

    task: Task
    evalsets: tuple[Evalset, ...]
    sources: tuple[Source, ...]
    baseline: Source | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    seed: int = 0
    output: Path | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that has to be opened, in that order."""
        asked = (self.baseline, *self.sources) if self.baseline else self.sources
        return tuple(source.name for source in asked if source.stored is None)


def make_plan(
    task: Task,
    models: Sequence[str],
    *,
    evalsets: Sequence[Path] = (),
    baseline: str | None = None,
    replies: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    output: Path | None = None,
) -> Plan:
    """Read what is small and check that it fits together.

    Args:
        task: Scores the replies.
        models: MODEL arguments; none when ``replies`` is given.
        evalsets: Gold sets; the task's first one when empty.
        baseline: A MODEL, or a file of replies, to compare with.
        replies: Stored replies to be scored.
        limit: Score only this many rows of each gold set, at least 1.
        seed: Of the resampling, and of the samples where the task's sampling is not greedy.
        output: Folder of the results.

    Raises:
        UsageError: When the task has no gold set and none is given.
        DataError: When a gold set or a file of replies is missing, malformed, or does not fit.
    """
    sets = tuple(read_evalset(path, limit) for path in evalsets or (_default_evalset(task),))
    examples = all_examples(sets)
    known = frozenset().union(*(evalset.ids for evalset in sets))
    if replies is not None:
        sources: tuple[Source, ...] = (_stored(replies, "replies.jsonl", examples, known),)
    elif len(models) == 1:
        sources = (Source(models[0], "replies.jsonl"),)
    else:
        sources = tuple(Source(model, f"replies.{number}.jsonl") for number, model in enumerate(models, start=1))
    beside = None
    if baseline is not None:
        path = Path(baseline)
        is_file = path.is_file() or path.suffix == ".jsonl"
        beside = _stored(path, "replies.baseline.jsonl", examples, known) if is_file else Source(baseline, "replies.baseline.jsonl")
    return Plan(task, sets, sources, beside, replace(task.sampling, seed=seed), seed, output)


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds results nobody said may be replaced.

    Raises:
        UsageError: When it does, or when it is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output '{folder}' is a file; give a folder")
    if (folder / REPORT).exists() and not overwrite:
        raise UsageError(f"'{folder}' already holds a report; add --overwrite to replace it, or give another folder with -o")


def _default_evalset(task: Task) -> Path:
    """The task's own gold set."""
    if not task.evalsets:
        raise UsageError(f"task '{task.name}' brings no evalset; give one with --evalset FILE")
    return next(iter(task.evalsets.values()))


def _stored(path: Path, file: str, examples: Sequence[Example], known: frozenset[str]) -> Source:
    """A file of replies that fits the gold sets."""
    if not path.is_file():
        raise DataError("no such file of replies", str(path))
    replies = read_replies(path)
    match(replies, examples, str(path), known)
    return Source(str(path), file, replies)
