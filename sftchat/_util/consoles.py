"""Rich consoles that display untrusted text literally: without markup, escape sequences or links."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from sftchat._util.output import for_renderer, guard_streams
from sftchat.text import sanitize_lines

if TYPE_CHECKING:
    from rich.progress import Progress


class GuardedConsole(Console):
    """A rich console for a standard stream.

    Text is sanitized when it is rendered, so that only rich writes escape sequences. Markup, emoji codes and highlighting are off unless a call
    enables them. ``BrokenPipeError`` is raised: rich would exit with 1, the exit code of a failed gate.

    Args:
        stream: ``sys.stdout`` or ``sys.stderr``.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(file=for_renderer(stream), markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object and sanitize its text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=sanitize_lines(segment.text))

    def on_broken_pipe(self) -> None:
        """Raise ``BrokenPipeError``; rich calls this method when it has caught one."""
        raise BrokenPipeError


def shows_progress(console: Console, wanted: bool | None) -> bool:
    """Return whether to show progress: as wanted or, with None, on a terminal and in a notebook."""
    return console.is_terminal or console.is_jupyter if wanted is None else wanted


def progress_bars(*columns: Any, console: Console, transient: bool = False) -> Progress:
    """Return a progress display for a console, used in a ``with`` statement or with ``start`` and ``stop``.

    While it is active, rich replaces ``sys.stdout`` and ``sys.stderr`` by streams that interpret escape sequences, so these streams are guarded too.

    Args:
        columns: See ``rich.progress.Progress``; its defaults if empty.
        console: The console.
        transient: Whether the bars disappear at the end.
    """
    from rich.progress import Progress

    class Guarded(Progress):
        """Guards the streams that rich installs."""

        def start(self) -> None:
            super().start()
            guard_streams()

    return Guarded(*columns, console=console, transient=transient)
