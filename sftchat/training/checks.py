"""What is refused of a training from words and names of files alone, before rows are read and a model library is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftchat.data.row_options import AS_WRITTEN, RowOptions
from sftchat.data.tables import HUB
from sftchat.errors import UsageError
from sftchat.models.reference import ModelReference, resolve
from sftchat.plugins.manager import Registry
from sftchat.task import Task
from sftchat.training.config import configure
from sftchat.training.validation import from_file


def check_words(
    task: Task, model: str, given: Mapping[str, Any], validation: str | None, registry: Registry, rows_read: RowOptions = AS_WRITTEN
) -> ModelReference:
    """Refuse a model that cannot be trained, hyper-parameters out of range, and a validation file that is not there.

    Args:
        task: The task.
        model: The base model as MODEL.
        given: Hyper-parameters that the user set.
        validation: As of ``TrainingJob``.
        registry: The loaded plugins.
        rows_read: How its rows are read.

    Returns:
        Where the weights of the base model are.

    Raises:
        UsageError: A model that cannot be trained, an option out of range, options that contradict each other.
        DataError: A validation file that is not there.
    """
    reference = resolve(model, schemes=registry.engines)
    if reference.scheme:
        raise UsageError(f"model '{model}' is served by engine '{reference.scheme}' and cannot be trained here")
    if reference.base is not None:
        raise UsageError(f"model '{model}' is an adapter; merge it into its base before training on")
    config = configure(task, 0, given)
    if validation is not None:
        if not config.eval_steps:
            raise UsageError("--validation is scored every --eval-steps steps; give --eval-steps N")
        if validation != "-" and not validation.startswith(HUB):
            from_file(validation, config.validation_items, rows_read)
    return reference
