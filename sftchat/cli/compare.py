"""``sftchat compare``: the same questions to several models, side by side, with scores where the task has gold."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sftchat._util.output import for_renderer
from sftchat.chat.render.columns import (
    Side,
    clip,
    column_widths,
    difference_note,
    first_difference,
    heading_row,
    join_columns,
    rows_across,
    side_rows,
)
from sftchat.chat.render.width import Line, text_width, wrap_line
from sftchat.chat.safe_text import escape_controls
from sftchat.cli.options import answering_options, complete_model, complete_task, sampling_options, take_sampling
from sftchat.cli.progress import with_progress
from sftchat.cli.session import Session, json_text
from sftchat.errors import EngineError, UsageError
from sftchat.inference.ask import ask_models, make_question, read_questions, reply_row
from sftchat.models.manifest import trained_tasks
from sftchat.task import metric_value, primary_score, score_reply
from sftchat.text import sanitize_lines
from sftchat.types import Example, Reply, Score

if TYPE_CHECKING:
    from sftchat.models.reference import ModelReference
    from sftchat.task import Task

Answer = Reply | EngineError


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL…", shell_complete=complete_model)
@click.option("-q", "--question", "question_texts", multiple=True, metavar="TEXT", help="A question, repeatable.")
@click.option(
    "--questions", type=click.Path(path_type=Path), metavar="FILE", help="Rows with or without gold, or a .txt with one question per line."
)
@click.option(
    "--task",
    "task_name",
    metavar="TASK",
    shell_complete=complete_task,
    help="Task that scores replies to questions with a gold reply.  [default: that of the training, if the models share it]",
)
@click.option("--system", default="", metavar="TEXT", help="System prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per question.")
@click.option("--quiet", is_flag=True, help="No progress.")
@sampling_options
@answering_options
@click.pass_obj
def command(
    session: Session, /, models: tuple[str, ...], question_texts: tuple[str, ...], questions: Path | None, task_name: str | None,
    system: str, as_json: bool, quiet: bool, **options: Any,
) -> int:  # fmt: skip
    """Send the same questions to two or more models and show their replies, with the first difference marked.

    Adapters of one base are loaded on one base and answer in one batch. With a task and gold replies every reply is scored; to find out whether one model is better, use 'sftchat eval --baseline'.

    \b
    sftchat compare sftchat:nano run -q "who are you?"
    sftchat compare 'run/checkpoint-*' --questions evalset.jsonl --task relation
    sftchat compare sftchat:nano run --questions evalset.jsonl --json

    JSON: {"id", "messages", "gold", "same", "replies": [{"model", "reply", "finish_reason", …, "metric", "value", "errors"}]}.
    Exit codes: 0 fine, 2 wrong usage, 3 some questions were not answered.
    """
    from sftchat.models.reference import expand_patterns

    models = expand_patterns(models)
    references = _resolve_models(session, models, options)
    examples = _read_all_questions(question_texts, questions, system)
    task = _choose_task(session, task_name, models)
    sampling = take_sampling(task, options)
    if task is not None:
        options["preferred"] = task.template
    answers: dict[tuple[int, int], Answer] = {}
    model_answers = ask_models(session.load_engine, references, examples, sampling, options)
    for model, number, reply in with_progress(model_answers, len(models) * len(examples), title="asking", hidden=quiet):
        answers[number, model] = reply
    replies = [[answers[number, model] for model in range(len(models))] for number in range(len(examples))]

    scores = [[_score_if_possible(task, example, reply) for reply in row] for example, row in zip(examples, replies, strict=True)]
    for example, row, row_scores in zip(examples, replies, scores, strict=True):
        if as_json:
            click.echo(json_text(_json_row(models, example, row, row_scores, task), indent=None))
        else:
            _print_comparison(models, example, row, row_scores, task)
    if not as_json and task is not None and len(examples) > 1:
        _print_summary(models, scores, task)
    return 3 if any(isinstance(reply, EngineError) for row in replies for reply in row) else 0


def _resolve_models(session: Session, models: Sequence[str], options: dict[str, Any]) -> list[ModelReference]:
    """Resolve every MODEL by names and files only; raise ``UsageError`` for models that cannot be compared, before one is loaded."""
    from sftchat.models.reference import resolve

    if len(models) < 2:
        raise UsageError(f"only '{models[0]}' is given: compare needs two models or more")
    for model in models:
        if models.count(model) > 1:
            raise UsageError(f"model '{model}' stands twice")
    references = [
        resolve(model, base=options["base"], schemes=session.engine_types, allow_pickle=options["allow_pickle"]) for model in models
    ]
    for reference in references:
        if reference.served and options["template"]:
            raise UsageError(f"--template cannot be compared: the server of '{reference.text}' renders prompts with its own")
    return references


def _read_all_questions(question_texts: Sequence[str], file: Path | None, system: str) -> tuple[Example, ...]:
    if question_texts and file is not None:
        raise UsageError("give -q TEXT or --questions FILE, not both")
    if file is not None:
        return read_questions(file, system)
    if not question_texts:
        raise UsageError("nothing to ask: give -q TEXT or --questions FILE")
    if not all(text.strip() for text in question_texts):
        raise UsageError("a question is empty")
    return tuple(make_question(text, system, str(number)) for number, text in enumerate(question_texts, 1))


def _choose_task(session: Session, name: str | None, models: Sequence[str]) -> Task | None:
    """The task that scores, if any.

    Raises:
        UsageError: When models were trained on different ones and none is chosen.
    """
    if name:
        return session.registry.task(name)
    trained = set(trained_tasks(models).values())
    if len(trained) > 1:
        raise UsageError(f"the models were trained on different tasks ({', '.join(sorted(trained))}); choose one with --task")
    return session.registry.task(trained.pop()) if trained else None


def _score_if_possible(task: Task | None, example: Example, reply: Answer) -> Score | None:
    """Return the score of a reply; None without a task or a gold reply, or for a failed request."""
    if task is None or example.gold is None or isinstance(reply, EngineError):
        return None
    return score_reply(task, example, reply)


def _json_row(
    models: Sequence[str], example: Example, replies: Sequence[Answer], scores: Sequence[Score | None], task: Task | None
) -> dict[str, Any]:
    """Return the JSON line of a question: its replies with their scores, and whether all have the same text."""
    rows: list[dict[str, Any]] = []
    for model, reply, score in zip(models, replies, scores, strict=True):
        row = {"error": str(reply)} if isinstance(reply, EngineError) else reply_row(reply)
        if score is not None and task is not None:
            primary = primary_score(task, score)
            row |= {"metric": primary.metric, "value": primary.value, "errors": list(primary.errors), "answer": primary.answer}
        rows.append({"model": model, **row})
    gold = {} if example.gold is None else {"gold": example.gold}
    all_same = len({getattr(reply, "text", None) for reply in replies}) == 1
    return {"id": example.id, "messages": list(example.messages), **gold, "same": all_same, "replies": rows}


STYLES: Mapping[str, Mapping[str, bool]] = {
    "bold": {"bold": True},
    "class:faint": {"dim": True},
    "class:note": {"dim": True},
    "class:difference": {"reverse": True},
}
"""The styles of ``sftchat.chat.render`` as arguments of ``click.style``."""


def _print_comparison(
    models: Sequence[str], example: Example, replies: Sequence[Answer], scores: Sequence[Score | None], task: Task | None
) -> None:
    """Print a question with its replies: side by side if the terminal is wide enough, else one below the other."""
    columns = shutil.get_terminal_size().columns
    _print_wrapped("bold", f"■ {escape_controls(example.messages[-1]['content'])}", columns)
    if example.gold is not None:
        _print_wrapped("class:note", f"gold: {escape_controls(example.gold)}", columns)
    texts = [f"(not answered: {reply})" if isinstance(reply, EngineError) else reply.text for reply in replies]
    sides = [Side(text) for text in texts]
    difference = first_difference(sides)
    notes = [_note_below(reply, score, task) for reply, score in zip(replies, scores, strict=True)]
    widths = column_widths(len(models), columns)
    if widths is None:
        for model, side, note in zip(models, sides, notes, strict=True):
            _print_line([("bold", clip(f"── {model}", columns))])
            for row in side_rows(side, columns, difference):
                _print_line(row)
            if note:
                _print_wrapped("class:note", note, columns)
        _print_wrapped("class:note", difference_note(models, texts), columns)
    else:
        _print_line(join_columns(heading_row(models, widths), widths))
        for rows in rows_across([side_rows(side, size, difference) for side, size in zip(sides, widths, strict=True)]):
            _print_line(join_columns(rows, widths))
        if any(notes):
            _print_line(join_columns([[("class:note", clip(note, size))] for note, size in zip(notes, widths, strict=True)], widths))
        if difference is None or not _has_styles():
            _print_wrapped("class:note", difference_note(models, texts), columns)
    click.echo()


def _note_below(reply: Answer, score: Score | None, task: Task | None) -> str:
    """Return the line below a reply: its score, and whether it was cut."""
    notes = [primary_score(task, score).text] if score is not None and task is not None else []
    if isinstance(reply, Reply) and reply.finish_reason == "length":
        notes.append(f"cut at {reply.completion_tokens} tokens")
    return ", ".join(notes)


def _print_summary(models: Sequence[str], scores: Sequence[Sequence[Score | None]], task: Task) -> None:
    """Print each model's primary metric over the questions that have gold and were answered by all."""
    stats_rows = [[score.stats for score in row if score is not None] for row in scores if None not in row]
    if not stats_rows:
        return
    click.echo(f"{task.metric.name} over {len(stats_rows)} of {len(scores)} questions:")
    width = max(map(text_width, models))
    for index, model in enumerate(models):
        sums = {key: sum(row[index][key] for row in stats_rows) for key in stats_rows[0][index]}
        click.echo(f"  {model}{' ' * (width - text_width(model))}  {metric_value(task.metric, sums):.3f}")


def _print_wrapped(style: str, text: str, columns: int) -> None:
    """Print a text, wrapped to the width of the terminal."""
    for part in text.split("\n"):
        for row in wrap_line([(style, part.expandtabs(4))], columns):
            _print_line(row)


def _print_line(line: Line) -> None:
    """Print one row of the terminal, with its styles if ``_has_styles``."""
    if _has_styles():
        styled = "".join(click.style(sanitize_lines(text), **STYLES.get(style, {})) for style, text in line).rstrip()
        for_renderer(sys.stdout).write(f"{styled}\n")
    else:
        click.echo("".join(text for _, text in line).rstrip())


def _has_styles() -> bool:
    """Return whether standard output is a terminal that shows styles and the user has not turned colours off."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
