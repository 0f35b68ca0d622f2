"""``sftchat judge-check``: whether a judge agrees with people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sftchat.cli.session import json_text, stdout
from sftchat.errors import UsageError
from sftchat.text import pluralize, printable

if TYPE_CHECKING:
    from rich.table import Table

    from sftchat.evaluation.agreement import Agreement, Statistic

MAX_PRINTED_CATEGORIES = 12


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="RATINGS…", type=click.Path(path_type=Path))
@click.option("--id", "id_column", default="id", show_default=True, metavar="COLUMN", help="Column of the item's id.")
@click.option(
    "--judge", default="judge", show_default=True, metavar="COLUMN", help="Column of the judge's rating, or its name with --rater."
)
@click.option("--person", "people", multiple=True, metavar="COLUMN", help="Column of a person's rating, repeatable.  [default: person]")
@click.option("--rater", default="", metavar="COLUMN", help="Column of the rater's name, when every rating has a row of its own.")
@click.option("--scale", type=click.Choice(["nominal", "ordinal", "interval"]), help="Scale; by default ordinal for numbers, else nominal.")
@click.option("--order", default="", metavar="LOWEST,…,HIGHEST", help="The ratings in order, when they are texts.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the intervals.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Write the agreement, for the key 'agreement' of a rubric.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    files: tuple[Path, ...], id_column: str, judge: str, people: tuple[str, ...], rater: str, scale: str | None, order: str, seed: int,
    save: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure how well a judge's ratings agree with people's, beside the agreement of the people with each other.

    RATINGS are rows (JSONL, CSV, TSV) with an item id, the judge's rating and people's ratings; a missing rating is empty. Rows of one item may be
    in several files.

    \b
    sftchat judge-check ratings.csv
    sftchat judge-check out/verdicts.jsonl people.csv --judge score --person anna --person ben --scale interval
    sftchat judge-check long.csv --rater rater --person rating --judge gpt

    Intervals are 95 % intervals over the choice of items. κ and α are 1 for perfect agreement and 0 for what chance gives; from α = 0.8 on, ratings
    are reliable, from 0.667 on good for tentative conclusions (Krippendorff 2004).
    """
    from sftchat._util.files import check_output_file, write_atomically
    from sftchat.evaluation.agreement import measure_agreement
    from sftchat.evaluation.ratings import SCALES, RatingColumns, read_ratings

    if save is not None:
        check_output_file(save, overwrite=True)
    labels = tuple(label.strip() for label in order.split(",")) if order else ()
    if not all(labels):
        raise UsageError(f"--order '{order}' has an empty rating; write them with commas, such as bad,fair,good")
    columns = RatingColumns(id_column, judge, people or (("rating",) if rater else ("person",)), rater)
    ratings = read_ratings(files, columns, scale=next((name for name in SCALES if name == scale), None), order=labels)
    agreement = measure_agreement(ratings, seed=seed)
    if save is not None:
        write_atomically(save, json_text(agreement.as_json()) + "\n")
    if as_json:
        click.echo(json_text(agreement.as_json()))
        return
    print_agreement(agreement)


def print_agreement(agreement: Agreement) -> None:
    """Print the statistics, the confusion table and the advice."""
    from rich.text import Text

    from sftchat.evaluation.agreement import NAMES

    rated = f"{pluralize(agreement.items, 'item')} rated by '{agreement.judge}' and {pluralize(len(agreement.people), 'person', 'people')}"
    unused = f"; {pluralize(agreement.unused, 'item')} without both" if agreement.unused else ""
    click.echo(printable(f"{rated}, {agreement.scale}{unused}") + "\n")
    headers = ["", "judge with people", *(["people with each other"] if agreement.among_people else [])]
    table = _make_table(headers, right_aligned=False)
    among_people = {statistic.name: statistic for statistic in agreement.among_people}
    for statistic in agreement.with_people:
        cells = [NAMES[statistic.name], _format(statistic)]
        cells += [_format(among_people[statistic.name])] if statistic.name in among_people else []
        table.add_row(*map(Text, cells))
    stdout().print(table)
    if len(agreement.categories) <= MAX_PRINTED_CATEGORIES:
        labels = [category if isinstance(category, str) else f"{category:g}" for category in agreement.categories]
        table = _make_table(["person \\ judge", *map(printable, labels)], right_aligned=True)
        for label, row in zip(labels, agreement.confusion, strict=True):
            table.add_row(Text(printable(label)), *(Text(str(count) if count else "·") for count in row))
        click.echo()
        stdout().print(table)
    click.echo(f"\n{agreement.advice}")


def _make_table(headers: list[str], *, right_aligned: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for index, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if right_aligned and index else "left")
    return table


def _format(statistic: Statistic) -> str:
    if statistic.value is None:
        return "undefined"
    if statistic.low is None:
        return f"{statistic.value:.3f}"
    return f"{statistic.value:.3f} [{statistic.low:.3f}, {statistic.high:.3f}]"
