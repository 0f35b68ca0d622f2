"""Progress of an evaluation: a bar on a terminal, one changing line in a notebook, occasional plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sftchat.evaluation.evaluate import OnOutcome
from sftchat.evaluation.scored import Failure, Outcome

if TYPE_CHECKING:
    from rich.console import Console

LINES = 10
"""Number of progress lines without a terminal, such as in a CI log."""


@contextmanager
def show_progress(console: Console, title: str, total: int, cached: Callable[[], int] = lambda: 0) -> Iterator[OnOutcome]:
    """Show progress while the block runs; yields a callback for every outcome.

    Args:
        console: Console of standard error.
        title: What is done, such as the model and the evalset.
        total: Expected number of outcomes, at least 1.
        cached: Returns how many outcomes so far came from the reply cache.
    """

    def cached_note() -> str:
        count = cached()
        return f", {count} cached" if count else ""

    show = _show_bar if console.is_terminal else _show_notebook_line if console.is_jupyter else _print_lines
    yield from show(console, title, total, cached_note)


@contextmanager
def show_step(console: Console, title: str) -> Iterator[None]:
    """Show what is being done while the block runs: with its time on a terminal, as a line elsewhere.

    Args:
        console: Console of standard error.
        title: What is done.
    """
    if not console.is_terminal:
        console.print(title, soft_wrap=True)
        yield
        return
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    from sftchat._util.consoles import progress_bars

    with progress_bars(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        bar.add_task(title, total=None)
        yield


def _show_bar(console: Console, title: str, total: int, cached_note: Callable[[], str]) -> Iterator[OnOutcome]:
    """Show a bar that disappears at the end of the block."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from sftchat._util.consoles import progress_bars

    columns = (
        TextColumn("{task.description}{task.fields[note]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with progress_bars(*columns, console=console, transient=True) as bar:
        row = bar.add_task(title, total=total, note="")

        def advance(outcome: Outcome) -> None:
            bar.update(row, advance=1, note=cached_note())
            if isinstance(outcome, Failure):
                console.print(f"item '{outcome.example.id}' was not answered: {outcome.error}")

        yield advance


def _show_notebook_line(console: Console, title: str, total: int, cached_note: Callable[[], str]) -> Iterator[OnOutcome]:
    """Show one line, which stays at the end of the block; failures are counted in it, because each can be looked up in the report."""
    from sftchat._util.notebook import NotebookLine

    line = NotebookLine()
    done = failures = 0

    def text() -> str:
        return f"{title}: {done} of {total}{cached_note()}{f', {failures} not answered' if failures else ''}"

    def advance(outcome: Outcome) -> None:
        nonlocal done, failures
        done += 1
        failures += isinstance(outcome, Failure)
        line.show(text())

    try:
        yield advance
    finally:
        line.show(text(), last=True)


def _print_lines(console: Console, title: str, total: int, cached_note: Callable[[], str]) -> Iterator[OnOutcome]:
    """Print a line after each tenth of the work."""
    done = 0

    def advance(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if isinstance(outcome, Failure):
            console.print(f"item '{outcome.example.id}' was not answered: {outcome.error}")
        if done * LINES // total > (done - 1) * LINES // total:  # another tenth is complete
            console.print(f"{title}: {done} of {total}{cached_note()}")

    yield advance
