"""``sftchat.load``: replies, streams, batches and likelihoods."""

from __future__ import annotations

import gc
import math
import weakref
from concurrent.futures import ThreadPoolExecutor
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
        engine: Any = loaded.engine
        reply = loaded.reply("hi", system="Be kind.", max_new_tokens=40)

    assert (str(reply), reply.thoughts) == ("hello", "a guest")
    assert engine.requests[0].messages == (
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"},
    )  # fmt: skip
    assert engine.closed
    assert repr(loaded) == "<sftchat model s:one, closed>"
    with pytest.raises(UsageError, match="the model 's:one' is closed; load it again"):
        loaded.reply("hi")


def test_a_stream_yields_the_answer_in_parts() -> None:
    assert list(model({"hi": "<think>a</think>ok"}, chunks=20).stream("hi")) == ["ok"]
    assert list(model({"hi": "one two"}).stream("hi")) == list("one two")


def test_closing_a_stream_stops_the_model() -> None:
    loaded = model({"hi": "one two"})
    stream = loaded.stream("hi")

    next(stream)
    stream.close()

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
        ("hi", {"temprature": 1}, "unknown sampling parameter 'temprature'; did you mean 'temperature'"),
        ("hi", {"temperature": 3}, "temperature is 3, must be from 0 to 2"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(prompt: Any, sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model({"hi": "x"}).reply(prompt, **sampling)


def test_one_text_is_no_list_of_prompts() -> None:
    with pytest.raises(UsageError, match="prompts is one text, must be a list of prompts"):
        model({"hi": "x"}).replies("hi")


def test_one_text_or_several_stop_a_reply() -> None:
    loaded = model({"hi": "x"})
    loaded.reply("hi", stop="END")
    loaded.reply("hi", stop=["END", "."])

    engine: Any = loaded.engine
    assert [request.sampling.stop for request in engine.requests] == [("END",), ("END", ".")]


def test_closing_frees_the_weights() -> None:
    loaded = sftchat.load("sftchat:nano")
    engine: Any = loaded.engine
    weights = weakref.ref(engine.loaded.model)
    del engine
    loaded.reply("hi", max_new_tokens=2)

    loaded.close()
    gc.collect()

    assert weights() is None


def test_threads_share_a_model() -> None:
    prompts = [f"word {number}" for number in range(16)]
    with sftchat.load("sftchat:nano") as loaded, ThreadPoolExecutor(4) as threads:
        alone = [str(loaded.reply(prompt, max_new_tokens=8)) for prompt in prompts]

        assert list(threads.map(lambda prompt: str(loaded.reply(prompt, max_new_tokens=8)), prompts)) == alone


def test_a_chat_takes_names_and_runs() -> None:
    with pytest.raises(UsageError, match="model is Model, must be a MODEL or a run; the chat opens it itself"):
        sftchat.chat(model({"hi": "x"}))
