"""The chat in a real terminal: what only a pty can test."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sftchat.chat.safe_text import escape_controls
from tests.chat.conftest import Pty
from tests.chat.driver import pauses, random_text

Start = Callable[..., Pty]


def test_a_conversation_from_hello_to_goodbye(terminal: Start) -> None:
    talk = terminal(columns=40, lines=16)
    for message in ("你好", "long", "list", "clear", "crash"):
        talk.type(message + "\r")
    talk.screen.wait("error: out of memory")
    talk.type("\x04")

    seen = talk.left()

    assert talk.process.returncode == 0
    assert "> 你好\n你说：你好\n\n> long\n床前明月光，疑是地上霜。举头望明月，低头\n思故乡。" in seen
    assert "\n第二段 🙂 the end\n\n> list\n1. 第1条 item 1\n2. " in seen
    assert all(f"\n{number}. 第{number}条 item {number}\n" in seen for number in range(1, 41))
    assert "\n> clear\nbefore␛[2J␛[Hafter\\x9b31m␇␍end\n" in seen
    assert seen.endswith("> crash\nso f\nerror: out of memory; the partial reply\nis kept\nleft")
    assert "\x1b[6n" not in talk.screen.raw  # no cursor position request, so no answer that could end up in the prompt


def test_ctrl_c_during_a_reply_keeps_the_part_and_the_prompt_returns(terminal: Start, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    talk = terminal("--go-on-when", str(go_on))
    talk.type("first\r")
    talk.screen.wait("你\n")
    talk.type("\x03")
    talk.screen.wait("> first\n你\nstopped; the partial reply is kept\n\n>\nscripted · ready")
    talk.type("second\r")
    go_on.touch()
    talk.screen.wait("你说：second")
    talk.type("\x04")

    assert talk.left().endswith("> second\n你说：second\nleft")


def test_ctrl_c_never_kills_while_the_model_loads(terminal: Start, tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    talk = terminal("--load-when", str(loaded))
    talk.screen.wait("scripted · loading")
    talk.type("\x03")
    talk.screen.wait("ctrl-c again leaves")
    talk.screen.wait(lambda text: "ctrl-c again leaves" not in text)
    talk.type("\x1b[200~第一行\n第二行\x1b[201~")
    talk.screen.wait("> 第一行\n  第二行")
    talk.type("\r")
    talk.screen.wait("waits: 第一行 第二行")
    loaded.touch()
    talk.screen.wait("你说：第一行\n第二行\n")
    talk.type("\x03\x03")

    assert talk.left().endswith("left")
    assert talk.process.returncode == 0


def test_an_interrupt_from_outside_is_a_ctrl_c(terminal: Start) -> None:
    talk = terminal("--slow", "0.02")
    talk.screen.wait("scripted · ready")
    talk.type("long\r")
    talk.screen.wait("床前明月光")
    talk.process.send_signal(2)
    talk.screen.wait("stopped; the partial reply is kept")
    talk.type("\x04")

    assert talk.left().endswith("left")


def test_no_color_is_honoured(terminal: Start) -> None:
    plain = terminal(NO_COLOR="1")
    colored = terminal()
    for talk in (plain, colored):
        talk.type("/rest\r")
        talk.screen.wait("did you mean '/reset'?")
        talk.type("\x04")
        talk.left()

    assert "\x1b[0;31m" in colored.screen.raw
    assert "\x1b[0;3" not in plain.screen.raw
    assert "\x1b[0;9" not in plain.screen.raw


def test_typing_during_a_reply_changes_nothing(terminal: Start) -> None:
    talk = terminal("--slow", "0.002", columns=30, lines=12)
    talk.screen.wait("scripted · ready")
    talk.type("list\r")
    for character in "typed 同时 meanwhile":
        talk.type(character)
        time.sleep(0.01)  # a typist, not a synchronisation
    talk.type("\r")
    talk.screen.wait("你说：typed 同时 meanwhile")
    talk.type("\x04")

    expected = "\n".join(f"{number}. 第{number}条 item {number}" for number in range(1, 41))
    assert talk.left().endswith(f"> list\n{expected}\n\n> typed 同时 meanwhile\n你说：typed 同时 meanwhile\nleft")


def run_cases(talk: Pty, cases: range) -> None:
    """Stream replies in random tokens and compare the scrollback with them."""
    for case in cases:
        talk.type(f"case {case}\r")
    expect_cases(talk, cases)


def run_cases_with_resizes(terminal: Start, cases: range) -> None:
    """The same with changes of the terminal's size at random points of the replies."""
    chance = random.Random(cases.start)
    (arrived, there), (here, go_on) = os.pipe(), os.pipe()
    options = ("--tokens", "--pauses", str(there), str(here))
    talk = terminal(*options, columns=60, lines=50, keep=(there, here), TERM_PROGRAM="vscode")
    for case in cases:
        talk.type(f"case {case}\r")
        for _ in pauses(random_text(f"case {case}")):
            os.read(arrived, 1)
            talk.resize(chance.randint(30, 60), chance.randint(44, 60))  # space for the unfinished line with any wrapping
            os.write(go_on, b".")
    expect_cases(talk, cases)
    for end in (arrived, there, here, go_on):
        os.close(end)


def expect_cases(talk: Pty, cases: range) -> None:
    talk.type("the end\r")
    talk.screen.wait(lambda text: "你说：the end" in text.replace("\n", ""))
    talk.type("\x04")
    talk.left()
    written = "\n".join(talk.screen.written()).split("\n> ")
    assert written[1:-1] == [f"case {case}\n{shown(random_text(f'case {case}'))}" for case in cases]


def shown(text: str) -> str:
    """Return a reply as in the scrollback, ignoring blanks at line ends."""
    lines = escape_controls(text).split("\n")
    if lines[-1] == "":
        lines.pop()
    return "".join(f"{line.rstrip(' ')}\n" for line in lines or (["the model said nothing"] if not text else []))


@pytest.mark.parametrize(("columns", "lines"), [(24, 10), (80, 24)])
def test_the_scrollback_is_the_reply_for_any_tokens(terminal: Start, columns: int, lines: int) -> None:
    run_cases(terminal("--tokens", columns=columns, lines=lines), range(30))


def test_the_scrollback_is_the_reply_for_any_resizes(terminal: Start) -> None:
    run_cases_with_resizes(terminal, range(1000, 1030))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_a_thousand_replies_are_the_scrollback(terminal: Start, part: int) -> None:
    run_cases_with_resizes(terminal, range(100 * part, 100 * part + 100))
