"""What the verbs of ``sftchat data`` share: options, and the way rows and their places are shown."""

from __future__ import annotations

import click

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def output_name(output: str) -> str:
    """The output as a reader would call it."""
    return "stdout" if output == "-" else output
