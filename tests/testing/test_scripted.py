"""The scripted engine behaves like a real engine."""

from __future__ import annotations

import threading

import pytest

from sftchat import EngineError, Message, Reply, SamplingParams
from sftchat.engine import Engine, Renders, Request, collect
from sftchat.testing import ScriptedEngine


def ask(text: str, id: str = "1", **sampling: object) -> Request:
    return Request(id, (Message(role="user", content=text),), sampling=SamplingParams(**sampling))  # type: ignore[arg-type]


def test_it_is_an_engine_that_renders() -> None:
    engine = ScriptedEngine({})

    assert isinstance(engine, Engine)
    assert isinstance(engine, Renders)
    assert engine.render((Message(role="user", content="hi"),)) == "user: hi\nassistant: "
    assert engine.context_length == 2048


@pytest.mark.parametrize(
    "replies",
    [{"hi": "你好"}, ["你好"], lambda request: "你好", {"hi": Reply("你好")}, {"hi": ["你", "好"]}],
    ids=["mapping", "list", "function", "reply", "pieces"],
)
def test_replies_come_from_a_mapping_a_list_or_a_function(replies: object) -> None:
    engine = ScriptedEngine(replies)  # type: ignore[arg-type]

    assert dict(collect(engine, [ask("hi")])) == {"1": Reply("你好", "stop", len("user: hi\nassistant: "), 2)}
    assert engine.requests == [ask("hi")]


def test_a_prompt_without_messages_is_its_own_key() -> None:
    engine = ScriptedEngine({"once upon": " a time"})

    assert dict(collect(engine, [Request("1", prompt="once upon")]))["1"].text == " a time"


def test_chunks_are_cut_as_configured() -> None:
    by_two = ScriptedEngine(["abcde"], chunks=2)
    by_word = ScriptedEngine(["one two"], chunks=lambda text: text.partition(" "))

    assert [chunk.text for chunk in by_two.generate([ask("x")])] == ["ab", "cd", "e", ""]
    assert [chunk.text for chunk in by_word.generate([ask("x")])] == ["one", " ", "two", ""]


@pytest.mark.parametrize(
    ("reply", "sampling", "text", "finish_reason"),
    [
        ("abcdef", {"max_new_tokens": 4}, "abcd", "length"),
        ("abcd", {"max_new_tokens": 4}, "abcd", "stop"),
        ("abc。def", {"stop": ("。",)}, "abc", "stop"),
        (["ab。", "c"], {"stop": ("b。",)}, "a", "stop"),
        (Reply("cut", "length"), {}, "cut", "length"),
        ("", {}, "", "stop"),
    ],
)
def test_limits_and_stop_strings_end_a_reply(reply: object, sampling: dict[str, object], text: str, finish_reason: str) -> None:
    engine = ScriptedEngine([reply])  # type: ignore[list-item]

    found = dict(collect(engine, [ask("x", **sampling)]))["1"]

    assert (found.text, found.finish_reason, found.completion_tokens) == (text, finish_reason, len(text))


def test_errors_are_raised_at_their_turn() -> None:
    engine = ScriptedEngine({"at once": EngineError("no memory"), "later": ["so ", EngineError("gone")]})

    with pytest.raises(EngineError, match="no memory"):
        list(engine.generate([ask("at once")]))
    chunks = engine.generate([ask("later")])
    assert next(chunks).text == "so "
    with pytest.raises(EngineError, match="gone"):
        next(chunks)


def test_closing_the_iterator_is_recorded() -> None:
    engine = ScriptedEngine(["abc", "def"])

    chunks = engine.generate([ask("x", "a"), ask("y", "b")])
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]

    assert engine.cancelled == ["a"]
    assert [request.id for request in engine.requests] == ["a"]


def test_it_waits_for_the_event_between_chunks() -> None:
    go_on = threading.Event()
    seen: list[str] = []
    first = threading.Event()

    def run() -> None:
        for chunk in ScriptedEngine(["abc"], pause=go_on).generate([ask("x")]):
            seen.append(chunk.text)
            first.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert first.wait(30)
    assert seen == ["a"]
    go_on.set()
    thread.join(30)
    assert "".join(seen) == "abc"


@pytest.mark.parametrize("engine", [ScriptedEngine({"hello": "x"}), ScriptedEngine([])], ids=["mapping", "list"])
def test_a_request_without_a_script_is_reported(engine: ScriptedEngine) -> None:
    with pytest.raises(LookupError, match=r"did you mean 'hello'|used up its 0 replies"):
        list(engine.generate([ask("helo")]))
