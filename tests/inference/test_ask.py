"""Asking models without the command line: one question, many in order, several models; stopping while replies are collected."""

from __future__ import annotations

from typing import Any

import pytest

from sftchat.engine import Request, collect
from sftchat.errors import EngineError
from sftchat.inference.ask import ask, ask_all, ask_models, ask_streaming, make_question
from sftchat.models.reference import ModelReference
from sftchat.testing import ScriptedEngine
from sftchat.types import Reply, SamplingParams
from tests.inference.endpoint_kit import DONE, Desk, delta, end, streamed


def echo(request: Request) -> str:
    return f"{request.messages[-1]['content']} {request.sampling.seed}"


def test_a_reply_streams_and_is_returned_without_its_thoughts() -> None:
    texts: list[str] = []
    thoughts: list[str] = []
    engine = ScriptedEngine(["<think>hm</think>yes"])

    reply = ask_streaming(
        engine,
        Request("1", make_question("x").messages),
        on_text=texts.append,
        on_thoughts=thoughts.append,
        on_text_was_thoughts=lambda: pytest.fail("the opening tag was there"),
    )

    assert ("".join(texts), "".join(thoughts)) == ("yes", "hm")
    assert (reply.text, reply.thoughts) == ("yes", "hm")


@pytest.mark.parametrize(
    ("chunks", "events"),
    [
        (["thought</think>answer"], ["(thought)", "answer"]),
        (["thou", "ght</think>answer"], ["thou", "(ght)", "\n", "these were thoughts", "answer"]),
        (["thought\n", "</think>answer"], ["thought\n", "these were thoughts", "answer"]),
    ],
)
@pytest.mark.parametrize("from_server", [False, True])
def test_all_thoughts_without_an_opening_tag_are_passed_on(chunks: list[str], events: list[str], from_server: bool) -> None:
    engine = Desk(lambda request: streamed(*map(delta, chunks), end(), DONE)).engine if from_server else ScriptedEngine([chunks])
    received: list[str] = []

    reply = ask_streaming(
        engine,
        Request("1", make_question("x").messages),
        on_text=received.append,
        on_thoughts=lambda text: received.append(f"({text})"),
        on_text_was_thoughts=lambda: received.append("these were thoughts"),
    )

    assert received == events
    assert (reply.text, reply.thoughts) == ("answer", "thought")


def test_a_request_that_fails_is_an_exception() -> None:
    with pytest.raises(EngineError, match="out of memory"):
        ask(ScriptedEngine([EngineError("out of memory")]), Request("1", make_question("x").messages))


def test_samples_follow_each_other_in_the_order_of_the_questions() -> None:
    questions = [make_question("a", id="1"), make_question("b", id="2")]

    replies = list(ask_all(ScriptedEngine(echo), questions, SamplingParams(temperature=1.0, seed=5), samples=2))

    assert [(example.id, sample, getattr(reply, "text", "")) for example, sample, reply in replies] == [
        ("1", 0, "a 5"), ("1", 1, "a 6"), ("2", 0, "b 5"), ("2", 1, "b 6"),
    ]  # fmt: skip


def test_every_model_is_opened_and_closed_and_replies_to_every_question() -> None:
    opened: dict[str, ScriptedEngine] = {}

    def load(model: str, **options: Any) -> ScriptedEngine:
        opened[model] = ScriptedEngine(lambda request: f"{model}: {request.messages[-1]['content']}")
        return opened[model]

    references = [ModelReference("one", "one"), ModelReference("two", "two")]
    replies = ask_models(load, references, [make_question("a"), make_question("b")], SamplingParams(), {})

    assert {(model, number): getattr(reply, "text", "") for model, number, reply in replies} == {
        (0, 0): "one: a", (0, 1): "one: b", (1, 0): "two: a", (1, 1): "two: b",
    }  # fmt: skip
    assert [engine.closed for engine in opened.values()] == [True, True]


def test_stopping_keeps_the_text_so_far() -> None:
    chunks: list[str] = []
    engine = ScriptedEngine(["abcdef"])

    replies = dict(
        collect(
            engine,
            [Request("1", make_question("x").messages)],
            on_chunk=lambda chunk: chunks.append(chunk.text),
            stop=lambda: len(chunks) == 3,
        )
    )

    assert replies == {"1": Reply("abc", "cancelled", 0, 3)}
    assert engine.cancelled == ["1"]
