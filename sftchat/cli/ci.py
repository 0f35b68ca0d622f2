"""``sftchat ci``: write the job of a gate for a CI service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat.cli.options import complete_model
from sftchat.cli.session import Session
from sftchat.errors import UsageError

if TYPE_CHECKING:
    from sftchat.plugins.manager import Registry
    from sftchat.scaffold.ci import GateJob
    from sftchat.task import Task

NOT_IN_A_JOB = (
    "output",
    "overwrite",
    "as_json",
    "junit",
    "markdown",
    "html",
    "update_baseline",
    "plan_only",
    "ids",
    "only",
    "previous",
    "limit",
)
"""Options of ``sftchat eval`` that a job sets itself, or that make no gate."""
SCORER_EXTRAS = {"bleu": "overlap", "chrf": "overlap", "json_schema": "schema"}
"""The extra of sftchat that a scorer needs."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("service", type=click.Choice(["github", "gitlab", "jenkins"]), metavar="github|gitlab|jenkins")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[MODEL…] [OPTIONS OF EVAL]", shell_complete=complete_model)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="The file to write.  [default: the one that the service reads]"
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.pass_context
def command(ctx: click.Context, service: str, words: tuple[str, ...], output: Path | None, overwrite: bool, quiet: bool) -> None:
    """Write a CI job that runs 'sftchat eval' with the given arguments, and reports the items that a change broke.

    \b
    sftchat ci github --policy gate.toml
    sftchat ci github --task relation --replies replies.jsonl --baseline baseline.jsonl
    sftchat ci github sftchat:smollm2 --evalset tickets.csv --scorer choice --baseline baseline.jsonl
    sftchat ci gitlab http://models:8000/v1#new --task tickets.toml --baseline baseline.jsonl
    sftchat ci jenkins --task tickets.toml --replies replies.jsonl --min accuracy=0.8

    The job has the exit code of the gate. It keeps fetched models and replies for the next job, and uploads JUnit XML, Markdown and HTML. Run the
    command at the root of the repository; an existing file is never replaced without --overwrite.
    """
    from sftchat.scaffold.ci import SERVICES, write_workflow

    session: Session = ctx.obj
    job = _make_job(ctx, session.registry, words)
    file = write_workflow(service, job, output, overwrite=overwrite)
    if quiet:
        return
    click.echo(f"wrote {file}: {job.install}; sftchat eval {' '.join(job.models) or 'over stored replies'}", err=True)
    if output is not None and file != Path(SERVICES[service].default):
        click.echo(f"{service} reads {SERVICES[service].default}{SERVICES[service].hint}", err=True)
    if job.needs_key:
        click.echo("the key of the server is the secret SFTCHAT_API_KEY of the project", err=True)
    click.echo(f"next: git add {' '.join((str(file), *(path for path in job.watched if '*' not in path)))}", err=True)


def _make_job(ctx: click.Context, registry: Registry, words: tuple[str, ...]) -> GateJob:
    """Return the job of ``sftchat eval`` with these arguments.

    Raises:
        UsageError: When ``sftchat eval`` would refuse them, or they make no gate.
        click.UsageError: When they cannot be parsed.
    """
    from sftchat.models.reference import expand_patterns
    from sftchat.scaffold.ci import GateJob, extras_of, watched_paths

    options = _parse_eval_words(ctx, words)
    inputs = _inputs_of(options)
    tasks = [registry.task(name) for name in inputs.tasks]
    gate_options = ("policy_file", "baselines", "floors", "lower_floors", "must_pass")
    if not any(options[name] for name in gate_options) and not any(task.must_pass for task in tasks):
        raise UsageError(
            "these arguments make no gate, so the job could not fail; add --policy FILE, --baseline FILE, --min METRIC=X or --must-pass ID"
        )
    if not (inputs.models or inputs.has_replies):
        raise UsageError("nothing to score: give a MODEL, or --replies FILE for stored replies")
    models = tuple(dict.fromkeys((*expand_patterns(inputs.models), *_baseline_models(inputs.baselines))))
    scorers = {options["scorer"] or "", *_scorer_names([task.settings for task in tasks])}
    extras = {*extras_of(models, registry.engines), *(SCORER_EXTRAS[name] for name in scorers if name in SCORER_EXTRAS)}
    evalsets = [str(path) for task in tasks for path in task.evalsets.values() if not path.is_absolute()]
    return GateJob(
        words=words,
        models=models,
        watched=watched_paths([*words, *inputs.named, *evalsets]),
        extras=tuple(sorted(extras)),
        distributions=tuple(_distributions(registry, tasks, models)),
        fetched=tuple(model.partition(":")[2] for model in models if model.startswith("sftchat:") and model != "sftchat:nano"),
    )


@dataclass(frozen=True)
class _Inputs:
    """What ``sftchat eval`` reads, by its options and its policy file.

    Attributes:
        models: MODEL arguments.
        tasks: Words of ``--task``.
        baselines: Words of ``--baseline``.
        has_replies: Whether stored replies are scored.
        named: What the policy file names and may be files.
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    baselines: tuple[str, ...]
    has_replies: bool
    named: tuple[str, ...] = ()


def _inputs_of(options: Mapping[str, Any]) -> _Inputs:
    """Return what an evaluation reads; raise ``DataError`` for a policy file that cannot be read."""
    typed = _Inputs(options["models"], options["names"], options["baselines"], bool(options["replies"]))
    if options["policy_file"] is None:
        return typed
    from sftchat.evaluation.policy import load_policy

    policy = load_policy(options["policy_file"])
    entries = policy.content.tasks
    has_replies = typed.has_replies or (not typed.models and any(entry.replies for entry in entries))
    return _Inputs(
        typed.models if typed.models or has_replies else policy.models,
        tuple(dict.fromkeys((*typed.tasks, *map(policy.task_word, entries)))),
        (*typed.baselines, *(name for entry in entries if (name := policy.baseline_of(entry)) is not None)),
        has_replies,
        (*policy.models, *(name for entry in entries for name in policy.files_of(entry))),
    )


def _parse_eval_words(ctx: click.Context, words: Sequence[str]) -> Mapping[str, Any]:
    """Parse the arguments of ``sftchat eval``; refuse options that a job sets itself."""
    from sftchat.cli.eval import command as eval_command

    options = eval_command.make_context("eval", [*words], parent=ctx.parent).params
    for parameter in eval_command.params:
        if parameter.name in NOT_IN_A_JOB and options[parameter.name] not in (None, False, ()):
            raise UsageError(f"{parameter.opts[-1]} does not belong into the job of a gate, which writes its own reports; leave it out")
    return options


def _baseline_models(words: Sequence[str]) -> Iterator[str]:
    """Yield the baselines that are models, not files."""
    from sftchat.cli.tasks import is_model

    for word in words:
        if is_model(word) and is_model(word.partition("=")[2] or word):
            yield word.partition("=")[2] or word if "://" not in word else word


def _scorer_names(value: Any) -> Iterator[str]:
    """Yield the names of scorers in the settings of tasks, also of those within another."""
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str):
            yield value["name"]
        value = [*value.values()]
    if isinstance(value, list | tuple):
        for member in value:
            yield from _scorer_names(member)


def _distributions(registry: Registry, tasks: Sequence[Task], models: Sequence[str]) -> Iterator[str]:
    """Yield the names of the distributions whose plugins bring the tasks and engines, without sftchat itself."""
    names = {task.name for task in tasks}
    schemes = {model.partition(":")[0] for model in models}
    for plugin in registry.plugins:
        distribution = plugin.distribution.partition(" ")[0]
        if distribution != "sftchat" and (names & set(plugin.tasks) or schemes & set(plugin.engines)):
            yield distribution
