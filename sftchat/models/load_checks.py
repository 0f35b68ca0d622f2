"""Checks around loading: a tokenizer that runs in bounded time, weights that are those in the files and finite, an embedding row for every token id.

``check_saved`` checks the weights of a checkpoint before training resumes from it; incomplete checkpoints are left out before that, by
``sftchat.training.checkpoints``.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat._util.parsing import keyed_texts
from sftchat.errors import ModelError
from sftchat.models.model_files import INDEX_SUFFIX, read_object, weights_of
from sftchat.templates.parity import Check

MAX_LISTED_NAMES = 3
"""Maximum number of names of tensors or tokens in a message."""
LAYER_NUMBER = re.compile(r"\.(\d+)\.")
"""The layer number in a tensor's name."""
REQUIRED_SUFFIXES = re.compile(r"\.(bias|weight_scale\w*|scales|qweight|qzeros)$")
"""Ends of the names of tensors without which their module computes something else."""
EXTRA_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers")
"""Config keys for the number of layers for multi-token prediction; they are in the files, after the last layer, and no library loads them."""

TOKENIZER = "tokenizer.json"
TOKENIZER_SECONDS = 10
"""Maximum processor time in seconds for the tokenizer probes, of a few thousand characters each; normally they take milliseconds."""
MAX_TEXT_GROWTH = 64
"""Maximum ratio of a text's normalized, split or decoded length to its own; text in byte tokens reaches six."""
MAX_PROBES = 400
"""Maximum number of texts with which a tokenizer is probed."""
QUANTIFIERS = frozenset("*+{")
"""Quantifier characters; a regular expression without them is matched in linear time."""
PROBE_PROGRAM = """
import json, sys
max_growth = int(sys.argv[1])
from tokenizers import Tokenizer
parts, probes = json.load(sys.stdin)
try:
    tokenizer = Tokenizer.from_str(json.dumps(parts))
except Exception:
    sys.exit()  # loading reports it
for probe in probes:
    outputs = [probe]
    if tokenizer.normalizer is not None:
        outputs.append(tokenizer.normalizer.normalize_str(probe))
    if tokenizer.pre_tokenizer is not None and len(outputs[-1]) <= max_growth * len(probe):
        outputs.append("".join(piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(probe)))
    if tokenizer.decoder is not None:
        outputs.append(tokenizer.decoder.decode([probe]))
    outputs.append(tokenizer.encode(probe).ids)
    if max(map(len, outputs)) > max_growth * len(probe):
        sys.exit(f"makes more than {max_growth} times as much of a text as it is long")
"""
"""Runs in a subprocess, because the library's native code cannot be interrupted otherwise."""
SUBPROCESS_BYTES = 2 << 30
"""Maximum address space of a subprocess in bytes."""
LIMIT_PROGRAM = """
import sys
try:
    import resource
    seconds, size = map(int, sys.argv[1:3])
    for kind, limit in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, size)):
        soft_limit, hard_limit = resource.getrlimit(kind)
        if soft_limit == resource.RLIM_INFINITY or limit < soft_limit:
            resource.setrlimit(kind, (limit, hard_limit))
except ImportError:
    pass  # Windows: only the wall-clock time is limited
del sys.argv[1:3]
"""
"""Start of every program for a subprocess: limits processor time and address space, and prevents a core dump."""
MAX_WALL_RATIO = 12
"""Wall-clock limit of a subprocess as a multiple of its processor time, which a loaded machine grants slowly."""


@dataclass(frozen=True)
class WeightCheck:
    """Result of checking a model's weights.

    Attributes:
        tensors: Number of the model's tensors, all found in its files; tied ones count once.
        unused: Names of tensors in the files that the model does not use, sorted.
        adapter: Number of the adapter's tensors, all found in its files; 0 without an adapter.
        skipped: Number of tensors that were not checked for NaN and infinity, because they contain integers or eight-bit numbers.
    """

    tensors: int
    unused: tuple[str, ...] = ()
    adapter: int = 0
    skipped: int = 0

    def proof(self, rows: int, ids: int) -> Check:
        """Return the result as one line of the proof. It has always passed, because ``check_loaded`` raises when a check fails.

        Args:
            rows: Number of rows of the embedding.
            ids: Largest token id of the tokenizer plus one.
        """
        adapter = f", of the adapter {self.adapter} of {self.adapter}" if self.adapter else ""
        finite = f"all finite except {self.skipped} not checked (quantized)" if self.skipped else "all finite"
        unused = f"; {len(self.unused)} in the files have no place in the model ({first_names(self.unused)})" if self.unused else ""
        return Check(
            "the weights in memory are those of the files",
            True,
            f"{self.tensors} of {self.tensors} tensors{adapter}, {finite}, embedding {rows} rows ≥ {ids} tokenizer ids{unused}",
        )


def check_loaded(name: str, model: Any, info: Mapping[str, Any]) -> WeightCheck:
    """Check a loaded model against its files; the caller may warn of unused tensors.

    Args:
        name: Name of the model, as the user gave it.
        model: The loaded transformers model, with tied weights.
        info: The loading info of ``from_pretrained`` (``output_loading_info``).

    Raises:
        ModelError: When tensors are missing, have another shape or are not finite, or when the files contain more of a layer, or more layers, than
            the model.
    """
    parameters = dict(model.named_parameters())
    mismatched = sorted((key, tuple(saved), tuple(configured)) for key, saved, configured in info["mismatched_keys"])
    if mismatched:
        key, saved, configured = mismatched[0]
        saved_shape, configured_shape = (" × ".join(map(str, shape)) for shape in (saved, configured))
        more = f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
        raise ModelError(
            f"the config of model '{name}' does not fit its weights: {key} is {saved_shape}, the config makes it {configured_shape}{more}"
        )
    if missing := sorted(_missing_parameters(model, info["missing_keys"])):
        raise ModelError(
            f"model '{name}' is incomplete: {len(missing)} of {len(parameters)} tensors are not in its files ({first_names(missing)}), and random numbers "
            "would stand in their place; copy or download it again"
        )
    unused = sorted(info["unexpected_keys"])
    if left_out := list(_left_out_tensors(model, unused)):
        raise ModelError(
            f"the config of model '{name}' leaves out {len(left_out)} tensors of its files ({first_names(left_out)}): it would be another model; "
            "take the config.json that belongs to these weights"
        )
    skipped = check_finite(name, parameters)
    return WeightCheck(len(parameters), tuple(unused), skipped=skipped)


def check_adapter_keys(name: str, total: int, missing: Iterable[str], unused: Iterable[str]) -> None:
    """Check an adapter for missing tensors, and for tensors that its base model has no place for.

    Args:
        name: Name of the adapter, as the user gave it.
        total: Number of tensors that its config requires.
        missing: Names of tensors that are not in its file.
        unused: Names of tensors that the base model has no place for.

    Raises:
        ModelError: Names the first of them.
    """
    if missing := sorted(missing):
        raise ModelError(
            f"adapter '{name}' is incomplete: {len(missing)} of {total} tensors are not in its file ({first_names(missing)}); copy or download it again"
        )
    if unused := sorted(unused):
        raise ModelError(
            f"adapter '{name}' has {len(unused)} tensors for which its base has no place ({first_names(unused)}): they would be left out; "
            "give the base that it was trained on with --base"
        )


def check_finite(name: str, tensors: Mapping[str, Any]) -> int:
    """Check that all numbers in a model's tensors are finite; takes 0.5 to 0.8 s for the 135 million numbers of SmolLM2 on two busy cores.

    Args:
        name: Name of the model, as the user gave it.
        tensors: Tensors by name.

    Returns:
        Number of tensors that were skipped because they contain integers or eight-bit numbers.

    Raises:
        ModelError: Names the first tensor with NaN or infinity.
    """
    import torch

    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    checked = {key: tensor.detach() for key, tensor in tensors.items() if tensor.dtype in dtypes and tensor.numel()}
    keys_by_device: dict[Any, list[str]] = {}
    for key, tensor in checked.items():
        keys_by_device.setdefault(tensor.device, []).append(key)
    for keys in keys_by_device.values():
        # a tensor is finite if its minimum and maximum are; those of all tensors are fetched together, since each fetch waits for an accelerator
        extremes = torch.stack([torch.stack(torch.aminmax(checked[key])).to(torch.float32) for key in keys])
        suspects = [key for key, is_finite in zip(keys, extremes.isfinite().all(-1).tolist(), strict=True) if not is_finite]
        # a large float64 is infinite as float32, so each suspect is checked again
        if damaged := [key for key in suspects if not bool(checked[key].isfinite().all())]:
            value = "NaN" if bool(checked[damaged[0]].isnan().any()) else "infinity"
            others = f", as do {len(damaged) - 1} more tensors" if len(damaged) > 1 else ""
            raise ModelError(
                f"the weights of '{name}' are damaged: {damaged[0]} holds {value}{others}; copy it again, or take an earlier checkpoint"
            )
    return len(tensors) - len(checked)


def check_saved(folder: Path, model: Any) -> None:
    """Check that a checkpoint has all weights of a model and that they are finite; tensors are read one at a time.

    Args:
        folder: A training checkpoint, not sharded by a launcher.
        model: The model into which the checkpoint is to be loaded, with tied weights: a transformers model, or a ``PeftModel``, of which only the
            adapter is compared.

    Raises:
        ModelError: Names the first tensor that is missing or damaged.
    """
    from safetensors import safe_open

    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        expected = get_peft_model_state_dict(model)
    else:
        expected = model.state_dict()
    saved: set[str] = set()
    for name in weights_of(folder):
        if not name.endswith(INDEX_SUFFIX):
            with safe_open(folder / name, "pt") as file:
                for key in file.keys():  # noqa: SIM118 - no mapping
                    saved.add(key)
                    check_finite(str(folder), {key: file.get_tensor(key)})
    tied = {expected[key].data_ptr() for key in saved & expected.keys()}
    missing = sorted(key for key in expected.keys() - saved if expected[key].data_ptr() not in tied)
    # models whose tensors have other names in files than in memory are left to the library
    if missing and saved <= expected.keys():
        raise ModelError(
            f"checkpoint '{folder}' is incomplete: {len(missing)} of {len(expected)} tensors are not in its files ({first_names(missing)}); "
            "delete it to go on from an earlier one"
        )


def check_vocabulary(name: str, model: Any, tokenizer: Any) -> tuple[int, int]:
    """Check that the embedding has a row for every id of the tokenizer; further rows are padding and allowed.

    Args:
        name: Name of the model, as the user gave it.
        model: A transformers model.
        tokenizer: The tokenizer of the model.

    Returns:
        Number of rows of the embedding, and the largest id of the tokenizer plus one.

    Raises:
        ModelError: When an id has no row.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    ids = {**tokenizer.get_vocab(), **tokenizer.added_tokens_encoder}
    count = max(ids.values(), default=-1) + 1
    if count > rows:
        without_row = sorted((row, repr(token)) for token, row in ids.items() if row >= rows)
        tokens = "1 token" if len(without_row) == 1 else f"{len(without_row)} tokens"
        raise ModelError(
            f"the tokenizer of '{name}' has ids up to {count - 1} and the embedding {rows} rows: {tokens} would have none "
            f"({first_names([token for _, token in without_row])}); take the tokenizer that belongs to the weights, or resize the embedding"
        )
    return rows, count


def _missing_parameters(model: Any, missing_keys: Iterable[str]) -> Iterator[str]:
    """Yield the names of parameters that have no value: of the missing keys, not buffers, which are computed, nor weights tied to a loaded one."""
    missing = set(missing_keys)
    loaded = {id(parameter) for key, parameter in model.named_parameters(remove_duplicate=False) if key not in missing}
    yield from (key for key, parameter in model.named_parameters() if id(parameter) not in loaded)


def _left_out_tensors(model: Any, unused: Iterable[str]) -> Iterator[str]:
    """Yield the unused tensors that the model needs: tensors of its layers or of layers after its last, and required tensors of its modules."""
    keys = [key for key, _ in model.named_parameters(remove_duplicate=False)]
    layer_tensors = {LAYER_NUMBER.sub(".*.", key) for key in keys if LAYER_NUMBER.search(key)}
    modules = {key.rpartition(".")[0] for key in keys}
    config = model.config.get_text_config()
    extra_counts = (getattr(config, key, None) for key in EXTRA_LAYERS)
    extra = sum(count for count in extra_counts if isinstance(count, int))
    last = max((int(match[1]) for match in map(LAYER_NUMBER.search, keys) if match), default=0)
    for key in unused:
        match = LAYER_NUMBER.search(key)
        is_extra = match is not None and last < int(match[1]) <= last + extra
        is_layer_tensor = match is not None and LAYER_NUMBER.sub(".*.", key) in layer_tensors and not is_extra
        if is_layer_tensor or (REQUIRED_SUFFIXES.search(key) and key.rpartition(".")[0] in modules):
            yield key


def first_names(names: Sequence[str]) -> str:
    """Join the first ``MAX_LISTED_NAMES`` names, with ``…`` for the others."""
    return ", ".join(names[:MAX_LISTED_NAMES]) + (", …" if len(names) > MAX_LISTED_NAMES else "")


def check_tokenizer(folder: Path) -> None:
    """Check that a tokenizer's regular expressions, replacements and padding neither run forever nor fill the memory.

    The tokenizer, without its vocabulary, runs in a subprocess on repetitions of the characters and texts in its file. Nothing is run if no part of
    it can repeat or lengthen text.

    Args:
        folder: A local model or adapter.

    Raises:
        ModelError: When a text of 2,000 characters takes too much time or memory, becomes too long, or cannot be encoded.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        return
    parts = read_object(path)
    parts |= {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}
    named = list(keyed_texts(parts))
    has_repetition = any(key == "Regex" and QUANTIFIERS & set(text) for key, text in named)
    has_replacement = any(key in ("String", "content") for key, _ in named)
    if not (has_repetition or has_replacement or parts.get("padding")):
        return
    texts = {text[:100] for _, text in named if text}
    repeated = {*texts, *"".join(texts), *"a 1.\n"}
    probes = sorted(text * (2000 // len(text)) + end for text in repeated for end in ("", "!\0"))[:MAX_PROBES]
    result = run_in_subprocess(PROBE_PROGRAM, [parts, probes], TOKENIZER_SECONDS, str(MAX_TEXT_GROWTH))
    if result is None:
        raise ModelError(f"'{path}' takes more than {TOKENIZER_SECONDS} seconds for a text of 2,000 characters")
    if result.returncode < 0 or "MemoryError" in result.stderr:
        raise ModelError(f"'{path}' takes more than {SUBPROCESS_BYTES >> 30} GiB for a text of 2,000 characters")
    if result.returncode:
        reason = result.stderr.strip().rpartition("\n")[2]
        if not reason.startswith("makes more"):
            reason = f"cannot be used for a text of 2,000 characters: {reason}"
        raise ModelError(f"'{path}' {reason}")


def run_in_subprocess(program: str, data: Any, seconds: int, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    """Run a Python program in a subprocess with at most ``SUBPROCESS_BYTES`` of memory.

    Args:
        program: Source of the program.
        data: Written to its standard input as JSON.
        seconds: Maximum processor time in seconds.
        arguments: Command-line arguments of the program.

    Returns:
        None if it was stopped because it took too long.
    """
    try:
        result = subprocess.run(
            [sys.executable, "-I", "-c", LIMIT_PROGRAM + program, str(seconds), str(SUBPROCESS_BYTES), *arguments],
            input=json.dumps(data),
            capture_output=True,
            text=True,
            timeout=MAX_WALL_RATIO * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    was_too_slow = result.returncode < 0 and -result.returncode == signal.SIGXCPU
    return None if was_too_slow else result
