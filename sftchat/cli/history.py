"""``sftchat history``: results of all evaluations over time, and when an item was won and lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.options import complete_model, complete_task
from sftchat.cli.session import Session, json_text, stdout
from sftchat.errors import UsageError, unknown_name_message

if TYPE_CHECKING:
    from sftchat.evaluation.ledger import LedgerItem, LedgerResult
    from sftchat.task import Metric

MAX_NAMES = 10
"""Maximum number of names in an error message, the latest ones."""


@click.command()
@click.argument("task", required=False, metavar="[TASK]", shell_complete=complete_task)
@click.option("--task", "task_option", metavar="TASK", shell_complete=complete_task, help="The same as the argument TASK.")
@click.option("--evalset", metavar="FILE", help="Only results on the evalset of that file name.")
@click.option(
    "--model", metavar="MODEL", shell_complete=complete_model, help="Only results of that model, or of the checkpoints of that run."
)
@click.option("--item", "item_id", metavar="ID", help="Show when this item was right and wrong, and when its reply changed.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Show the last N results.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    ctx: click.Context, /, task: str | None, task_option: str | None, evalset: str | None, model: str | None, item_id: str | None,
    limit: int, as_json: bool,
) -> None:  # fmt: skip
    """Show the results of 'sftchat eval' over time, with intervals and with the change from one to the next.

    \b
    sftchat history
    sftchat history relation --model run
    sftchat history relation --item tea

    Results are compared only on the same content of an evalset with the same settings. A result of a part of an evalset (--limit, --ids) is
    shown and not compared. The results are in a file beside the reply cache, see 'sftchat cache'.
    """
    from sftchat.evaluation.history import make_item_sections, make_sections, visible_results
    from sftchat.evaluation.ledger import read_item, read_items, read_results
    from sftchat.evaluation.ledger_file import ledger_path
    from sftchat.evaluation.report.timeline import print_history, print_item_history

    if task is not None and task_option is not None and task != task_option:
        raise UsageError(f"TASK '{task}' and --task {task_option} differ; leave one of them out")
    path = ledger_path()
    recorded = visible_results(read_results(path))
    if not recorded and (task or task_option or evalset or model or item_id):
        raise UsageError(f"no results in {path}; 'sftchat eval' records them")
    if not recorded:
        click.echo("[]" if as_json else f"no results in {path}; 'sftchat eval' records them")
        return
    results = _select(recorded, task or task_option, evalset, model)
    if item_id is not None:
        items = read_item(path, item_id)
        item_sections = make_item_sections(results, items, limit)
        if not item_sections:
            raise UsageError(f"--item {item_id}: no such item in the items of {len(results)} results; 'sftchat history' lists the results")
        if as_json:
            click.echo(json_text([asdict(section) for section in item_sections]))
        else:
            print_item_history(item_id, item_sections, stdout())
        return
    session: Session = ctx.obj

    def find_metric(task: str, name: str) -> Metric | None:
        found = session.registry.tasks.get(task)
        return None if found is None else next((metric for metric in found.metrics if metric.name == name), None)

    @lru_cache(maxsize=4)  # a result is compared with the one before and with the one after it
    def items_by_number(number: int) -> Mapping[str, LedgerItem]:
        return read_items(path, number)

    sections = make_sections(results, limit, lambda result: items_by_number(result.number), find_metric)
    if as_json:
        click.echo(json_text([_section_json(asdict(section)) for section in sections]))
    else:
        print_history(sections, stdout())


def _section_json(section: dict[str, Any]) -> dict[str, Any]:
    """Replace the result before, in each run of a section, by its number."""
    for run in section["runs"]:
        run["before"] = None if run["before"] is None else run["before"]["number"]
    return section


def _select(results: list[LedgerResult], task: str | None, evalset: str | None, model: str | None) -> list[LedgerResult]:
    """Return the results of a task, evalset and model, each None for all.

    Raises:
        UsageError: When there are none.
    """

    def choose(kind: str, name: str, name_of: Callable[[LedgerResult], str], matches: Callable[[str], bool]) -> list[LedgerResult]:
        chosen = [result for result in results if matches(name_of(result))]
        if not chosen:
            latest = list(dict.fromkeys(name_of(result) for result in reversed(results)))[:MAX_NAMES]
            raise UsageError(f"no results: {unknown_name_message(kind, name, latest)}")
        return chosen

    if task is not None:
        results = choose("task", task, lambda result: result.task, lambda name: name == task)
    if evalset is not None:
        file = Path(evalset).name
        results = choose("evalset", file, lambda result: result.evalset.name, lambda name: name == file)
    if model is not None:
        run = f"{model.rstrip('/')}/"
        results = choose("model", model, lambda result: result.model, lambda name: name == model or name.startswith(run))
    return results
