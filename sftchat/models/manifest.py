"""``sftchat.json``, the manifest of trained weights: a complete record of their origin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sftchat._util.files import write_atomically
from sftchat._util.parsing import expand_user, from_json, load_json, read_text
from sftchat.errors import ModelError

MANIFEST = "sftchat.json"
CHECKPOINT = "checkpoint-"
"""Beginning of the names of checkpoint folders in a run."""
VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """Record of how a checkpoint was trained.

    Attributes:
        task: Name of the task.
        base: The base model as MODEL argument, with an absolute path if it was a folder.
        base_identity: Hash of the base model's weights.
        method: ``full``, ``lora``, ….
        config: All hyper-parameters, with defaults.
        data: Files, or the generator call, of the training rows, each with a hash of its bytes; replayed rows have their share under ``replay``.
        rows: Number of training rows.
        tokens_hash: Hash of the rendered ids and labels.
        template: Name of the chat template.
        template_hash: Hash of the template's source.
        template_arguments: Arguments of the template, the same in training and inference.
        versions: Versions of the relevant packages.
        command: The command line.
        validation: Evaluation during training: ``metric``, ``higher_is_better``, ``items``, their source and the hash of its file.
        scores: All metrics of the task by step, as text; ``"0"`` is the base model.
        chosen_step: The step of these weights; differs from ``steps`` if an earlier step scored best.
        merged: For a merged adapter: the adapter, its identity, the dtype, and the differences between merged model and adapter.
        best_checkpoint: Folder name of the best checkpoint, if any.
        steps: Number of optimizer steps.
        final_loss: Mean training loss of the last steps.
        seconds: Wall-clock seconds of training.
        precision_reason: Reason for the precision in ``config``.
        template_name: Name of the model's own template used for every conversation; empty if chosen by the presence of tools.
        base_file: For a base that was dequantized: the GGUF file as MODEL argument, its ``sha256``, and the ``type`` of its weights.
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
    base_file: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION


def resolve_template_options(
    manifest: Manifest | None, *, template: str = "", template_name: str = "", template_arguments: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the options for choosing a chat template: the given ones, else those of training.

    Args:
        manifest: Manifest of the model; None if it has none.
        template: Template name or file, instead of the model's own.
        template_name: Name of the model's own template to use for every conversation.
        template_arguments: Arguments of the template.

    Returns:
        ``template``, ``name`` and ``arguments``, the keywords of ``sftchat.templates.renderer.choose_renderer``.
    """
    trained_name = manifest.template_name if manifest is not None and not template else ""
    trained_arguments = manifest.template_arguments if manifest is not None else {}
    return {"template": template, "name": template_name or trained_name, "arguments": {**trained_arguments, **(template_arguments or {})}}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``sftchat.json`` into a folder atomically."""
    write_atomically(folder / MANIFEST, _to_json(manifest), "strict")


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a folder, or None if it has none; keys of later versions are ignored.

    Raises:
        ModelError: When it cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        return _parse_manifest(read_text(path))
    except ValueError as error:
        raise ModelError(f"{path} is not a manifest of sftchat: {error}") from error


def after_round_trip(manifest: Manifest) -> Manifest:
    """Return the manifest that reading a written manifest would return; comparable with one from a file, in which tuples are lists."""
    return _parse_manifest(_to_json(manifest))


def _to_json(manifest: Manifest) -> str:
    return json.dumps(asdict(manifest), ensure_ascii=False, indent=2) + "\n"


def _parse_manifest(text: str) -> Manifest:
    """Parse a manifest; raises ``ValueError``."""
    value, names = load_json(text), {item.name for item in fields(Manifest)}
    if isinstance(value, dict):
        value = {name: value[name] for name in value if name in names}
    manifest = from_json(Manifest, value)
    for source in manifest.data:
        if not isinstance(source.get("file", ""), str):
            raise ValueError(f"a file of rows is {source['file']!r:.40}, must be a path")
    return manifest


def find_manifest(model: str) -> Manifest | None:
    """Return the manifest of a local model, for a checkpoint without one that of its run; None if there is none.

    Raises:
        ModelError: When it cannot be read.
    """
    folder = expand_user(model)
    manifest = read_manifest(folder)
    if manifest is None and folder.name.startswith(CHECKPOINT):
        return read_manifest(folder.resolve().parent)
    return manifest


def checkpoint_step(folder: Path) -> int | None:
    """Return the optimizer step of a folder ``checkpoint-N``; None for other names."""
    step = folder.name.removeprefix(CHECKPOINT)
    return int(step) if step != folder.name and step.isdecimal() else None


def checkpoints_of(run: Path) -> list[Path]:
    """Return the folders ``checkpoint-N`` of a run, in order of steps."""
    steps = ((checkpoint_step(path), path) for path in run.glob(f"{CHECKPOINT}*") if path.is_dir())
    return [path for _, path in sorted((step, path) for step, path in steps if step is not None)]


def trained_tasks(models: Iterable[str]) -> dict[str, str]:
    """Return the name of the task that each model was trained on; without the models whose task is unknown.

    Raises:
        ModelError: When a manifest cannot be read.
    """
    manifests = {model: find_manifest(model) for model in models}
    return {model: manifest.task for model, manifest in manifests.items() if manifest is not None and manifest.task}
