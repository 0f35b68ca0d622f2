"""``sftchat data``: generate, show, check and convert rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import click

from sftchat.cli.shared import Session, stderr, stdout
from sftchat.data.checking import Findings, check
from sftchat.data.formats import FORMATS, from_example, read_examples, with_ids
from sftchat.data.generating import generate_examples, generator_options, parse_options
from sftchat.data.reading import line_of
from sftchat.data.turns import ROLES
from sftchat.data.writing import check_target, write_rows
from sftchat.errors import UsageError, unknown
from sftchat.types import Example

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

T = TypeVar("T")

# text from a file could move the cursor or recolour the terminal: control characters are shown by their pictures instead
PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) != "\n"} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
role_option = click.option(
    "--role-map", "roles", multiple=True, metavar="NAME=ROLE", help=f"What a role of the file stands for: {', '.join(ROLES)}. Repeatable."
)


@click.group(short_help="generate, show, check and convert rows")
def command() -> None:
    """Generate, show, check and convert rows of training and evaluation data.

    \b
    sftchat data generate relation -n 1000 --seed 0 -o train.jsonl
    sftchat data show train.jsonl
    sftchat data check train.jsonl --task relation
    sftchat data convert train.jsonl train-sharegpt.jsonl --to sharegpt
    """


@command.command(short_help="rows from a task's generator")
@click.argument("task")
@click.option("-n", "count", type=click.IntRange(min=1), required=True, metavar="N", help="How many rows.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same bytes.")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to; - is stdout.")
@click.option("--format", "shape", type=click.Choice(FORMATS), help="Shape of the rows.  [default: the task's own]")
@click.option("--option", "pairs", multiple=True, metavar="NAME=VALUE", help="An option of the generator. Repeatable.")
@overwrite_option
@quiet_option
@click.pass_obj
def generate(
    session: Session, task: str, count: int, seed: int, output: str, shape: str | None, pairs: tuple[str, ...], overwrite: bool, quiet: bool
) -> None:
    """Write rows from the generator of TASK.

    The options are the task's own; one that does not exist is answered with those that do.

    \b
    sftchat data generate relation -n 1000 --seed 0 -o train.jsonl
    sftchat data generate relation -n 3 -o - --format alpaca
    sftchat data generate relation -n 200 --seed 1 -o gold.jsonl --format evalset
    """
    found = session.registry.task(task)
    options = parse_options(found, pairs)
    check_target(output, overwrite=overwrite)
    examples = generate_examples(found, count, seed, options)
    rows = _rows(_watched(examples, count, hidden=quiet or output == "-"), shape or found.row_format)
    written = write_rows(output, rows, overwrite=overwrite)
    if not quiet:
        used = {"seed": seed, **generator_options(found), **options}
        settings = ", ".join(f"{name}={value}" for name, value in used.items())
        click.echo(f"wrote {written} rows of task {task} to {_place(output)} ({settings})", err=True)


@command.command(short_help="the first rows as a table")
@click.argument("file")
@click.option("-n", "count", type=click.IntRange(min=1), default=5, show_default=True, metavar="K", help="How many rows.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@role_option
@quiet_option
def show(file: str, count: int, as_json: bool, roles: tuple[str, ...], quiet: bool) -> None:
    """Print the first rows of FILE as a table; long text is cut.

    \b
    sftchat data show train.jsonl
    sftchat data show train.jsonl -n 1 --json
    """
    examples = list(islice(read_examples(file, role_map=_role_map(roles)), count))
    if as_json:
        click.echo(json.dumps([asdict(example) for example in examples], ensure_ascii=False, indent=2))
        return
    _print_table(examples, stdout())
    if not quiet:
        click.echo(f"the first {len(examples)} rows of {file}; all of a row: --json", err=True)


@command.command("check", short_help="what is wrong with rows, as file:line: what")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--task", help="Also run the row check of this task.")
@click.option("--against", multiple=True, metavar="FILE", help="Training rows that must not stand in FILE, nor nearly. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@role_option
@quiet_option
@click.pass_context
def check_files(
    ctx: click.Context,
    files: tuple[str, ...],
    task: str | None,
    against: tuple[str, ...],
    as_json: bool,
    roles: tuple[str, ...],
    quiet: bool,
) -> None:
    """Look at every row of every FILE and print what is wrong as file:line: what.

    Wrong are malformed rows, ids that stand twice, exact duplicates, one prompt with different replies, what the task finds,
    and prompts that stand in a file to be checked against, or nearly. Exits with 1 if anything is wrong.

    \b
    sftchat data check train.jsonl
    sftchat data check train.jsonl gold.jsonl --task relation
    sftchat data check gold.jsonl --against train.jsonl
    """
    session: Session = ctx.obj
    found = session.registry.task(task) if task else None
    role_map = _role_map(roles)
    results = []
    for file in files:
        findings = check(file, found, against=against, role_map=role_map)
        results.append(findings)
        if not as_json:
            for problem in findings.problems:
                click.echo(problem)
        if not quiet:
            click.echo(_summary(findings), err=True)
    if as_json:
        click.echo(json.dumps([asdict(findings) for findings in results], ensure_ascii=False, indent=2))
    ctx.exit(1 if any(findings.problems for findings in results) else 0)


@command.command(short_help="rows in another shape")
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
    role_map = _role_map(roles)
    check_target(output, overwrite=overwrite)
    written = write_rows(output, _rows(read_examples(source, role_map=role_map), shape), overwrite=overwrite)
    if not quiet:
        click.echo(f"wrote {written} rows as {shape} to {_place(output)}", err=True)


def _rows(examples: Iterable[Example], shape: str) -> Iterator[dict[str, object]]:
    """Examples as rows; those of an evalset get ids, because a baseline knows its items by id."""
    for example in with_ids(examples) if shape == "evalset" else examples:
        yield from_example(example, shape)


def _watched(items: Iterable[T], total: int, *, hidden: bool) -> Iterator[T]:
    """Show a bar on a terminal, and nothing elsewhere: the last line says how it ended."""
    console = stderr()
    if hidden or not console.is_terminal:
        yield from items
        return
    from rich.progress import track

    yield from track(items, description="generating", total=total, console=console, transient=True)


def _role_map(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read ``--role-map NAME=ROLE``."""
    roles = {}
    for pair in pairs:
        name, equals, role = pair.rpartition("=")
        if not equals or not name:
            raise UsageError(f"role map '{pair}' must be NAME=ROLE, such as narrator=user")
        if role not in ROLES:
            raise UsageError(unknown("role", role, ROLES))
        roles[name] = role
    return roles


def _summary(findings: Findings) -> str:
    """One line on a file."""
    shapes = ", ".join(f"{count} {name}" for name, count in findings.formats.items()) or "none readable"
    problems = len(findings.problems)
    wrong = "no problems" if not problems else f"{problems} problem{'s' if problems > 1 else ''}"
    return f"{findings.path}: {findings.rows} rows ({shapes}), {findings.replies} with a reply: {wrong}"


def _place(output: str) -> str:
    """The output as a reader would call it."""
    return "stdout" if output == "-" else output


def _print_table(examples: list[Example], console: Console) -> None:
    """Print line, turns, the last turn of the prompt, and the gold reply, in what width the terminal has."""
    from rich.table import Table

    lines = [line_of(example.source) for example in examples]
    room = max(console.width - max(map(len, ["line", *lines])) - len("turns") - 9, 20)  # 9: the space between four columns and beside them
    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False)
    table.add_column("line", justify="right")
    table.add_column("turns", justify="right")
    table.add_column("prompt", width=room * 3 // 5)
    table.add_column("gold", width=room - room * 3 // 5)
    for line, example in zip(lines, examples, strict=True):
        prompt = example.messages[-1]["content"] if example.messages else ""
        cells = [_excerpt(text, width, console) for text, width in ((prompt, room * 3 // 5), (example.gold or "", room - room * 3 // 5))]
        table.add_row(line, str(len(example.conversation)), *cells)
    console.print(table)


def _excerpt(content: str, width: int, console: Console, most: int = 6) -> Text:
    """The beginning of a text, wrapped to a column and cut to some lines."""
    from rich.text import Text

    wrapped = Text(content.translate(PICTURES)).wrap(console, width)
    cut = Text("\n").join(line for line in wrapped[:most])
    if len(wrapped) > most:
        cut.append(" …")
    return cut
