"""One training from rows to a folder that can be talked to: cheap checks, rows, proof, weights, trainer, save, proof again."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sftchat.errors import EngineError, ModelError, UsageError, first_line
from sftchat.models.identity import identity
from sftchat.models.manifest import Manifest, read_manifest, write_manifest
from sftchat.models.parity import Check, prove
from sftchat.models.references import ModelReference, last_checkpoint, resolve
from sftchat.models.templates import Renderer, check_arguments, choose_renderer
from sftchat.models.weights import choose_device, load_model, load_tokenizer, require_local, stop_ids
from sftchat.plugins import Registry
from sftchat.task import Task
from sftchat.training.config import TrainingConfig, configure
from sftchat.training.dataset import RenderedRows, render_rows
from sftchat.training.output import check_output, complete_checkpoint
from sftchat.types import Example

PACKAGES = ("sftchat", "torch", "transformers", "trl", "peft", "datasets", "accelerate")


@dataclass(frozen=True)
class Job:
    """What to train, on what, to where.

    Attributes:
        task: The task.
        model: The base model as MODEL.
        output: The run folder.
        examples: Conversations to learn from.
        data: Where they come from, for the manifest.
        given: Hyper-parameters the user set; the rest is filled in.
        template: Chat template name or file, instead of the model's own.
        template_arguments: Arguments of the template; kept in the manifest, so that inference uses the same.
        force: Train even when the parity proof fails.
        resume: Continue from the last checkpoint of ``output``.
        trust_remote_code: Whether code that comes with the model may run.
        command: What was typed.
    """

    task: Task
    model: str
    output: Path
    examples: Iterable[Example]
    data: tuple[Mapping[str, Any], ...]
    given: Mapping[str, Any]
    template: str = ""
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False
    resume: bool = False
    trust_remote_code: bool = False
    command: str = ""


@dataclass(frozen=True)
class Prepared:
    """Everything known before the first step.

    Attributes:
        config: The hyper-parameters, resolved.
        rows: The rendered rows.
        renderer: Tokenizer and template.
        manifest: The manifest as it stands.
        parameters: Parameters of the model.
        trainable: Parameters that training changes.
        device: Where it runs.
        precision: ``float32`` or ``bfloat16``.
    """

    config: TrainingConfig
    rows: RenderedRows
    renderer: Renderer
    manifest: Manifest
    parameters: int
    trainable: int
    device: str
    precision: str


def train(
    job: Job, registry: Registry, *, started: Callable[[Prepared], None], tell: Callable[[Any], None], stopping: Callable[[], None]
) -> Manifest:
    """Fine-tune and leave a folder that ``eval``, ``chat`` and transformers load.

    Args:
        job: What to do.
        registry: The loaded plugins, for their trainer callbacks.
        started: Called once, when all is ready for the first step.
        tell: Called with a ``Progress`` at every logging step.
        stopping: Called when Ctrl-C asked for a stop after the current step.

    Returns:
        The manifest that was written.

    Raises:
        UsageError: A folder that is taken, an option out of range, a run that cannot be resumed with these rows.
        DataError: No row to learn from.
        ModelError: A model that cannot be loaded, or whose template fails the proof.
        EngineError: When training itself fails.
        KeyboardInterrupt: When it was stopped; a checkpoint of the last step is kept.
    """
    check_output(job.output, job.resume)
    reference = resolve(job.model, schemes=registry.engines)
    if reference.scheme:
        raise UsageError(f"model '{job.model}' is served by engine '{reference.scheme}' and cannot be trained here")
    if reference.base is not None:
        raise UsageError(f"model '{job.model}' is an adapter; merge it into its base before training on")
    require_local("training")
    tokenizer = load_tokenizer(reference, trust_remote_code=job.trust_remote_code)
    renderer = choose_renderer(tokenizer, job.template, job.task.template, job.template_arguments)
    check_arguments(renderer, job.template_arguments)
    if job.force:
        renderer = replace(renderer, forced=True)
    else:
        _refuse_unproved(prove(renderer, renderer.stop_tokens))
    device = choose_device(job.given.get("device") or "auto")
    model = load_model(reference, dtype="float32", device=device, trust_remote_code=job.trust_remote_code)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    config = _within_context(configure(job.task, parameters, job.given), model)
    rows = render_rows(job.examples, renderer, config.max_length)
    precision = _precision(config.precision, device)
    manifest = _manifest(job, reference, renderer, config, rows)
    if job.resume:
        _refuse_changed(job.output, manifest)
    model = _with_adapter(model, config, job.model)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    prepared = Prepared(config, rows, renderer, manifest, parameters, trainable, device, precision)
    return _run(job, registry, prepared, model, started, tell, stopping)


def _run(
    job: Job,
    registry: Registry,
    ready: Prepared,
    model: Any,
    started: Callable[[Prepared], None],
    tell: Callable[[Any], None],
    stopping: Callable[[], None],
) -> Manifest:
    """Train, save and prove."""
    from sftchat.training.attention import choose_attention, restore_attention
    from sftchat.training.callbacks import CompleteCheckpoints, Reporter, StopWhenAsked
    from sftchat.training.trainer import Trainer, arguments, collate, table

    renderer = ready.renderer
    renderer.tokenizer.chat_template = renderer.source
    choose_attention(model, max(map(len, ready.rows.ids)))

    def complete(folder: Path, step: int) -> None:
        complete_checkpoint(folder, model, renderer)
        write_manifest(folder, replace(ready.manifest, steps=step))

    reporter, stopper = Reporter(tell), StopWhenAsked()
    callbacks = [reporter, CompleteCheckpoints(complete), stopper, *registry.trainer_callbacks(job.task, ready.config)]
    job.output.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        model=model, args=arguments(ready.config, str(job.output), ready.precision, ready.device), data_collator=collate, train_dataset=table(ready.rows),
        processing_class=renderer.tokenizer, callbacks=callbacks,
    )  # fmt: skip
    _silence(trainer)
    write_manifest(job.output, ready.manifest)
    started(ready)
    before = time.monotonic()
    resume = str(last_checkpoint(job.output)) if job.resume else None
    try:
        with stopper.listening(stopping):
            trainer.train(resume_from_checkpoint=resume)
    except (RuntimeError, MemoryError) as error:
        raise EngineError(f"training failed at step {trainer.state.global_step}: {first_line(error)}") from error
    if stopper.asked and trainer.state.global_step < trainer.state.max_steps:
        raise KeyboardInterrupt
    restore_attention(model)
    trainer.save_model(str(job.output))
    complete_checkpoint(job.output, model, renderer)
    losses = reporter.losses[-5:]
    manifest = replace(
        ready.manifest, steps=trainer.state.global_step, seconds=round(time.monotonic() - before, 1),
        final_loss=round(sum(losses) / len(losses), 4) if losses else None,
    )  # fmt: skip
    write_manifest(job.output, manifest)
    (job.output / "README.md").unlink(missing_ok=True)  # the trainer's model card; the manifest says more
    (job.output / "training_args.bin").unlink(missing_ok=True)  # a pickle nobody needs once training has ended
    if not job.force:
        _refuse_unproved(prove(renderer, stop_ids(model, renderer), job.output))
    return manifest


def _silence(trainer: Any) -> None:
    """Take out the callback that prints dictionaries; ours reports progress."""
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _refuse_unproved(checks: Iterable[Check]) -> None:
    """Stop when training and inference would see different tokens."""
    for check in checks:
        if check.required and not check.holds:
            raise ModelError(
                f"training and inference would not see the same tokens: {check.name}: {check.detail}; --force trains all the same"
            )


def _refuse_changed(run: Path, now: Manifest) -> None:
    """Stop a resumption that would continue something else."""
    before = read_manifest(run)
    if before is None:
        raise UsageError(f"'{run}' has no manifest; it cannot be resumed")
    for name in ("task", "base_identity", "method", "template_hash", "tokens_hash"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            raise UsageError(
                f"cannot resume '{run}': {name.replace('_', ' ')} was {str(old)[:12]}, is now {str(new)[:12]}; train into another folder"
            )


def _within_context(config: TrainingConfig, model: Any) -> TrainingConfig:
    """No row may be longer than what the model has positions for."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return replace(config, max_length=min(config.max_length, limit)) if limit else config


def _with_adapter(model: Any, config: TrainingConfig, name: str) -> Any:
    """The model, or a LoRA adapter over it."""
    if config.method == "full":
        return model
    from peft import LoraConfig, get_peft_model

    peft_config = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    peft_config.base_model_name_or_path = name
    adapted = get_peft_model(model, peft_config)
    adapted.peft_config["default"].base_model_name_or_path = name
    return adapted


def _precision(wanted: str, device: str) -> str:
    """bfloat16 where the hardware multiplies it, unless the user chose."""
    if wanted != "auto":
        return wanted
    import torch

    if device == "cpu":
        fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    else:
        fast = device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fast else "float32"


def _manifest(job: Job, reference: ModelReference, renderer: Renderer, config: TrainingConfig, rows: RenderedRows) -> Manifest:
    """What is known before training."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    base = str(reference.folder.absolute()) if reference.folder and job.model == str(reference.folder) else job.model
    return Manifest(
        task=job.task.name, base=base, base_identity=identity(reference), method=config.method, config=asdict(config), data=job.data, rows=len(rows.ids),
        tokens_hash=rows.hash, template=renderer.name, template_hash=renderer.template_hash, template_arguments=dict(renderer.arguments), versions=versions,
        command=job.command,
    )  # fmt: skip
