"""Options shared by the commands of ``sftchat data``."""

from __future__ import annotations

import click

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print only results and errors.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def output_name(output: str) -> str:
    """Return the name of an output for messages."""
    return "stdout" if output == "-" else output
