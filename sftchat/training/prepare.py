"""What is trained: all weights, or an adapter over a base in full or four-bit precision."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sftchat.data.row_options import AS_WRITTEN, RowOptions
from sftchat.errors import MissingExtraError, ModelError, SftchatWarning, UsageError
from sftchat.inference.distributed import is_main_process, process_info
from sftchat.models.context import within_context
from sftchat.models.fingerprint import file_hash, identity
from sftchat.models.loading import choose_device, load_model, load_tokenizer, quiet_libraries, require_local
from sftchat.models.manifest import Manifest
from sftchat.models.reference import ModelReference
from sftchat.models.weight_check import check_vocabulary
from sftchat.plugins.manager import Registry
from sftchat.task import Task
from sftchat.templates.parity import Check, implied_stops, prove
from sftchat.templates.renderer import Renderer, check_arguments, choose_renderer
from sftchat.training.checkpoints import check_output, earlier, refuse_changed
from sftchat.training.checks import check_words
from sftchat.training.config import METHODS, TrainingConfig, configure
from sftchat.training.dataset import RenderedRows, render_rows
from sftchat.training.packing import Attention, choose_attention
from sftchat.training.validation import Validation, from_file, from_generator, from_rows
from sftchat.types import Example


def check_method(method: str, device: str, optimizer: str = "") -> None:
    """Refuse what this machine cannot do, before anything is loaded.

    Args:
        method: As of ``TrainingConfig``.
        device: Where it is to run, decided.
        optimizer: As of ``TrainingConfig``; those in eight bits are bitsandbytes' too.

    Raises:
        UsageError: An unknown method, or a device that it cannot run on.
        MissingExtraError: When bitsandbytes is needed and not installed.
    """
    if method not in METHODS:
        raise UsageError(f"--method is {method}, must be one of {', '.join(METHODS)}")
    eight = "8bit" in optimizer or optimizer.startswith("paged_")
    if (method == "qlora" or eight) and find_spec("bitsandbytes") is None:
        raise MissingExtraError("--method qlora" if method == "qlora" else f"--optimizer {optimizer}", "quant")
    if method == "qlora" and device.startswith("mps"):
        raise UsageError("--method qlora needs four-bit products, which this device has not; use --device cpu, or --method lora")
    if eight and device == "cpu":
        raise UsageError(f"--optimizer {optimizer} keeps its state on a CUDA device; on a CPU use adamw_torch_fused")


def load_base(reference: ModelReference, method: str, device: str, trust_remote_code: bool) -> Any:
    """The base model: in float32 to train all of it, in the precision that ``eval`` loads under an adapter, in four bits for ``qlora``.

    Raises:
        ModelError: When it cannot be loaded.
    """
    if method == "qlora":
        quiet_libraries()
        from peft import prepare_model_for_kbit_training

        model = load_model(reference, dtype="bfloat16", device=device, trust_remote_code=trust_remote_code, four_bit=True)
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    dtype = "float32" if method == "full" else "auto"
    return load_model(reference, dtype=dtype, device=device, trust_remote_code=trust_remote_code)


def with_adapter(model: Any, config: TrainingConfig, name: str) -> Any:
    """The model, or an adapter over all its linear layers but the head.

    Args:
        model: The base model.
        config: Method, rank, scale and dropout.
        name: The base as the user named it, for the adapter's config.
    """
    if config.method == "full":
        return model
    from peft import LoraConfig, get_peft_model

    peft_config = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        use_dora=config.method == "dora",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, peft_config)
    adapted.peft_config["default"].base_model_name_or_path = name
    return adapted


MIN_BFLOAT16_WIDTH = 512
"""Hidden width from which bfloat16 pays on a CPU. At the 256 of ``sftchat:nano`` the two take equal time on a processor with AMX, so the digits
are kept; a wider model spends its time in the matrix products that AMX and AVX512_BF16 make faster."""
BFLOAT16_INSTRUCTIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512_BF16"}
"""Capabilities of a CPU that multiply bfloat16, as ``torch.cpu.get_capabilities`` names them, and how people do."""


@dataclass(frozen=True)
class Precision:
    """What a training computes in.

    Attributes:
        name: ``float32``, or ``bfloat16`` for mixed precision.
        reason: Why, in a few words.
    """

    name: str
    reason: str


def choose_precision(wanted: str, device: str, multiplies: str, width: int) -> Precision:
    """What to train in; a function of its arguments alone.

    Args:
        wanted: ``auto``, ``float32`` or ``bfloat16``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, …
        multiplies: What multiplies bfloat16 there, as of ``bfloat16_unit``; empty for nothing.
        width: Hidden width of the model.
    """
    if wanted != "auto":
        return Precision(wanted, f"--precision {wanted}")
    if not multiplies:
        return Precision("float32", f"the {device.partition(':')[0]} device does not multiply bfloat16")
    if device == "cpu" and width < MIN_BFLOAT16_WIDTH:
        return Precision("float32", f"a model of width {width} is below {MIN_BFLOAT16_WIDTH}, from which {multiplies} gains by bfloat16")
    return Precision("bfloat16", f"{multiplies} multiplies bfloat16")


def bfloat16_unit(device: str) -> str:
    """What multiplies bfloat16 on a device, in words; empty where it would be emulated, which is slower than float32.

    Args:
        device: ``cpu`` or an accelerator.
    """
    import torch

    if device == "cpu":
        return cpu_unit(getattr(torch.cpu, "get_capabilities", dict)())
    if device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False):
        return "the accelerator"
    return ""


def cpu_unit(capabilities: dict[str, Any]) -> str:
    """What multiplies bfloat16 on a CPU with these capabilities, in words; empty for nothing."""
    return next((words for name, words in BFLOAT16_INSTRUCTIONS.items() if capabilities.get(name)), "")


PACKAGES = ("sftchat", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes")


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what, to where.

    Attributes:
        task: The task.
        model: The base model as MODEL.
        output: The run folder.
        examples: Conversations to learn from.
        data: Where they come from, for the manifest; one entry with ``generator`` for rows that were drawn.
        given: Hyper-parameters the user set; the rest is filled in.
        validation: A file of items to score, or a data set of the Hub; without one some are kept from the rows, or drawn from the generator.
        template: Chat template name or file, instead of the model's own.
        template_name: Which of the model's own templates writes every conversation; kept in the manifest, and empty to let tools decide.
        template_arguments: Arguments of the template; kept in the manifest, so that inference uses the same.
        rows_read: How the rows of ``validation`` are read, and those of ``data`` were.
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
    validation: str | None = None
    template: str = ""
    template_name: str = ""
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    rows_read: RowOptions = AS_WRITTEN
    force: bool = False
    resume: bool = False
    trust_remote_code: bool = False
    command: str = ""


@dataclass(frozen=True)
class TrainingSetup:
    """Everything known before the first step.

    Attributes:
        config: The hyper-parameters, resolved.
        rows: The rendered rows.
        validation: The items to score, where any are.
        renderer: Tokenizer and template.
        model: The model, with its adapter.
        attention: How it attends while it is trained.
        manifest: The manifest as it stands.
        parameters: Parameters of the model.
        trainable: Parameters that training changes.
        device: Where it runs.
    """

    config: TrainingConfig
    rows: RenderedRows
    validation: Validation | None
    renderer: Renderer
    model: Any
    attention: Attention
    manifest: Manifest
    parameters: int
    trainable: int
    device: str

    @property
    def precision(self) -> str:
        """``float32`` or ``bfloat16``."""
        return self.config.precision


def prepare(job: TrainingJob, registry: Registry) -> TrainingSetup:
    """Check, render, load and measure.

    Raises:
        UsageError: A folder that is taken, an option out of range, a run that cannot be resumed with these rows.
        DataError: No row to learn from.
        ModelError: A model that cannot be loaded, or whose template fails the proof.
        MissingExtraError: A method whose packages are not installed.
    """
    if is_main_process():
        check_output(job.output, job.resume)
    before = earlier(job.output) if job.resume else None
    reference = check_words(job.task, job.model, job.given, job.validation, registry, job.rows_read)
    require_local("training")
    device = _device(job.given.get("device") or "auto")
    method = job.given.get("method") or "full"
    check_method(method, device, job.given.get("optimizer") or "")
    tokenizer = load_tokenizer(reference, trust_remote_code=job.trust_remote_code)
    chosen = choose_renderer(tokenizer, job.template, job.task.template, job.template_arguments, job.template_name)
    renderer = replace(chosen, forced=job.force)
    check_arguments(renderer, job.template_arguments)
    if not job.force:
        refuse_unproved(prove(renderer, renderer.stop_tokens))
    for template, stop in implied_stops(renderer) if is_main_process() else ():
        warnings.warn(
            f"chat template '{template}' writes no token at the end of a reply; replies are trained to end with '{stop}'",
            SftchatWarning,
            stacklevel=2,
        )
    model = load_base(reference, method, device, job.trust_remote_code)
    check_vocabulary(job.model, model, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    config = configure(job.task, parameters, job.given)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    config = replace(config, max_length=within_context(config.max_length, context, job.given.get("max_length")))
    examples, validation = _validation(job, config)
    rows = render_rows(examples, renderer, config.max_length, everything=config.train_on == "all", most=context)
    _seed(config.seed)
    model = with_adapter(model, config, job.model)
    attention = choose_attention(model, max(map(len, rows.ids)), "off" if config.neftune_alpha else config.packing)
    precision = _precision(before, config, model, device)
    config = replace(config, precision=precision.name)
    manifest = replace(_manifest(job, reference, renderer, config, rows, validation), precision_reason=precision.reason)
    if before is not None:
        refuse_changed(job.output, before, manifest)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return TrainingSetup(config, rows, validation, renderer, model, attention, manifest, parameters, trainable, device)


def refuse_unproved(checks: Iterable[Check]) -> None:
    """Stop when training and inference would see different tokens.

    Raises:
        ModelError: Naming the first claim that does not hold.
    """
    for check in checks:
        if check.required and not check.holds:
            raise ModelError(
                f"training and inference would not see the same tokens: {check.name}: {check.detail}; --force trains all the same"
            )


def _device(wanted: str) -> str:
    """Where to train: this process's accelerator in a run of several.

    Raises:
        UsageError: When several accelerators are visible and nobody said which.
    """
    device = choose_device(wanted)
    if device != "cuda":
        return device
    import torch

    if (local := process_info().local) is not None:
        return f"cuda:{local}"
    if torch.cuda.device_count() > 1:
        raise UsageError(
            f"{torch.cuda.device_count()} accelerators are visible; hide all but one with CUDA_VISIBLE_DEVICES=0, or use all with "
            f"'torchrun --nproc-per-node {torch.cuda.device_count()} -m sftchat train …'"
        )
    return device


def _validation(job: TrainingJob, config: TrainingConfig) -> tuple[list[Example], Validation | None]:
    """The rows to train on and the items to score."""
    examples = list(job.examples)
    if not config.eval_steps:
        return examples, None
    if job.validation is not None:
        return examples, from_file(job.validation, config.validation_items, job.rows_read)
    drawn = next((entry for entry in job.data if "generator" in entry), None)
    if drawn is not None and examples:
        return from_generator(job.task, examples, config.validation_items, int(drawn.get("seed", 0)), dict(drawn.get("options") or {}))
    return from_rows(examples, config.validation_items, config.seed)


def _seed(seed: int) -> None:
    """Start the generators that initialise adapters."""
    from transformers import set_seed

    set_seed(seed)


def _precision(before: Manifest | None, config: TrainingConfig, model: Any, device: str) -> Precision:
    """The precision to train in; that of the run that is continued, where ``auto`` was asked for."""
    if before is not None and config.precision == "auto" and (earlier_choice := str(before.config.get("precision", "auto"))) != "auto":
        return Precision(earlier_choice, before.precision_reason)
    return choose_precision(config.precision, device, bfloat16_unit(device), int(model.get_input_embeddings().weight.shape[1]))


def _manifest(
    job: TrainingJob,
    reference: ModelReference,
    renderer: Renderer,
    config: TrainingConfig,
    rows: RenderedRows,
    validation: Validation | None,
) -> Manifest:
    """What is known before training."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    base = str(reference.folder.absolute()) if reference.folder and job.model == str(reference.folder) else job.model
    scored = {}
    if validation is not None:
        scored = {
            "metric": job.task.metric.name, "higher_is_better": job.task.metric.higher_is_better, "items": len(validation.examples),
            "source": validation.source, "hash": validation.hash,
        }  # fmt: skip
        if job.validation is not None:
            scored["file"] = job.validation
            if Path(job.validation).is_file():
                scored["sha256"] = file_hash(Path(job.validation))
    return Manifest(
        task=job.task.name, base=base, base_identity=identity(reference), method=config.method, config=asdict(config) | {"report_to": list(config.report_to)}, data=job.data, rows=len(rows.ids),
        tokens_hash=rows.hash, template=renderer.name, template_hash=renderer.template_hash, template_arguments=dict(renderer.arguments), versions=versions,
        command=job.command, validation=scored, template_name=renderer.picked,
    )  # fmt: skip
