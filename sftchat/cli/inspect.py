"""``sftchat inspect``: what a model is, where it comes from, and the parity proof."""

from __future__ import annotations

import json
from typing import Any

import click

from sftchat.cli.shared import Session, engine_options


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@engine_options
@click.pass_obj
def command(
    session: Session, /, model: str, as_json: bool, base: str | None, template: str | None, allow_pickle: bool, **options: Any
) -> int:
    """Show what a model is, and prove that training and inference see the same tokens.

    Exits with 3 when the proof fails.

    \b
    sftchat inspect sftchat:nano
    sftchat inspect runs/first
    """
    from sftchat.errors import UsageError
    from sftchat.models.references import resolve

    reference = resolve(model, base=base, schemes=session.registry.engines, allow_pickle=allow_pickle)
    if reference.scheme:
        raise UsageError(f"model '{model}' is served by engine '{reference.scheme}'; only local models can be inspected")
    from sftchat.models.weights import load, require_local

    require_local("inspecting a model")
    from sftchat.models.parity import prove

    loaded = load(reference, template=template or "", allow_pickle=allow_pickle, **options)
    checks = prove(loaded.renderer, loaded.stop_ids, reference.folder if loaded.manifest else None)
    facts = _facts(reference, loaded)
    failed = any(check.required and not check.holds for check in checks)
    if as_json:
        proof = [{"check": check.name, "holds": check.holds, "detail": check.detail, "required": check.required} for check in checks]
        click.echo(json.dumps({**facts, "parity": proof}, ensure_ascii=False, indent=2))
        return 3 if failed else 0
    wide = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{wide}}  {value}")
    click.echo("\nparity: training and inference see the same tokens")
    for check in checks:
        mark = "yes" if check.holds else "NO " if check.required else "no "
        click.echo(f"  {mark}  {check.name} ({check.detail})")
    return 3 if failed else 0


def _facts(reference: Any, loaded: Any) -> dict[str, Any]:
    """What there is to say of a model, in the order in which one asks."""
    from sftchat.models.identity import identity
    from sftchat.models.weights import unwrapped

    model, renderer = loaded.model, loaded.renderer
    config = model.config.get_text_config()
    inner = unwrapped(model)
    facts: dict[str, Any] = {
        "model": reference.text,
        "weights": reference.source,
        "architecture": type(inner).__name__,
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "shape": f"{config.num_hidden_layers} layers, width {config.hidden_size}, {config.vocab_size:,} tokens",
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "context": getattr(config, "max_position_embeddings", None),
        "template": f"{renderer.name} ({renderer.template_hash[:12]})",
        "stop tokens": ", ".join(f"{renderer.tokenizer.convert_ids_to_tokens(i)} ({i})" for i in loaded.stop_ids),
        "identity": identity(reference),
    }
    if reference.base is not None:
        facts["adapter on"] = reference.base.text
    if (manifest := loaded.manifest) is not None:
        facts["trained on"] = f"task {manifest.task}, {manifest.rows:,} rows, {manifest.steps} steps, {manifest.method}"
        facts["base"] = f"{manifest.base} ({manifest.base_identity[:12]})"
        facts["command"] = manifest.command
    return facts
