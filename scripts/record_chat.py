"""Record a chat as SVG: the real program in a real terminal, with input typed by this script.

    python scripts/record_chat.py MODEL… -o docs/chat.svg --task relation --line '从以下小说内容中提取人物关系:…' --line /likelihood

This command makes the picture of the README, in a folder with the demo's ``run`` and its ``new-names.jsonl``:

    python …/scripts/record_chat.py sftchat:nano run -o chat.svg --task relation --evalset new-names.jsonl \\
        --line $'从以下小说内容中提取人物关系:\\n远处传来更鼓。…' --line '/focus 2' --line '/why 2' --line '/fork 2 #2' --line '/likelihood gold'

Each ``--line`` is typed when the reply to the previous one is complete. The picture shows the whole scrollback in the program's colours.
"""

from __future__ import annotations

import argparse
import codecs
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

MAX_SECONDS_PER_LINE = 300.0
"""Maximum seconds until the reply to a line is complete."""
QUIET_SECONDS = 0.7
"""A reply is complete when the status line shows that the chat is ready and no output came for this many seconds."""
PASTE = "\x1b[200~{}\x1b[201~"
FONTS = "'Fira Code', Menlo, Consolas, 'DejaVu Sans Mono', 'Noto Sans Mono CJK SC', monospace"
COLOURS = {"brown": "yellow", "brightbrown": "bright_yellow"} | {
    f"bright{name}": f"bright_{name}" for name in ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
}


class Terminal:
    """A program in a pseudo-terminal, and its screen.

    Args:
        command: The program and its arguments.
        columns: Width of the terminal.
        lines: Its height.
    """

    def __init__(self, command: list[str], columns: int, lines: int) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=10_000, ratio=0.5)
        self._stream = pyte.Stream(self.screen)
        self._master, slave = pty.openpty()
        self._last = time.monotonic()
        self._drawn = threading.Condition()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        # these variables would turn off colours, set another size, or leave modules uncompiled
        removed = ("NO_COLOR", "COLUMNS", "LINES", "PYTHONDONTWRITEBYTECODE")
        environment = {name: value for name, value in os.environ.items() if name not in removed} | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True)
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Draw the program's output, and answer its requests for the cursor position (``ESC [ 6 n``)."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux: the other side has closed the terminal
                data = b""
            with self._drawn:
                for index, part in enumerate(decoder.decode(data).split("\x1b[6n")):
                    if index:
                        self.type(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
                    self._stream.feed(part)
                self._last = time.monotonic()
                self._drawn.notify_all()
            if not data:
                return

    def type(self, keys: str) -> None:
        """Send keys."""
        self._last = time.monotonic()  # so that wait() does not take the present screen for the reaction
        os.write(self._master, keys.encode())

    def until(self, text: str) -> None:
        """Wait until a row of the screen begins with a text or contains it after a space.

        Raises:
            SystemExit: The text did not appear in time.
        """
        with self._drawn:
            while not any(f" {text}" in f" {row}" for row in self.screen.display):
                if not self._drawn.wait(MAX_SECONDS_PER_LINE) or self.process.poll() is not None:
                    raise SystemExit(f"the chat never showed '{text}':\n" + "\n".join(self.screen.display))

    def wait(self, status: str) -> None:
        """Wait until the last row that is not empty matches a pattern and the screen is stable.

        Raises:
            SystemExit: This did not happen in time.
        """
        deadline = time.monotonic() + MAX_SECONDS_PER_LINE
        while time.monotonic() < deadline and self.process.poll() is None:
            rows = [row.strip() for row in self.screen.display if row.strip()]
            if rows and re.search(status, rows[-1]) and time.monotonic() - self._last > QUIET_SECONDS:
                return
            time.sleep(0.05)
        raise SystemExit("the chat did not come to rest:\n" + "\n".join(self.screen.display))

    def end(self) -> list[Text]:
        """Exit with Ctrl-D, and return every row with its colours."""
        self.type("\x04")
        self.process.wait(MAX_SECONDS_PER_LINE)
        self._reader.join(MAX_SECONDS_PER_LINE)
        rows = [*self.screen.history.top, *(self.screen.buffer[y] for y in range(self.screen.lines))]
        styled_rows = [_styled_row(row, self.screen.columns) for row in rows]
        while styled_rows and not styled_rows[-1].plain.strip():
            styled_rows.pop()
        return styled_rows


def _styled_row(row: dict[int, pyte.screens.Char], columns: int) -> Text:
    text = Text()
    for x in range(columns):
        cell = row[x]
        if cell.data:  # the second half of a wide character is empty
            style = Style(color=_rich_colour(cell.fg), bold=cell.bold, italic=cell.italics, underline=cell.underscore, reverse=cell.reverse)
            text.append(cell.data, style)
    text.rstrip()
    return text


def _rich_colour(name: str) -> str | None:
    """Convert a colour name of pyte to rich's."""
    if name == "default":
        return None
    return COLOURS.get(name, f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else name)


def main() -> None:
    """Type the lines and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("-o", "--output", type=Path, required=True, help="an SVG file")
    parser.add_argument("--line", dest="lines", action="append", default=[], help="text to type, repeatable")
    parser.add_argument("--title", default="sftchat chat")
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--rows", type=int, default=30)
    args, options = parser.parse_known_args()
    command = [sys.executable, "-m", "sftchat", "chat", *args.models, *options]
    terminal = Terminal(command, args.columns, args.rows)
    terminal.wait("ready")
    for line in args.lines:
        terminal.type(PASTE.format(line) + "\r")
        terminal.wait("ready")
    rows = terminal.end()
    console = Console(record=True, width=args.columns, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    for row in rows:
        console.print(row, soft_wrap=True)
    # the picture must not load a font from a server
    svg = re.sub(r"@font-face {.*?}\s*", "", console.export_svg(title=args.title), flags=re.DOTALL)
    args.output.write_text(svg.replace("Fira Code, monospace", FONTS), encoding="utf-8")


if __name__ == "__main__":
    main()
