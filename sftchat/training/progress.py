"""Progress of a training: a bar on a terminal, one changing line in a notebook, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sftchat._util.notebook import NotebookLine

if TYPE_CHECKING:
    from rich.console import Console

    from sftchat.training.callbacks import ScoringResult, TrainingStatus
    from sftchat.training.run import TrainingListener, TrainingSetup

PLAIN_INTERVAL = 10.0
"""Seconds between two lines where there is no terminal."""


class TrainingProgress:
    """Shows a training: its settings, then loss and remaining time; a context manager that ends the bar.

    Args:
        console: Console of standard error.
        quiet: Show nothing.
        indent: Text before every line.
    """

    def __init__(self, console: Console, quiet: bool = False, indent: str = "") -> None:
        self._console = console
        self._quiet = quiet
        self._indent = indent
        self._bar: Any = None
        self._task: Any = None
        self._line = NotebookLine() if console.is_jupyter and not quiet else None
        self._last_line = 0.0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the bar; its last state stays on the screen."""
        if self._bar is not None:
            self._bar.stop()

    def listener(self, model: str) -> TrainingListener:
        """Return a listener for ``train`` that calls the methods below."""
        from sftchat.training.run import TrainingListener

        return TrainingListener(
            on_start=lambda setup: self.start(setup, model),
            on_progress=self.update,
            on_scoring=self.show_score,
            on_stopping=self.stopping,
            on_message=self.message,
        )

    def start(self, setup: TrainingSetup, model: str) -> None:
        """Print the settings and start the bar."""
        if self._quiet:
            return
        self.describe(setup, model)
        if self._console.is_terminal:
            from rich.progress import BarColumn, TextColumn

            from sftchat._util.consoles import progress_bars

            self._bar = progress_bars(
                TextColumn(self._indent + "training", markup=False),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}  {task.fields[loss]}  {task.fields[left]}", markup=False),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=None, loss="", left="")

    def describe(self, setup: TrainingSetup, model: str) -> None:
        """Print the settings of the training."""
        if not self._quiet:
            for line in _describe_settings(setup, model):
                self._console.print(self._indent + line, soft_wrap=True)

    def update(self, progress: TrainingStatus) -> None:
        """Show the step, the loss and the remaining time."""
        if self._quiet:
            return
        loss = "" if progress.loss is None else f"loss {progress.loss:.3f}"
        left = f"{clock(progress.seconds_left)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.step, total=progress.steps, loss=loss, left=left)
            return
        if self._line is not None:
            steps = f"step {progress.step}/{progress.steps}  {loss}"
            finished = progress.step >= progress.steps
            self._line.show(self._indent + (steps if finished else f"{steps}  {left}"), last=finished)
            return
        now = time.monotonic()
        if now - self._last_line >= PLAIN_INTERVAL or progress.step >= progress.steps:
            self._last_line = now
            self._console.print(f"{self._indent}step {progress.step}/{progress.steps}  {loss}  {left}", soft_wrap=True)

    def show_score(self, result: ScoringResult) -> None:
        """Print the task's metric, and its best value so far."""
        if self._quiet:
            return
        interval = "" if result.low is None or result.high is None else f" [{result.low:.3f}, {result.high:.3f}]"
        label = "base model" if result.step == 0 else f"step {result.step}"
        best = "" if result.best in (0, result.step) else f"; best {result.best_value:.3f} at step {result.best}"
        self._console.print(
            f"{self._indent}{label}: {result.metric} {result.value:.3f}{interval} on {result.items} items, {result.seconds:.0f} s{best}",
            soft_wrap=True,
        )

    def message(self, line: str) -> None:
        """Print a line about something unusual."""
        if not self._quiet:
            self._console.print(self._indent + line, soft_wrap=True)

    def stopping(self) -> None:
        """Report that Ctrl-C requested a stop."""
        self._console.print(
            f"{self._indent}stopping after this step; a checkpoint will be kept (Ctrl-C again to stop at once)", soft_wrap=True
        )


def clock(seconds: float) -> str:
    """Format seconds as ``m:ss`` or ``h:mm:ss``."""
    total = max(0, round(seconds))
    hours, remainder = divmod(total, 3600)
    return f"{hours}:{remainder // 60:02}:{remainder % 60:02}" if hours else f"{remainder // 60}:{remainder % 60:02}"


def _describe_settings(setup: TrainingSetup, model: str) -> list[str]:
    """Return the settings of a training in two lines, then how it is scored and which rows were left out."""
    rows, config = setup.rows, setup.config
    share = rows.trained_tokens / rows.tokens
    lines = [
        f"{model}: {setup.parameters / 1e6:.1f} M parameters, {setup.trainable / 1e6:.2f} M trained ({config.method}), "
        f"{setup.precision} ({setup.manifest.precision_reason}) on {setup.device}, "
        f"template {setup.renderer.name}",
        f"{len(rows.ids):,} rows, {rows.tokens:,} tokens, {share:.0%} of them trained; learning rate {config.learning_rate:g}, batch {config.batch_size}"
        + (f" × {config.accumulation}" if config.accumulation > 1 else ""),
    ]
    lines += [
        f"replayed among them: {entry['n']:,} of {entry.get('generator') or entry['file']}"
        for entry in setup.manifest.data
        if "replay" in entry
    ]
    if setup.validation is not None:
        stop = f", ends after {config.patience} without a better one" if config.patience else ""
        lines.append(f"scored every {config.eval_steps} steps on {setup.validation.source}{stop}")
    if rows.too_long:
        lines.append(f"left out: {len(rows.too_long)} rows longer than {config.max_length} tokens, the first at {rows.too_long[0]}")
    if rows.without_reply:
        lines.append(f"left out: {len(rows.without_reply)} rows without a reply, the first at {rows.without_reply[0]}")
    return lines
