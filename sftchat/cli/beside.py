"""Replies of several models to one question, as a terminal or a file shows them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from sftchat._util.output import rendered
from sftchat.chat.render.columns import Side, clip, column_widths, difference_note, first_difference, headings, join, side_rows, table
from sftchat.chat.render.width import Line, cells, wrap_line
from sftchat.chat.safe_text import escape_controls
from sftchat.errors import EngineError
from sftchat.task import metric_value
from sftchat.text import sanitize_lines
from sftchat.types import Example, Reply

if TYPE_CHECKING:
    from sftchat.evaluation.run import Item
    from sftchat.task import Task

STYLES: Mapping[str, Mapping[str, bool]] = {
    "bold": {"bold": True},
    "class:faint": {"dim": True},
    "class:note": {"dim": True},
    "class:difference": {"reverse": True},
}
"""How the styles of the rendering room look here."""


def show(
    models: Sequence[str], example: Example, answers: Sequence[Reply | EngineError], items: Sequence[Item | None], task: Task | None
) -> None:
    """Print a question, what each model said, and what the task thinks of it."""
    columns = shutil.get_terminal_size().columns
    _print([("bold", f"■ {escape_controls(example.messages[-1]['content'])}")], columns)
    if example.gold is not None:
        _print([("class:note", f"gold: {escape_controls(example.gold)}")], columns)
    texts = [f"(not answered: {answer})" if isinstance(answer, EngineError) else answer.text for answer in answers]
    sides = [Side(text) for text in texts]
    difference = first_difference(sides)
    marks = [_mark(answer, item, task) for answer, item in zip(answers, items, strict=True)]
    widths = column_widths(len(models), columns)
    if widths is None:
        for model, side, mark in zip(models, sides, marks, strict=True):
            _write([("bold", clip(f"── {model}", columns))])
            for row in side_rows(side, columns, difference):
                _write(row)
            if mark:
                _print([("class:note", mark)], columns)
        _print([("class:note", difference_note(models, texts))], columns)
    else:
        _write(join(headings(models, widths), widths))
        for level in table([side_rows(side, size, difference) for side, size in zip(sides, widths, strict=True)]):
            _write(join(level, widths))
        if any(marks):
            _write(join([[("class:note", clip(mark, size))] for mark, size in zip(marks, widths, strict=True)], widths))
        if difference is None or not _coloured():
            _print([("class:note", difference_note(models, texts))], columns)
    click.echo()


def _mark(answer: Reply | EngineError, item: Item | None, task: Task | None) -> str:
    """What stands under a reply."""
    words = []
    if item is not None and task is not None:
        value = metric_value(task.metric, item.score.stats)
        words.append(f"{task.metric.name} {value:.2f}" + (f": {', '.join(item.score.errors)}" if item.score.errors else ""))
    if isinstance(answer, Reply) and answer.finish_reason == "length":
        words.append(f"cut at {answer.completion_tokens} tokens")
    return ", ".join(words)


def summary(models: Sequence[str], rows: Sequence[Sequence[Item | None]], task: Task) -> None:
    """Print each model's value of the task's metric over the questions that have gold and were answered by all."""
    scored = [[item for item in row if item is not None] for row in rows]
    scored = [row for row in scored if len(row) == len(models)]
    if not scored:
        return
    metric = task.metric
    click.echo(f"{metric.name} over {len(scored)} of {len(rows)} questions:")
    wide = max(map(cells, models))
    for place, model in enumerate(models):
        sums = {key: sum(row[place].score.stats[key] for row in scored) for key in scored[0][place].score.stats}
        click.echo(f"  {model}{' ' * (wide - cells(model))}  {metric_value(metric, sums):.3f}")


def _print(line: Line, columns: int) -> None:
    """Write a text in rows no wider than the terminal."""
    style, text = line[0]
    for part in text.split("\n"):
        for row in wrap_line([(style, part.expandtabs(4))], columns):
            _write(row)


def _write(line: Line) -> None:
    """Write one row, with its styles where stdout is a terminal that wants them."""
    if _coloured():
        styled = "".join(click.style(sanitize_lines(text), **STYLES.get(style, {})) for style, text in line).rstrip()
        rendered(sys.stdout).write(f"{styled}\n")
    else:
        click.echo("".join(text for _, text in line).rstrip())


def _coloured() -> bool:
    """Whether stdout is a terminal that wants styles."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
