"""``sftchat.load``: replies, streams, batches and likelihoods."""

from __future__ import annotations

import math
from typing import Any

import pytest

import sftchat
from sftchat import EngineError, Message, Model, Reply, UsageError
from sftchat.api.session import Session
from sftchat.testing import ScriptedEngine


def model(replies: Any, **options: Any) -> Model:
    return sftchat.load("s:one", session=Session(lambda name, **_: ScriptedEngine(replies, name=name, **options)))


def test_a_reply_to_a_text_is_the_text_without_thoughts() -> None:
    with model({"hi": "<think>a guest</think>hello"}) as loaded:
        reply = loaded.reply("hi", system="Be kind.", max_new_tokens=40)

    assert (str(reply), reply.thoughts) == ("hello", "a guest")
    assert loaded.engine.requests[0].messages == (  # type: ignore[attr-defined]
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"},
    )  # fmt: skip
    assert loaded.engine.closed  # type: ignore[attr-defined]


def test_a_stream_yields_the_answer_in_parts() -> None:
    assert list(model({"hi": "<think>a</think>ok"}, chunks=20).stream("hi")) == ["ok"]
    assert list(model({"hi": "one two"}).stream("hi")) == list("one two")


def test_closing_a_stream_stops_the_model() -> None:
    loaded = model({"hi": "one two"})
    stream = loaded.stream("hi")

    next(stream)
    stream.close()  # type: ignore[attr-defined]

    assert loaded.engine.cancelled == ["0"]  # type: ignore[attr-defined]


def test_replies_come_in_the_order_of_the_prompts() -> None:
    conversation: list[Message] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]

    assert list(map(str, model({"a": "1", "c": "2"}).replies([conversation, "a"]))) == ["2", "1"]


def test_a_failed_prompt_raises_or_is_returned() -> None:
    replies = {"a": "1", "b": Reply("", "error")}

    with pytest.raises(EngineError, match="prompt 1: "):
        model(replies).replies(["a", "b"])
    good, bad = model(replies).replies(["a", "b"], on_error="return")
    assert (str(good), type(bad)) == ("1", EngineError)


def test_the_likelihood_of_texts_is_that_of_their_tokens() -> None:
    (likelihood,) = model([], likeliest=[{"o": 0.5}, {"k": 0.25}]).likelihood("hi", "ok")

    assert (likelihood.logprob, likelihood.tokens, likelihood.bytes) == (pytest.approx(math.log(0.125)), 2, 2)


@pytest.mark.parametrize(
    ("prompt", "sampling", "message"),
    [
        (" ", {}, "the prompt is empty"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], {}, "the last turn must be the user's"),
        ([{"role": "nobody", "content": "a"}], {}, "prompt: "),
        ("hi", {"temprature": 1}, "temprature"),
        ("hi", {"temperature": 3}, "temperature is 3, must be from 0 to 2"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(prompt: Any, sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model({"hi": "x"}).reply(prompt, **sampling)
