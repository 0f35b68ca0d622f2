"""``sftchat.json``, the manifest beside trained weights: everything needed to say where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sftchat._util.parsing import from_json, load_json, path_of, read_text
from sftchat.errors import ModelError

MANIFEST = "sftchat.json"
VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """How a checkpoint was made.

    Attributes:
        task: Name of the task it was trained on.
        base: The base model as MODEL, absolute when it was a folder.
        base_identity: Hash of the base's weights.
        method: ``full``, ``lora``, ….
        config: Every hyper-parameter, resolved.
        data: Files or the generator call the rows came from, each with the hash of its bytes.
        rows: Rows trained on.
        tokens_hash: Hash of the rendered ids and labels: what the model really saw.
        template: Name of the chat template.
        template_hash: Hash of its source.
        template_arguments: Arguments of the template that training used and inference must use.
        versions: Versions of the packages that matter.
        command: What was typed.
        validation: What was scored during training: ``metric``, ``higher_is_better``, ``items``, where they come from and the hash of the file.
        scores: Every metric of the task by step, written as text; ``"0"`` is the base model.
        chosen_step: The step whose weights these are; differs from ``steps`` where an earlier one scored best.
        merged: For an adapter merged into its base: the adapter, its identity, the dtype, and how far the logits are from the adapter's.
        best_checkpoint: Folder name of the best checkpoint, when there is one.
        steps: Optimiser steps done.
        final_loss: Mean training loss of the last steps.
        seconds: Wall-clock seconds of training.
        precision_reason: Why it was trained in the precision that ``config`` names.
        template_name: Which of the model's several chat templates wrote every conversation; empty where tools decided.
    """

    task: str
    base: str
    base_identity: str
    method: str
    config: Mapping[str, Any]
    data: tuple[Mapping[str, Any], ...]
    rows: int
    tokens_hash: str
    template: str
    template_hash: str
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    validation: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    chosen_step: int = 0
    merged: Mapping[str, Any] = field(default_factory=dict)
    best_checkpoint: str = ""
    steps: int = 0
    final_loss: float | None = None
    seconds: float = 0.0
    precision_reason: str = ""
    template_name: str = ""
    version: int = VERSION


def as_trained(
    manifest: Manifest | None, *, template: str = "", template_name: str = "", template_arguments: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The options of a chat template that inference uses: those given, else those that training used.

    Args:
        manifest: How the model was trained; None for a model without.
        template: Template name or file, instead of the model's own.
        template_name: Which of the model's own templates writes every conversation.
        template_arguments: Arguments of the template.

    Returns:
        ``template``, ``name`` and ``arguments``, as ``sftchat.templates.renderer.choose_renderer`` takes them.
    """
    trained = manifest.template_name if manifest is not None and not template else ""
    arguments = {**(manifest.template_arguments if manifest is not None else {}), **(template_arguments or {})}
    return {"template": template, "name": template_name or trained, "arguments": arguments}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``sftchat.json`` into a folder, whole or not at all."""
    temporary = folder / f".{MANIFEST}.partial"
    try:
        temporary.write_text(_text(manifest), encoding="utf-8")
        temporary.replace(folder / MANIFEST)
    finally:
        temporary.unlink(missing_ok=True)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None when it has none; keys of later versions are ignored.

    Raises:
        ModelError: When there is one that cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        return _manifest(read_text(path))
    except ValueError as error:
        raise ModelError(f"{path} is not a manifest of sftchat: {error}") from error


def as_read(manifest: Manifest) -> Manifest:
    """A manifest as it is once it was written and read: two can be compared only so, since JSON knows no tuples."""
    return _manifest(_text(manifest))


def _text(manifest: Manifest) -> str:
    """What stands in the file."""
    return json.dumps(asdict(manifest), ensure_ascii=False, indent=2) + "\n"


def _manifest(text: str) -> Manifest:
    """The manifest that a text holds; raises ``ValueError``."""
    found, known = load_json(text), {item.name for item in fields(Manifest)}
    manifest = from_json(Manifest, {key: value for key, value in found.items() if key in known} if isinstance(found, dict) else found)
    for source in manifest.data:
        if not isinstance(source.get("file", ""), str):
            raise ValueError(f"a file of rows is {source['file']!r:.40}, must be a path")
    return manifest


def find_manifest(model: str) -> Manifest | None:
    """The manifest of a local model, or of the run that a checkpoint belongs to; None when there is none.

    Raises:
        ModelError: When there is one that cannot be read.
    """
    folder = path_of(model)
    places = [folder, folder.resolve().parent] if folder.name.startswith("checkpoint-") else [folder]
    return next((manifest for place in places if (manifest := read_manifest(place)) is not None), None)
