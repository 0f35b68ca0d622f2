"""``sftchat plugins``: list installed plugins, and why some failed to load."""

from __future__ import annotations

from dataclasses import asdict

import click

from sftchat.cli.session import Session, json_text
from sftchat.text import printable


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(session: Session, as_json: bool) -> None:
    """List tasks, engines and chat commands with their distributions; plugins that failed to load come first.

    \b
    sftchat plugins
    sftchat plugins --json
    """
    registry = session.registry
    if as_json:
        click.echo(json_text([{**asdict(plugin), "problem": plugin.problem or None} for plugin in registry.plugins]))
        return
    if not registry.plugins:
        click.echo("no plugins: nothing installed declares an entry point in the group 'sftchat'")
        return
    plugins = registry.plugins
    rows = [
        *((plugin.name, f"not loaded: {plugin.problem}", plugin) for plugin in plugins if plugin.problem),
        *((f"task {name}", registry.tasks[name].description, plugin) for plugin in plugins for name in plugin.tasks),
        *((f"engine {scheme}:", registry.engines[scheme].description, plugin) for plugin in plugins for scheme in plugin.engines),
        *((f"command /{name}", registry.commands[name].summary, plugin) for plugin in plugins for name in plugin.commands),
    ]
    name_width = max(len(row[0]) for row in rows)
    for name, description, plugin in rows:
        click.echo(printable(f"{name:<{name_width}}  {description}  ({plugin.distribution})"))
