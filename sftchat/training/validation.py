"""The task's own metric over the steps of a training: which step is best, and when to stop."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from sftchat.data.formats import examples_hash, read_examples, with_ids
from sftchat.data.generate import generate_examples
from sftchat.data.row_options import AS_WRITTEN, RowOptions
from sftchat.data.serialize import serialize
from sftchat.data.write import write_rows
from sftchat.errors import DataError
from sftchat.evaluation.evalset import check_examples
from sftchat.task import Task
from sftchat.types import Example


@dataclass(frozen=True)
class ValidationHistory:
    """Scores by step; step 0 is the base model.

    Attributes:
        metric: The primary metric, which decides.
        higher_is_better: False for error rates.
        scores: Every metric of the task by step.
    """

    metric: str
    higher_is_better: bool = True
    scores: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def add(self, step: int, values: Mapping[str, float]) -> ValidationHistory:
        """The curve with one step more; a step that is scored again, as after a resumption, is replaced."""
        return replace(self, scores={**self.scores, step: dict(values)})

    def value(self, step: int) -> float:
        """The primary metric at a step."""
        return self.scores[step][self.metric]

    @property
    def trained(self) -> tuple[int, ...]:
        """The steps scored after the base model, in order."""
        return tuple(sorted(step for step in self.scores if step > 0))

    @property
    def best(self) -> int | None:
        """The best of the trained steps, the earliest of those that tie; None before the first."""
        sign = 1 if self.higher_is_better else -1
        return max(self.trained, key=lambda step: (sign * self.value(step), -step), default=None)

    @property
    def helped(self) -> bool:
        """Whether the best step is better than the base model; so where there is nothing to compare."""
        if self.best is None or 0 not in self.scores:
            return True
        return (self.value(self.best) > self.value(0)) == self.higher_is_better and self.value(self.best) != self.value(0)

    def stalled(self, patience: int) -> bool:
        """Whether the last ``patience`` scorings brought nothing better; never with a patience of 0."""
        since = sum(step > (self.best or 0) for step in self.trained)
        return patience > 0 and since >= patience

    def as_manifest(self) -> dict[str, dict[str, float]]:
        """The scores as a manifest holds them: steps as text, in order."""
        return {str(step): dict(self.scores[step]) for step in sorted(self.scores)}


def read_curve(metric: str, higher_is_better: bool, scores: Mapping[str, Mapping[str, float]]) -> ValidationHistory:
    """The curve of a manifest."""
    return ValidationHistory(metric, higher_is_better, {int(step): dict(values) for step, values in scores.items()})


FILE = "validation.jsonl"
"""Where a run keeps them, as an evalset that ``sftchat eval --evalset`` reads."""
ROWS_PER_VALIDATION_ROW = 5
"""At most one row in so many is taken away from training."""


@dataclass(frozen=True)
class Validation:
    """Items to score.

    Attributes:
        examples: With ids and gold replies.
        source: Where they come from, in words.
    """

    examples: tuple[Example, ...]
    source: str

    @property
    def hash(self) -> str:
        """SHA-256 of prompts and gold replies, in order."""
        return examples_hash(self.examples)

    def write(self, run: Path) -> Path:
        """Keep the items in the run's folder."""
        path = run / FILE
        write_rows(path, (serialize(example, "evalset") for example in self.examples), overwrite=True)
        return path


def from_file(name: str, items: int, rows_read: RowOptions = AS_WRITTEN) -> Validation:
    """The first rows of a file, or of a data set on the Hub, as ``sftchat eval --limit`` takes them.

    Raises:
        DataError: When it cannot be used, or a row has no gold reply.
    """
    examples = tuple(islice(with_ids(read_examples(name, rows_read)), items))
    if not examples:
        raise DataError("the validation file has no rows", name)
    check_examples(examples)
    return Validation(examples, f"the first {len(examples)} rows of {Path(name).name if Path(name).is_file() else name}")


def from_rows(examples: Sequence[Example], items: int, seed: int) -> tuple[list[Example], Validation]:
    """Take a random slice out of the training rows; returns the rows that are left, in their order, and the slice.

    Rows with the prompt of an item that was taken go with it, so that nothing scored was trained on.

    Raises:
        DataError: When there are too few rows to spare any.
    """
    places = [place for place, example in enumerate(examples) if example.messages and example.gold is not None]
    count = min(items, len(places) // ROWS_PER_VALIDATION_ROW)
    if count == 0:
        raise DataError(f"{len(places)} rows are too few to keep some for validation; give --validation FILE, or --eval-steps 0")
    taken = {examples[place].messages[-1]["content"]: place for place in sorted(Random(f"validation-{seed}").sample(places, count))}
    chosen = [examples[place] for place in sorted(taken.values())]
    left = _without(examples, taken)
    if not left:
        raise DataError("all rows have the same prompt; give --validation FILE, or --eval-steps 0")
    kept = tuple(replace(example, id=f"validation-{number}") for number, example in enumerate(chosen, 1))
    return left, Validation(kept, f"{len(kept)} rows kept from training")


def from_generator(
    task: Task, examples: Sequence[Example], items: int, seed: int, options: dict[str, Any]
) -> tuple[list[Example], Validation]:
    """Draw items that the task's generator holds back from training where it says how, else new rows of another seed.

    Args:
        task: Whose demonstration may name the options of a held-out set.
        examples: The training rows; those with the prompt of an item are left out.
        items: How many.
        seed: Of the training rows.
        options: Options of the generator that were given for them.
    """
    held_out = next(iter(task.demonstration.held_out.items()), None) if task.demonstration else None
    title, more = held_out if held_out else ("another seed", {})
    drawn = tuple(with_ids(generate_examples(task, items, seed + 1_000_003, {**options, **more})))
    check_examples(drawn)
    left = _without(examples, {example.messages[-1]["content"] for example in drawn})
    if not left:
        raise DataError(f"the generator of task '{task.name}' has no other rows to validate on; give --validation FILE, or --eval-steps 0")
    return left, Validation(drawn, f"{len(drawn)} generated items: {title}")


def _without(examples: Sequence[Example], prompts: Container[str]) -> list[Example]:
    """The rows that ask something else."""
    return [example for example in examples if not example.messages or example.messages[-1]["content"] not in prompts]
