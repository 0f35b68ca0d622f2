"""Preparation of a training: checks, rendering, precision, and the model with its adapter, in full or 4-bit precision."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sftchat._util.versions import installed_versions
from sftchat.data.row_options import DEFAULT_ROW_OPTIONS, RowOptions
from sftchat.errors import MissingExtraError, ModelError, SftchatWarning, UsageError
from sftchat.inference.distributed import is_main_process, process_info
from sftchat.models.fingerprint import file_hash, identity
from sftchat.models.load_checks import check_vocabulary
from sftchat.models.loading import choose_device, load_model, load_tokenizer, quiet_libraries, require_local
from sftchat.models.local_files import fetched, gguf_file
from sftchat.models.manifest import Manifest
from sftchat.models.reference import HUB_FILE, ModelReference, resolve
from sftchat.task import Task
from sftchat.templates.parity import Check, check_parity, implied_stops
from sftchat.templates.renderer import Renderer, check_arguments, choose_renderer
from sftchat.training.checkpoints import check_output, check_unchanged, read_run_manifest
from sftchat.training.config import METHODS, TrainingConfig, check_options, configure, limit_to_context
from sftchat.training.packing import Attention, choose_attention
from sftchat.training.rows import RenderedRows, render_rows
from sftchat.training.validation import Validation, validation_from_file, validation_from_generator, validation_from_rows
from sftchat.types import Example


def check_method(method: str, device: str, optimizer: str = "") -> None:
    """Refuse methods that this machine does not support, before anything is loaded.

    Args:
        method: As in ``TrainingConfig``.
        device: Resolved device.
        optimizer: As in ``TrainingConfig``; 8-bit optimizers need bitsandbytes too.

    Raises:
        UsageError: When the method is unknown or does not run on the device.
        MissingExtraError: When bitsandbytes is required and not installed.
    """
    if method not in METHODS:
        raise UsageError(f"--method is {method}, must be one of {', '.join(METHODS)}")
    is_8bit = "8bit" in optimizer or optimizer.startswith("paged_")
    if (method == "qlora" or is_8bit) and find_spec("bitsandbytes") is None:
        raise MissingExtraError("--method qlora" if method == "qlora" else f"--optimizer {optimizer}", "quant")
    if method == "qlora" and device.startswith("mps"):
        raise UsageError(
            "--method qlora needs 4-bit matrix products, which this device does not support; use --device cpu, or --method lora"
        )
    if is_8bit and device == "cpu":
        raise UsageError(f"--optimizer {optimizer} keeps its state on a CUDA device; on a CPU use adamw_torch_fused")


def load_base(reference: ModelReference, method: str, device: str, trust_remote_code: bool) -> Any:
    """Load the base model: in float32 for full fine-tuning, in 4 bits for ``qlora``, for other adapters as ``sftchat eval`` does (``auto``).

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


def create_adapter(model: Any, config: TrainingConfig, name: str) -> Any:
    """Return the model with a new adapter on all its linear layers except the head, or the model itself for full fine-tuning.

    Args:
        model: Base model.
        config: Method, rank, scale and dropout.
        name: Name of the base as typed by the user, for the adapter's config.
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
    # embeddings are never resized; by default, peft compares them with a config that it looks for on the Hub under the base's name
    adapted.save_pretrained = partial(adapted.save_pretrained, save_embedding_layers=False)
    return adapted


MIN_BFLOAT16_WIDTH = 512
"""Hidden width from which ``auto`` chooses bfloat16 on a CPU: wide models spend their time in the matrix products that AMX and AVX512_BF16
accelerate. At the width of ``sftchat:nano``, 256, bfloat16 and float32 take equal time on a processor with AMX.
"""
BFLOAT16_INSTRUCTIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512_BF16"}
"""CPU capabilities with bfloat16 products, by their names in ``torch.cpu.get_capabilities``, and their display names."""


@dataclass(frozen=True)
class Precision:
    """Precision of a training.

    Attributes:
        name: ``float32``, or ``bfloat16`` for mixed precision.
        reason: Short reason for the choice.
    """

    name: str
    reason: str


def choose_precision(requested: str, device: str, unit: str, width: int) -> Precision:
    """Choose the precision; the choice depends on the arguments alone.

    Args:
        requested: ``auto``, ``float32`` or ``bfloat16``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, …
        unit: Hardware unit for bfloat16 products, from ``bfloat16_unit``; empty for none.
        width: Hidden width of the model.
    """
    if requested != "auto":
        return Precision(requested, f"--precision {requested}")
    if not unit:
        return Precision("float32", f"the {device.partition(':')[0]} device does not multiply bfloat16")
    if device == "cpu" and width < MIN_BFLOAT16_WIDTH:
        return Precision("float32", f"a model of width {width} is below {MIN_BFLOAT16_WIDTH}, from which {unit} gains by bfloat16")
    return Precision("bfloat16", f"{unit} multiplies bfloat16")


def bfloat16_unit(device: str) -> str:
    """Return the name of a device's hardware unit for bfloat16 products; empty when they are emulated, which is slower than float32.

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
    """Return the name of a CPU's unit for bfloat16 products, given its capabilities; empty for none."""
    return next((display_name for name, display_name in BFLOAT16_INSTRUCTIONS.items() if capabilities.get(name)), "")


PACKAGES = ("sftchat", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes")


@dataclass(frozen=True)
class TrainingJob:
    """A training as requested: model, data, output and options.

    Attributes:
        task: The task.
        model: The base model as MODEL.
        output: The run folder.
        examples: Conversations to train on.
        data: Sources of the examples, for the manifest; generated rows have one entry with ``generator``.
        hyperparameters: Hyper-parameters set by the user; the others get defaults.
        validation: A file of items to score, or a data set of the Hub; if None, the items are split off from the rows or come from the generator.
        template: Chat template name or file that replaces the model's own.
        template_name: Name of the model's own template to use for every conversation, stored in the manifest; empty to choose by the presence of
            tools.
        template_arguments: Arguments of the template, stored in the manifest so that inference uses the same.
        replay: Conversations of other tasks or files to train on too; their sources are in ``data``. No validation item is split off from them.
        row_options: Options for reading the rows of ``validation``; the rows of ``data`` were read with the same.
        force: Whether to train even when the parity proof fails.
        resume: Whether to continue from the last checkpoint of ``output``.
        trust_remote_code: Whether code in the model repository may run.
        command: Command line as typed.
    """

    task: Task
    model: str
    output: Path
    examples: Iterable[Example]
    data: tuple[Mapping[str, Any], ...]
    hyperparameters: Mapping[str, Any]
    validation: str | None = None
    replay: Sequence[Example] = ()
    template: str = ""
    template_name: str = ""
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    row_options: RowOptions = DEFAULT_ROW_OPTIONS
    force: bool = False
    resume: bool = False
    trust_remote_code: bool = False
    command: str = ""


@dataclass(frozen=True)
class TrainingSetup:
    """A training that is ready to start.

    Attributes:
        config: Resolved hyper-parameters.
        rows: Rendered rows.
        validation: Items to score, if any.
        renderer: Tokenizer and template.
        model: The model, with its adapter if any.
        attention: Attention implementation.
        manifest: The manifest before the first step.
        parameters: Number of parameters of the model.
        trainable: Number of parameters that training changes.
        device: Device of the training.
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


def prepare(job: TrainingJob, engine_types: Collection[str] = (), say: Callable[[str], None] = lambda line: None) -> TrainingSetup:
    """Check the job, render the rows, load the model and choose precision and attention.

    Args:
        job: The training as requested.
        engine_types: Schemes of the installed engines, whose models cannot be trained here.
        say: Called with a line when the base model is a GGUF file, which is dequantized.

    Raises:
        UsageError: When the folder has other files or another run, an option is out of range, or the run cannot be resumed with these rows.
        DataError: When there is no row to train on.
        ModelError: When the model cannot be loaded, or its template fails the parity proof.
        MissingExtraError: When packages of the method are not installed.
    """
    if is_main_process():
        check_output(job.output, job.resume)
    earlier = read_run_manifest(job.output) if job.resume else None
    reference = check_options(
        job.task, job.model, job.hyperparameters, job.validation, row_options=job.row_options, engine_types=engine_types
    )
    require_local("training")
    device = _resolve_device(job.hyperparameters.get("device") or "auto")
    method = job.hyperparameters.get("method") or "full"
    check_method(method, device, job.hyperparameters.get("optimizer") or "")
    base_file: dict[str, str] = {}
    if reference.is_gguf:
        job, base_file = _with_dequantized_base(job, reference, say)
        reference = resolve(job.model)
    reference = fetched(reference)
    tokenizer = load_tokenizer(reference, trust_remote_code=job.trust_remote_code)
    own_renderer = choose_renderer(tokenizer, job.template, job.task.template, job.template_arguments, job.template_name)
    renderer = replace(own_renderer, lenient=job.force)
    check_arguments(renderer, job.template_arguments)
    if not job.force:
        require_parity(check_parity(renderer, renderer.stop_tokens))
    for template, stop in implied_stops(renderer) if is_main_process() else ():
        warnings.warn(
            f"chat template '{template}' writes no token at the end of a reply; replies are trained to end with '{stop}'",
            SftchatWarning,
            stacklevel=2,
        )
    model = load_base(reference, method, device, job.trust_remote_code)
    check_vocabulary(job.model, model, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    config = configure(job.task, parameters, job.hyperparameters)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    config = replace(config, max_length=limit_to_context(config.max_length, context, job.hyperparameters.get("max_length")))
    examples, validation = _split_validation(job, config)
    rows = render_rows([*examples, *job.replay], renderer, config.max_length, train_on_all=config.train_on == "all", context_length=context)
    from transformers import set_seed

    set_seed(config.seed)  # the weights of a new adapter are random
    model = create_adapter(model, config, job.model)
    attention = choose_attention(model, max(map(len, rows.ids)), "off" if config.neftune_alpha else config.packing)
    precision = _choose_precision(earlier, config, model, device)
    config = replace(config, precision=precision.name)
    manifest = replace(
        _initial_manifest(job, reference, renderer, config, rows, validation), precision_reason=precision.reason, base_file=base_file
    )
    if earlier is not None:
        check_unchanged(job.output, earlier, manifest)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return TrainingSetup(config, rows, validation, renderer, model, attention, manifest, parameters, trainable, device)


def _with_dequantized_base(job: TrainingJob, reference: ModelReference, say: Callable[[str], None]) -> tuple[TrainingJob, dict[str, str]]:
    """Return the job with the checkpoint folder of a GGUF file as its base model, and what the manifest records about the file."""
    from sftchat.models.dequantize import dequantized_folder

    path = gguf_file(reference)
    dequantized = dequantized_folder(path, say)
    record = {
        "file": reference.source if HUB_FILE.fullmatch(reference.source) else str(path.absolute()),
        "sha256": dequantized.sha256,
        "type": dequantized.file_type,
    }
    return replace(job, model=str(dequantized.folder)), record


def require_parity(checks: Iterable[Check]) -> None:
    """Refuse a training when training and inference would see different tokens.

    Raises:
        ModelError: When a check failed; names the first one.
    """
    for check in checks:
        if check.required and not check.passed:
            raise ModelError(f"training and inference would not see the same tokens: {check.name}: {check.detail}; --force trains anyway")


def _resolve_device(requested: str) -> str:
    """Resolve the device: in a distributed run, this process's accelerator.

    Raises:
        UsageError: When several accelerators are visible and none is selected.
    """
    device = choose_device(requested)
    if device != "cuda":
        return device
    import torch

    if (local_rank := process_info().local_rank) is not None:
        return f"cuda:{local_rank}"
    count = torch.cuda.device_count()
    if count > 1:
        raise UsageError(
            f"{count} accelerators are visible; hide all but one with CUDA_VISIBLE_DEVICES=0, or use all with "
            f"'torchrun --nproc-per-node {count} -m sftchat train …'"
        )
    return device


def _split_validation(job: TrainingJob, config: TrainingConfig) -> tuple[list[Example], Validation | None]:
    """Return the rows to train on and the items to score."""
    examples = list(job.examples)
    if not config.eval_steps:
        return examples, None
    if job.validation is not None:
        return examples, validation_from_file(job.validation, config.validation_items, job.row_options)
    generator_call = next((entry for entry in job.data if "generator" in entry and "replay" not in entry), None)
    if generator_call is not None and examples:
        seed, options = int(generator_call.get("seed", 0)), dict(generator_call.get("options") or {})
        return validation_from_generator(job.task, examples, config.validation_items, seed, options)
    return validation_from_rows(examples, config.validation_items, config.seed)


def _choose_precision(earlier: Manifest | None, config: TrainingConfig, model: Any, device: str) -> Precision:
    """Return the precision; with ``auto``, a resumed run keeps its earlier one."""
    earlier_precision = str(earlier.config.get("precision", "auto")) if earlier is not None else "auto"
    if earlier is not None and config.precision == "auto" and earlier_precision != "auto":
        return Precision(earlier_precision, earlier.precision_reason)
    return choose_precision(config.precision, device, bfloat16_unit(device), int(model.get_input_embeddings().weight.shape[1]))


def _initial_manifest(
    job: TrainingJob,
    reference: ModelReference,
    renderer: Renderer,
    config: TrainingConfig,
    rows: RenderedRows,
    validation: Validation | None,
) -> Manifest:
    """Create the manifest as it is before training."""
    versions = {"python": platform.python_version(), **installed_versions(PACKAGES)}
    base = str(reference.folder.absolute()) if reference.folder and job.model == str(reference.folder) else job.model
    validation_record = {}
    if validation is not None:
        validation_record = {
            "metric": job.task.metric.name, "higher_is_better": job.task.metric.higher_is_better, "items": len(validation.examples),
            "source": validation.source, "hash": validation.hash,
        }  # fmt: skip
        if job.validation is not None:
            validation_record["file"] = job.validation
            if Path(job.validation).is_file():
                validation_record["sha256"] = file_hash(Path(job.validation))
    return Manifest(
        task=job.task.name, base=base, base_identity=identity(reference), method=config.method, config=asdict(config) | {"report_to": list(config.report_to)}, data=job.data, rows=len(rows.ids),
        tokens_hash=rows.hash, template=renderer.name, template_hash=renderer.template_hash, template_arguments=dict(renderer.arguments), versions=versions,
        command=job.command, validation=validation_record, template_name=renderer.template_name,
    )  # fmt: skip
