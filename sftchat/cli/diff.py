"""``sftchat diff``: what differed between two trainings."""

from __future__ import annotations

import click

from sftchat.cli.options import complete_model
from sftchat.cli.session import json_text, stdout
from sftchat.errors import ModelError
from sftchat.text import printable


@click.command()
@click.argument("first", metavar="RUN", shell_complete=complete_model)
@click.argument("second", metavar="RUN", shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(first: str, second: str, as_json: bool) -> None:
    """Show what differed between two runs: base, data, template, hyper-parameters, versions, scores.

    Only the manifests are read, no weights. A checkpoint can be given instead of a run.

    \b
    sftchat diff runs/first runs/second
    """
    from dataclasses import asdict

    from sftchat.models.manifest import find_manifest
    from sftchat.models.provenance import compare_manifests, format_value, same_sections
    from sftchat.models.reference import resolve

    manifests = []
    for run in (first, second):
        resolve(run)  # raises if the folder does not exist
        manifest = find_manifest(run)
        if manifest is None:
            raise ModelError(f"'{run}' has no manifest (sftchat.json); only what sftchat trained can be compared")
        manifests.append(manifest)
    differences = compare_manifests(*manifests)
    if as_json:
        rows = [asdict(difference) for difference in differences]
        click.echo(json_text({"left": first, "right": second, "differences": rows}))
        return
    if not differences:
        click.echo("nothing differs")
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for header in ("", "", first, second):
        table.add_column(Text(header, overflow="fold"), overflow="fold")
    section = ""
    for difference in differences:
        heading = "" if difference.section == section else difference.section
        cells = (heading, difference.name, format_value(difference.left), format_value(difference.right))
        table.add_row(*map(Text, map(printable, cells)))
        section = difference.section
    stdout().print(table)
    if same := same_sections(differences):
        click.echo(f"\nthe same: {', '.join(same)}")
