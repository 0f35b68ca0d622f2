"""``sftchat export``: write a model for Ollama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sftchat.cli.options import complete_model, tokenizer_options
from sftchat.cli.session import Session


@click.command()
@click.argument("model", metavar="MODEL", shell_complete=complete_model)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder for the files; must not exist.")
@click.option("--ollama", is_flag=True, help="Weights with a Modelfile, for 'ollama create'.")
@tokenizer_options
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.pass_obj
def command(
    session: Session, /, model: str, output: Path, ollama: bool, trust_remote_code: bool, quiet: bool, **template: Any,
) -> None:  # fmt: skip
    """Export MODEL: its weights, and a Modelfile whose template is verified to produce the prompts that the model was trained on.

    A template that cannot be expressed in Ollama's language is refused, with the first difference.

    \b
    sftchat export runs/full -o exported --ollama
    cd exported && ollama create my-model
    """
    from sftchat._util.files import check_output_folder
    from sftchat.errors import UsageError
    from sftchat.models.loading import require_local
    from sftchat.models.reference import refuse_gguf, resolve

    if not ollama:
        raise UsageError("say what to export for: --ollama")
    check_output_folder(output, must_be_new=True)
    reference = resolve(model, schemes=session.engine_types)
    refuse_gguf(reference, "export")
    if reference.scheme:
        raise UsageError(f"model '{model}' is served by engine '{reference.scheme}'; only local models can be exported")
    if reference.base is not None:
        raise UsageError(f"model '{model}' is an adapter; merge it first: sftchat merge {model} -o DIR")
    require_local("exporting a model")
    from sftchat.models.export import export_ollama

    modelfile, warning = export_ollama(reference, output, trust_remote_code=trust_remote_code, **template)
    if quiet:
        return
    click.echo(f"proved that Ollama writes the model's prompts: {', '.join(modelfile.verified)}", err=True)
    for note in (*modelfile.notes, *([warning] if warning else [])):
        click.echo(f"note: {note}", err=True)
    click.echo(f"saved to {output}; next: cd {output} && ollama create {output.name}", err=True)
