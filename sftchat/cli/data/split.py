"""``sftchat data split``: training and test rows without leakage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from sftchat._util.files import check_output_file
from sftchat.cli.data.options import json_option, overwrite_option, quiet_option
from sftchat.cli.data.provenance import write_provenance
from sftchat.cli.options import complete_file, rows_options
from sftchat.data.formats import to_example
from sftchat.data.read import read_rows
from sftchat.data.row_options import RowOptions
from sftchat.data.split import column_value, split
from sftchat.data.write import write_rows
from sftchat.errors import DataError, UsageError
from sftchat.text import pluralize


@click.command("split", short_help="split rows into training and test rows")
@click.argument("source", metavar="IN", shell_complete=complete_file)
@click.argument("train", metavar="TRAIN")
@click.argument("test", metavar="TEST")
@click.option(
    "--test",
    "test_size",
    type=click.FloatRange(min=0, min_open=True),
    default=0.1,
    show_default=True,
    metavar="X",
    help="Share of the rows for TEST, or their number, from 1.",
)
@click.option("--by", metavar="COLUMN", help="Keep rows with the same value together, such as those of one document.")
@click.option("--stratify", metavar="COLUMN", help="Take the same share of every value, such as a class.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the selection.")
@json_option
@rows_options
@overwrite_option
@quiet_option
def split_rows(
    source: str, train: str, test: str, test_size: float, by: str | None, stratify: str | None, seed: int, as_json: bool,
    row_options: RowOptions, overwrite: bool, quiet: bool,
) -> None:  # fmt: skip
    """Write the rows of IN to TRAIN and TEST, unchanged and in their order; the same seed writes the same bytes.

    Rows with the same prompt stay together. Rows selected for TEST with nearly the same prompt as a row of TRAIN move to TRAIN, so that 'sftchat
    data check TEST --against TRAIN' finds no leak. A provenance.json next to each file records how it was made.

    \b
    sftchat data split rows.jsonl train.jsonl test.jsonl
    sftchat data split rows.jsonl train.jsonl test.jsonl --test 0.2 --by document --seed 1
    sftchat data split tickets.csv train.jsonl test.jsonl --label-column label --stratify label
    """
    if not math.isfinite(test_size) or (test_size > 1 and not test_size.is_integer()):
        raise UsageError(f"--test is {test_size:g}, must be a share below 1 or a whole number of rows")
    if "-" in (source, train, test):
        raise UsageError("split writes two files and a sidecar beside each, and hashes IN; give files")
    if len({Path(name).resolve() for name in (source, train, test)}) < 3:
        raise UsageError("IN, TRAIN and TEST must be three files")
    for target in (train, test):
        check_output_file(target, overwrite=overwrite)
    source_rows = list(read_rows(source))
    examples = [to_example(row, position, row_options) for position, row in source_rows]
    groups = [column_value(row, by, position) for position, row in source_rows] if by else []
    strata = [column_value(row, stratify, position) for position, row in source_rows] if stratify else []
    try:
        result = split(examples, test_size, seed, groups=groups, strata=strata)
    except DataError as error:
        raise DataError(error.message, source) from None
    settings = {
        "test": test_size,
        "by": by,
        "stratify": stratify,
        "seed": seed,
        **({"rows": row_options.non_default} if row_options.non_default else {}),
    }
    counts = {
        "rows": len(source_rows),
        "train": len(source_rows) - len(result.test),
        "test": len(result.test),
        "groups": result.groups,
        "moved": result.moved,
    }
    for target, is_test in ((train, False), (test, True)):
        rows = (row for index, (_, row) in enumerate(source_rows) if (index in result.test) == is_test)
        write_rows(target, rows, overwrite=overwrite)
        write_provenance(target, "data split", [source], settings, counts)
    if as_json:
        click.echo(json.dumps(counts))
    if not quiet:
        moved = f"; {result.moved} more were chosen and went to {train}, which has nearly the same prompts" if result.moved else ""
        click.echo(
            f"{pluralize(counts['train'], 'row')} in {train}, {counts['test']} in {test}, in {result.groups} groups{moved}", err=True
        )
