"""``sftchat inspect``: description of a model, its lineage, and the parity proof."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.options import complete_model, engine_options
from sftchat.cli.session import Session, json_text
from sftchat.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sftchat.models.provenance import Provenance
    from sftchat.models.reference import ModelReference
    from sftchat.templates.parity import Check
    from sftchat.templates.renderer import Renderer


@click.command()
@click.argument("model", metavar="MODEL", shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@engine_options
@click.pass_obj
def command(
    session: Session, /, model: str, as_json: bool, base: str | None, template: str | None, template_name: str | None, allow_pickle: bool,
    **options: Any,
) -> int:  # fmt: skip
    """Describe a model, and prove that training and inference use the same tokens.

    Exits with 3 when the proof fails. For a server, shows the models that it lists; their tokens cannot be checked.

    \b
    sftchat inspect sftchat:nano
    sftchat inspect runs/first
    """
    from sftchat.errors import UsageError
    from sftchat.models.reference import resolve

    reference = resolve(model, base=base, schemes=session.engine_types, allow_pickle=allow_pickle)
    if reference.served:
        _print_served_models(reference.source, as_json)
        return 0
    if reference.scheme and not reference.is_gguf:
        raise UsageError(f"model '{model}' is served by engine '{reference.scheme}'; only local models can be inspected")
    if reference.is_gguf:
        description, checks = _inspect_gguf(model, reference, template=template or "", template_name=template_name or "", **options)
        steps: Sequence[Provenance] = ()
    else:
        description, checks = _inspect_weights(
            reference, template=template or "", template_name=template_name or "", allow_pickle=allow_pickle, **options
        )
        from sftchat.models.provenance import trace_lineage

        steps = trace_lineage(model)
    from dataclasses import asdict

    failed = any(check.required and not check.passed for check in checks)
    if as_json:
        parity_rows = [{"check": check.name, "holds": check.passed, "detail": check.detail, "required": check.required} for check in checks]
        lineage_rows = [
            {"model": step.model, "note": step.note, "data_notes": step.data, "manifest": step.manifest and asdict(step.manifest)}
            for step in steps
        ]
        click.echo(json_text({**description, "lineage": lineage_rows, "parity": parity_rows}))
        return 3 if failed else 0
    width = max(map(len, description))
    for name, value in description.items():
        click.echo(printable(f"{name:<{width}}  {value}"))
    if len(steps) > 1 or any(step.manifest is not None for step in steps):
        click.echo("\nlineage: how it was made, the last step first")
        for step in steps:
            for line in _provenance_lines(step):
                click.echo(printable(f"  {line}"))
    click.echo("\nparity: training and inference see the same tokens")
    for check in checks:
        mark = "yes" if check.passed else "NO " if check.required else "no "
        click.echo(printable(f"  {mark}  {check.name} ({check.detail})"))
    return 3 if failed else 0


def _inspect_weights(reference: ModelReference, **options: Any) -> tuple[dict[str, Any], list[Check]]:
    """Load a model; returns its description and the results of all checks."""
    from sftchat.models.loading import load, require_local, saved_tokenizer

    require_local("inspecting a model")
    from sftchat.templates.parity import check_parity

    loaded = load(reference, **options)
    saved = saved_tokenizer(reference.folder) if loaded.manifest and reference.folder else None
    checks = check_parity(loaded.renderer, loaded.stop_ids, saved)
    return _describe_model(reference, loaded), [*([loaded.proof] if loaded.proof else []), *checks]


def _inspect_gguf(model: str, reference: ModelReference, **options: Any) -> tuple[dict[str, Any], list[Check]]:
    """Load a GGUF file with llama.cpp; returns its description and the results of all checks."""
    from sftchat.inference.llama_cpp import open_gguf
    from sftchat.models.fingerprint import identity
    from sftchat.templates.parity import Check, check_parity

    arguments = ("template", "template_name", "template_arguments", "device")
    engine = open_gguf(model, reference, **{name: options[name] for name in arguments if options.get(name) is not None})
    engine.close()
    header, renderer = engine.header, engine.renderer("")
    description = {
        "model": reference.text,
        "file": str(header.path),
        "architecture": header.architecture,
        "parameters": f"{header.parameters:,}",
        "weights": f"mostly {header.file_type}, {header.path.stat().st_size / 1e6:,.0f} MB",
        "context": header.context_length,
        **_describe_renderer(renderer, engine.stop_ids),
        "identity": identity(reference),
    }
    return description, [
        Check("transformers and llama.cpp tokenize alike", True, "the conversations of the proof"),
        *check_parity(renderer, engine.stop_ids),
    ]


def _print_served_models(address: str, as_json: bool) -> None:
    """Print what a server lists about its models, or about the one in the address; raises ``UsageError`` or ``ModelError``."""
    from sftchat.errors import ModelError, UsageError, unknown_name_message
    from sftchat.inference.open import require_endpoint

    require_endpoint("asking a server")
    from sftchat.inference.openai.server import served_models, server_and_model

    server, name = server_and_model(address)
    models, reason = served_models(server)
    if not models:
        raise ModelError(f"the server at {server.url} does not list its models: {reason}")
    selected = [model for model in models if not name or model["id"] == name]
    if not selected:
        raise UsageError(f"{unknown_name_message('model', name, [model['id'] for model in models])} at {server.url}")
    if as_json:
        click.echo(json_text({"server": server.url, "models": selected}))
        return
    click.echo(f"server  {server.url}")
    for model in selected:
        details = {"of": model.get("parent"), "from": model.get("root"), "context": model.get("max_model_len")}
        details_text = ", ".join(f"{label} {value}" for label, value in details.items() if value and value != model["id"])
        click.echo(printable(f"model   {model['id']}" + (f" ({details_text})" if details_text else "")))


def _describe_model(reference: Any, loaded: Any) -> dict[str, Any]:
    from sftchat.models.fingerprint import identity
    from sftchat.models.loading import unwrapped

    model, renderer = loaded.model, loaded.renderer
    config = model.config.get_text_config()
    description: dict[str, Any] = {
        "model": reference.text,
        "weights": reference.source,
        "architecture": type(unwrapped(model)).__name__,
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "shape": f"{config.num_hidden_layers} layers, width {config.hidden_size}, {config.vocab_size:,} tokens",
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "context": getattr(config, "max_position_embeddings", None),
        **_describe_renderer(renderer, loaded.stop_ids),
        "identity": identity(reference),
    }
    if reference.base is not None:
        description["adapter on"] = reference.base.text
        description["adapter"] = _describe_adapter(model)
    return description


def _describe_renderer(renderer: Renderer, stop_ids: Iterable[int]) -> dict[str, Any]:
    """Return the rows on a chat template and on what ends a reply."""
    return {
        "template": f"{renderer.name} ({renderer.template_hash[:12]})",
        **_describe_named_templates(renderer),
        "template arguments": ", ".join(f"{name}={json.dumps(value)}" for name, value in renderer.arguments.items()) or "none",
        "stop tokens": ", ".join(f"{renderer.tokenizer.convert_ids_to_tokens(token)} ({token})" for token in stop_ids),
    }


def _describe_named_templates(renderer: Renderer) -> dict[str, Any]:
    """Return the row on the named templates of a model and which of them is used; empty for a model without named templates."""
    if not renderer.named:
        return {}
    if renderer.template_name:
        choice = f"{renderer.template_name} for every conversation"
    elif len(renderer.variants) > 1:
        choice = f"{renderer.variants[-1].name} with tools, else default"
    else:
        choice = "default for every conversation"
    return {"templates": f"{', '.join(sorted(renderer.named))}; {choice}"}


def _describe_adapter(model: Any) -> str:
    config = next(iter(model.peft_config.values()))
    method = str(config.peft_type).rpartition(".")[2]
    if method == "LORA":
        method = "DoRA" if config.use_dora else "LoRA"
    targets = config.target_modules
    layer_names = targets if isinstance(targets, str) else ", ".join(sorted(targets or ()))
    full_modules = ", ".join(getattr(config, "modules_to_save", None) or ())
    size = f", rank {config.r}, alpha {config.lora_alpha:g}" if hasattr(config, "lora_alpha") else ""
    return f"{method}{size}, on {layer_names}" + (f", whole: {full_modules}" if full_modules else "")


def _provenance_lines(step: Provenance) -> list[str]:
    from sftchat.models.provenance import scores_by_step

    manifest = step.manifest
    lines = [step.model + (f": {step.note}" if step.note else "")]
    if manifest is None:
        return lines
    if manifest.merged:
        lines.append(
            f"  merged: {manifest.merged.get('adapter', 'an adapter')} into {manifest.base}, {manifest.merged.get('dtype', 'in a dtype not said')}"
        )
    lines.append(
        f"  trained: task {manifest.task}, {manifest.method}, {manifest.rows:,} rows, {manifest.steps} steps, template {manifest.template}"
    )
    for source in manifest.data:
        if "file" in source:
            note = step.data.get(str(source["file"]))
            lines.append(f"  data: {source['file']} ({str(source.get('sha256'))[:12]})" + (f": {note}" if note else ""))
        else:
            lines.append(f"  data: {', '.join(f'{name} {value}' for name, value in source.items() if value != {})}")
    for number, scores in scores_by_step(manifest.scores):
        mark = " (chosen)" if number == str(manifest.chosen_step) else ""
        lines.append(f"  step {number}: {scores}{mark}")
    if manifest.command:
        lines.append(f"  command: {manifest.command}")
    lines.append(f"  base: {manifest.base} ({manifest.base_identity[:12]})")
    if file := manifest.base_file:
        lines.append(f"  base dequantized from: {file.get('file')}, {file.get('type')} ({str(file.get('sha256'))[:12]})")
    return lines
