"""TRL's SFTTrainer for rendered rows: packed batches, output head on labelled positions only, the task's scorer as evaluation, atomic checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from sftchat._util.fallback import report_fallback
from sftchat.inference.kv_cache import is_out_of_memory
from sftchat.models.loading import unwrapped
from sftchat.templates.renderer import IGNORED
from sftchat.training.checkpoints import UNFINISHED
from sftchat.training.config import TrainingConfig
from sftchat.training.packing import Layout, SimilarLengths, pack_batch
from sftchat.training.rows import RenderedRows

PADDING_MULTIPLE = 32
"""Batches are padded to a multiple of this length. On a CPU, oneDNN compiles a matrix product for every new shape, which costs more than padding:
with rows of 105 tokens on average, 4,400 tokens/s without padding to a multiple, 7,500 (padding included) at 32.
"""


def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Pad rows on the right, without an attention mask.

    In a causal model, real positions never attend to padding on their right, so no mask is needed, and attention without a mask uses the fast
    kernel. Padding is token 0 without a label.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    width = ceil(max(lengths) / PADDING_MULTIPLE) * PADDING_MULTIPLE

    def pad(key: str, value: int) -> Tensor:
        return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in rows])

    return {"input_ids": pad("input_ids", 0), "labels": pad("labels", IGNORED), "lengths": torch.tensor(lengths)}


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the trainer.

    Attributes:
        score: Scores the model at a step; returns the values to log, and whether the step is the best so far.
        complete: Writes the remaining files into a checkpoint's folder, the manifest last; called with the folder and its step.
        after_checkpoint: Called with the run folder after a new checkpoint is complete.
        on_smaller_batch: Called with the new number of rows per forward pass after memory ran out.
    """

    score: Callable[[int], tuple[dict[str, float], bool]] | None = None
    complete: Callable[[Path, int], None] = lambda folder, step: None
    after_checkpoint: Callable[[Path], None] = lambda run: None
    on_smaller_batch: Callable[[int], None] = lambda rows: None


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with the mean loss over labelled positions; the output head runs on those alone.

    TRL 1.16 does so on CUDA only; on a CPU its fused head runs over every position, labelled or not. This class selects the hidden states before the
    output embedding, which works for every causal model of transformers, however it post-processes its logits.

    Args:
        packed: Whether the model takes a batch as one long row (``training.packing``).
        in_order: Whether to keep the order of the rows instead of shuffling.
        hooks: Callbacks.
        arguments: Arguments of ``SFTTrainer``.
    """

    def __init__(self, *, packed: bool = False, in_order: bool = False, hooks: Hooks | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._packed, self._in_order, self._hooks = packed, in_order, hooks or Hooks()
        self.control: Any = self.control
        self._labelled: Tensor | None = None
        # with activation checkpointing, the backward pass recomputes all positions, outside ``compute_loss``
        self._last_mlp = None if self.args.activation_checkpointing else SkipLastMlp(self.model)
        self._parts_per_batch, self._redo_step = 1, False
        self._finished_batches: list[dict[str, Any]] = []
        self._completed_step = -1
        printers = [callback for callback in self.callback_handler.callbacks if type(callback).__name__ == "PrinterCallback"]
        for callback in printers:
            self.remove_callback(callback)  # it prints dictionaries; ProgressReporter shows progress instead
        self.add_callback(_CompleteInPlace(self))
        self.accelerator.unwrap_model(self.model).get_output_embeddings().register_forward_pre_hook(self._select_labelled)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Return a sampler of batches with similar lengths; the processes of a distributed run share one order."""
        if self._in_order:
            return None
        rows = self.train_dataset if train_dataset is None else train_dataset
        size = self.args.train_batch_size * self.args.world_size
        return SimilarLengths([len(ids) for ids in rows["input_ids"]], size, self.args.seed)

    def _set_signature_columns_if_needed(self) -> None:
        """Name the columns of the rows, so that none is removed."""
        self._signature_columns = ["input_ids", "labels"]

    def _select_labelled(self, _module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Keep only the hidden states that predict a labelled token, as one row; None, outside ``compute_loss``, keeps all."""
        if self._labelled is None:
            return None
        return (inputs[0].flatten(0, 1)[self._labelled][None],)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Return the summed cross entropy over the batch's labelled positions, divided by their number in the whole accumulated batch."""
        model_inputs, self._labelled, targets = self._model_inputs(inputs)
        try:
            with self._last_mlp.only_at(self._labelled) if self._last_mlp else nullcontext():
                outputs = model(**model_inputs, use_cache=False)
        finally:
            self._labelled = None
        loss_sum = torch.nn.functional.cross_entropy(outputs.logits[0].float(), targets, reduction="sum")
        loss = loss_sum / (num_items_in_batch if num_items_in_batch is not None else max(1, targets.numel()))
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _model_inputs(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], Tensor, Tensor]:
        """Return the model inputs, the flattened positions that predict a labelled token, and those tokens."""
        if self._packed:
            layout: Layout = pack_batch(inputs["input_ids"], inputs["labels"], inputs["lengths"])
            return {"input_ids": layout.ids, "position_ids": layout.positions, "layout": layout}, layout.labelled, layout.targets
        next_labels = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
        labelled = (next_labels != IGNORED).nonzero().flatten()
        return {"input_ids": inputs["input_ids"]}, labelled, next_labels[labelled]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Return the micro-batches of one optimiser step, none of which is finished yet."""
        self._finished_batches = []
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Run forward and backward; when memory runs out, halve the rows per pass until it fits, with an unchanged effective batch.

        A failed pass may have added part of its gradients, so all gradients of this optimiser step are computed again.

        Raises:
            RuntimeError: When a single row does not fit, or in a distributed run, whose processes must run the same steps.
        """
        while True:
            try:
                batches = [*self._finished_batches, inputs] if self._redo_step else [inputs]
                losses = [self._step_in_parts(model, batch, num_items_in_batch) for batch in batches]
                self._redo_step = False
                self._finished_batches.append(inputs)
                return losses[-1]
            except (RuntimeError, MemoryError) as error:
                rows_per_part = ceil(len(inputs["lengths"]) / self._parts_per_batch)
                if not is_out_of_memory(error) or rows_per_part == 1 or self.args.world_size > 1:
                    raise
            # outside the handler: its traceback would keep the tensors of the failed step alive
            self._parts_per_batch *= 2
            self._redo_step = True
            model.zero_grad()
            if torch.accelerator.is_available():
                torch.accelerator.empty_cache()
            self._hooks.on_smaller_batch(ceil(rows_per_part / 2))

    def _step_in_parts(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> Tensor:
        """Run one micro-batch in parts; the losses are sums over the same count, so they and their gradients add up."""
        rows = len(inputs["lengths"])
        size = ceil(rows / self._parts_per_batch)
        parts = [{key: value[start : start + size] for key, value in inputs.items()} for start in range(0, rows, size)]
        losses = [super(Trainer, self).training_step(model, part, num_items_in_batch) for part in parts]
        return torch.stack(losses).sum()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: the value is unused, and counting visits all parameters at every step."""
        return 0

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score generated replies instead of computing a loss; a checkpoint is saved whenever the score is the best so far."""
        if self._hooks.score is None:
            return {}
        values, is_best = self._hooks.score(self.state.global_step)
        metrics = {f"eval_{name}": value for name, value in values.items()}
        self.model.eval()
        self.log(dict(metrics))
        self.model.train()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.control.should_save |= is_best and self.state.global_step > 0
        return metrics

    def _get_output_dir(self, trial: Any) -> str:
        """Return the folder for checkpoints that are not yet complete."""
        return str(Path(super()._get_output_dir(trial)) / UNFINISHED)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint in a separate folder, complete it, then rename it, so that a killed process leaves no incomplete checkpoint."""
        import shutil

        name, run = f"checkpoint-{self.state.global_step}", Path(self.args.output_dir)
        unfinished = run / UNFINISHED / name
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        super(SFTTrainer, self)._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if unfinished.is_dir():
                self._hooks.complete(unfinished, self.state.global_step)
                shutil.rmtree(run / name, ignore_errors=True)
                unfinished.rename(run / name)
                self._completed_step = self.state.global_step
            shutil.rmtree(run / UNFINISHED, ignore_errors=True)
            if self._completed_step == self.state.global_step:
                self._hooks.after_checkpoint(run)
        self.accelerator.wait_for_everyone()

    def complete_in_place(self) -> None:
        """Write the remaining files of a checkpoint that a newer library wrote at once under its final name.

        Such a library calls neither ``_save_checkpoint`` nor ``_get_output_dir``. Otherwise the checkpoint is complete, and this does nothing.
        """
        step, run = self.state.global_step, Path(self.args.output_dir)
        if self._completed_step == step or not self.args.should_save or not (run / f"checkpoint-{step}").is_dir():
            return
        report_fallback(
            "writing checkpoints aside", "transformers saves them in another way; a kill while one is written leaves it incomplete"
        )
        self._hooks.complete(run / f"checkpoint-{step}", step)
        self._completed_step = step
        self._hooks.after_checkpoint(run)


class _CompleteInPlace(TrainerCallback):  # type: ignore[misc]
    """Completes checkpoints even when a newer library does not call the methods that ``Trainer`` overrides."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Complete the saved checkpoint if necessary."""
        self._trainer.complete_in_place()


def sft_config(config: TrainingConfig, output: str, precision: str, device: str) -> SFTConfig:
    """Convert a ``TrainingConfig`` to TRL's configuration; defaults that would be surprising are set explicitly.

    Args:
        config: Hyper-parameters.
        output: Folder for checkpoints.
        precision: ``float32`` or ``bfloat16``, resolved.
        device: ``cpu`` or an accelerator, resolved.
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


def to_dataset(rows: RenderedRows) -> Any:
    """Convert the rows to a ``datasets.Dataset``."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [list(row) for row in rows.ids], "labels": [list(row) for row in rows.labels]})


TRIAL_POSITIONS = (1, 4, 4, 9)
"""Positions compared in the trial; one occurs twice, as the end of a shared prefix may."""


class SkipLastMlp:
    """Hooks that compute a model's last feed-forward network only at the positions whose logits are needed; removed if they change these logits.

    Args:
        model: A causal language model, possibly with an adapter.

    Attributes:
        is_active: Whether the hooks are in use.
    """

    def __init__(self, model: Any) -> None:
        self._positions: Tensor | None = None
        self._shape: torch.Size | None = None
        network = _last_feed_forward_network(unwrapped(model))
        self.is_active = network is not None
        if network is None:
            return
        hooks = network.register_forward_pre_hook(self._select_inputs), network.register_forward_hook(self._scatter_outputs)
        if not self._keeps_logits(model):
            self.is_active = False
            for hook in hooks:
                hook.remove()

    @contextmanager
    def only_at(self, positions: Tensor) -> Iterator[None]:
        """Within the block, compute the network only at these positions of the flattened batch."""
        self._positions = torch.unique(positions) if self.is_active else None
        try:
            yield
        finally:
            self._positions = None

    def _select_inputs(self, _module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._positions is None:
            return None
        states: Tensor = inputs[0]
        self._shape = states.shape
        return (states.flatten(0, 1).index_select(0, self._positions)[None], *inputs[1:])

    def _scatter_outputs(self, _module: Any, _inputs: Any, output: Any) -> Any:
        """Put the outputs at their positions; the other positions get 0."""
        if self._positions is None or self._shape is None:
            return None
        zeros = torch.zeros(self._shape.numel() // self._shape[-1], self._shape[-1], dtype=output.dtype, device=output.device)
        return zeros.index_copy(0, self._positions, output[0]).view(self._shape)

    def _keeps_logits(self, model: Any) -> bool:
        """Whether the logits at a few positions are the same with and without the hooks."""
        inner, was_training = unwrapped(model), model.training
        ids = (torch.arange(12, device=inner.device) * 5 + 1)[None] % inner.config.get_text_config().vocab_size
        positions = torch.tensor(TRIAL_POSITIONS, device=inner.device)
        model.eval()
        try:
            with torch.inference_mode():
                logits = inner(input_ids=ids, use_cache=False).logits[0, positions].float()
                with self.only_at(positions):
                    logits_with_hooks = inner(input_ids=ids, use_cache=False).logits[0, positions].float()
        except (ValueError, TypeError, RuntimeError, AttributeError):
            return False
        finally:
            model.train(was_training)
        return torch.allclose(logits, logits_with_hooks, rtol=1e-3, atol=1e-3)


def _last_feed_forward_network(model: Any) -> Any:
    """Return the last layer's feed-forward network; None for other layouts, and for mixtures of experts, whose load balance needs all positions."""
    layers = getattr(getattr(model, "model", None), "layers", None)
    config = model.config.get_text_config()
    if not layers or any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    return getattr(layers[-1], "mlp", None)
