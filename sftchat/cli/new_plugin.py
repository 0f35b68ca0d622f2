"""``sftchat new-plugin``: write a plugin project for a new task."""

from __future__ import annotations

from pathlib import Path

import click

from sftchat.cli.session import Session
from sftchat.errors import UsageError


@click.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the project.  [default: NAME]")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.pass_obj
def command(session: Session, name: str, output: Path | None, quiet: bool) -> None:
    """Write a plugin project with a task called NAME: it installs, passes its own tests and trains as it is.

    \b
    sftchat new-plugin sentiment
    sftchat new-plugin sentiment -o plugins/sentiment
    """
    import sftchat
    from sftchat.plugins.spec import PLUGIN_API
    from sftchat.scaffold.writing import Names, write_project

    names = Names(name, sftchat.__version__, PLUGIN_API)
    for plugin in session.registry.plugins:
        if name in plugin.tasks or name == plugin.name:
            raise UsageError(f"'{name}' is taken by {plugin.distribution}; choose another name")
    folder = output or Path(name)
    files = write_project(names, folder)
    if quiet:
        return
    click.echo(f"wrote {folder}: {', '.join(files)}", err=True)
    click.echo(f"next: pip install -e {folder}   pytest {folder}   sftchat train {name} -o runs/first", err=True)
    click.echo(
        f"then make it yours: {folder / names.package / 'task.py'} says what a row is, scorer.py beside it what a right reply is", err=True
    )
