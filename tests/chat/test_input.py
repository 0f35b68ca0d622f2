"""The input line: pastes, vi and emacs keys, the editor, and the status line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftchat.chat.context import Settings
from sftchat.chat.ui.input import Pasted
from sftchat.chat.ui.keys import prefers_vi
from sftchat.chat.ui.scrollback import breaks_rows, row_of_cursor
from sftchat.testing import ScriptedEngine
from sftchat.types import Reply, SamplingParams
from tests.chat.conftest import Chat
from tests.inference.endpoint_kit import DONE, Desk, delta, end, streamed

Start = Callable[..., Chat]
FORTY = "\n".join(f"第{number}行" for number in range(40))


def echo(request: Any) -> str:
    return f"你说：{request.messages[-1]['content']}"


def paste(text: str) -> str:
    return f"\x1b[200~{text}\x1b[201~"


def asked(engine: ScriptedEngine) -> list[str]:
    return [request.messages[-1]["content"] for request in engine.requests]


def test_a_long_paste_is_a_placeholder_that_expands_when_it_is_sent(chat: Start, tmp_path: Path) -> None:
    engine = ScriptedEngine(["ok", "ok"])
    talk = chat(engine, history=tmp_path / "history")
    talk.type("look: " + paste(FORTY) + " and " + paste("x" * 1000) + " and " + paste(FORTY + "!"))
    talk.screen.wait(
        "> look: [pasted 40 lines] and [pasted 1000 characters] and [pasted 40 lines, 2]".replace(" and [pasted 40 lines, 2]", "")
    )

    talk.say("")

    assert asked(engine) == [f"look: {FORTY} and {'x' * 1000} and {FORTY}!"]
    talk.type("\x1b[A")
    talk.screen.wait("第39行!")  # the history has the text, not the placeholder


def test_backspace_removes_a_whole_placeholder(chat: Start) -> None:
    engine = ScriptedEngine(["ok"])
    talk = chat(engine)
    talk.type("a" + paste(FORTY))
    talk.screen.wait("> a[pasted 40 lines]")

    talk.type("\x7f")
    talk.say("b")

    assert asked(engine) == ["ab"]


def test_a_typed_placeholder_is_text(chat: Start) -> None:
    engine = ScriptedEngine(["ok"])
    talk = chat(engine)

    talk.say("[pasted 40 lines]")

    assert asked(engine) == ["[pasted 40 lines]"]


def test_short_pastes_stay_as_they_are() -> None:
    pasted = Pasted()

    assert pasted.shorten("one\r\ntwo\rthree") == "one\ntwo\nthree"
    assert pasted.shorten(FORTY) == "[pasted 40 lines]"
    assert pasted.split("a [pasted 40 lines] b") == [("", "a "), ("class:pasted", "[pasted 40 lines]"), ("", " b")]
    pasted.clear()
    assert pasted.expand("[pasted 40 lines]") == "[pasted 40 lines]"


def test_vi_keys_are_enabled_by_option_or_f4(chat: Start) -> None:
    engine = ScriptedEngine(["ok", "ok"])
    talk = chat(engine, vi=True)
    talk.screen.wait("vi: insert")
    talk.type("abc def")
    talk.screen.wait("> abc def")
    talk.type("\x1b")
    talk.screen.wait("vi: command")
    talk.type("bcwxyz\r")
    talk.until(lambda: asked(engine) == ["abc xyz"])

    talk.screen.wait("ready")
    talk.type("\x1b[14~")
    talk.screen.wait(lambda text: "vi:" not in text.split("\n")[-1])
    talk.type("\x1bOS")  # F4 of other terminals
    talk.screen.wait("vi: insert")


@pytest.mark.parametrize(
    ("text", "vi"),
    [
        ("set editing-mode vi\n", True),
        ("# set editing-mode vi", False),
        ("set editing-mode vi\nset editing-mode emacs", False),
        ("", False),
        ("set editing-mode", False),
    ],
)
def test_vi_keys_are_the_default_when_inputrc_enables_them(tmp_path: Path, text: str, vi: bool) -> None:
    (tmp_path / "inputrc").write_text(text)

    assert prefers_vi({"INPUTRC": str(tmp_path / "inputrc")}) is vi
    assert not prefers_vi({"INPUTRC": str(tmp_path / "missing")})


def write_editor(folder: Path, lines: str) -> str:
    script = folder / "editor"
    script.write_text(f"#!/bin/sh\n{lines}\n")
    script.chmod(0o755)
    return str(script)


def test_an_editor_gets_the_text_and_returns_it_while_the_reply_streams(
    chat: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = f'cat "$1" > {tmp_path}/had; touch {tmp_path}/open; while [ ! -e {tmp_path}/close ]; do sleep 0.02; done; printf "第一\\nsecond\\n" > "$1"'
    monkeypatch.setenv("VISUAL", write_editor(tmp_path, editor))
    go_on = threading.Event()
    engine = ScriptedEngine([["one\n", "two\n", "three"], "ok"], pause=go_on)
    talk = chat(engine)
    talk.type("x\r")
    talk.screen.wait("one\n")
    talk.type("look " + paste(FORTY) + "\x18\x05")
    talk.until((tmp_path / "open").exists)
    assert (tmp_path / "had").read_text() == f"look {FORTY}\n"
    go_on.set()
    talk.until(lambda: talk.chat.state == "ready")
    assert "three" not in talk.screen.text()  # the editor has the terminal
    (tmp_path / "close").touch()

    seen = talk.screen.wait("> 第一\n  second")
    assert "> x\none\ntwo\nthree\n" in seen
    talk.say("")
    assert asked(engine) == ["x", "第一\nsecond"]


def test_an_editor_that_fails_changes_nothing(chat: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "/nowhere/editor")
    talk = chat(ScriptedEngine([]), 200, 20)
    talk.type("text\x18\x05")

    talk.screen.wait(
        "error: editor '/nowhere/editor' failed: [Errno 2] No such file or directory: '/nowhere/editor'; set VISUAL or EDITOR\n"
    )
    talk.screen.wait("> text")


def test_queued_lines_are_shown_and_counted(chat: Start) -> None:
    never = threading.Event()
    talk = chat(lambda: never.wait(60) and ScriptedEngine([]))
    for line in ("one", "two\x1b\rthree", "\x1b[200~f\x1b[2Jour\x1b[201~", "five", "six"):
        talk.type(line + "\r")

    talk.screen.wait("  waits: one\n  waits: two three\n  waits: f␛[2Jour\n  and 2 more\n")
    never.set()


def test_a_narrow_status_line_keeps_the_important_items(chat: Start) -> None:
    talk = chat(ScriptedEngine(["abc"]), 26, 12, names=["runs/some/very/long-name"])
    talk.say("x")

    assert talk.screen.wait("ready").split("\n")[-1].startswith("long-name · ready")


def test_the_status_line_shows_how_full_the_context_is(chat: Start) -> None:
    talk = chat(ScriptedEngine(["abc"], context_length=50), 100, 12, names=["m"])
    talk.say("x")

    assert "m · ready · context 22/50" in talk.screen.wait("context")


def test_names_and_errors_cannot_control_the_terminal(chat: Start) -> None:
    talk = chat(ScriptedEngine(echo), 100, 12, names=["evil\x1b]0;owned\x07/\x9b2Jname\u202e"])
    talk.say("\x1b[200~\x1b[2J\x1b[201~")
    talk.type("/\x1b[200~x\x1b[5n\x1b[201~\r")
    talk.screen.wait("unknown command")
    seen = talk.leave()

    assert "evil␛]0;owned␇/\\x9b2Jname\\u202e" in seen
    assert "\x1b]0;owned" not in talk.screen.raw
    assert "\x1b[2J" not in talk.screen.raw
    assert "\x1b[5n" not in talk.screen.raw


def test_thoughts_are_folded_and_f2_unfolds_them(chat: Start) -> None:
    go_on = threading.Event()
    talk = chat(ScriptedEngine([["<think>先想\n", "再想</think>\n\n**答案**"]], pause=go_on), 60, 14)
    talk.type("x\r")
    talk.screen.wait("thinking, 3 characters; f2 shows them")
    go_on.set()
    talk.screen.wait("> x\nthought 5 characters; f2 shows them\n答案\n")
    talk.type("\x1bOQ")

    talk.screen.wait("答案\n先想\n再想\nthoughts are shown")


def test_thoughts_that_a_server_sends_separately_are_folded_in_the_same_way(chat: Start) -> None:
    engine = ScriptedEngine([Reply("**答案**", thoughts="先想\n再想"), Reply("", "length", thoughts="想")])
    talk = chat(engine, 60, 16)
    talk.type("x\r")
    talk.screen.wait("> x\nthought 5 characters; f2 shows them\n答案\n")
    talk.type("\x1bOQ")
    talk.screen.wait("答案\n先想\n再想\nthoughts are shown")
    talk.say("y")

    assert talk.leave().endswith("> y\n想\ncut while thinking, at 0 tokens; '/set max_new_tokens N'\nallows more")
    assert [message["content"] for message in engine.requests[1].messages] == ["x", "**答案**", "y"]


def test_markdown_is_rendered_or_not(chat: Start) -> None:
    talk = chat(ScriptedEngine(["# T\n**b**", "# T\n**b**"]), 60, 20)
    talk.say("x")
    talk.type("/markdown off\r")
    talk.screen.wait("Markdown is rendered: off")
    talk.say("y")

    seen = talk.leave()
    assert "> x\nT\nb\n" in seen
    assert seen.endswith("> y\n# T\n**b**")


@pytest.mark.parametrize(
    ("environment", "breaks"),
    [
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "linux"}, False),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7600"}, True),
        ({"TERM": "tmux-256color", "TMUX": "x"}, True),
        ({"TERM": "screen", "STY": "1", "TMUX": "x"}, False),
        ({"TERM": "foot"}, True),
        ({"TERM": "xterm", "TERM_PROGRAM": "iTerm.app"}, True),
    ],
)
def test_terminals_that_rewrap_rows_are_recognised(environment: dict[str, str], breaks: bool) -> None:
    assert breaks_rows(environment) is breaks


def test_the_cursor_row_after_rewrapping_is_computed() -> None:
    assert row_of_cursor(["abcdef", "", "> "], 2, 2, 3, lambda character: 1) == 3
    assert row_of_cursor(["床前明月"], 1, 2, 5, lambda character: 2) == 2
    assert row_of_cursor([], 0, 2, 3, lambda character: 1) == 0


def test_the_model_sees_its_reply_and_not_the_rendering(chat: Start) -> None:
    said = "<word>**b**</word> `x` \\* \x1b[1m"
    engine = ScriptedEngine([said, "ok"])
    talk = chat(engine)
    talk.say("x")
    talk.say("y")

    assert engine.requests[1].messages[1]["content"] == said
    assert "<word>b</word> x \\* ␛[1m" in talk.leave()


class Thinker(ScriptedEngine):
    """Model whose template opens thoughts."""

    def render(self, messages: Any) -> str:
        return super().render(messages) + "<think>\n"


def test_thoughts_that_the_template_opens_are_folded_too(chat: Start) -> None:
    talk = chat(Thinker(["hm\n</think>\n\nyes"]), 60, 14)
    talk.say("x")

    assert talk.leave().endswith("> x\nthought 3 characters; f2 shows them\nyes")


def test_template_arguments_that_open_no_thoughts_leave_the_reply_unchanged(chat: Start) -> None:
    talk = chat(Thinker(["hm yes"]), 60, 14, settings=Settings(SamplingParams(), template_arguments={"enable_thinking": False}))
    talk.say("x")

    assert talk.leave().endswith("> x\nhm yes")


def test_thoughts_without_an_opening_tag_are_removed_when_they_close(chat: Start) -> None:
    server = Desk(lambda request: streamed(delta("let me\nsee"), delta("</think>\n\nPa"), delta("ris"), end(), DONE))
    talk = chat(server.engine, 60, 14)
    talk.say("x")

    seen = talk.leave()
    assert "thought 10 characters; f2 shows them\nParis" in seen or "(thoughts up to here)\nParis" in seen
    assert "see\nParis" not in seen


def test_thoughts_that_arrive_together_with_their_closing_tag_are_shown(chat: Start) -> None:
    server = Desk(lambda request: streamed(delta("let me\nsee"), delta(" now</think>\n\nParis"), end(), DONE))
    talk = chat(server.engine, 60, 14)
    talk.say("x")
    talk.type("\x1bOQ")  # f2 shows the thoughts

    seen = talk.leave()
    assert "see now\n" in seen
