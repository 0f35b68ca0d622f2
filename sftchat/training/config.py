"""Training hyper-parameters: the user's values, completed from the task's and the program's defaults."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

from sftchat.data.row_options import DEFAULT_ROW_OPTIONS, RowOptions
from sftchat.data.tables import HUB
from sftchat.errors import SftchatWarning, UsageError
from sftchat.models.reference import ModelReference, resolve
from sftchat.task import Task, training_defaults
from sftchat.training.validation import validation_from_file

Method = Literal["full", "lora", "dora", "qlora"]
METHODS: tuple[Method, ...] = ("full", "lora", "dora", "qlora")
SMALL_MODEL = 50_000_000
"""Number of parameters below which the learning rates of small models apply."""


@dataclass(frozen=True)
class TrainingConfig:
    """All hyper-parameters of a training.

    Attributes:
        method: ``full`` trains all weights; ``lora`` a low-rank adapter (Hu et al. 2021) on all linear layers, ``dora`` one with magnitudes
            (Liu et al. 2024), ``qlora`` one over a 4-bit base (Dettmers et al. 2023).
        learning_rate: Peak learning rate of the optimizer.
        epochs: Passes over the rows; ignored when ``max_steps`` is set.
        max_steps: Optimiser steps, or 0 to use epochs.
        batch_size: Rows of one forward pass on one device.
        accumulation: Forward passes per optimiser step.
        max_length: Maximum row length in tokens; longer rows are dropped and counted.
        warmup: Share of the steps over which the learning rate rises from 0.
        schedule: Learning rate schedule after the warmup, by its transformers name.
        optimizer: Optimizer by its transformers name: ``adamw_torch_fused``, ``adafactor``, ``paged_adamw_8bit``, ….
        weight_decay: Weight decay of the optimizer.
        max_grad_norm: Norm to which gradients are clipped.
        lora_rank: Rank of the adapter.
        lora_alpha: Scale of the adapter; its output is multiplied by ``alpha / rank``.
        lora_dropout: Dropout on its input.
        neftune_alpha: Noise on the embeddings while training (Jain et al. 2023); 0 is none.
        train_on: ``assistant`` for a loss on assistant turns, ``all`` for a loss on every token.
        packing: ``on`` computes the rows of a batch as one, without padding and without attention between rows; ``off`` pads; ``auto`` packs on
            a CPU when a trial gives the same logits.
        precision: ``float32``, or ``bfloat16`` for mixed precision; ``auto`` decides by the processor and the model's width.
        gradient_checkpointing: Whether to recompute activations: less memory, slower.
        eval_steps: Steps between scorings of generated replies to the validation items; 0 never scores.
        validation_items: Number of validation items.
        patience: Number of scorings without improvement after which training ends; 0 never ends early.
        save_steps: Steps between checkpoints; 0 keeps only the final weights, and the best if scored.
        save_limit: Maximum number of checkpoints kept.
        logging_steps: Steps between reports of the loss.
        report_to: Trackers by their transformers names; ``tensorboard`` writes under ``RUN/runs``.
        seed: Seed of shuffling, initialisation and dropout.
        device: ``auto``, ``cpu``, ``cuda``, ….
    """

    method: Method = "full"
    learning_rate: float = 2e-5
    epochs: float = 3.0
    max_steps: int = 0
    batch_size: int = 16
    accumulation: int = 1
    max_length: int = 1024
    warmup: float = 0.05
    schedule: str = "cosine"
    optimizer: str = "adamw_torch_fused"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    neftune_alpha: float = 0.0
    train_on: str = "assistant"
    packing: str = "auto"
    precision: str = "auto"
    gradient_checkpointing: bool = False
    eval_steps: int = 0
    validation_items: int = 100
    patience: int = 0
    save_steps: int = 0
    save_limit: int = 2
    logging_steps: int = 10
    report_to: tuple[str, ...] = ()
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            UsageError: When a value is out of range; names the option, its value and what is allowed.
        """
        checks = (
            (self.method in METHODS, "method", f"one of {', '.join(METHODS)}"),
            (0 < self.learning_rate < inf, "learning_rate", "above 0"),
            (0 < self.epochs < inf, "epochs", "above 0"),
            (self.max_steps >= 0, "max_steps", "0 or more"),
            (self.batch_size >= 1, "batch_size", "at least 1"),
            (self.accumulation >= 1, "accumulation", "at least 1"),
            (self.max_length >= 8, "max_length", "at least 8"),
            (0 <= self.warmup < 1, "warmup", "a share from 0 up to 1"),
            (0 <= self.weight_decay < inf, "weight_decay", "0 or more"),
            (0 <= self.max_grad_norm < inf, "max_grad_norm", "0 or more"),
            (self.lora_rank >= 1, "lora_rank", "at least 1"),
            (self.lora_alpha >= 1, "lora_alpha", "at least 1"),
            (0 <= self.lora_dropout < 1, "lora_dropout", "a share from 0 up to 1"),
            (0 <= self.seed < 1 << 32, "seed", "from 0 to 4294967295"),
            (self.save_limit >= 1, "save_limit", "at least 1"),
            (self.logging_steps >= 1, "logging_steps", "at least 1"),
            (self.save_steps >= 0, "save_steps", "0 or more"),
            (self.eval_steps >= 0, "eval_steps", "0 or more"),
            (self.validation_items >= 1, "validation_items", "at least 1"),
            (self.patience >= 0, "patience", "0 or more"),
            (not self.patience or self.eval_steps > 0, "patience", "0 without --eval-steps: only what is scored can stop improving"),
            (0 <= self.neftune_alpha < inf, "neftune_alpha", "0 or more"),
            (self.train_on in ("assistant", "all"), "train_on", "assistant or all"),
            (self.packing in ("auto", "on", "off"), "packing", "auto, on or off"),
            (
                self.packing != "on" or not self.neftune_alpha,
                "packing",
                "auto or off with --neftune-alpha, whose noise depends on the length of a row",
            ),
            (self.precision in ("auto", "float32", "bfloat16"), "precision", "auto, float32 or bfloat16"),
        )
        for holds, name, allowed in checks:
            if not holds:
                raise UsageError(f"--{name.replace('_', '-')} is {getattr(self, name)}, must be {allowed}")


def configure(task: Task, parameters: int, hyperparameters: Mapping[str, Any]) -> TrainingConfig:
    """Complete a config: a value that the user did not set is the task's, or else a default that depends on method and model size.

    Args:
        task: Task whose trainer hook is called.
        parameters: Number of parameters of the base model.
        hyperparameters: Values set by the user; None counts as not set.
    """
    set_by_user = {key: value for key, value in hyperparameters.items() if value is not None}
    method = set_by_user.get("method", "full")
    is_small = parameters < SMALL_MODEL
    # LoRA needs about ten times the rate of full fine-tuning (Schulman et al. 2025, "LoRA without regret"); tiny models need more than large ones
    full_rate, adapter_rate = (1e-3, 5e-3) if is_small else (2e-5, 2e-4)
    defaults = TrainingConfig(method=method, learning_rate=full_rate if method == "full" else adapter_rate)
    task_defaults = training_defaults(task, method, parameters)
    from_task = {key: getattr(task_defaults, key) for key in ("learning_rate", "epochs", "batch_size", "max_length", "lora_rank")}
    set_by_task = {key: value for key, value in from_task.items() if value is not None}
    return replace(defaults, **{**set_by_task, **set_by_user})


def limit_to_context(length: int, context: int | None, requested: int | None) -> int:
    """Return the maximum length of a training row in tokens, limited to the model's context length.

    Args:
        length: Maximum length from the settings.
        context: Context length of the model; None for no limit.
        requested: Maximum length given by the user, None if not given. One above the context length causes a warning.
    """
    if not context or length <= context:
        return length
    if requested is not None:
        warnings.warn(
            f"--max-length {requested} is more than the {context} tokens of the model's context; rows of up to {context} tokens are used",
            SftchatWarning,
            stacklevel=3,
        )
    return context


def check_options(
    task: Task,
    model: str,
    hyperparameters: Mapping[str, Any],
    validation: str | None,
    *,
    row_options: RowOptions = DEFAULT_ROW_OPTIONS,
    engine_types: Collection[str] = (),
) -> ModelReference:
    """Refuse a model that cannot be trained, hyper-parameters out of range, and a missing validation file.

    Args:
        task: The task.
        model: The base model as MODEL.
        hyperparameters: Hyper-parameters set by the user.
        validation: As in ``TrainingJob``.
        row_options: Options for reading its rows.
        engine_types: Schemes of the installed engines, whose models cannot be trained here.

    Returns:
        Reference to the weights of the base model; to a GGUF file as such.

    Raises:
        UsageError: When the model cannot be trained, or an option is out of range or contradicts another.
        ModelError: When it is a GGUF file that cannot be dequantized.
        DataError: When the validation file is missing.
    """
    reference = resolve(model, schemes=engine_types)
    if reference.is_gguf:
        _check_gguf(reference)
    elif reference.scheme:
        raise UsageError(f"model '{model}' is served by engine '{reference.scheme}' and cannot be trained here")
    if reference.base is not None:
        raise UsageError(f"model '{model}' is an adapter; merge it into its base before training on")
    config = configure(task, 0, hyperparameters)
    if validation is not None:
        if not config.eval_steps:
            raise UsageError("--validation is scored every --eval-steps steps; give --eval-steps N")
        if validation != "-" and not validation.startswith(HUB):
            validation_from_file(validation, config.validation_items, row_options)
    return reference


def _check_gguf(reference: ModelReference) -> None:
    """Refuse a GGUF file that cannot be dequantized; one on the Hub that is not in the local cache is checked after its download."""
    from sftchat.models.gguf import read_header, require_gguf
    from sftchat.models.gguf_config import check_convertible
    from sftchat.models.local_files import cached_gguf_file

    require_gguf(f"training '{reference.text}'")
    path = cached_gguf_file(reference)
    if path is not None:
        check_convertible(read_header(path))
