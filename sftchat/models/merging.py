"""An adapter into its base: merged, saved, read back, and compared with what the adapter says before anybody may use it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftchat.errors import ModelError, UsageError
from sftchat.folders import whole_folder
from sftchat.models.hub import reach
from sftchat.models.identity import identity
from sftchat.models.manifest import Manifest, write_manifest
from sftchat.models.parity import prove
from sftchat.models.references import ModelReference, resolve
from sftchat.models.templates import Renderer
from sftchat.models.weights import load, load_model

LOST = 0.1
"""The largest share of what an adapter changes that may be lost when it is merged: rounding to bfloat16 can erase a small adapter."""
POSITIONS = 48
"""Positions at the end of each conversation whose logits are compared, so that a vocabulary of 150,000 fits into memory."""


@dataclass(frozen=True)
class Comparison:
    """How near the logits of a merged model are to those of its adapter on the base.

    Attributes:
        changed: Mean absolute difference of logits between adapter and base: what the adapter does.
        lost: Mean absolute difference between merged model and adapter.
        largest: The largest of those.
        agreed: Share of positions with the same likeliest token.
        conversations: How many were compared.
    """

    changed: float
    lost: float
    largest: float
    agreed: float
    conversations: int

    @property
    def share(self) -> float:
        """The share of what the adapter does that is lost."""
        return self.lost / self.changed if self.changed else float("inf")


Complete = Callable[[Path, Any, Renderer], None]
"""Puts beside weights what a loader needs: tokenizer, template, stop tokens."""


def check_absent(output: Path) -> None:
    """Refuse an output folder that is there already, before anything slow.

    Raises:
        UsageError: When something is there, or its parent is no folder.
    """
    if output.exists():
        raise UsageError(f"output folder '{output}' exists already; give another -o")
    parent = next(path for path in output.absolute().parents if path.exists())
    if not parent.is_dir():
        raise UsageError(f"output folder '{output}' cannot be made: '{parent}' is a file")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"output folder '{output}' cannot be made: '{parent}' is not writable")


def merge(
    adapter: ModelReference,
    output: Path,
    conversations: Sequence[Sequence[Any]],
    complete: Complete,
    *,
    dtype: str = "auto",
    **options: Any,
) -> Comparison:
    """Merge an adapter into its base and write a model of its own; the folder appears only when the checks have passed.

    Args:
        adapter: The adapter.
        output: A folder that is not there yet.
        conversations: Real ones, with replies, on which logits are compared.
        complete: Puts tokenizer, template and stop tokens beside the weights.
        dtype: Of the weights written; ``auto`` is that of the base.
        options: As of ``sftchat.models.weights.load``.

    Raises:
        UsageError: When the model is no adapter, or the output is there already.
        ModelError: When it cannot be loaded, or the merged model says something else than the adapter.
    """
    check_absent(output)
    if adapter.base is None:
        raise UsageError(f"model '{adapter.text}' is no adapter: there is nothing to merge")
    chosen = _dtype(adapter.base) if dtype == "auto" else dtype
    loaded = load(adapter, dtype="float32", **options)
    rows = [row.ids for turns in conversations for row in loaded.renderer.training_rows(turns)[-1:]]
    adapted, plain = _logits(loaded.model, rows), _logits(loaded.model, rows, loaded.model.disable_adapter)
    with whole_folder(output) as partial:
        _write(loaded.model, partial, chosen)
        complete(partial, loaded.model.get_base_model(), loaded.renderer)
        compared = _compare(adapted, plain, _logits(load_model(resolve(str(partial)), dtype="float32"), rows))
        _refuse_other(compared, chosen)
        for check in prove(loaded.renderer, loaded.stop_ids, partial):
            if check.required and not check.holds:
                raise ModelError(f"the merged model would not see the same tokens: {check.name}: {check.detail}")
        write_manifest(partial, _manifest(adapter, loaded.manifest, loaded.renderer, chosen, compared))
    return compared


def _write(model: Any, folder: Path, dtype: str) -> None:
    """Merge in float32, then round to the dtype, once."""
    import torch

    merged = model.merge_and_unload(safe_merge=True).to(getattr(torch, dtype))
    merged.save_pretrained(folder)


def _dtype(base: ModelReference) -> str:
    """The dtype in which the weights of a base are stored."""
    from transformers import AutoConfig

    with reach(local=base.folder is not None):
        stored = AutoConfig.from_pretrained(base.source, revision=base.revision or "main").dtype
    return str(stored or "float32").removeprefix("torch.")


def _logits(model: Any, rows: Sequence[Sequence[int]], around: Callable[[], Any] = nullcontext) -> list[Any]:
    """Logits at the last positions of each row, in float32."""
    import torch

    with torch.inference_mode(), around():
        ids = [torch.tensor([row], device=model.device) for row in rows]
        return [model(input_ids=row, use_cache=False).logits[0, -POSITIONS:].float().cpu() for row in ids]


def _compare(adapted: Sequence[Any], plain: Sequence[Any], merged: Sequence[Any]) -> Comparison:
    """The differences over all positions."""
    import torch

    a, b, m = (torch.cat(list(logits)) for logits in (adapted, plain, merged))
    lost = (m - a).abs()
    agreed = (m.argmax(-1) == a.argmax(-1)).float().mean()
    return Comparison(float((a - b).abs().mean()), float(lost.mean()), float(lost.max()), float(agreed), len(adapted))


def _refuse_other(compared: Comparison, dtype: str) -> None:
    """Stop when the merged model is not the adapter on its base."""
    if compared.share <= LOST:
        return
    way = "keep more digits with --dtype float32" if dtype != "float32" else "the adapter cannot be merged; use it as it is"
    raise ModelError(
        f"the merged model would lose {compared.share:.0%} of what the adapter changes (mean difference of logits {compared.lost:.3g} of "
        f"{compared.changed:.3g} in {dtype}); {way}"
    )


def _manifest(adapter: ModelReference, made: Manifest | None, renderer: Renderer, dtype: str, compared: Comparison) -> Manifest:
    """The adapter's manifest, with what was done to it; a bare one for an adapter that was trained elsewhere."""
    assert adapter.base is not None
    if made is None:
        made = Manifest(
            "",
            adapter.base.text,
            identity(adapter.base),
            "lora",
            {},
            (),
            0,
            "",
            renderer.name,
            renderer.template_hash,
            dict(renderer.arguments),
        )
    facts = {
        "adapter": str(Path(adapter.source).absolute()), "adapter_identity": identity(adapter), "dtype": dtype,
        "logits_changed": compared.changed, "logits_lost": compared.lost, "conversations": compared.conversations,
    }  # fmt: skip
    return replace(made, merged=facts)
