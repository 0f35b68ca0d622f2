"""``sftchat new-task``: write a task file that can be evaluated as it is."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sftchat.cli.session import Session
from sftchat.errors import UsageError


@click.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="The task file.  [default: NAME.toml]")
@click.option(
    "--evalset",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Evalset of the task.  [default: NAME.csv, written if it does not exist]",
)
@click.option(
    "--map",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="Read COLUMN of the evalset under NAME, such as prompt or gold; repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace the task file; an evalset is never replaced.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.pass_obj
def command(
    session: Session, name: str, output: Path | None, evalset: Path | None, columns: tuple[str, ...], overwrite: bool, quiet: bool
) -> None:
    """Write a task file called NAME, with every key explained: a prompt, a scorer and an evalset, without Python.

    \b
    sftchat new-task tickets
    sftchat new-task tickets --evalset gold.csv
    sftchat eval sftchat:nano --task tickets.toml

    The labels of the evalset become those of the scorer, if they are few.
    """
    from sftchat.data.row_options import parse_column_map
    from sftchat.scaffold.new_task import write_task

    if name in session.registry.tasks:
        raise UsageError(f"'{name}' is an installed task; choose another name")
    path = output or Path(f"{name}.toml")
    written = write_task(name, path, evalset=evalset, columns=parse_column_map(columns), overwrite=overwrite)
    if quiet:
        return
    file, baseline = shlex.quote(str(path)), shlex.quote(f"{name}-baseline.jsonl")
    click.echo(f"wrote {' and '.join(map(str, written))}", err=True)
    click.echo(f"next: sftchat eval sftchat:nano --task {file}   (or another MODEL)", err=True)
    click.echo(f"then: sftchat eval MODEL --task {file} --update-baseline {baseline}", err=True)
    click.echo(f"gate: sftchat eval NEW-MODEL --task {file} --baseline {baseline}", err=True)
