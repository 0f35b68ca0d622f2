"""Adds adapters to a base model and checks that they have an effect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftchat.errors import ModelError, first_line
from sftchat.models.hub import hub_access
from sftchat.models.load_checks import check_adapter_keys, check_finite, run_in_subprocess
from sftchat.models.model_files import ADAPTER_CONFIG, MAX_LAYERS, read_object, tensor_shapes

BASE = "__base__"
"""Name of a model without any adapter, in peft's style."""
SHARED_TENSORS = ("vblora_vector_bank", "prompt_encoder", ".tinylora_v.", ".unilora_theta_d.")
"""Substrings of the names of tensors that peft stores once for all layers; peft reports them as missing in each layer."""
SHAPE_MISMATCH = re.compile(r"size mismatch for (\S+): .*?torch\.Size\(\[([^]]*)\]\).*?torch\.Size\(\[([^]]*)\]\)", re.DOTALL)
"""torch's message about a wrong shape: name of the tensor, its shape in the file, its shape in the model."""
PROBE_TOKENS = 8
"""Number of tokens whose logits are compared; an effective adapter changes the logits of any token."""

PATTERN_KEYS = ("target_modules", "exclude_modules", "feedforward_modules")
"""Keys of an adapter's config whose value may be a regular expression."""
PLAIN_NAME = re.compile(r"[\w.-]*")
"""Matches a regular expression that is only a name, and therefore fast."""
PATTERN_SECONDS = 5
"""Maximum processor time in seconds to match an adapter's expressions against all modules of its base model."""
MATCH_PROGRAM = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    try:
        pattern = re.compile(pattern)
    except re.error as error:
        sys.exit(f"{pattern!r} is no regular expression: {error}")
    for name in names:
        pattern.fullmatch(name)
"""
"""Runs in a subprocess, because catastrophic backtracking cannot be interrupted otherwise."""


def check_adapter_has_effect(model: Any, name: str) -> None:
    """Compare the logits of an adapted model with those of its base model on a few tokens.

    peft loads an adapter without an error even if it was never trained, or if its tensor names match nothing in the base model. Such an adapter
    replies like its base, and an evaluation would report "no difference" (oumi #389, verl #7285).

    Args:
        model: A ``PeftModel`` in eval mode.
        name: Name of the model, as the user gave it.

    Raises:
        ModelError: When all logits are equal.
    """
    import torch

    vocabulary_size = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(PROBE_TOKENS, device=model.device).remainder(vocabulary_size)[None]
    with torch.inference_mode():
        adapted_logits = model(input_ids=ids, use_cache=False).logits
        with model.disable_adapter():
            base_logits = model(input_ids=ids, use_cache=False).logits
    if torch.equal(adapted_logits, base_logits):
        raise ModelError(
            f"adapter '{name}' changes nothing: all logits equal those of its base; it was not trained, or its weights' names do not fit this base "
            "(look at adapter_config.json, or give another base with --base)"
        )


def add_adapter(model: Any, folder: str, key: str, name: str) -> tuple[Any, int]:
    """Add an adapter to a model, and check that its file has exactly the tensors that its config requires.

    The tensors are created on torch's meta device, which allocates nothing, and then loaded from the file. So a config that requires far more than
    the file contains cannot fill the memory.

    Args:
        model: A transformers model, or a ``PeftModel`` around one; in eval mode.
        folder: Folder of the adapter.
        key: peft's name for the adapter; without dots.
        name: Name of the adapter, as the user gave it.

    Returns:
        A ``PeftModel`` with the adapter active (``model`` itself if it was a ``PeftModel``), and the number of tensors of the adapter.

    Raises:
        ModelError: When the adapter cannot be loaded, has missing, unused or non-finite tensors, or has no effect; the model is then unchanged.
    """
    import torch
    from peft import PeftConfig, PeftModel, PeftModelForCausalLM

    if torch.distributed.is_available():
        import torch.distributed.tensor  # peft uses this module and relies on transformers to have imported it
    adapted = model if isinstance(model, PeftModel) else None
    check_adapter(Path(folder), [module for module, _ in model.named_modules()])
    try:
        with hub_access(local=True):
            if adapted is None:
                config = PeftConfig.from_pretrained(folder)
                config.inference_mode = True
                adapted = PeftModelForCausalLM(model, config, adapter_name=key, low_cpu_mem_usage=True)
            else:
                adapted.base_model.enable_adapter_layers()
            tensor_count = _load_tensors(adapted, folder, key, name)
        adapted = adapted.to(model.device).eval()
        adapted.set_adapter(key, inference_mode=True)
        check_adapter_has_effect(adapted, name)
    except Exception as error:  # the files are untrusted, and the libraries raise any exception
        _remove_adapter(model, adapted, key)
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"adapter of '{name}' could not be loaded: {first_line(error)}") from error
    return adapted, tensor_count


def _load_tensors(adapted: Any, folder: str, key: str, name: str) -> int:
    """Load an adapter's tensors from its file into a model with meta tensors; return their number."""
    try:
        result = adapted.load_adapter(folder, adapter_name=key, torch_device=str(adapted.device), low_cpu_mem_usage=True)
    except KeyError as error:  # a tensor of a whole layer that the config names under modules_to_save
        raise ModelError(f"adapter '{name}' is incomplete: {error.args[0]} is not in its file; copy or download it again") from error
    except RuntimeError as error:
        raise ModelError(_describe_shape_error(name, error)) from error
    loaded = {parameter: value for parameter, value in adapted.named_parameters() if key in parameter.split(".")}
    missing = [tensor for tensor in result.missing_keys if not any(shared in tensor for shared in SHARED_TENSORS)]
    check_adapter_keys(name, len(loaded), missing, result.unexpected_keys)
    check_finite(name, loaded)
    return len(loaded)


def _remove_adapter(model: Any, adapted: Any, key: str) -> None:
    """Restore the model as it was before ``add_adapter``; ``adapted`` is None if no ``PeftModel`` was created."""
    if adapted is None:
        return
    if adapted is not model:
        adapted.unload()
    elif key in model.peft_config:
        model.set_adapter(next(other for other in model.peft_config if other != key), inference_mode=True)
        model.delete_adapter(key)


def _describe_shape_error(name: str, error: RuntimeError) -> str:
    """Return which tensor of an adapter has a wrong shape, from torch's message, or the first line of that message."""
    match = SHAPE_MISMATCH.search(str(error))
    if match is None:
        return f"adapter of '{name}' could not be loaded: {first_line(error)}"
    tensor, shape, required_shape = (group.replace(", ", " × ") for group in match.groups())
    return f"adapter '{name}' does not fit this base: {tensor} is {shape} and must be {required_shape}; give the base that it was trained on with --base"


def check_adapter(folder: Path, modules: Sequence[str]) -> None:
    """Check that an adapter's config requires no more than its file contains, and that its regular expressions are fast.

    Args:
        folder: A local adapter.
        modules: Names of the modules of its base model.

    Raises:
        ModelError: Reports the requirement and the actual size, or the expression.
    """
    path = folder / ADAPTER_CONFIG
    config, shapes = read_object(path), tensor_shapes(folder)
    largest_size = max((max(shape, default=1) for shape in shapes), default=1)
    rank_pattern = config.get("rank_pattern")
    ranks = [config.get("r"), *(rank_pattern.values() if isinstance(rank_pattern, dict) else ())]
    for rank in ranks:
        if shapes and isinstance(rank, int) and rank > largest_size:
            raise ModelError(f"'{path}' claims rank {rank}, and the largest tensor of its file has {largest_size} rows")
    replication = config.get("layer_replication")
    if replication:
        ranges = replication if isinstance(replication, list) else [replication]
        if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, int) for end in pair) for pair in ranges):
            raise ModelError(f"'{path}' has a layer_replication that is no list of pairs of whole numbers")
        layers = sum(max(0, end - start) for start, end in ranges)
        if layers > min(MAX_LAYERS, max(len(shapes), 1)):
            raise ModelError(f"'{path}' claims {layers} layers by layer_replication, and its file holds {len(shapes)} tensors")
    _check_patterns(path, list(_list_patterns(config)), modules)


def _check_patterns(path: Path, patterns: list[str], modules: Sequence[str]) -> None:
    """Match expressions in a subprocess with a time limit."""
    if not patterns:
        return
    result = run_in_subprocess(MATCH_PROGRAM, [patterns, list(modules)], PATTERN_SECONDS)
    if result is None:
        raise ModelError(
            f"'{path}' names its layers by a regular expression that takes more than {PATTERN_SECONDS} seconds: {patterns[0]!r:.80}"
        )
    if result.returncode:
        raise ModelError(f"'{path}' names its layers by an expression that cannot be used: {first_line(ValueError(result.stderr))}")


def _list_patterns(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the regular expressions of an adapter's config in the forms in which peft matches them, without those that are plain names."""
    yield from _without_plain_names(config.get(name) for name in PATTERN_KEYS)
    for name in ("rank_pattern", "alpha_pattern"):
        values_by_pattern = config.get(name)
        if isinstance(values_by_pattern, dict):
            yield from (rf"(.*\.)?({pattern})" for pattern in _without_plain_names(values_by_pattern))
    for name in ("modules_to_save", "layers_pattern"):
        value = config.get(name)
        patterns = _without_plain_names(value if isinstance(value, list) else [value])
        yield from (rf"(^|.*\.){pattern}($|\..*)" for pattern in patterns)


def _without_plain_names(values: Iterable[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str) and not PLAIN_NAME.fullmatch(value)]
