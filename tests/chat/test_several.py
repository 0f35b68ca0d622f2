"""Several models in one conversation, as shown on the screen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from sftchat.errors import EngineError
from sftchat.testing import ScriptedEngine
from tests.chat.conftest import Chat

Start = Callable[..., Chat]
NAMES = ["base", "tuned"]


def test_two_models_stream_side_by_side_and_the_first_difference_is_marked(chat: Start) -> None:
    go_on = [threading.Event(), threading.Event()]
    engines = [ScriptedEngine([["甲-乙:师徒", "\n丙"]], pause=go_on[0]), ScriptedEngine([["甲-乙:父子\n", "丁👨‍👩‍👧"]], pause=go_on[1])]
    talk = chat(engines, 100, 20, names=NAMES)
    talk.type("谁？\r")

    seen = talk.screen.wait(lambda text: "师徒" in text and "父子" in text)
    assert "\n甲-乙:师徒" + " " * 39 + "│ 甲-乙:父子\n" in seen
    for event in go_on:
        event.set()
    talk.screen.wait("ready")
    seen = talk.leave()

    block = seen.split("> 谁？\n")[1].split("\n")
    assert [line.index("│") if "│" in line else None for line in block[:3]] == [49, 49 - 4, 49 - 1]  # wide characters are one in a text
    assert [line.split("│")[0].rstrip() for line in block[:3]] == ["base", "甲-乙:师徒", "丙"]
    assert [line.split("│ ")[1] for line in block[:3]] == ["tuned", "甲-乙:父子", "丁👨‍👩‍👧"]
    assert block[3] == "they differ from character 5 on: base 师徒 · tuned 父子"
    assert "\x1b[0;7m师" in talk.screen.raw


def test_on_a_narrow_terminal_replies_are_stacked(chat: Start) -> None:
    go_on = threading.Event()
    engines = [ScriptedEngine([["one\n", "two"]], pause=go_on), ScriptedEngine([["**eins**\nzwei"]])]
    talk = chat(engines, 60, 20, names=NAMES)
    talk.type("x\r")

    talk.screen.wait("base\none\ntuned: **eins** zwei\n")
    go_on.set()
    talk.screen.wait("they differ")
    assert talk.leave().endswith("> x\nbase\none\ntwo\ntuned\neins\nzwei\nthey differ from character 1 on: base one · tuned **eins**")


def test_equal_replies_are_reported_as_equal(chat: Start) -> None:
    talk = chat([ScriptedEngine(["same"]), ScriptedEngine(["same"])], 100, 20, names=NAMES)
    talk.say("x")

    assert talk.leave().endswith("│ same\nall say the same")


@pytest.mark.parametrize("columns", [60, 120])
def test_an_error_of_one_model_is_shown_below_the_table(chat: Start, columns: int) -> None:
    go_on = threading.Event()
    engines = [ScriptedEngine([["half", EngineError("out of memory")]]), ScriptedEngine([["whole ", "reply"]], pause=go_on)]
    talk = chat(engines, columns, 20, names=NAMES)
    talk.type("x\r")
    talk.screen.wait("whole")
    go_on.set()
    talk.screen.wait("ready")
    seen = talk.leave()

    assert "error" not in seen.split("whole reply")[0]
    assert "error: base: out of memory; the partial reply is kept" in seen.partition("whole reply")[2].replace("\n", " ")


def test_ctrl_c_stops_all_models_and_keeps_partial_replies(chat: Start) -> None:
    never = threading.Event()
    engines = [ScriptedEngine(["abc"], chunks=1, pause=never), ScriptedEngine(["xyz"], chunks=1, pause=never)]
    talk = chat(engines, 120, 20, names=NAMES)
    talk.type("x\r")
    talk.screen.wait(lambda text: "a  " in text and "│ x" in text)
    talk.type("\x03")
    talk.screen.wait("tuned: stopped; the partial reply is kept")
    never.set()

    assert talk.chat.state == "ready"
    assert "stopped" not in talk.leave().split("│ x")[0]


def test_the_status_line_has_the_speed_of_each(chat: Start) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.125
        return now[0]

    talk = chat([ScriptedEngine(["abcde"]), ScriptedEngine(["abcde"])], 120, 20, names=NAMES, clock=clock)
    talk.say("x")

    last = talk.screen.wait(lambda text: "tokens/s" in (last := text.split("\n")[-1]) and "replying" not in last).split("\n")[-1]
    assert last.startswith("base ")
    assert " · ready · tuned " in last


def test_narrowing_the_terminal_during_a_reply_keeps_the_columns(chat: Start) -> None:
    go_on = threading.Event()
    first = "\n".join(f"left {number}" for number in range(9)) + "\n"
    engines: list[Any] = [
        ScriptedEngine([[first, "the end"]], pause=go_on),
        ScriptedEngine([[first.replace("left", "right"), "the end"]], pause=go_on),
    ]
    talk = chat(engines, 110, 20, names=NAMES, environment={"TERM_PROGRAM": "vscode"})
    talk.type("x\r")
    talk.screen.wait("│ right 8")
    talk.terminal.post(lambda: talk.screen.resize(50, 20))
    go_on.set()
    talk.screen.wait("ready")
    seen = talk.leave().partition("they differ")[0]

    assert [seen.count(f"left {number}") for number in range(9)] == [1] * 9
    assert [seen.count(f"right {number}") for number in range(9)] == [1] * 9
    assert seen.count("the end") == 2
