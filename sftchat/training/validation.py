"""Validation during training: the items, the scores of a model in memory, and their history with the best step and early stopping.

A model is scored exactly as ``sftchat eval`` scores its checkpoint: same renderer, engine, scorer and precision.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from sftchat.data.formats import assign_ids, examples_hash, read_examples
from sftchat.data.generate import generate_examples
from sftchat.data.row_options import DEFAULT_ROW_OPTIONS, RowOptions
from sftchat.data.serialize import serialize
from sftchat.data.write import write_rows
from sftchat.errors import DataError, EngineError, first_line
from sftchat.evaluation.evalset import EvalsetIdentity, check_examples
from sftchat.evaluation.evaluate import generate_outcomes, summarise
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.scored import Failure, Outcome, collect_outcomes
from sftchat.models.loading import Loaded, stop_ids
from sftchat.task import Task
from sftchat.templates.renderer import Renderer
from sftchat.types import Example


@dataclass(frozen=True)
class ValidationHistory:
    """Scores by step; step 0 is the base model.

    Attributes:
        metric: Primary metric, which selects the best step.
        higher_is_better: Direction of the primary metric; False for error rates.
        scores: Every metric of the task by step.
    """

    metric: str
    higher_is_better: bool = True
    scores: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def add(self, step: int, values: Mapping[str, float]) -> ValidationHistory:
        """Return the history with the scores of one step added, or replaced when a resumed run scores it again."""
        return replace(self, scores={**self.scores, step: dict(values)})

    def value(self, step: int) -> float:
        """Return the primary metric at a step."""
        return self.scores[step][self.metric]

    @property
    def trained_steps(self) -> tuple[int, ...]:
        """The scored steps after the base model, in order."""
        return tuple(sorted(step for step in self.scores if step > 0))

    @property
    def best_step(self) -> int | None:
        """The best step after the base model, the earliest among ties; None before the first scoring."""
        sign = 1 if self.higher_is_better else -1
        return max(self.trained_steps, key=lambda step: (sign * self.value(step), -step), default=None)

    def has_stalled(self, patience: int) -> bool:
        """Return whether the last ``patience`` scorings brought no improvement; False with a patience of 0."""
        scorings_since_best = sum(step > (self.best_step or 0) for step in self.trained_steps)
        return patience > 0 and scorings_since_best >= patience

    def as_manifest(self) -> dict[str, dict[str, float]]:
        """Return the scores as stored in a manifest: step numbers as strings, in order."""
        return {str(step): dict(self.scores[step]) for step in sorted(self.scores)}


def read_history(metric: str, higher_is_better: bool, scores: Mapping[str, Mapping[str, float]]) -> ValidationHistory:
    """Read the history from a manifest's scores."""
    return ValidationHistory(metric, higher_is_better, {int(step): dict(values) for step, values in scores.items()})


VALIDATION_FILE = "validation.jsonl"
"""Name of a run's file of validation items, an evalset for ``sftchat eval --evalset``."""
ROWS_PER_VALIDATION_ROW = 5
"""At most one row in this many is split off from training."""


@dataclass(frozen=True)
class Validation:
    """Validation items.

    Attributes:
        examples: Examples with ids and gold replies.
        source: Description of their source.
    """

    examples: tuple[Example, ...]
    source: str

    @property
    def hash(self) -> str:
        """SHA-256 of prompts and gold replies, in order."""
        return examples_hash(self.examples)

    def write(self, run: Path) -> Path:
        """Write the items to the run folder."""
        path = run / VALIDATION_FILE
        write_rows(path, (serialize(example, "evalset") for example in self.examples), overwrite=True)
        return path


def validation_from_file(name: str, items: int, row_options: RowOptions = DEFAULT_ROW_OPTIONS) -> Validation:
    """Read the first rows of a file or of a data set on the Hub, like ``sftchat eval --limit``.

    Raises:
        DataError: When it cannot be used, or a row has no gold reply.
    """
    examples = tuple(islice(assign_ids(read_examples(name, row_options)), items))
    if not examples:
        raise DataError("the validation file has no rows", name)
    check_examples(examples)
    return Validation(examples, f"the first {len(examples)} rows of {Path(name).name if Path(name).is_file() else name}")


def validation_from_rows(examples: Sequence[Example], items: int, seed: int) -> tuple[list[Example], Validation]:
    """Split a random sample off from the training rows; return the remaining rows, in their order, and the sample.

    Rows with the same prompt as a sampled item are removed too, so that no scored item is trained on.

    Raises:
        DataError: When there are too few rows.
    """
    scorable = [index for index, example in enumerate(examples) if example.messages and example.gold is not None]
    count = min(items, len(scorable) // ROWS_PER_VALIDATION_ROW)
    if count == 0:
        raise DataError(f"{len(scorable)} rows are too few to keep some for validation; give --validation FILE, or --eval-steps 0")
    picked = sorted(Random(f"validation-{seed}").sample(scorable, count))
    index_by_prompt = {examples[index].messages[-1]["content"]: index for index in picked}  # of rows with the same prompt, only the last
    sample = [examples[index] for index in sorted(index_by_prompt.values())]
    remaining = _without_prompts(examples, index_by_prompt)
    if not remaining:
        raise DataError("all rows have the same prompt; give --validation FILE, or --eval-steps 0")
    numbered = tuple(replace(example, id=f"validation-{number}") for number, example in enumerate(sample, 1))
    return remaining, Validation(numbered, f"{len(numbered)} rows kept from training")


def validation_from_generator(
    task: Task, examples: Sequence[Example], items: int, seed: int, options: dict[str, Any]
) -> tuple[list[Example], Validation]:
    """Generate items with the options of the task's first held-out set, if it has one, and another seed than that of the training rows.

    Args:
        task: Task whose demonstration may name the options of held-out sets.
        examples: Training rows; those with the prompt of an item are removed.
        items: Number of items.
        seed: Seed of the training rows.
        options: Generator options of the training rows.

    Returns:
        The remaining training rows, and the items.

    Raises:
        DataError: When no training row remains.
    """
    held_out_sets = task.demonstration.held_out if task.demonstration else {}
    title, held_out_options = next(iter(held_out_sets.items()), ("another seed", {}))
    generated = tuple(assign_ids(generate_examples(task, items, seed + 1_000_003, {**options, **held_out_options})))
    check_examples(generated)
    remaining = _without_prompts(examples, {example.messages[-1]["content"] for example in generated})
    if not remaining:
        raise DataError(f"the generator of task '{task.name}' has no other rows to validate on; give --validation FILE, or --eval-steps 0")
    return remaining, Validation(generated, f"{len(generated)} generated items: {title}")


def _without_prompts(examples: Sequence[Example], prompts: Container[str]) -> list[Example]:
    return [example for example in examples if not example.messages or example.messages[-1]["content"] not in prompts]


def score_model(model: Any, renderer: Renderer, task: Task, examples: Sequence[Example], title: str) -> ModelResult:
    """Generate and score replies with a model in memory; in a distributed run, each process generates a part and returns the full result.

    Args:
        model: The model without the wrapper of a distributed run.
        renderer: Tokenizer and template.
        task: Task with the scorer.
        examples: Examples with ids and gold replies.
        title: Name of the evalset in the result.

    Raises:
        EngineError: When no item was answered.
        PluginError: When the task's scorer breaks its contract.
    """
    import torch

    from sftchat.inference.local import TransformersEngine

    rank, world = _rank_and_world_size()
    engine = TransformersEngine("the model in training", Loaded(model, renderer, stop_ids(model, renderer), None))
    with _generation_mode(model), torch.random.fork_rng(devices=[]):
        outcomes = list(generate_outcomes(engine, task, examples[rank::world]))
    outcomes = _gather_outcomes(outcomes, world, len(examples))
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if len(failures) == len(outcomes):
        raise EngineError(f"no validation item was answered: {failures[0].error}")
    return summarise(engine.name, task, collect_outcomes(outcomes), EvalsetIdentity(title, size=len(examples)))


@contextmanager
def _generation_mode(model: Any) -> Iterator[None]:
    """Within the block, make a model in training behave like its loaded checkpoint: eval mode, its own attention, the precision of its weights.

    accelerate's mixed precision wraps ``forward``; a loaded checkpoint has no such wrapper, so the wrapper is removed.
    """
    from sftchat.training.packing import original_attention

    was_training, wrapped_forward = model.training, model.__dict__.get("forward")
    # remembered because the engine makes peft freeze an adapter
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    original_forward = model.__dict__.get("_original_forward")
    model.eval()
    if original_forward is not None:
        model.forward = original_forward
    try:
        with original_attention(model):
            yield
    finally:
        if original_forward is not None:
            model.forward = wrapped_forward
        model.train(was_training)
        for parameter in trainable:
            parameter.requires_grad_(True)


def _rank_and_world_size() -> tuple[int, int]:
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _gather_outcomes(outcomes: list[Outcome], world: int, count: int) -> list[Outcome]:
    """Gather the outcomes of all processes in example order."""
    if world == 1:
        return outcomes
    from torch import distributed

    parts: list[Any] = [None] * world
    try:
        distributed.all_gather_object(parts, outcomes)
    except RuntimeError as error:
        raise EngineError(f"the processes could not exchange their scores: {first_line(error)}") from error
    return [parts[index % world][index // world] for index in range(count)]
