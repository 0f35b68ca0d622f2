"""``sftchat data convert``: rows in another shape."""

from __future__ import annotations

import click

from sftchat.cli.data.options import overwrite_option, place, quiet_option, role_map, role_option
from sftchat.data.formats import FORMATS, as_rows, read_examples
from sftchat.data.writing import check_target, write_rows


@click.command(short_help="rows in another shape")
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@click.option("--to", "shape", type=click.Choice(FORMATS), required=True, help="Shape of the rows to write.")
@role_option
@overwrite_option
@quiet_option
def convert(source: str, output: str, shape: str, roles: tuple[str, ...], overwrite: bool, quiet: bool) -> None:
    """Write the rows of IN to OUT in another shape; - is stdin or stdout.

    The shape of IN is recognised row by row. A row that the new shape cannot hold stops it, and nothing is written.

    \b
    sftchat data convert alpaca.json train.jsonl --to messages
    sftchat data convert chats.jsonl - --to messages --role-map narrator=user
    """
    mapping = role_map(roles)
    check_target(output, overwrite=overwrite)
    written = write_rows(output, as_rows(read_examples(source, role_map=mapping), shape), overwrite=overwrite)
    if not quiet:
        click.echo(f"wrote {written} rows as {shape} to {place(output)}", err=True)
