"""Standard streams: written text controls nothing, and a failing stream has one meaning."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from sftchat import SftchatError
from sftchat._util.consoles import GuardedConsole, progress_bars
from sftchat._util.output import (
    GuardedStream,
    RawStream,
    WorkflowSafeStream,
    data_stream,
    for_renderer,
    guard_streams,
    guarded_streams,
    with_guarded_streams,
)
from sftchat.data.write import write_rows
from sftchat.text import sanitize_json, sanitize_lines
from tests.test_hardening import commands_in

HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=5),
        st.sampled_from(
            ["\x1b", "[2J", "\x1b[31m", "\x1b]52;c;YQ==\x07", "\x1b]8;;http://x\x1b\\", "\x9b31m", "\r", "\n", "\t", ":", "::", "#", "##[", "\u202e"]
        ),
    )
).map("".join)  # fmt: skip


def written(*pieces: str, in_workflow: bool = False) -> str:
    """Return what a stream receives when pieces are written to its guard."""
    raw = io.StringIO()
    guard = GuardedStream(RawStream(raw, required=True), in_workflow=in_workflow)
    for piece in pieces:
        assert guard.write(piece) == len(piece)
    return raw.getvalue()


def workflow_commands(text: str) -> list[str]:
    """Return the lines that GitHub's runner would read as commands."""
    return [line for line in re.split("[\r\n]", text) if line.lstrip().startswith("::") or "##[" in line]


@given(HOSTILE)
def test_a_message_has_no_controls_except_line_feed_tab_and_the_return_of_a_progress_bar(text: str) -> None:
    shown = written(text)

    assert commands_in(shown.replace("\t", "").replace("\r", "")) == []
    assert all(line.startswith("\r") for line in shown.split("\n") if "\r" in line)
    assert len(shown) == len(text)


@given(HOSTILE, st.booleans())
def test_sanitised_text_is_not_changed_again(text: str, in_workflow: bool) -> None:
    shown = written(text, in_workflow=in_workflow)

    assert written(shown, in_workflow=in_workflow) == shown
    assert sanitize_lines(sanitize_lines(text)) == sanitize_lines(text)


@given(st.lists(HOSTILE), st.booleans())
def test_a_text_in_pieces_is_written_like_one(pieces: list[str], in_workflow: bool) -> None:
    assert written(*pieces, in_workflow=in_workflow) == written("".join(pieces), in_workflow=in_workflow)


@given(st.lists(HOSTILE))
def test_on_github_no_message_is_a_command(pieces: list[str]) -> None:
    assert workflow_commands(written(*pieces, in_workflow=True)) == []


@given(st.lists(HOSTILE))
def test_on_github_no_rendered_text_is_a_command_and_styles_stay(pieces: list[str]) -> None:
    raw = io.StringIO()
    stream = WorkflowSafeStream(RawStream(raw, required=True), in_workflow=True)
    for piece in pieces:
        stream.write(piece)

    assert workflow_commands(raw.getvalue()) == []
    assert raw.getvalue().count("\x1b") == "".join(pieces).count("\x1b")


def test_workflow_commands_of_the_runner_are_recognised() -> None:
    assert workflow_commands("  ::error::x\nok\r::x\na ##[error]b\nc::d") == ["  ::error::x", "::x", "a ##[error]b"]


@settings(deadline=None, max_examples=50)
@given(st.recursive(st.text() | HOSTILE, lambda inner: st.lists(inner) | st.dictionaries(HOSTILE, inner), max_leaves=8))
def test_escaped_json_is_the_same_json_and_passes_the_guard_unchanged(value: object) -> None:
    text = sanitize_json(json.dumps(value, ensure_ascii=False, indent=2))

    assert json.loads(text) == value
    assert written(text, in_workflow=True) == text


def test_a_progress_bar_of_tqdm_moves_and_its_text_is_harmless() -> None:
    from tqdm import tqdm

    raw = io.StringIO()
    guard = GuardedStream(RawStream(raw, required=True), in_workflow=False)
    with tqdm(total=1, desc="\x1b[2Jouter", file=guard, ascii=True), tqdm(total=1, desc="inner", file=guard, ascii=True) as inner:
        inner.update()

    shown = raw.getvalue()
    assert shown.startswith("\r\ufffd[2Jouter:   0%|")
    assert set(re.findall("\x1b.{0,2}", shown)) == {"\x1b[A"}


def test_bytes_pass_the_guard_as_text_does() -> None:
    raw = io.StringIO()
    guard = GuardedStream(RawStream(raw, required=True), in_workflow=False)

    for piece in (b"\x1b]52;c;YQ==\x07", "师".encode()[:2], "师".encode()[2:], b"\n"):
        assert guard.buffer.write(piece) == len(piece)

    assert raw.getvalue() == "\ufffd]52;c;YQ==\ufffd师\n"


class Screen(io.StringIO):
    """A terminal in memory."""

    def isatty(self) -> bool:
        return True


def take_streams(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Use a terminal as the standard streams; called in the test, because pytest changes the streams after its fixtures."""
    shown = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


CONTROLS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AK]|\r")
"""Escape sequences of rich: styles, the cursor, movements of a progress bar."""


@settings(deadline=None, max_examples=50)
@given(HOSTILE)
def test_a_console_writes_styles_and_no_other_escape_sequence(text: str) -> None:
    shown = Screen()
    console = GuardedConsole(cast("TextIO", GuardedStream(RawStream(shown, required=True), in_workflow=False)))
    table = Table(title=text)
    table.add_column(Text(text))
    table.add_row(text, Text(f"[red]{text}", "bold"))
    console.print(text, Text(text, "green"), table)
    console.print(f"[link=http://x]{text}[/]")

    assert commands_in(CONTROLS.sub("", shown.getvalue())) == []


def test_text_written_next_to_a_progress_bar_has_no_styles_and_links(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = take_streams(monkeypatch)
    with guarded_streams():
        console = GuardedConsole(sys.stderr)
        with progress_bars(console=console) as shown:
            shown.add_task("\x1b[8mwork", total=2)
            sys.stderr.write("\x1b[8mhidden\x1b]8;;http://x\x1b\\link\x1b[0m\n")
            sys.stdout.write("\x1b[31mred\n")

    text = screen.getvalue()
    assert "\ufffd[8mhidden\ufffd]8;;http://x\ufffd\\link" in text
    assert commands_in(CONTROLS.sub("", text)) == []
    assert "\x1b[8m" not in text
    assert sys.stderr is screen


def test_data_is_unchanged_in_a_pipe_and_escaped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = take_streams(monkeypatch)
    pipe = io.StringIO()
    with guarded_streams():
        data_stream().write("\x1b[2J\u202e")
    monkeypatch.setattr(sys, "stdout", pipe)
    with guarded_streams():
        data_stream().write("\x1b[2J\u202e")

    assert (screen.getvalue(), pipe.getvalue()) == ("\ufffd[2J\ufffd", "\x1b[2J\u202e")


def test_rows_are_the_same_rows_on_a_terminal_and_the_same_bytes_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"a": "\x9b\u202e甲"}]
    screen = take_streams(monkeypatch)
    with guarded_streams():
        write_rows("-", rows)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    with guarded_streams():
        sys.stdout.write("before\n")
        write_rows("-", rows)

    assert screen.getvalue() == '{"a": "\\u009b\\u202e甲"}\n'
    assert sys.stdout.buffer.getvalue() == b"before\n" + '{"a": "\x9b\u202e甲"}\n'.encode()  # type: ignore[attr-defined]


def test_streams_are_guarded_once_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = take_streams(monkeypatch)
    with guarded_streams():
        guard = sys.stdout
        with guarded_streams():
            guard_streams()
            assert sys.stdout is guard
        assert sys.stdout is guard
        assert for_renderer(sys.stdout) is not sys.stdout

    assert sys.stdout is screen


class Tee:
    """Minimal replacement of a stream: it can only write."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_any_object_with_write_may_replace_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    tee = Tee()
    monkeypatch.setattr(sys, "stdout", tee)
    with guarded_streams():
        sys.stdout.write(f"\x1b[2J {sys.stdout.isatty()} {sys.stdout.encoding}\n")
        sys.stdout.flush()

    assert tee.text == "\ufffd[2J False utf-8\n"


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_unwritable_results_are_an_error_and_unwritable_notes_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SftchatError, match="^standard output cannot be written: no space left on device$"):
        RawStream(Full(), required=True).write("x")
    with pytest.raises(SftchatError, match="^standard output cannot be written: it is closed$"):
        RawStream(None, required=True).write("x")
    for raw in (Full(), None):
        handle = RawStream(raw, required=False)
        assert (handle.write("x"), handle.write("y"), handle.failed) == (1, 1, True)

    monkeypatch.setattr(sys, "stdout", Full())

    @with_guarded_streams
    def swallows() -> int:
        with suppress(SftchatError):
            sys.stdout.write("results")
        return 0

    assert swallows() == 3


PROGRAM = [sys.executable, "-c", "from sftchat.cli import console_script; console_script()"]
RESULTS = {
    "rows": ["data", "generate", "general", "-n", "3", "-o", "-"],
    "help": ["--help"],
    "json": ["plugins", "--json"],
    "text": ["plugins"],
}


def shell(line: str, words: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the program with its streams redirected by a shell line."""
    return subprocess.run(["sh", "-c", f'exec "$@" {line}', "sh", *PROGRAM, *words], capture_output=True, check=False, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("words", RESULTS.values(), ids=RESULTS)
@pytest.mark.parametrize(("line", "why"), [(">&-", "it is closed"), (">/dev/full", "no space left on device")])
def test_a_standard_output_that_cannot_be_written_is_an_error_of_one_line(line: str, why: str, words: list[str], tmp_path: Path) -> None:
    done = shell(line, words, tmp_path)

    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.decode() == f"sftchat: error: standard output cannot be written: {why}\n"


@pytest.mark.slow
@pytest.mark.parametrize("words", RESULTS.values(), ids=RESULTS)
def test_results_are_complete_where_notes_cannot_be_written(words: list[str], tmp_path: Path) -> None:
    whole = shell("", words, tmp_path)

    for line in ("2>&-", "2>/dev/full", "<&- 2>&-"):
        done = shell(line, words, tmp_path)
        assert (done.returncode, done.stdout) == (3 if whole.stderr else 0, whole.stdout), line


@pytest.mark.slow
@pytest.mark.parametrize("line", [">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_the_exit_code_remains_where_nothing_can_be_written(line: str, tmp_path: Path) -> None:
    assert [shell(line, words, tmp_path).returncode for words in (*RESULTS.values(), ["no-such-verb"])] == [3, 3, 3, 3, 2]


@pytest.mark.slow
def test_a_file_that_is_opened_later_is_not_written_through_a_reused_descriptor(tmp_path: Path) -> None:
    program = "import os\nfrom sftchat._util.output import prepare_process\nprepare_process()\nfile = open('kept', 'w')\nos.write(2, b'x')\nos.write(1, b'x')\n"
    subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program], check=True, cwd=tmp_path)

    assert (tmp_path / "kept").read_bytes() == b""
