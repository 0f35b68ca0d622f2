"""``sftchat data generate``: rows from a task's generator."""

from __future__ import annotations

import click

from sftchat._util.files import check_output_file
from sftchat.cli.data.options import output_name, overwrite_option, quiet_option
from sftchat.cli.options import complete_task
from sftchat.cli.progress import with_progress
from sftchat.cli.session import Session
from sftchat.data.formats import FORMATS, to_rows
from sftchat.data.generate import generate_examples, generator_options, parse_options
from sftchat.data.write import write_rows


@click.command(short_help="write rows from a task's generator")
@click.argument("task", shell_complete=complete_task)
@click.option("-n", "count", type=click.IntRange(min=1), required=True, metavar="N", help="Number of rows.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same bytes.")
@click.option("-o", "--output", required=True, metavar="FILE", help="Output file; - is stdout.")
@click.option("--format", "row_format", type=click.Choice(FORMATS), help="Shape of the rows.  [default: the task's own]")
@click.option("--option", "pairs", multiple=True, metavar="NAME=VALUE", help="An option of the generator. Repeatable.")
@overwrite_option
@quiet_option
@click.pass_obj
def generate(
    session: Session, task: str, count: int, seed: int, output: str, row_format: str | None, pairs: tuple[str, ...], overwrite: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Write rows from the generator of TASK.

    The names for --option depend on the task; the error for an unknown name lists them.

    \b
    sftchat data generate relation -n 1000 --seed 0 -o train.jsonl
    sftchat data generate relation -n 3 -o - --format alpaca
    sftchat data generate relation -n 200 --seed 1 -o gold.jsonl --format evalset
    """
    chosen_task = session.registry.task(task)
    options = parse_options(chosen_task, pairs)
    check_output_file(output, overwrite=overwrite)
    examples = generate_examples(chosen_task, count, seed, options)
    rows = to_rows(with_progress(examples, count, hidden=quiet or output == "-"), row_format or chosen_task.row_format)
    row_count = write_rows(output, rows, overwrite=overwrite)
    if not quiet:
        all_options = {"seed": seed, **generator_options(chosen_task), **options}
        settings = ", ".join(f"{name}={value}" for name, value in all_options.items())
        click.echo(f"wrote {row_count} rows of task {task} to {output_name(output)} ({settings})", err=True)
