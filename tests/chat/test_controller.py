"""The chat controller behind both views: order, stopping, errors; with events instead of sleeps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from sftchat.chat.context import ChatCommand
from sftchat.errors import EngineError, ModelError, UsageError
from sftchat.testing import ScriptedEngine
from sftchat.types import Reply, SamplingParams
from tests.chat.logged import Log


def test_a_message_is_answered_and_added_to_the_history(view: Callable[..., Log]) -> None:
    engine = ScriptedEngine(["hi", "你"], chunks=1)
    log = view(engine, system="be brief", sampling=SamplingParams(seed=3))
    log.ready()

    log.chat.submit("hello")
    assert log.ready() == ["> hello", "h", "i", "|"]
    log.chat.submit("//help me")
    assert log.ready() == ["> //help me", "你", "|"]

    assert [message["content"] for message in engine.requests[1].messages] == ["be brief", "hello", "hi", "/help me"]
    assert engine.requests[1].sampling.seed == 3
    assert log.chat.conversation.turns[0].reply == Reply("hi", "stop", len("system: be brief\nuser: hello\nassistant: "), 2)


def test_lines_typed_while_the_model_loads_are_queued_in_order(view: Callable[..., Log]) -> None:
    loaded = threading.Event()
    engine = ScriptedEngine(lambda request: f"{len(request.messages)}")

    def load() -> ScriptedEngine:
        assert loaded.wait(60)
        return engine

    log = view(load)
    for line in ("one", "/reset", "two", "   ", "\n", ""):
        log.chat.submit(line)
    assert list(log.chat.pending) == ["one", "/reset", "two"]
    log.chat.submit("/help help")
    log.chat.submit("/rest")
    assert [line.split(",")[0] for line in log.log] == [
        "> /help help",
        "note: /help [COMMAND]  list the commands",
        "> /rest",
        "error: unknown command '/rest'",
    ]
    log.log.clear()

    loaded.set()
    log.until(lambda: len(engine.requests) == 2 and log.chat.state == "ready")
    assert log.log == ["> one", "1", "|", "> /reset", "note: the conversation starts again; /branches leads back", "> two", "1", "|"]


def test_stopping_keeps_the_part_at_once_even_if_the_engine_does_not_react(view: Callable[..., Log]) -> None:
    go_on = threading.Event()
    engine = ScriptedEngine(["abc", "next"], chunks=1, pause=go_on)
    log = view(engine)
    log.ready()
    log.chat.submit("one")
    log.until(lambda: "a" in log.log)

    assert log.chat.stop()

    assert log.chat.state == "ready"
    assert log.ready() == ["> one", "a", "|", "note: stopped; the partial reply is kept"]
    assert log.chat.conversation.turns[0].reply == Reply("a", "cancelled", 0, 1)
    assert log.chat.conversation.turns[0].partial
    assert not log.chat.stop()
    log.chat.submit("two")
    go_on.set()
    assert "".join(log.ready()) == "> twonext|"
    assert engine.cancelled == ["turn-1"]
    assert [message["content"] for message in engine.requests[1].messages] == ["one", "a", "two"]


def test_stopping_before_the_first_token_removes_the_message(view: Callable[..., Log]) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def think(request: Any) -> str:
        asked.set()
        assert go_on.wait(60)
        return "late"

    log = view(ScriptedEngine(think))
    log.ready()
    log.chat.submit("one")
    assert asked.wait(60)
    assert log.chat.stop()
    go_on.set()

    assert log.ready() == ["> one", "|", "note: stopped; the message is taken back"]
    assert log.chat.conversation.turns == ()
    log.chat.submit("two")
    assert "".join(log.ready()) == "> twolate|"


@pytest.mark.parametrize(
    ("script", "logged", "turns"),
    [
        (EngineError("out of memory"), ["|", "error: out of memory; the message is taken back"], 0),
        (["so ", EngineError("server gone")], ["so ", "|", "error: server gone; the partial reply is kept"], 1),
        (RuntimeError("CUDA\n  broke"), ["|", "error: RuntimeError: CUDA broke; the message is taken back"], 0),
        (Reply("half", "error"), ["half", "|", "error: scripted; the partial reply is kept"], 1),
    ],
)
def test_an_engine_error_is_one_line_and_the_chat_continues(view: Callable[..., Log], script: Any, logged: list[str], turns: int) -> None:
    log = view(ScriptedEngine([script, "fine"], chunks=9))
    log.ready()

    log.chat.submit("x")
    assert log.ready() == ["> x", *logged]
    assert len(log.chat.conversation.turns) == turns
    assert not log.chat.conversation.waiting
    log.chat.submit("y")
    assert log.ready() == ["> y", "fine", "|"]


def test_an_engine_that_ends_without_a_reason_is_an_error(view: Callable[..., Log]) -> None:
    class Silent(ScriptedEngine):
        def generate(self, requests: Any) -> Any:
            return iter(())

    log = view(Silent([]))
    log.ready()
    log.chat.submit("x")

    assert log.ready()[-1] == "error: the engine stopped without answering; the message is taken back"


def test_a_reply_cut_by_the_limit_and_an_empty_one_are_reported(view: Callable[..., Log]) -> None:
    log = view(ScriptedEngine(["abcdef", ""], chunks=9), sampling=SamplingParams(max_new_tokens=4))
    log.ready()

    log.chat.submit("x")
    assert log.ready()[1:] == ["abcd", "|", "note: cut at 4 tokens; /continue goes on, '/set max_new_tokens N' allows more"]
    log.chat.submit("y")
    assert log.ready()[1:] == ["|", "note: the model said nothing"]
    assert [turn.partial for turn in log.chat.conversation.turns] == [True, False]


def test_a_setting_changed_during_the_conversation_is_used_for_the_next_message(view: Callable[..., Log]) -> None:
    engine = ScriptedEngine(["a", "b"])
    log = view(engine)
    log.ready()
    for line in ("one", "/set temperature 0.5", "/system 简短", "two"):
        log.chat.submit(line)
        log.ready()

    assert [request.sampling.temperature for request in engine.requests] == [0.0, 0.5]
    assert engine.requests[1].messages[0] == {"role": "system", "content": "简短"}


def test_a_reply_ends_before_a_stop_string_that_was_typed(view: Callable[..., Log]) -> None:
    log = view(ScriptedEngine(["床前。明月光", "床前。明月光"]))

    assert log.type("/stop 。", "x", "/stop off", "y") == ["note: stop 。", "床", "前", "|", "note: stop off", *"床前。明月光", "|"]


def test_a_plugin_command_can_send_a_message_and_its_failure_is_harmless(view: Callable[..., Log]) -> None:
    def twice(context: Any, argument: str) -> None:
        context.send(argument)
        context.send("/" + argument)

    def wrong(context: Any, argument: str) -> None:
        raise UsageError("which one?") if argument else ZeroDivisionError("oh")

    more = (ChatCommand("twice", "", twice), ChatCommand("wrong", "", wrong), ChatCommand("exit", "", wrong))
    log = view(ScriptedEngine(lambda request: request.messages[-1]["content"], chunks=9), more=more)
    assert log.ready() == ["error: a plugin's command '/exit' is ignored: the name is taken"]

    log.chat.submit("/twice x")
    assert log.ready() == ["> /twice x", "> x", "x", "|", "> //x", "/x", "|"]
    log.chat.submit("/wrong")
    log.chat.submit("/wrong a")
    assert log.ready() == ["> /wrong", f"error: /wrong failed, in {__file__}:171: ZeroDivisionError: oh", "> /wrong a", "error: which one?"]


def test_a_model_that_cannot_be_loaded_ends_the_chat(view: Callable[..., Log]) -> None:
    def load() -> Any:
        raise ModelError("no such model")

    log = view(load)
    log.until(lambda: "left" in log.log)

    assert str(log.problem) == "no such model"


def test_closing_releases_the_engine_during_a_reply() -> None:
    go_on = threading.Event()
    engine = ScriptedEngine(["abc"], pause=go_on)
    log = Log(lambda: engine)
    log.ready()
    log.chat.submit("x")
    log.until(lambda: "a" in log.log)
    threading.Timer(0.1, go_on.set).start()

    log.chat.close(timeout=60)

    assert engine.closed
    assert engine.cancelled == ["turn-1"]


def test_speed_counts_tokens_after_the_first_in_elapsed_time(view: Callable[..., Log]) -> None:
    ticks = iter([9.0, 10.0, 10.5, 11.0, 11.0])
    log = view(ScriptedEngine(["abc"]), clock=lambda: next(ticks))
    log.ready()
    assert log.chat.focus.tokens_per_second == 0
    log.chat.submit("x")
    log.ready()

    assert log.chat.focus.tokens_per_second == pytest.approx(2.0)


@pytest.mark.parametrize(("former", "present"), [("say", "info"), ("complain", "error"), ("propose", "prefill_input"), ("columns", "panes"), ("desk", "services")])  # fmt: skip
def test_commands_may_use_former_names_for_one_release(view: Callable[..., Log], former: str, present: str) -> None:
    chat = view(ScriptedEngine([])).chat

    with pytest.deprecated_call(match=present):
        assert getattr(chat, former) == getattr(chat, present)
