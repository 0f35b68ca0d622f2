"""The options of a judge: how ``sftchat eval`` reads them, and what they exclude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.options import add_options, complete_model
from sftchat.errors import UsageError

if TYPE_CHECKING:
    from sftchat.evaluation.judge import Judge

judging_options = add_options(
    click.option("--judge", metavar="MODEL", shell_complete=complete_model, help="Model that rates the replies, by --rubric or --against."),
    click.option("--rubric", type=click.Path(path_type=Path), metavar="FILE", help="What the judge rates, as TOML; see docs/judge.md."),
    click.option("--against", metavar="MODEL|FILE", help="The judge compares the replies with those of MODEL, or with stored ones."),
)
"""``--judge``, ``--rubric`` and ``--against``."""


def take_judge(options: dict[str, Any], excluded: Mapping[str, object], models: Sequence[str]) -> tuple[Judge | None, str | None]:
    """Remove the options of a judge from a command's options.

    Args:
        options: Keyword arguments of the command.
        excluded: Values of options that cannot be given with a judge, by their names; those of ``PAIRS_EXCLUDE`` with ``--against`` only.
        models: MODEL arguments.

    Returns:
        The judge, not identified yet, and the value of ``--against``; None without a judge.

    Raises:
        UsageError: When an option is missing, or another excludes it.
        DataError: When a file of the judge cannot be read.
    """
    model, rubric, against = (options.pop(name) for name in ("judge", "rubric", "against"))
    if model is None:
        for name, value in (("--rubric", rubric), ("--against", against)):
            if value is not None:
                raise UsageError(f"{name} is for a judge; add --judge MODEL")
        return None, None
    for name, value in excluded.items():
        only_for_pairs = name in PAIRS_EXCLUDE
        if value and (against is not None or not only_for_pairs):
            raise UsageError(f"{name} cannot be given with {'--against' if only_for_pairs else '--judge'}; leave one of them out")
    if against is not None and len(models) > 1:
        raise UsageError(f"--against compares one MODEL, not {len(models)}")
    from sftchat.api.judges import read_judge

    return read_judge(model, rubric, against), against


PAIRS_EXCLUDE = ("--baseline", "--update-baseline", "-k", "--plan")
"""Options that are excluded by ``--against`` alone."""
