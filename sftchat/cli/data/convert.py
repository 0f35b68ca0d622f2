"""``sftchat data convert``: rows in another shape."""

from __future__ import annotations

import click

from sftchat._util.files import check_output_file
from sftchat.cli.data.options import output_name, overwrite_option, quiet_option
from sftchat.cli.options import complete_file, rows_options
from sftchat.data.formats import FORMATS, read_examples, to_rows
from sftchat.data.row_options import ReadingNotes, RowOptions
from sftchat.data.transcripts import TRANSCRIPT_STYLES, from_transcript, to_transcript
from sftchat.data.write import write_rows
from sftchat.errors import UsageError


@click.command(short_help="convert rows to another shape")
@click.argument("source", metavar="IN", shell_complete=complete_file)
@click.argument("output", metavar="OUT")
@click.option("--to", "row_format", type=click.Choice(FORMATS), required=True, help="Shape of the rows to write.")
@click.option("--template", type=click.Choice(TRANSCRIPT_STYLES), help="How conversations become text, with --to text.")
@rows_options
@overwrite_option
@quiet_option
def convert(source: str, output: str, row_format: str, template: str | None, row_options: RowOptions, overwrite: bool, quiet: bool) -> None:
    """Write the rows of IN to OUT in another shape; - is stdin or stdout.

    The shape of IN is recognised row by row; texts that are conversations (ChatML, ### Instruction:, User:) become turns again. If the new shape cannot represent a row, nothing is written.

    \b
    sftchat data convert alpaca.json train.jsonl --to messages
    sftchat data convert chats.jsonl - --to messages --role-map narrator=user
    sftchat data convert train.jsonl text.jsonl --to text --template chatml
    """
    if template is not None and row_format != "text":
        raise UsageError(f"--template writes conversations as text, which --to {row_format} does not; leave it out")
    check_output_file(output, overwrite=overwrite)
    notes = ReadingNotes()
    examples = read_examples(source, row_options, notes)
    if row_format != "text":
        examples = map(from_transcript, examples)
    elif template is not None:
        examples = (to_transcript(example, template) for example in examples)
    row_count = write_rows(output, to_rows(examples, row_format), overwrite=overwrite)
    if not quiet:
        for change in notes.change_lines():
            click.echo(f"note: {change}", err=True)
        click.echo(f"wrote {row_count} rows as {row_format} to {output_name(output)}", err=True)
