"""``sftchat eval --rescore``: what the present scorer changes in earlier results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sftchat.cli.session import Session, json_text, stdout
from sftchat.errors import UsageError
from sftchat.text import pluralize, printable

if TYPE_CHECKING:
    from sftchat.evaluation.plan import Plan
    from sftchat.evaluation.rescore import Rescored

REFUSED = frozenset((
    "baselines", "partial_replies", "output", "junit", "markdown", "html", "overwrite", "limit", "fresh", "self_check", "gated", "min_drop", "floors",
    "lower_floors", "must_pass", "strict", "require_baseline", "allow_missing_baseline", "update_baseline", "plan_only", "ids", "only", "previous",
    "judge", "rubric", "against",
))  # fmt: skip
"""Parameters that --rescore refuses."""


def check_rescore(ctx: click.Context) -> None:
    """Refuse options that ask for a comparison, a part of the items, or files.

    Raises:
        UsageError: When one is given.
    """
    for parameter in ctx.command.params:
        if parameter.name in REFUSED and ctx.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            raise UsageError(
                f"--rescore compares earlier replies with their recorded results, and writes nothing; leave out {parameter.opts[-1]}"
            )


def rescore(session: Session, plans: Sequence[Plan], options: Mapping[str, Any], *, as_json: bool) -> int:
    """Print what the present scorer changes, and return the exit code: 3 when replies of a MODEL are missing, else 0.

    Args:
        session: Identifies models.
        plans: Plans with the present scorers; without sources for all recorded results.
        options: Options of the engines.
        as_json: Whether to print JSON.

    Raises:
        UsageError: When nothing is recorded, or a judge scores.
        SftchatError: When the ledger cannot be read.
    """
    from sftchat.evaluation.ledger import read_items, read_results
    from sftchat.evaluation.ledger_file import ledger_path
    from sftchat.evaluation.reply_cache import ReplyCache, default_path
    from sftchat.evaluation.report.rescored import render_rescored, rescored_to_json
    from sftchat.evaluation.rescore import rescore_plan

    path = ledger_path()
    rescored: list[Rescored] = []
    results = read_results(path)
    with closing(ReplyCache(default_path(), _echo)) as cache:
        for plan in plans:
            if plan.judge is not None:
                raise UsageError(
                    "--rescore applies a scorer, and --judge asks a model; without --rescore its cached verdicts are used again"
                )

            def identify(model: str, template: str = plan.task.template) -> str:
                return session.identify(model, hashed=cache.file_hash, preferred=template, **options)

            rescored += rescore_plan(plan, results, lambda result: read_items(path, result.number), cache, identify, options)
    if not rescored:
        where = ", ".join(f"{plan.task.name} on {evalset.name}" for plan in plans for evalset in plan.evalsets)
        raise UsageError(
            f"no recorded results of {where} with these settings; 'sftchat eval MODEL' records them, 'sftchat history' lists them"
        )
    if as_json:
        click.echo(json_text([rescored_to_json(one) for one in rescored]))
    else:
        console = stdout()
        for part in render_rescored(rescored):
            console.print(part)
    names_models = any(plan.sources for plan in plans)
    incomplete = [one for one in rescored if one.missing]
    for one in incomplete:
        count = f"{one.missing} of {pluralize(one.size, 'reply', 'replies')} of '{one.model}' on {one.evalset}"
        how = "the same command without --rescore generates them" if names_models else f"'sftchat eval {one.model}' generates them"
        _echo(f"sftchat: {count} are neither cached nor stored; {how}")
    return 3 if incomplete and names_models else 0


def _echo(line: str) -> None:
    click.echo(printable(line), err=True)
