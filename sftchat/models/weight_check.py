"""Checks that loaded weights are those in the files: all tensors present, with correct shapes and finite, and an embedding row for every token id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftchat.errors import ModelError
from sftchat.models.model_files import INDEX, weights_of
from sftchat.templates.parity import Check

SHOWN = 3
"""Maximum number of names of tensors or tokens in a message."""
LAYER = re.compile(r"\.\d+\.")
"""The layer number in a tensor's name."""
PARTS = re.compile(r"\.(bias|weight_scale\w*|scales|qweight|qzeros)$")
"""Suffixes of tensors without which their layer computes something else."""
EXTRA_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers")
"""Config keys for the number of layers in the files that only predict further tokens, and that no library loads."""


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
        unused = f"; {len(self.unused)} in the files have no place in the model ({_some(self.unused)})" if self.unused else ""
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
    mismatched = sorted((key, tuple(found), tuple(wanted)) for key, found, wanted in info["mismatched_keys"])
    if mismatched:
        key, found, wanted = mismatched[0]
        more = f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
        raise ModelError(
            f"the config of model '{name}' does not fit its weights: {key} is {_shape(found)}, the config makes it {_shape(wanted)}{more}"
        )
    if missing := sorted(_missing(model, info["missing_keys"])):
        raise ModelError(
            f"model '{name}' is incomplete: {len(missing)} of {len(parameters)} tensors are not in its files ({_some(missing)}), and random numbers "
            "would stand in their place; copy or download it again"
        )
    unused = sorted(info["unexpected_keys"])
    if lost := list(_lost(model, unused)):
        raise ModelError(
            f"the config of model '{name}' leaves out {len(lost)} tensors of its files ({_some(lost)}): it would be another model; "
            "take the config.json that belongs to these weights"
        )
    skipped = refuse_not_finite(name, parameters)
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
    if lacking := sorted(missing):
        raise ModelError(
            f"adapter '{name}' is incomplete: {len(lacking)} of {total} tensors are not in its file ({_some(lacking)}); copy or download it again"
        )
    if left := sorted(unused):
        raise ModelError(
            f"adapter '{name}' has {len(left)} tensors for which its base has no place ({_some(left)}): they would be left out; "
            "give the base that it was trained on with --base"
        )


def refuse_not_finite(name: str, tensors: Mapping[str, Any]) -> int:
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

    known = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    looked = {key: tensor.detach() for key, tensor in tensors.items() if tensor.dtype in known and tensor.numel()}
    by_device: dict[Any, list[str]] = {}
    for key, tensor in looked.items():
        by_device.setdefault(tensor.device, []).append(key)
    for keys in by_device.values():
        # one number per tensor that is finite if minimum and maximum are; fetched together, since each fetch waits for an accelerator
        ends = torch.stack([torch.stack(torch.aminmax(looked[key])).to(torch.float32) for key in keys]).isfinite().all(-1).tolist()
        if bad := [key for key, fine in zip(keys, ends, strict=True) if not fine and not bool(looked[key].isfinite().all())]:
            wrong = looked[bad[0]]
            what = "NaN" if bool(wrong.isnan().any()) else "infinity"
            raise ModelError(
                f"the weights of '{name}' are damaged: {bad[0]} holds {what}"
                + (f", as do {len(bad) - 1} more tensors" if len(bad) > 1 else "")
                + "; copy it again, or take an earlier checkpoint"
            )
    return len(tensors) - len(looked)


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

        wanted = get_peft_model_state_dict(model)
    else:
        wanted = model.state_dict()
    held: set[str] = set()
    for name in weights_of(folder):
        if not name.endswith(INDEX):
            with safe_open(folder / name, "pt") as file:
                for key in file.keys():  # noqa: SIM118 - no mapping
                    held.add(key)
                    refuse_not_finite(str(folder), {key: file.get_tensor(key)})
    tied = {wanted[key].data_ptr() for key in held & wanted.keys()}
    missing = sorted(key for key in wanted.keys() - held if wanted[key].data_ptr() not in tied)
    if missing and held <= wanted.keys():  # models whose tensor names in files differ from those in memory are left to the library
        raise ModelError(
            f"checkpoint '{folder}' is incomplete: {len(missing)} of {len(wanted)} tensors are not in its files ({_some(missing)}); "
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
    most = max(ids.values(), default=-1) + 1
    if most > rows:
        beyond = sorted((token for token, place in ids.items() if place >= rows), key=lambda token: (ids[token], token))
        raise ModelError(
            f"the tokenizer of '{name}' has ids up to {most - 1} and the embedding {rows} rows: {_count(beyond, 'token')} would have none "
            f"({_some([repr(token) for token in beyond])}); take the tokenizer that belongs to the weights, or resize the embedding"
        )
    return rows, most


def _missing(model: Any, keys: Iterable[str]) -> Iterator[str]:
    """Yield names of missing parameters without another source: buffers are computed, tied weights come from another parameter."""
    absent = set(keys)
    there = {id(parameter) for key, parameter in model.named_parameters(remove_duplicate=False) if key not in absent}
    yield from (key for key, parameter in model.named_parameters() if id(parameter) not in there)


def _lost(model: Any, unused: Iterable[str]) -> Iterator[str]:
    """Yield unused tensors that the model would need: parts of its layers, or of layers beyond its last."""
    every = dict(model.named_parameters(remove_duplicate=False))
    kinds = {LAYER.sub(".*.", key) for key in every if LAYER.search(key)}
    modules = {key.rpartition(".")[0] for key in every}
    config = model.config.get_text_config()
    extra = sum(value for key in EXTRA_LAYERS if isinstance(value := getattr(config, key, None), int))
    last = max((int(found[0].strip(".")) for key in every if (found := LAYER.search(key))), default=0)
    for key in unused:
        found = LAYER.search(key)
        of_a_layer = found is not None and LAYER.sub(".*.", key) in kinds and not last < int(found[0].strip(".")) <= last + extra
        if of_a_layer or (PARTS.search(key) and key.rpartition(".")[0] in modules):
            yield key


def _some(names: Iterable[str]) -> str:
    """Format the first names of a list."""
    every = list(names)
    return ", ".join(every[:SHOWN]) + (", …" if len(every) > SHOWN else "")


def _count(items: list[str], word: str) -> str:
    """Format a number with its noun."""
    return f"{len(items)} {word}" + ("" if len(items) == 1 else "s")


def _shape(sizes: Iterable[int]) -> str:
    """Format sizes with multiplication signs."""
    return " × ".join(map(str, sizes))
