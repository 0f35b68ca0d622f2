"""TRL's SFTTrainer on our rows: packed batches, the head where there is a label, the task's score as its evaluation, checkpoints whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from sftchat._util.fallback import report_fallback
from sftchat.inference.memory import is_out_of_memory
from sftchat.templates.renderer import IGNORED
from sftchat.training.checkpoints import UNFINISHED
from sftchat.training.config import TrainingConfig
from sftchat.training.dataset import RenderedRows
from sftchat.training.packing import Layout, SimilarLengths, pack
from sftchat.training.trimming import SkipLastMlp

PADDING_MULTIPLE = 32
"""Batches are padded to a multiple of this. oneDNN compiles a matrix product anew for every shape it meets, which on a CPU cost more
than the padding: measured with rows of 105 tokens on average, 4,400 tokens/s unpadded, 7,500 (padding included) at 32."""


def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Pad rows on the right, without an attention mask.

    A causal model's real positions never see what stands to their right, so no mask is needed, and attention without a mask takes the fast kernel.
    Padding is token 0, which has no label.
    """
    width = -(-max(len(row["input_ids"]) for row in rows) // PADDING_MULTIPLE) * PADDING_MULTIPLE

    def padded(key: str, value: int) -> Tensor:
        return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in rows])

    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", IGNORED), "lengths": lengths}


@dataclass(frozen=True)
class Hooks:
    """What the trainer calls while it runs.

    Attributes:
        score: Scores the model at a step and returns the values to be logged, and whether they are the best so far.
        complete: Writes what else belongs into a checkpoint's folder, the manifest last.
        prune: Deletes checkpoints that are no longer kept, after a new one got its name.
        smaller: Told how many rows are computed at once after memory ran out.
    """

    score: Callable[[int], tuple[dict[str, float], bool]] | None = None
    complete: Callable[[Path, int], None] = lambda folder, step: None
    prune: Callable[[Path], None] = lambda run: None
    smaller: Callable[[int], None] = lambda rows: None


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose loss is the mean over labelled positions, the head being applied to those alone.

    TRL 1.16 does so on CUDA only: on a CPU its fused head runs over every position, masked or not. Selecting the hidden states in front of the output
    embedding works for every causal model of transformers, whatever it does to its logits afterwards.

    Args:
        packed: Whether the model takes a batch as one row (``training.attention``).
        in_order: Take the rows as they come instead of shuffled.
        hooks: What to call.
        rest: As of ``SFTTrainer``.
    """

    def __init__(self, *, packed: bool = False, in_order: bool = False, hooks: Hooks | None = None, **rest: Any) -> None:
        super().__init__(**rest)
        self._packed, self._in_order, self._hooks = packed, in_order, hooks or Hooks()
        self.control: Any = self.control
        self._labelled: Tensor | None = None
        # layers that are computed again for their gradients would be computed whole then
        self._trimming = None if self.args.activation_checkpointing else SkipLastMlp(self.model)
        self._pieces, self._again = 1, False
        self._completed = -1
        for callback in [one for one in self.callback_handler.callbacks if type(one).__name__ == "PrinterCallback"]:
            self.remove_callback(callback)  # it prints dictionaries; ours reports progress
        self.add_callback(_CompleteInPlace(self))
        self._done: list[dict[str, Any]] = []
        self.accelerator.unwrap_model(self.model).get_output_embeddings().register_forward_pre_hook(self._select)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Batches of similar lengths; every process of a distributed run takes its share of the same order."""
        if self._in_order:
            return None
        rows = self.train_dataset if train_dataset is None else train_dataset
        size = self.args.train_batch_size * self.args.world_size
        return SimilarLengths([len(ids) for ids in rows["input_ids"]], size, self.args.seed)

    def _set_signature_columns_if_needed(self) -> None:
        """The columns of our rows; nothing is removed."""
        self._signature_columns = ["input_ids", "labels"]

    def _select(self, _module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Keep the hidden states that predict a labelled token, as one row."""
        if self._labelled is None:
            return None
        return (inputs[0].flatten(0, 1)[self._labelled][None],)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Cross entropy over the labelled positions of the batch, divided by those of the whole accumulated batch."""
        batch, self._labelled, targets = self._arranged(inputs)
        try:
            with self._trimming.at(self._labelled) if self._trimming else nullcontext():
                outputs = model(**batch, use_cache=False)
        finally:
            self._labelled = None
        total = torch.nn.functional.cross_entropy(outputs.logits[0].float(), targets, reduction="sum")
        count = num_items_in_batch if num_items_in_batch is not None else max(1, targets.numel())
        loss = total / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _arranged(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], Tensor, Tensor]:
        """What the model is given, the places that predict a labelled token, counted through the batch, and those tokens."""
        if self._packed:
            layout: Layout = pack(inputs["input_ids"], inputs["labels"], inputs["lengths"])
            return {"input_ids": layout.ids, "position_ids": layout.positions, "layout": layout}, layout.labelled, layout.targets
        following = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
        labelled = (following != IGNORED).nonzero().flatten()
        return {"input_ids": inputs["input_ids"]}, labelled, following[labelled]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The micro-batches of one optimiser step; remembered one by one as they are done, see ``training_step``."""
        self._done = []
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward; when memory runs out, with half as many rows at once until it fits, the effective batch unchanged.

        What failed may have left a part of its gradients, so all gradients of this optimiser step are computed again.

        Raises:
            RuntimeError: When one row alone does not fit, or in a run of several processes, whose steps must stay alike.
        """
        while True:
            try:
                todo = [*self._done, inputs] if self._again else [inputs]
                losses = [self._in_pieces(model, batch, num_items_in_batch) for batch in todo]
                self._again = False
                self._done.append(inputs)
                return losses[-1]
            except (RuntimeError, MemoryError) as error:
                rows = -(-len(inputs["lengths"]) // self._pieces)
                if not is_out_of_memory(error) or rows == 1 or self.args.world_size > 1:
                    raise
            # outside of the handler: its traceback would keep the tensors of the failed step alive
            self._pieces *= 2
            self._again = True
            model.zero_grad()
            if torch.accelerator.is_available():
                torch.accelerator.empty_cache()
            self._hooks.smaller(-(-rows // 2))

    def _in_pieces(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> Tensor:
        """One micro-batch, a part of its rows at a time; the losses are sums over the same count, so they and their gradients add up."""
        size = -(-len(inputs["lengths"]) // self._pieces)
        parts = [{key: value[at : at + size] for key, value in inputs.items()} for at in range(0, len(inputs["lengths"]), size)]
        losses = [super(Trainer, self).training_step(model, part, num_items_in_batch) for part in parts]
        return torch.stack(losses).sum()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: nobody reads it, and counting goes through all parameters at every step."""
        return 0

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The task's score of generated replies, in place of a loss; a checkpoint is saved whenever it is the best."""
        if self._hooks.score is None:
            return {}
        values, best = self._hooks.score(self.state.global_step)
        metrics = {f"eval_{name}": value for name, value in values.items()}
        self.model.eval()
        self.log(dict(metrics))
        self.model.train()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.control.should_save |= best and self.state.global_step > 0
        return metrics

    def _get_output_dir(self, trial: Any) -> str:
        """Checkpoints are begun in a folder of their own."""
        return str(Path(super()._get_output_dir(trial)) / UNFINISHED)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint aside, complete it, and give it its name at the end: a kill at any moment leaves it whole or unnamed."""
        import shutil

        name, run = f"checkpoint-{self.state.global_step}", Path(self.args.output_dir)
        begun = run / UNFINISHED / name
        if self.args.should_save:
            shutil.rmtree(begun, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        super(SFTTrainer, self)._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if begun.is_dir():
                self._hooks.complete(begun, self.state.global_step)
                shutil.rmtree(run / name, ignore_errors=True)
                begun.rename(run / name)
                self._completed = self.state.global_step
            shutil.rmtree(run / UNFINISHED, ignore_errors=True)
            if self._completed == self.state.global_step:
                self._hooks.prune(run)
        self.accelerator.wait_for_everyone()

    def complete_in_place(self) -> None:
        """Complete a checkpoint that the library has written under its own name, past ``_save_checkpoint`` or ``_get_output_dir``."""
        step, run = self.state.global_step, Path(self.args.output_dir)
        if self._completed == step or not self.args.should_save or not (run / f"checkpoint-{step}").is_dir():
            return
        report_fallback(
            "writing checkpoints aside", "transformers saves them in another way; a kill while one is written leaves it incomplete"
        )
        self._hooks.complete(run / f"checkpoint-{step}", step)
        self._completed = step
        self._hooks.prune(run)


class _CompleteInPlace(TrainerCallback):  # type: ignore[misc]
    """Sees to it that every checkpoint is complete, also where a newer library does not call what ``Trainer`` overrides."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Complete what has just been saved, unless it is."""
        self._trainer.complete_in_place()


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
        optim=config.optimizer,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        neftune_noise_alpha=config.neftune_alpha or None,
        activation_checkpointing=config.gradient_checkpointing,
        eval_on_start=config.eval_steps > 0,
        save_strategy="steps" if config.save_steps else "no",
        save_steps=config.save_steps or 500,
        save_total_limit=None,
        logging_steps=config.logging_steps,
        report_to=list(config.report_to) or "none",
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
