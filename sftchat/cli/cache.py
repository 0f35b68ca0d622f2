"""``sftchat cache``: list cached replies and delete them; also the results of the ledger."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

import click

from sftchat.cli.session import json_text
from sftchat.errors import UsageError
from sftchat.text import pluralize

IDENTITY_DIGITS = 12
"""Number of digits shown of an identity; ``--model`` accepts any prefix."""
UNITS = ("B", "kB", "MB", "GB")


@click.group(invoke_without_command=True, short_help="list cached replies, or delete them")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool) -> None:
    """List the cached replies of models, which 'sftchat eval' does not generate again.

    \b
    sftchat cache
    sftchat cache prune --older-than 30
    sftchat cache prune --all
    sftchat cache prune --ledger --older-than 365

    A cached reply is used only for the same weights, adapter, tokenizer, template, messages, sampling, dtype, device and versions. The
    cache is in $SFTCHAT_CACHE_DIR, or else in the user's cache folder, beside the ledger of results that 'sftchat history' shows.
    """
    if ctx.invoked_subcommand is not None:
        return
    from sftchat.evaluation.cache_contents import count_leak_checks, disk_size, summarise_models
    from sftchat.evaluation.ledger_file import count_results, ledger_path
    from sftchat.evaluation.reply_cache import default_path

    path, ledger = default_path(), ledger_path()
    result_count = count_results(ledger)
    models, leak_check_count = summarise_models(path), count_leak_checks(path)
    if as_json:
        content = {
            "path": str(path),
            "bytes": disk_size(path),
            "models": [asdict(model) for model in models],
            "leak_checks": leak_check_count,
            "ledger": {"path": str(ledger), "bytes": disk_size(ledger), "results": result_count},
        }
        click.echo(json_text(content))
        return
    if not models:
        click.echo(f"no replies in {path}")
    else:
        click.echo(f"{pluralize(sum(model.replies for model in models), 'reply', 'replies')} in {path}, {format_bytes(disk_size(path))}")
    count_width = max((len(str(model.replies)) for model in models), default=0)
    for model in models:
        last_used = datetime.fromtimestamp(model.used, UTC).astimezone().strftime("%Y-%m-%d %H:%M") if model.used else "never"
        click.echo(
            f"{model.identity[:IDENTITY_DIGITS]}  {model.replies:>{count_width}}  {last_used}  {json_text(model.name)[1:-1]}"
        )  # without quotes
    if leak_check_count:
        click.echo(f"{pluralize(leak_check_count, 'comparison')} of an evalset with training data")
    if result_count:
        click.echo(f"{pluralize(result_count, 'result')} for 'sftchat history' in {ledger}, {format_bytes(disk_size(ledger))}")


@command.command(short_help="delete replies, or results of the ledger")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Only of models last used DAYS days ago or earlier.")
@click.option(
    "--model", "identity", metavar="IDENTITY", help="Only of the model whose identity begins with IDENTITY, as 'sftchat cache' shows it."
)
@click.option("--all", "everything", is_flag=True, help="Delete everything, also a damaged file.")
@click.option("--ledger", is_flag=True, help="Delete results that 'sftchat history' shows, instead of replies.")
def prune(older_than: float | None, identity: str | None, everything: bool, ledger: bool) -> None:
    """Delete cached replies, and print how many. Replies can be generated again; results of the ledger cannot, and need --ledger.

    \b
    sftchat cache prune --older-than 30
    sftchat cache prune --model 3f2a9c --older-than 7
    sftchat cache prune --all
    sftchat cache prune --ledger --older-than 365
    """
    what = "result" if ledger else "reply"
    if ledger and identity is not None:
        raise UsageError("--model chooses cached replies, and --ledger deletes results; leave one of them out")
    if everything and (older_than is not None or identity is not None):
        raise UsageError(f"--all deletes every {what}; leave out --older-than and --model, or leave out --all")
    if not everything and older_than is None and identity is None:
        choices = "--older-than DAYS or --all" if ledger else "--older-than DAYS, --model IDENTITY, or --all"
        raise UsageError(f"say which {'results' if ledger else 'replies'} to delete: give {choices}")
    from sftchat.evaluation.cache_contents import clear, disk_size, prune_ledger, summarise_models
    from sftchat.evaluation.cache_contents import prune as delete_replies
    from sftchat.evaluation.ledger_file import ledger_path
    from sftchat.evaluation.reply_cache import default_path

    path = ledger_path() if ledger else default_path()
    before = disk_size(path)
    if ledger:
        count = prune_ledger(path, older_than)
    elif everything:
        count = clear(path)
    else:
        if identity is not None and not any(model.identity.startswith(identity.lower()) for model in summarise_models(path)):
            raise UsageError(f"no replies of a model '{identity}'; 'sftchat cache' lists the identities")
        count = delete_replies(path, identity=identity or "", older_than=older_than or 0)
    deleted = pluralize(count, "result") if ledger else pluralize(count, "reply", "replies")
    click.echo(f"{deleted} deleted, {format_bytes(max(0, before - disk_size(path)))} freed")


def format_bytes(size: float) -> str:
    """Format a number of bytes with a unit: ``512 B``, ``3.4 MB``."""
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if unit == 0 else f"{size:.1f} {UNITS[unit]}"
