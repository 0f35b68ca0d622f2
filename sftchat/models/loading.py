"""Loads weights and tokenizer of a reference; the only module that calls ``from_pretrained``."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sftchat.errors import MissingExtraError, ModelError, SftchatWarning, first_line
from sftchat.models.adapters import add_adapter
from sftchat.models.hub import fetch_configs, hub_access
from sftchat.models.load_checks import WeightCheck, check_loaded, check_tokenizer, check_vocabulary, first_names
from sftchat.models.local_files import fetched, gguf_file
from sftchat.models.manifest import Manifest, read_manifest, resolve_template_options
from sftchat.models.model_files import ADAPTER_CONFIG, check_claims, check_config, check_weights, stored_dtype, weights_of
from sftchat.models.reference import ModelReference
from sftchat.templates.parity import Check
from sftchat.templates.renderer import Renderer, check_arguments, choose_renderer

FULL_PRECISION_LIMIT = 4_000_000_000
"""Maximum size in bytes of a model in float32, about a billion parameters, that is loaded in float32 on a CPU."""

LOADING = threading.RLock()
"""Held while weights are loaded: transformers creates parameters on the meta device by a process-wide setting, which would affect other threads."""


@dataclass(frozen=True)
class Loaded:
    """A loaded model.

    Attributes:
        model: A transformers causal language model in eval mode, or a PEFT model over one.
        renderer: Its tokenizer and chat template.
        stop_ids: Token ids that end a reply.
        manifest: Record of its training, if sftchat trained it.
        reference: Its reference; None if it was created in memory.
        options: Options of ``load_renderer`` with which its renderer was chosen.
        proof: Result of comparing the loaded weights with the files; None if it was created in memory.
    """

    model: Any
    renderer: Renderer
    stop_ids: tuple[int, ...]
    manifest: Manifest | None
    reference: ModelReference | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    proof: Check | None = None


def require_local(purpose: str) -> None:
    """Check that torch, transformers and peft are installed.

    Args:
        purpose: What they are needed for, such as ``loading a model``; for the message.

    Raises:
        MissingExtraError: When one is not; names the install command.
    """
    if any(find_spec(name) is None for name in ("torch", "transformers", "peft")):
        raise MissingExtraError(purpose)


def quiet_libraries() -> None:
    """Disable telemetry, progress bars and irrelevant messages of the Hugging Face libraries."""
    # transformers attributes warnings about its own arguments to the caller, which is torch's Module for a forward pass
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl|accelerate|torch\.nn\.modules)\.")
    warnings.filterwarnings(
        "ignore", r"Could not find a config file in (sftchat:nano|ms://)", UserWarning
    )  # peft, when it saves an adapter
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_tokenizer(reference: ModelReference, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a reference; for an adapter its own if it has one, else that of its base model.

    Raises:
        ModelError: When there is none, or it cannot be loaded.
    """
    require_local("loading a model")
    quiet_libraries()
    from transformers import AutoTokenizer

    reference = fetched(reference)
    if reference.is_gguf:
        from sftchat.models.gguf import load_gguf_tokenizer, read_header, require_gguf

        require_gguf(f"model '{reference.text}'")
        return load_gguf_tokenizer(read_header(gguf_file(reference)))
    if reference.base is not None and not (Path(reference.source) / "tokenizer_config.json").is_file():
        return load_tokenizer(reference.base, trust_remote_code=trust_remote_code)
    if reference.folder is not None and reference.base is None:
        check_config(reference.folder)
    if reference.folder is not None:
        check_tokenizer(reference.folder)
    try:
        with hub_access(local=reference.folder is not None):
            return AutoTokenizer.from_pretrained(
                reference.source, revision=reference.revision or "main", trust_remote_code=trust_remote_code
            )
    except Exception as error:  # the files are untrusted, and the libraries raise any exception
        raise ModelError(_load_error(reference, "tokenizer", error)) from error


def saved_tokenizer(folder: Path) -> Any:
    """Load a tokenizer that was saved by sftchat, without access to the Hub."""
    from transformers import AutoTokenizer

    with hub_access(local=True):
        return AutoTokenizer.from_pretrained(folder)


def load_model(reference: ModelReference, **options: Any) -> Any:
    """Load the weights of a reference in eval mode, an adapter with its base model; arguments and errors as in ``load_checked``."""
    return load_checked(reference, **options)[0]


def load_checked(
    reference: ModelReference, *, dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False, allow_pickle: bool = False,
    four_bit: bool = False, keep_bfloat16: bool = False,
) -> tuple[Any, WeightCheck]:  # fmt: skip
    """Load the weights of a reference in eval mode, an adapter with its base model, together with the result of their check.

    Args:
        reference: What to load.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``auto``, see ``automatic_dtype``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``auto``: an accelerator if there is one.
        trust_remote_code: Whether code that comes with the model may run.
        allow_pickle: Whether weights that are not safetensors may be loaded.
        four_bit: Whether linear layers, including those with an adapter, are rounded to 4-bit NormalFloat with double quantization, computing in
            ``dtype`` (Dettmers et al. 2023, arXiv:2305.14314); requires bitsandbytes.
        keep_bfloat16: Whether ``auto`` keeps a checkpoint in bfloat16 on a CPU.

    Raises:
        ModelError: When it cannot be loaded, tensors are missing or not finite, or it is an adapter without effect; the message is one line.
    """
    require_local("loading a model")
    quiet_libraries()
    import torch
    from transformers import AutoModelForCausalLM

    device = choose_device(device)
    reference = fetched(reference)
    if reference.base is not None:
        base, check = load_checked(
            reference.base, dtype=dtype, device=device, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, four_bit=four_bit,
            keep_bfloat16=keep_bfloat16,
        )  # fmt: skip
        adapted, tensor_count = add_adapter(base, reference.source, "default", reference.text)
        return adapted, replace(check, adapter=tensor_count)
    if reference.folder is not None:
        check_claims(reference.folder)
    folder, revision = _checked_files(reference, allow_pickle)
    if dtype == "auto":
        # the size of a model on the Hub is not known before its weights are fetched
        size = sum((folder / name).stat().st_size for name in weights_of(folder, allow_pickle=True)) if reference.folder is not None else 0
        dtype = automatic_dtype(device, stored_dtype(folder), size, keep_bfloat16)
    weights_dtype = getattr(torch, dtype) if dtype != "auto" else dtype
    try:
        with hub_access(local=reference.folder is not None):
            model, info = AutoModelForCausalLM.from_pretrained(
                reference.source,
                revision=revision,
                dtype=weights_dtype,
                use_safetensors=None if allow_pickle else True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # ``check_loaded`` reports them by name
                **(_four_bit_options(weights_dtype, device) if four_bit else {}),
            )
    except Exception as error:  # the files are untrusted, and the libraries raise any exception
        raise ModelError(_load_error(reference, "model", error)) from error
    check = check_loaded(reference.text, model, info)
    if check.unused:
        message = f"model '{reference.text}' leaves {len(check.unused)} tensors of its files unused: {first_names(check.unused)}"
        warnings.warn(message, SftchatWarning, stacklevel=2)
    return (model if four_bit else model.to(device)).eval(), check


def _checked_files(reference: ModelReference, allow_pickle: bool) -> tuple[Path, str]:
    """Check the files that refer to weights.

    Returns:
        The folder with the checked configs, and the revision to load: for a model on the Hub, the commit of the checked files.

    Raises:
        ModelError: When the files are not available, the model is an adapter on the Hub, or its weights are not allowed.
    """
    if reference.folder is not None:
        weights_of(reference.folder, allow_pickle=allow_pickle)
        return reference.folder, "main"
    try:
        with hub_access(local=False):
            folder = fetch_configs(reference.source, reference.revision)
    except Exception as error:  # the library raises any exception
        raise ModelError(_load_error(reference, "model", error)) from error
    if (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"'{reference.text}' is an adapter on the Hub; fetch it first (hf download {reference.source} --local-dir FOLDER) and give the folder"
        )
    check_weights(folder, allow_pickle=allow_pickle)
    check_config(folder)
    return folder, folder.name


def _four_bit_options(dtype: Any, device: str) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config, "device_map": {"": device}}


def load(
    reference: ModelReference,
    *,
    template: str = "",
    preferred: str = "chatml",
    template_name: str = "",
    template_arguments: Mapping[str, Any] | None = None,
    **options: Any,
) -> Loaded:
    """Load weights, tokenizer, template and stop tokens of a reference.

    Args:
        reference: What to load.
        template: Template name or file, instead of the model's own.
        preferred: Template for a model without one.
        template_name: Name of the model's own template to use for every conversation; if empty, the one used in training, else chosen by the
            presence of tools.
        template_arguments: Arguments of the template; they override those in the manifest.
        options: See ``load_model``.

    Raises:
        UsageError: When the tokenizer lacks tokens of the template, or the template lacks an argument.
        ModelError: See ``load_model``.
    """
    rendering: dict[str, Any] = {
        "template": template,
        "preferred": preferred,
        "template_name": template_name,
        "template_arguments": dict(template_arguments or {}),
        "trust_remote_code": bool(options.get("trust_remote_code")),
    }
    renderer, manifest = load_renderer(reference, **rendering)
    model, check = load_checked(reference, **options)
    rows, ids = check_vocabulary(reference.text, model, renderer.tokenizer)
    return Loaded(model, renderer, stop_ids(model, renderer), manifest, reference, rendering, check.proof(rows, ids))


def load_renderer(
    reference: ModelReference,
    *,
    template: str = "",
    preferred: str = "chatml",
    template_name: str = "",
    template_arguments: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> tuple[Renderer, Manifest | None]:
    """Load tokenizer, template and manifest of a reference, without weights.

    Raises:
        UsageError: When the tokenizer lacks tokens of the template, or the template lacks an argument.
    """
    reference = fetched(reference)
    tokenizer = load_tokenizer(reference, trust_remote_code=trust_remote_code)
    manifest = read_manifest(reference.folder) if reference.folder else None
    options = resolve_template_options(manifest, template=template, template_name=template_name, template_arguments=template_arguments)
    renderer = choose_renderer(tokenizer, preferred=preferred, **options)
    check_arguments(renderer, template_arguments or ())
    return renderer, manifest


def stop_ids(model: Any, renderer: Renderer) -> tuple[int, ...]:
    """Return all token ids that end a reply, from the generation config, the tokenizer and the template.

    Raises:
        ModelError: When the generation config contains something other than token ids.
    """
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids: set[int] = {*renderer.stop_tokens}
    for value in (configured, renderer.tokenizer.eos_token_id):
        if value is None:
            continue
        new_ids = value if isinstance(value, list | tuple) else [value]
        if not all(type(token) is int for token in new_ids):
            raise ModelError(f"a reply ends on token ids, but generation_config.json says eos_token_id {value!r}")
        ids.update(new_ids)
    return tuple(sorted(ids))


def unwrapped(model: Any) -> Any:
    """Return the transformers model within a PEFT model, or the model itself; weights that an adapter has replaced stay replaced."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def choose_device(device: str) -> str:
    """Return the given device; for ``auto`` an accelerator if there is one, else the CPU.

    Raises:
        ModelError: When the device does not exist.
    """
    import torch

    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator.type if accelerator is not None else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device '{device}' is not available here: {first_line(error).partition('. ')[0]}") from error
    return device


def automatic_dtype(device: str, stored: str, size: int, keep_bfloat16: bool) -> str:
    """Return the dtype that ``--dtype auto`` means.

    On an accelerator it is the checkpoint's own. On a CPU it is float32, in which a reply does not depend on the batch, unless the model is too large;
    commands for which speed matters more keep bfloat16 if the processor multiplies it (``sftchat.inference.open.load_engine``).

    Args:
        device: ``cpu`` or an accelerator.
        stored: Dtype that the checkpoint names; empty if none.
        size: Size of the weights in bytes, usually 2 for each number; 0 if unknown.
        keep_bfloat16: Whether a checkpoint in bfloat16 stays in bfloat16 on a CPU.

    Returns:
        ``float32``, ``bfloat16``, or ``auto`` for the checkpoint's own.
    """
    if device != "cpu":
        return "auto"
    if keep_bfloat16 and stored == "bfloat16":
        return stored
    return "float32" if 2 * size <= FULL_PRECISION_LIMIT else "auto"


def _load_error(reference: ModelReference, part: str, error: BaseException) -> str:
    """Return an error message for a part, ``model`` or ``tokenizer``, that could not be loaded; with advice if it is on the Hub."""
    reason = first_line(error)
    if reference.folder is None:
        return f"{part} of '{reference.text}' could not be fetched from the Hub: {reason}; check the name and the network, or give a local folder"
    return f"{part} of '{reference.text}' could not be loaded: {reason}"
