"""``sftchat data``: generate, show, check, convert, filter, split and synthesise rows; one module a verb."""

from __future__ import annotations

import click

from sftchat.cli.data.best_of import best_of
from sftchat.cli.data.check import check_files
from sftchat.cli.data.convert import convert
from sftchat.cli.data.distill import distill
from sftchat.cli.data.filter import filter_rows
from sftchat.cli.data.generate import generate
from sftchat.cli.data.show import show
from sftchat.cli.data.split import split_rows


@click.group(short_help="rows: generate, show, check, convert, filter, split, best-of, distill")
def command() -> None:
    """Generate, show, check, convert, filter and split rows of training and evaluation data, and let models write some.

    \b
    sftchat data generate relation -n 1000 --seed 0 -o train.jsonl
    sftchat data show train.jsonl
    sftchat data check train.jsonl --task relation
    sftchat data convert train.jsonl train-sharegpt.jsonl --to sharegpt
    sftchat data filter train.jsonl fewer.jsonl --near 0.8
    sftchat data split train.jsonl most.jsonl few.jsonl --test 0.1
    sftchat data best-of relation run --prompts train.jsonl -k 4 -o best.jsonl
    sftchat data distill http://localhost:8000/v1#teacher --prompts train.jsonl -o taught.jsonl
    """


for verb in (generate, show, check_files, convert, filter_rows, split_rows, best_of, distill):
    command.add_command(verb)
