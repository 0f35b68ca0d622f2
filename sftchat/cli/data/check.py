"""``sftchat data check``: problems of rows as ``file:line: message``, with a policy for each class of problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sftchat._util.files import check_output_file
from sftchat.cli.data.options import json_option, output_name, overwrite_option, quiet_option
from sftchat.cli.options import allow_code_option, complete_file, complete_model, complete_task, rows_options, tokenizer_options
from sftchat.cli.session import Session, json_text
from sftchat.data.check import PROBLEM_CLASSES, Findings, Policy, check, parse_policies, remaining_rows
from sftchat.data.read import line_of
from sftchat.data.row_options import RowOptions, options_for_task
from sftchat.data.write import write_rows
from sftchat.errors import UsageError
from sftchat.text import pluralize, printable

if TYPE_CHECKING:
    from sftchat.data.check import TokenCheck
    from sftchat.task import Task


@click.command("check", short_help="print problems of rows as file:line: message")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", shell_complete=complete_file)
@click.option("--task", shell_complete=complete_task, help="Also run the row check of this task.")
@allow_code_option
@click.option(
    "--against", multiple=True, metavar="FILE", help="Training rows; their duplicates and near duplicates in FILE are leaks. Repeatable."
)
@click.option(
    "--policy",
    "pairs",
    multiple=True,
    metavar="CLASS=POLICY",
    help="fail, drop or keep rows with problems of a class. Repeatable.  [default: keep for classes that may be intended, else fail]",
)
@click.option("-o", "--output", metavar="OUT", help="Write the rows of FILE here, without those to drop.")
@click.option(
    "--near",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    metavar="X",
    help="Similarity from which rows are near duplicates; 0 turns this off.",
)
@click.option(
    "--model", metavar="MODEL", shell_complete=complete_model, help="Measure the length of rows with the tokenizer and template of MODEL."
)
@click.option(
    "--max-length",
    type=click.IntRange(min=8),
    metavar="N",
    help="Maximum number of tokens of a row, with --model.  [default: the task's, else 1024]",
)
@tokenizer_options
@json_option
@rows_options
@overwrite_option
@quiet_option
@click.pass_context
def check_files(
    ctx: click.Context, /, files: tuple[str, ...], task: str | None, against: tuple[str, ...], pairs: tuple[str, ...], output: str | None,
    near: float, as_json: bool, row_options: RowOptions, overwrite: bool, quiet: bool, **token_options: Any,
) -> None:  # fmt: skip
    """Check every row of every FILE and print problems as file:line: message.

    Classes of problems: CLASSES. With the policy keep a problem is only reported, with drop its row is left out of OUT.
    Exits with 1 if there is a problem whose policy is fail; OUT is then not written.

    \b
    sftchat data check train.jsonl
    sftchat data check train.jsonl gold.jsonl --task relation
    sftchat data check gold.jsonl --against train.jsonl
    sftchat data check train.jsonl --model sftchat:nano --max-length 512
    sftchat data check train.jsonl --policy near-duplicate=drop --policy conflict=drop -o clean.jsonl
    """
    session: Session = ctx.obj
    chosen_task = session.registry.task(task) if task else None
    policies = parse_policies(pairs)
    _check_output(files, output, overwrite)
    check_tokens = token_check_for(chosen_task, **token_options)
    results = []
    for file in files:
        findings = check(
            file,
            chosen_task,
            against=against,
            options=options_for_task(chosen_task, row_options),
            near_threshold=near,
            check_tokens=check_tokens,
        )
        results.append(findings)
        if not as_json:
            for problem in findings.problems:
                click.echo(printable(str(problem)))
        if not quiet:
            click.echo(summarise(findings, policies), err=True)
    failed = any(findings.sources(policies, "fail") for findings in results)
    row_count = None
    if output is not None and not failed:
        row_count = write_rows(output, remaining_rows(files[0], results[0].sources(policies, "drop")), overwrite=overwrite)
    if as_json:
        click.echo(json_text([to_json_object(findings, policies) for findings in results]))
    if output is not None and not quiet:
        name = output_name(output)
        click.echo(f"{name} is not written" if row_count is None else f"wrote {pluralize(row_count, 'row')} to {name}", err=True)
    ctx.exit(1 if failed else 0)


assert check_files.help is not None
check_files.help = check_files.help.replace("CLASSES", ", ".join(PROBLEM_CLASSES))


def _check_output(files: tuple[str, ...], output: str | None, overwrite: bool) -> None:
    """Check that the output can be written, before any file is read."""
    if output is None:
        return
    if len(files) > 1:
        raise UsageError(f"-o takes the rows of one FILE, not of {len(files)}; check them one by one")
    if files[0] == "-":
        raise UsageError("-o reads FILE a second time, which standard input cannot; give a file")
    check_output_file(output, overwrite=overwrite)


def token_check_for(
    task: Task | None, model: str | None, max_length: int | None, trust_remote_code: bool, **template: Any
) -> TokenCheck | None:
    """Return the check of token counts; None without a model. Loads the tokenizer, not the weights.

    Args:
        task: Task that gives the default of ``max_length``, and the template for a model without one.
        model: MODEL as typed; None if the option is not given.
        max_length: Maximum number of tokens of a row; None for the task's.
        trust_remote_code: Whether to run code that comes with the model.
        template: See ``open_renderer``.

    Raises:
        UsageError: When another option is given without a model.
    """
    from sftchat.cli.data.tokens import first_flag_with_value, make_token_check, max_row_length, open_renderer

    if model is None:
        if option := first_flag_with_value({"max_length": max_length is not None, **template}):
            raise UsageError(f"{option} needs --model, whose tokenizer counts the tokens")
        return None
    renderer = open_renderer(model, task, trust_remote_code=trust_remote_code, **template)
    return make_token_check(renderer, max_row_length(model, task, max_length))


def summarise(findings: Findings, policies: Mapping[str, Policy]) -> str:
    """Format the findings of a file: a line for the file, each note, mixed formats, and each class of problems."""
    formats = ", ".join(f"{count} {name}" for name, count in findings.formats.items()) or "none readable"
    problem_count = pluralize(len(findings.problems), "problem") if findings.problems else "no problems"
    lines = [f"{findings.path}: {findings.rows} rows ({formats}), {findings.replies} with a reply: {problem_count}"]
    lines += [f"  note: {note}" for note in findings.notes]
    if len(findings.first_lines) > 1:
        lines.append("  mixed shapes: " + ", ".join(f"{name} from line {line}" for name, line in findings.first_lines.items()))
    for kind, count in findings.counts.items():
        first = next(line_of(problem.source) for problem in findings.problems if problem.kind == kind)
        lines.append(f"  {policies[kind]} {count} {kind}" + (f", first at line {first}" if first else ""))
    return "\n".join(lines)


def to_json_object(findings: Findings, policies: Mapping[str, Policy]) -> dict[str, Any]:
    """Return the findings of a file for ``--json``; each problem with its class and policy."""
    problems = [
        {"class": problem.kind, "policy": policies[problem.kind], "source": problem.source, "message": problem.message}
        for problem in findings.problems
    ]
    values = {"shapes" if name == "first_lines" else name: value for name, value in asdict(findings).items()}
    return {**values, "counts": findings.counts, "problems": problems}
