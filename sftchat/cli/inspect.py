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

    Exits with 3 when the proof fails. Of a server, shows the models that it lists; what tokens they see is not ours to prove.

    \b
    sftchat inspect sftchat:nano
    sftchat inspect runs/first
    """
    from sftchat.errors import UsageError
    from sftchat.models.references import resolve

    reference = resolve(model, base=base, schemes=session.registry.engines, allow_pickle=allow_pickle)
    if reference.served:
        _show_server(reference.source, as_json)
        return 0
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


def _show_server(address: str, as_json: bool) -> None:
    """Print the models of a server, or the one that the address names, as the server describes them.

    Raises:
        UsageError: When the server does not list the one named.
        ModelError: When nothing answers, or there is no list.
    """
    from sftchat.engines.loading import require_endpoint
    from sftchat.errors import ModelError, UsageError, unknown

    require_endpoint("asking a server")
    from sftchat.engines.endpoint.opening import server_and_model
    from sftchat.engines.endpoint.server import served_models

    server, name = server_and_model(address)
    listed, why = served_models(server)
    if not listed:
        raise ModelError(f"the server at {server.url} does not say which models it has: {why}")
    chosen = [model for model in listed if name in ("", model["id"])]
    if not chosen:
        raise UsageError(f"{unknown('model', name, [model['id'] for model in listed])} at {server.url}")
    if as_json:
        click.echo(json.dumps({"server": server.url, "models": chosen}, ensure_ascii=False, indent=2))
        return
    click.echo(f"server  {server.url}")
    for model in chosen:
        known = {"of": model.get("parent"), "from": model.get("root"), "context": model.get("max_model_len")}
        about = ", ".join(f"{word} {value}" for word, value in known.items() if value and value != model["id"])
        click.echo(f"model   {model['id']}" + (f" ({about})" if about else ""))


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
