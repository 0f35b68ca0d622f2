"""The chat in a pipe: one message per line, only replies on stdout."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sftchat.chat.commands import BUILTINS, Commands
from sftchat.chat.controller import ChatController
from sftchat.chat.pane import Opening
from sftchat.chat.ui.plain import Plain
from sftchat.errors import EngineError, ModelError, UsageError
from sftchat.testing import ScriptedEngine


class Typist(io.StringIO):
    """Terminal on stdin or stdout; functions in the script are called instead of read."""

    def __init__(self, *script: str | Callable[[], str]) -> None:
        super().__init__()
        self._script = iter(script)

    def isatty(self) -> bool:
        return True

    def readline(self, size: int | None = -1, /) -> str:
        line = next(self._script, "")
        return line if isinstance(line, str) else line()


def interrupt(*_: Any) -> str:
    raise KeyboardInterrupt


def run(engine: Any, stdin: io.TextIOBase, stdout: io.StringIO | None = None) -> tuple[str, str, Plain]:
    out, err = stdout if stdout is not None else io.StringIO(), io.StringIO()
    load = engine if callable(engine) else lambda: engine
    plain = Plain(
        lambda view: ChatController([Opening(load, ("scripted",))], view, commands=Commands(BUILTINS)), stdin=stdin, stdout=out, stderr=err
    )  # type: ignore[arg-type]
    plain.run()
    return out.getvalue(), err.getvalue(), plain


def test_every_line_is_a_message_and_empty_lines_are_ignored() -> None:
    engine = ScriptedEngine(lambda request: f"{len(request.messages)}：{request.messages[-1]['content']}")

    out, err, plain = run(engine, io.StringIO("一\n\n   \r\n//二\r\n三"))

    assert out == "1：一\n3：/二\n5：三\n"
    assert err == ""
    assert plain.failures == 0
    assert engine.closed


def test_commands_write_to_stderr_and_exit_ends_the_chat() -> None:
    engine = ScriptedEngine(lambda request: request.messages[0]["content"])

    out, err, plain = run(engine, io.StringIO("/system 简短\nhi\n/rest\n/exit\nlost\n"))

    assert out == "简短\n"
    assert "system prompt set" in err
    assert "sftchat: error: unknown command '/rest', did you mean '/reset'?" in err
    assert plain.failures == 1


def test_an_error_is_counted_and_the_next_line_is_answered() -> None:
    out, err, plain = run(ScriptedEngine([EngineError("gone"), ["ha", EngineError("gone")], "fine"]), io.StringIO("a\nb\nc\n"))

    assert out == "\nha\nfine\n"
    assert err.count("sftchat: error: gone") == 2
    assert plain.failures == 2


def test_a_pipe_gets_the_bytes_and_a_terminal_gets_symbols() -> None:
    nasty = "a\x1b[2Jb\r\nc"

    assert run(ScriptedEngine([nasty]), io.StringIO("x"))[0] == nasty + "\n"
    assert run(ScriptedEngine([nasty]), io.StringIO("x"), Typist())[0] == "a␛[2Jb\nc\n"


def test_a_model_that_cannot_be_loaded_is_an_error() -> None:
    def load() -> Any:
        raise ModelError("no such model")

    with pytest.raises(ModelError, match="no such model"):
        run(load, io.StringIO("x"))


def test_input_that_is_not_text_is_an_error() -> None:
    with pytest.raises(UsageError, match="standard input is not utf-8"):
        run(ScriptedEngine(["x"]), io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8"))


def test_ctrl_c_in_a_pipe_ends_the_program() -> None:
    typist = Typist(interrupt)
    typist.isatty = lambda: False  # type: ignore[method-assign]

    with pytest.raises(KeyboardInterrupt):
        run(ScriptedEngine([]), typist)


def test_a_dumb_terminal_shows_a_prompt_and_exits_after_two_ctrl_c() -> None:
    out, err, _ = run(ScriptedEngine(["x"]), Typist(interrupt, "hi\n", interrupt))

    assert out == "x\n"
    assert err == "> ctrl-c again leaves\n> > ctrl-c again leaves\n> "
    with pytest.raises(KeyboardInterrupt):
        run(ScriptedEngine([]), Typist(interrupt, interrupt))


def test_ctrl_c_stops_a_reply_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    engine = ScriptedEngine(["abc", "next"], pause=go_on)
    piece = Plain.show_piece

    def interrupted(plain: Plain, text: str, column: int) -> None:
        piece(plain, text, column)
        if text == "a":
            go_on.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(Plain, "show_piece", interrupted)
    out, err, _ = run(engine, Typist("x\n", "y\n"))

    assert out == "a\nnext\n"
    assert "stopped; the partial reply is kept" in err


def test_several_models_reply_each_under_its_name() -> None:
    out, err = io.StringIO(), io.StringIO()
    openings = [Opening(lambda: ScriptedEngine(["one\ntwo"]), ("base",)), Opening(lambda: ScriptedEngine(["eins"]), ("tuned",))]
    view = Plain(
        lambda shown: ChatController(openings, shown, commands=Commands(BUILTINS)), stdin=io.StringIO("x\n"), stdout=out, stderr=err
    )
    view.run()

    assert out.getvalue() == "base: one\ntwo\ntuned: eins\n"


def test_notes_are_escaped_on_a_terminal() -> None:
    out, err = io.StringIO(), Typist()
    Plain(lambda view: ChatController([], view, commands=Commands(BUILTINS)), stdin=io.StringIO(), stdout=out, stderr=err).info("a\x1b[2Jb")

    assert err.getvalue() == "a␛[2Jb\n"
