"""Consoles of rich that show text from outside and obey none of it: no markup, no escape sequences, no links."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from sftchat._util.output import guard_streams, rendered
from sftchat.text import printable_lines

if TYPE_CHECKING:
    from rich.progress import Progress


class GuardedConsole(Console):
    """A console for a standard stream.

    Text is sanitised when it is rendered, so that styles and the movements of a progress bar are rich's own. Markup, emoji codes and highlighting
    are off unless a call asks for them. ``BrokenPipeError`` passes: rich would exit with 1, which here means a failed gate.

    Args:
        stream: ``sys.stdout`` or ``sys.stderr``.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(file=rendered(stream), markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object; whatever it consists of, its text commands nothing."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable_lines(segment.text))

    def on_broken_pipe(self) -> None:
        """Leave it to the program what happens when its reader has left."""
        raise BrokenPipeError


def bars(*columns: Any, console: Console, transient: bool = False) -> Progress:
    """Progress bars on a console, to be used in a ``with`` statement or with ``start`` and ``stop``.

    While bars are shown rich redirects the standard streams to the console and interprets the styles in what is written; these streams are guarded too.

    Args:
        columns: As for ``rich.progress.Progress``; its own by default.
        console: Where to show them.
        transient: They disappear when they stop.
    """
    from rich.progress import Progress

    class Guarded(Progress):
        """Guards the streams that rich puts in place."""

        def start(self) -> None:
            super().start()
            guard_streams()

    return Guarded(*columns, console=console, transient=transient)
