"""Checks around loading: a tokenizer that runs in bounded time, weights that are those in the files and finite, an embedding row for every token id."""

from __future__ import annotations

import json
import re
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
LAYER_NUMBER = re.compile(r"\.\d+\.")
"""The layer number in a tensor's name."""
LAYER_PARTS = re.compile(r"\.(bias|weight_scale\w*|scales|qweight|qzeros)$")
"""Suffixes of tensors without which their layer computes something else."""
EXTRA_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers")
"""Config keys for the number of layers in the files that only predict further tokens, and that no library loads."""

TOKENIZER = "tokenizer.json"
TOKENIZER_SECONDS = 10.0
"""Maximum seconds for the tokenizer probes, of a few thousand characters each; normally they take milliseconds."""
TOKENIZER_BYTES = 2 << 30
"""Maximum address space for the probes, in bytes."""
MAX_TEXT_GROWTH = 64
"""Maximum ratio of a text's normalized, split or decoded length to its own; text in byte tokens reaches six."""
QUANTIFIERS = frozenset("*+{")
"""Quantifier characters; a regular expression without them is matched in linear time."""
PROBE_PROGRAM = """
import json, sys
most, growth = map(int, sys.argv[1:])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
except ImportError:
    pass  # Windows: the time alone is bounded
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
    if tokenizer.pre_tokenizer is not None and len(outputs[-1]) <= growth * len(probe):
        outputs.append("".join(piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(probe)))
    if tokenizer.decoder is not None:
        outputs.append(tokenizer.decoder.decode([probe]))
    outputs.append(tokenizer.encode(probe).ids)
    if max(map(len, outputs)) > growth * len(probe):
        sys.exit(f"makes more than {growth} times as much of a text as it is long")
"""
"""Runs in a subprocess, because the library's native code cannot be interrupted otherwise."""


@dataclass(frozen=True)
class WeightCheck:
    """Result of checking a model's weights.

    Attributes:
        tensors: Number of the model's tensors, all found in its files; tied ones count once.
        unused: Names of tensors in the files that the model does not use, sorted.
        adapter: Number of the adapter's tensors, all found in its files; 0 without an adapter.
        skipped: Number of tensors rounded to integers, which are always finite.
    """

    tensors: int
    unused: tuple[str, ...] = ()
    adapter: int = 0
    skipped: int = 0

    def proof(self, rows: int, ids: int) -> Check:
        """Return the result as one line.

        Args:
            rows: Number of rows of the embedding.
            ids: Largest token id of the tokenizer plus one.
        """
        adapter = f", of the adapter {self.adapter} of {self.adapter}" if self.adapter else ""
        finite = f"all but {self.skipped} rounded ones finite" if self.skipped else "all finite"
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
        more = f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
        raise ModelError(
            f"the config of model '{name}' does not fit its weights: {key} is {_shape(saved)}, the config makes it {_shape(configured)}{more}"
        )
    if missing := sorted(_missing(model, info["missing_keys"])):
        raise ModelError(
            f"model '{name}' is incomplete: {len(missing)} of {len(parameters)} tensors are not in its files ({first_names(missing)}), and random numbers "
            "would stand in their place; copy or download it again"
        )
    unused = sorted(info["unexpected_keys"])
    if lost := list(_lost(model, unused)):
        raise ModelError(
            f"the config of model '{name}' leaves out {len(lost)} tensors of its files ({first_names(lost)}): it would be another model; "
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
    """Check that all numbers in a model's tensors are finite; takes 0.5 to 0.8 s for the 135 million of SmolLM2 on two busy cores.

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
    by_device: dict[Any, list[str]] = {}
    for key, tensor in checked.items():
        by_device.setdefault(tensor.device, []).append(key)
    for keys in by_device.values():
        # one number per tensor that is finite if minimum and maximum are; fetched together, since each fetch waits for an accelerator
        ends = torch.stack([torch.stack(torch.aminmax(checked[key])).to(torch.float32) for key in keys]).isfinite().all(-1).tolist()
        if bad := [key for key, fine in zip(keys, ends, strict=True) if not fine and not bool(checked[key].isfinite().all())]:
            wrong = checked[bad[0]]
            what = "NaN" if bool(wrong.isnan().any()) else "infinity"
            raise ModelError(
                f"the weights of '{name}' are damaged: {bad[0]} holds {what}"
                + (f", as do {len(bad) - 1} more tensors" if len(bad) > 1 else "")
                + "; copy it again, or take an earlier checkpoint"
            )
    return len(tensors) - len(checked)


def check_saved(folder: Path, model: Any) -> None:
    """Check that a checkpoint has all weights of a model and that they are finite; tensors are read one at a time.

    Args:
        folder: A training checkpoint with complete weights.
        model: The model to load it into, with tied weights: a transformers model, or a ``PeftModel``, of which only the adapter is loaded.

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
    if missing and saved <= expected.keys():  # models whose tensor names in files differ from those in memory are left to the library
        raise ModelError(
            f"checkpoint '{folder}' is incomplete: {len(missing)} of {len(expected)} tensors are not in its files ({first_names(missing)}); "
            "delete it to go on from an earlier one"
        )


def check_vocabulary(name: str, model: Any, tokenizer: Any) -> tuple[int, int]:
    """Compare the ids of a tokenizer with the rows of the embedding; extra rows are padding and allowed.

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
        beyond = [token for row, token in sorted((row, token) for token, row in ids.items()) if row >= rows]
        raise ModelError(
            f"the tokenizer of '{name}' has ids up to {count - 1} and the embedding {rows} rows: {len(beyond)} token{'s' * (len(beyond) != 1)} would have none "
            f"({first_names([repr(token) for token in beyond])}); take the tokenizer that belongs to the weights, or resize the embedding"
        )
    return rows, count


def _missing(model: Any, keys: Iterable[str]) -> Iterator[str]:
    """Yield names of missing parameters without another source: buffers are computed, tied weights come from another parameter."""
    absent = set(keys)
    loaded = {id(parameter) for key, parameter in model.named_parameters(remove_duplicate=False) if key not in absent}
    yield from (key for key, parameter in model.named_parameters() if id(parameter) not in loaded)


def _lost(model: Any, unused: Iterable[str]) -> Iterator[str]:
    """Yield unused tensors that the model would need: parts of its layers, or of layers beyond its last."""
    keys = [key for key, _ in model.named_parameters(remove_duplicate=False)]
    kinds = {LAYER_NUMBER.sub(".*.", key) for key in keys if LAYER_NUMBER.search(key)}
    modules = {key.rpartition(".")[0] for key in keys}
    config = model.config.get_text_config()
    extra = sum(value for key in EXTRA_LAYERS if isinstance(value := getattr(config, key, None), int))
    last = max((int(match[0].strip(".")) for key in keys if (match := LAYER_NUMBER.search(key))), default=0)
    for key in unused:
        match = LAYER_NUMBER.search(key)
        of_a_layer = match is not None and LAYER_NUMBER.sub(".*.", key) in kinds and not last < int(match[0].strip(".")) <= last + extra
        if of_a_layer or (LAYER_PARTS.search(key) and key.rpartition(".")[0] in modules):
            yield key


def first_names(names: Sequence[str]) -> str:
    """Format the first names of a list."""
    return ", ".join(names[:MAX_LISTED_NAMES]) + (", …" if len(names) > MAX_LISTED_NAMES else "")


def _shape(sizes: Iterable[int]) -> str:
    return " × ".join(map(str, sizes))


def check_tokenizer(folder: Path) -> None:
    """Probe a tokenizer for regular expressions, replacements or padding that run without end or fill the memory.

    The tokenizer without its vocabulary runs in a subprocess on repetitions of the characters and texts that it names. If no part can repeat or
    lengthen text, nothing is run.

    Args:
        folder: A local model or adapter.

    Raises:
        ModelError: Reports the effect.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        return
    parts = read_object(path)
    parts |= {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}
    named = list(keyed_texts(parts))
    if not (any(key == "Regex" and QUANTIFIERS & set(text) for key, text in named) or any(key in ("String", "content") for key, text in named)
            or parts.get("padding")):  # fmt: skip
        return
    texts = {text[:100] for _, text in named}
    probes = sorted({(text * (2000 // len(text))) + end for text in {*texts, *"".join(texts), *"a 1.\n"} if text for end in ("", "!\0")})[
        :400
    ]
    arguments = (str(TOKENIZER_BYTES), str(MAX_TEXT_GROWTH))
    done = run_in_subprocess(PROBE_PROGRAM, [parts, probes], TOKENIZER_SECONDS, *arguments)
    if done is None:
        raise ModelError(f"'{path}' takes more than {TOKENIZER_SECONDS:g} seconds for a text of 2,000 characters")
    if done.returncode < 0 or "MemoryError" in done.stderr:
        raise ModelError(f"'{path}' takes more than {TOKENIZER_BYTES >> 30} GiB for a text of 2,000 characters")
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise ModelError(
            f"'{path}' {reason if reason.startswith('makes more') else f'cannot be used for a text of 2,000 characters: {reason}'}"
        )


def run_in_subprocess(program: str, data: Any, seconds: float, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    """Run a program in a subprocess with JSON on its standard input; None if it was stopped after ``seconds``."""
    try:
        return subprocess.run(
            [sys.executable, "-I", "-c", program, *arguments],
            input=json.dumps(data),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
