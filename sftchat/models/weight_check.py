"""Whether the weights in memory are those that the files hold: every tensor there, of its shape, finite, and a row for every token id."""

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
"""Names of tensors or tokens in one message."""
LAYER = re.compile(r"\.\d+\.")
"""The number of a layer in the name of a tensor."""
PARTS = re.compile(r"\.(bias|weight_scale\w*|scales|qweight|qzeros)$")
"""Ends of names of tensors without which the layer that they belong to computes something else."""
EXTRA_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers")
"""Keys of a config that say how many layers the files hold which only predict further tokens, and which no library loads."""


@dataclass(frozen=True)
class WeightCheck:
    """What was found when the weights of a model were loaded.

    Attributes:
        tensors: Tensors of the model, all of them in its files; tied ones count once.
        unused: Names of tensors in the files for which the model has no place, sorted.
        adapter: Tensors of its adapter, all of them in its files; 0 for a model without one.
        skipped: Tensors that are rounded to integers, in which no number can be infinite.
    """

    tensors: int
    unused: tuple[str, ...] = ()
    adapter: int = 0
    skipped: int = 0

    def proof(self, rows: int, ids: int) -> Check:
        """The line of a proof.

        Args:
            rows: Rows of the embedding.
            ids: Token ids of the tokenizer: the largest, and one.
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
    """Refuse a model that is not what its files hold; of what is left over the caller may warn.

    Args:
        name: What the user calls the model.
        model: A transformers model as it was loaded, tied weights tied.
        info: What ``from_pretrained`` returned beside it for ``output_loading_info``.

    Raises:
        ModelError: When tensors are missing or have another shape, when the files hold more of a layer, or more layers, than the model, or when a
            tensor holds what is no finite number.
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
    """Refuse an adapter that lacks tensors, or has tensors for which its base has no place.

    Args:
        name: What the user calls it.
        total: Tensors that its config asks for.
        missing: Names of those that its file does not hold.
        unused: Names of those that the base has no place for.

    Raises:
        ModelError: Naming the first of them.
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
    """Look once at every number of a model's tensors: 0.5 to 0.8 s for the 135 million of SmolLM2 on two busy cores.

    Args:
        name: What the user calls the model.
        tensors: By name.

    Returns:
        How many tensors were not looked at, because they hold integers or eight bits.

    Raises:
        ModelError: Naming the first tensor that holds NaN or infinity.
    """
    import torch

    known = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    looked = {key: tensor.detach() for key, tensor in tensors.items() if tensor.dtype in known and tensor.numel()}
    by_device: dict[Any, list[str]] = {}
    for key, tensor in looked.items():
        by_device.setdefault(tensor.device, []).append(key)
    for keys in by_device.values():
        # one number of each that is finite where the least and the largest are; fetched together, since each fetch waits for an accelerator
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
    """Refuse a checkpoint that would not give a model all its weights, or give it some that are not finite; it is read tensor by tensor.

    Args:
        folder: A checkpoint of a training, its weights whole.
        model: The model that it is to be read into, tied weights tied: a transformers model, or a ``PeftModel``, of which the adapter is read.

    Raises:
        ModelError: Naming the first tensor that is missing or damaged.
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
    if missing and held <= wanted.keys():  # a model whose files have other names than its modules is left to the library
        raise ModelError(
            f"checkpoint '{folder}' is incomplete: {len(missing)} of {len(wanted)} tensors are not in its files ({_some(missing)}); "
            "delete it to go on from an earlier one"
        )


def check_vocabulary(name: str, model: Any, tokenizer: Any) -> tuple[int, int]:
    """Compare the ids that a tokenizer can make with the rows of the embedding; more rows than ids are padding, and fine.

    Args:
        name: What the user calls the model.
        model: A transformers model.
        tokenizer: The tokenizer that it is to be used with.

    Returns:
        Rows of the embedding, and the largest id of the tokenizer plus one.

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
    """Names of missing parameters that nothing else gives a value: buffers are computed, tied weights are another's."""
    absent = set(keys)
    there = {id(parameter) for key, parameter in model.named_parameters(remove_duplicate=False) if key not in absent}
    yield from (key for key, parameter in model.named_parameters() if id(parameter) not in there)


def _lost(model: Any, unused: Iterable[str]) -> Iterator[str]:
    """What of the unused tensors the model would need: a part of a layer that it has, or of a layer after its last."""
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
    """The first names of a list."""
    every = list(names)
    return ", ".join(every[:SHOWN]) + (", …" if len(every) > SHOWN else "")


def _count(items: list[str], word: str) -> str:
    """A number with its word."""
    return f"{len(items)} {word}" + ("" if len(items) == 1 else "s")


def _shape(sizes: Iterable[int]) -> str:
    """Sizes with signs between them."""
    return " × ".join(map(str, sizes))
