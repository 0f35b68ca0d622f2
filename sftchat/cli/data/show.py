"""``sftchat data show``: first rows as a table, or as training tokens of a model."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from sftchat.chat.safe_text import escape_controls
from sftchat.cli.data.options import json_option, quiet_option
from sftchat.cli.data.tokens import first_flag_with_value, open_renderer, render_example, split_by_trained
from sftchat.cli.options import complete_file, complete_model, rows_options, tokenizer_options
from sftchat.cli.session import json_text, stdout
from sftchat.data.formats import read_examples
from sftchat.data.read import line_of
from sftchat.data.row_options import RowOptions
from sftchat.errors import UsageError
from sftchat.types import Example

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from sftchat.templates.renderer import Renderer


@click.command(short_help="print the first rows as a table, or as tokens")
@click.argument("file", shell_complete=complete_file)
@click.option("-n", "count", type=click.IntRange(min=1), default=5, show_default=True, metavar="K", help="How many rows.")
@click.option(
    "--model", metavar="MODEL", shell_complete=complete_model, help="Show the rows as rendered for this model, trained tokens in green."
)
@tokenizer_options
@json_option
@rows_options
@quiet_option
def show(
    file: str, count: int, model: str | None, trust_remote_code: bool, as_json: bool, row_options: RowOptions, quiet: bool, **template: Any
) -> None:
    """Print the first rows of FILE as a table; long text is cut.

    With a model, print the rendered text: trained parts are green, others are only read. Without colours, trained parts stand between 〖 and 〗.

    \b
    sftchat data show train.jsonl
    sftchat data show train.jsonl -n 1 --json
    sftchat data show train.jsonl -n 2 --model sftchat:nano
    """
    if model is None and (option := first_flag_with_value(template)):
        raise UsageError(f"{option} needs --model, for which the rows are rendered")
    examples = list(islice(read_examples(file, row_options), count))
    if model is not None:
        _show_tokens(examples, open_renderer(model, None, trust_remote_code=trust_remote_code, **template), as_json, quiet)
        return
    if as_json:
        click.echo(json_text([asdict(example) for example in examples]))
        return
    _print_table(examples, stdout())
    if not quiet:
        click.echo(f"the first {len(examples)} rows of {file}; all of a row: --json", err=True)


def _show_tokens(examples: list[Example], renderer: Renderer, as_json: bool, quiet: bool) -> None:
    """Print rendered rows; trained parts are green or, without colours, in brackets."""
    from sftchat.templates.renderer import Rendered

    rows = [(example.source, row) for example in examples for row in render_example(renderer, example) or (Rendered((), ()),)]
    if as_json:
        objects = [{"source": source, "ids": row.ids, "labels": row.labels} for source, row in rows]
        click.echo(json_text(objects, indent=None))
        return
    from rich.text import Text

    console = stdout()
    for source, row in rows:
        console.print(Text(f"{source}: {len(row.ids)} tokens, {row.trained} of them trained", style="bold"))
        text = Text()
        for piece, is_trained in split_by_trained(renderer, row.ids, row.labels):
            escaped = escape_controls(piece)
            marked = f"〖{escaped}〗" if is_trained and (console.no_color or not console.is_terminal) else escaped
            text.append(marked, style="bold green" if is_trained else "dim")
        console.print(text, soft_wrap=True)
    if not quiet:
        click.echo(f"template {renderer.name}", err=True)


def _print_table(examples: list[Example], console: Console) -> None:
    """Print line, number of turns, last turn of the prompt, and gold reply, within the terminal width."""
    from rich.table import Table

    lines = [line_of(example.source) for example in examples]
    padding = 9  # between the four columns and beside them
    text_width = max(console.width - max(map(len, ["line", *lines])) - len("turns") - padding, 20)
    prompt_width = text_width * 3 // 5
    gold_width = text_width - prompt_width
    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False)
    table.add_column("line", justify="right")
    table.add_column("turns", justify="right")
    table.add_column("prompt", width=prompt_width)
    table.add_column("gold", width=gold_width)
    for line, example in zip(lines, examples, strict=True):
        prompt = example.messages[-1]["content"] if example.messages else ""
        excerpts = _excerpt(prompt, prompt_width, console), _excerpt(example.gold or "", gold_width, console)
        table.add_row(line, str(len(example.conversation)), *excerpts)
    console.print(table)


def _excerpt(content: str, width: int, console: Console, max_lines: int = 6) -> Text:
    """Return the beginning of a text, wrapped to a width and cut to ``max_lines``."""
    from rich.text import Text

    wrapped = Text(escape_controls(content)).wrap(console, width)
    cut = Text("\n").join(line for line in wrapped[:max_lines])
    if len(wrapped) > max_lines:
        cut.append(" …")
    return cut
