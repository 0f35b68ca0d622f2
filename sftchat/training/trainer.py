"""TRL's SFTTrainer on our rows, with the language-model head computed where there is a label and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from sftchat.models.templates import IGNORED
from sftchat.training.batches import SimilarLengths
from sftchat.training.config import TrainingConfig
from sftchat.training.dataset import RenderedRows

WIDTH = 32
"""Batches are padded to a multiple of this. oneDNN compiles a matrix product anew for every shape it meets, which on a CPU cost more
than the padding: measured with rows of 105 tokens on average, 4,400 tokens/s unpadded, 7,500 (padding included) at 32."""


def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Pad rows on the right, without an attention mask.

    A causal model's real positions never see what stands to their right, so no mask is needed, and attention without a mask takes the fast kernel.
    Padding is token 0, which has no label.
    """
    width = -(-max(len(row["input_ids"]) for row in rows) // WIDTH) * WIDTH

    def padded(key: str, value: int) -> Tensor:
        return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in rows])

    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", IGNORED)}


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose loss is the mean over labelled positions, the head being applied to those alone.

    TRL 1.16 does so on CUDA only: on a CPU its fused head runs over every position, masked or not. Selecting the hidden states in front of the output
    embedding works for every causal model of transformers, whatever it does to its logits afterwards.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._labelled: Tensor | None = None
        self.accelerator.unwrap_model(self.model).get_output_embeddings().register_forward_pre_hook(self._select)

    def _get_train_sampler(self, train_dataset: Any = None) -> SimilarLengths:
        """Batches of similar lengths; every process of a distributed run takes its share of the same order."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        return SimilarLengths([len(ids) for ids in rows["input_ids"]], self.args.train_batch_size, self.args.seed)

    def _select(self, _module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Keep the hidden states that predict a labelled token, as one row."""
        if self._labelled is None:
            return None
        return (inputs[0][self._labelled][None],)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Cross entropy over the labelled positions of the batch, divided by those of the whole accumulated batch."""
        labels = inputs["labels"]
        following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        self._labelled = following != IGNORED
        try:
            rest = {key: value for key, value in inputs.items() if key != "labels"}
            outputs = model(**rest, use_cache=False)
        finally:
            labelled, self._labelled = self._labelled, None
        total = torch.nn.functional.cross_entropy(outputs.logits[0].float(), following[labelled], reduction="sum")
        count = num_items_in_batch if num_items_in_batch is not None else labelled.sum().clamp(min=1)
        loss = total / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def arguments(config: TrainingConfig, output: str, precision: str, device: str) -> SFTConfig:
    """TRL's configuration for ours, with every default that would surprise set outright.

    Args:
        config: Our configuration.
        output: Folder for checkpoints.
        precision: ``float32`` or ``bfloat16``, decided.
        device: ``cpu`` or an accelerator, decided.
    """
    return SFTConfig(
        output_dir=output,
        use_cpu=device == "cpu",
        bf16=precision == "bfloat16",
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        activation_checkpointing=config.gradient_checkpointing,
        save_strategy="steps" if config.save_steps else "no",
        save_steps=config.save_steps or 500,
        save_total_limit=config.save_limit,
        logging_steps=config.logging_steps,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        seed=config.seed,
        data_seed=config.seed,
    )


def table(rows: RenderedRows) -> Any:
    """The rows as a ``datasets.Dataset``."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [list(row) for row in rows.ids], "labels": [list(row) for row in rows.labels]})
