"""`sftchat chat`: the view that it opens, its arguments, and its exit codes."""

from __future__ import annotations

import io
import queue
import sys
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat import EngineError, ModelError, SamplingParams
from sftchat.chat.context import ChatCommand
from sftchat.chat.controller import ChatController
from sftchat.chat.ui import app
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.models.manifest import Manifest, write_manifest
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine
from tests.cli.test_ask import TASK, Terminal

SHOUT = ChatCommand("shout", "say it loud", lambda context, argument: context.info(argument.upper()))


def run(engine: Any, *words: str) -> int:
    registry = Registry(pluggy.PluginManager("sftchat"), tasks={"family": TASK}, commands={"shout": SHOUT})
    return main(["chat", "model", *words], obj=Session(engine if callable(engine) else lambda model, **options: engine, registry))


def test_a_pipe_gets_one_reply_per_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("你好\n/shout hey\nagain\n"))
    engine = ScriptedEngine(["一", "二"])

    assert run(engine, "--system", "be brief", "--task", "family", "--seed", "4") == 0

    assert capsys.readouterr() == ("一\n二\n", "HEY\n")
    assert engine.requests[0].messages[0]["content"] == "be brief"
    assert engine.requests[0].sampling == SamplingParams(max_new_tokens=7, temperature=0.5, seed=4)


def test_a_message_without_a_reply_is_exit_code_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\nb\n"))

    assert run(ScriptedEngine([EngineError("gone"), "fine"])) == 3
    assert capsys.readouterr() == ("\nfine\n", "sftchat: error: gone; the message is taken back\n")


def test_a_model_that_cannot_be_loaded_is_exit_code_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(model: str, **options: Any) -> ScriptedEngine:
        raise ModelError(f"no model '{model}'")

    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n"))

    assert run(fail) == 3
    assert capsys.readouterr() == ("", "sftchat: error: no model 'model'\n")


def test_an_unforeseen_error_while_a_model_loads_is_one_line_with_the_option_to_see_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(model: str, **options: Any) -> ScriptedEngine:
        raise ZeroDivisionError("of a\nlibrary")

    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n"))
    words = "model 'model' could not be loaded: ZeroDivisionError: of a library; --traceback shows where"

    assert run(fail) == 3
    assert capsys.readouterr() == ("", f"sftchat: error: {words}\n")
    assert run(fail, "--traceback") == 3
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert "ZeroDivisionError: of a\n" in shown


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--top-p", "0"), "top_p is 0.0"),
        (("--task", "x"), "unknown task 'x'"),
        (("b", "model"), "'model' stands twice: there is nothing to compare"),
        (("--evalset", "x"), "name the task with --task"),
        (("--continue", "--session", "3"), "give one of them"),
        (("--session", "3"), "no session '3'"),
        (("--continue",), "there is no conversation to go on with yet"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_loads_nothing(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], complaint: str) -> None:
    assert run(lambda model, **options: pytest.fail("loaded"), *words) == 2
    assert complaint in capsys.readouterr().err


class Recorded:
    """Replacement of the terminal view."""

    given: dict[str, Any]
    view: Recorded
    chat: ChatController

    def __init__(self, make_chat: Any, **given: Any) -> None:
        self._actions: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.post = self._actions.put
        Recorded.given, Recorded.view, Recorded.chat = given, self, make_chat(self)

    def run(self) -> None:
        """Models are loaded only on demand of the view."""
        assert Recorded.chat.state == "loading"

    def info(self, text: str) -> None:
        raise AssertionError(text)

    def leave(self, error: Exception | None) -> None:
        raise AssertionError(error)

    def load(self) -> None:
        Recorded.chat.start()
        while Recorded.chat.state == "loading":
            self._actions.get(timeout=60)()
        Recorded.chat.close()


def test_a_terminal_is_opened_before_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[dict[str, Any]] = []

    def open_engine(model: str, **options: Any) -> ScriptedEngine:
        opened.append({"model": model, **options})
        return ScriptedEngine([])

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(app, "Terminal", Recorded)

    assert run(open_engine, "--task", "family", "--device", "cpu") == 0

    assert opened == []
    assert [pane.name for pane in Recorded.chat.panes] == ["model"]
    assert "shout" in Recorded.chat.commands
    assert Recorded.given["history"].parts[-2:] == ("sftchat", "history")
    Recorded.view.load()
    assert {name: opened[0][name] for name in ("model", "device", "preferred", "interactive")} == {
        "model": "model",
        "device": "cpu",
        "preferred": "plain",
        "interactive": True,
    }


@pytest.mark.parametrize(
    ("task", "words", "said"),
    [
        ("family", (), ["trained on family: with --task family replies are generated as they are scored, and marked"]),
        ("family", ("--task", "family"), []),
        ("a task that is not installed", (), []),
    ],
    ids=["of a known task", "with its task", "of an unknown task"],
)
def test_the_training_data_of_a_run_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str, words: tuple[str, ...], said: list[str]
) -> None:
    heard: list[str] = []
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(sys, name, Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(app, "Terminal", Recorded)
    monkeypatch.setattr(Recorded, "info", lambda view, text: heard.append(text))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    write_manifest(tmp_path / "model", Manifest(task, "base", "", "full", {}, (), 1, "", "", ""))

    assert run(ScriptedEngine([]), *words) == 0
    Recorded.view.load()

    assert heard == said


def test_a_dumb_terminal_gets_no_escape_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin, stdout = Terminal("hi\n"), Terminal()
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setenv("TERM", "dumb")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        assert run(ScriptedEngine(["a\x1b[1mb"])) == 0

    assert stdout.getvalue() == "a␛[1mb\n"
