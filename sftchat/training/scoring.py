"""Score the model in training exactly as ``sftchat eval`` scores its checkpoint: same renderer, engine, scorer and precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sftchat.errors import EngineError, first_line
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.evaluate import run, summarise
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.scored import Failure, Outcome, scored_items
from sftchat.inference.local import TransformersEngine
from sftchat.models.loading import Loaded, stop_ids
from sftchat.task import Task
from sftchat.templates.renderer import Renderer
from sftchat.training.packing import own_attention
from sftchat.types import Example


def score_model(model: Any, renderer: Renderer, task: Task, examples: Sequence[Example], title: str) -> ModelResult:
    """Generate and score replies with a model in memory; in a distributed run each process handles its shard and all get the full result.

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

    rank, world = _place()
    engine = TransformersEngine("the model in training", Loaded(model, renderer, stop_ids(model, renderer), None))
    with _answering(model), torch.random.fork_rng(devices=[]):
        outcomes = list(run(engine, task, examples[rank::world]))
    outcomes = _gathered(outcomes, world, len(examples))
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if len(failures) == len(outcomes):
        raise EngineError(f"no validation item was answered: {failures[0].error}")
    return summarise(engine.name, task, scored_items(outcomes), EvalsetIdentity(title, size=len(examples)))


@contextmanager
def _answering(model: Any) -> Iterator[None]:
    """Prepare the model as a loader would: eval mode, its own attention, the precision of its weights.

    accelerate's mixed precision wraps ``forward``; a loaded checkpoint has no such wrapper, so it is removed for the block.
    """
    training, wrapped = model.training, model.__dict__.get("forward")
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]  # peft freezes an adapter for inference
    plain = model.__dict__.get("_original_forward")
    model.eval()
    if plain is not None:
        model.forward = plain
    try:
        with own_attention(model):
            yield
    finally:
        if plain is not None:
            model.forward = wrapped
        model.train(training)
        for parameter in learning:
            parameter.requires_grad_(True)


def _place() -> tuple[int, int]:
    """Return the rank and the number of processes."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _gathered(outcomes: list[Outcome], world: int, count: int) -> list[Outcome]:
    """Gather the outcomes of all processes in example order."""
    if world == 1:
        return outcomes
    from torch import distributed

    parts: list[Any] = [None] * world
    try:
        distributed.all_gather_object(parts, outcomes)
    except RuntimeError as error:
        raise EngineError(f"the processes could not exchange their scores: {first_line(error)}") from error
    return [parts[place % world][place // world] for place in range(count)]
