"""Log-probabilities of a model behind a server: what a chat requests, what it shows, and what it reports when there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sftchat.chat.context import Settings
from sftchat.chat.controller import ChatServices as ChatDesk
from sftchat.chat.controller import ModelLoader
from sftchat.chat.rows import Rows
from sftchat.chat.serialization import node_from_json, node_to_json
from sftchat.testing import ScriptedEngine
from sftchat.types import SamplingParams
from tests.chat.test_inside import talked
from tests.inference.endpoint_kit import DONE, Desk, end, streamed
from tests.inference.test_endpoint_logprobs import entry, prompt, weighed

ON = {"settings": Settings(SamplingParams(max_new_tokens=20), logprobs=True)}


def served(answer: Callable[[dict[str, Any]], httpx2.Response]) -> Desk:
    return Desk(lambda request: answer(json.loads(request.content)))


def paris(body: dict[str, Any]) -> httpx2.Response:
    """Server that returns log-probabilities on request, and those of a prompt as vLLM does."""
    if "prompt_logprobs" in body:
        given = body["messages"][-1]["content"] if body["messages"][-1]["role"] == "assistant" else ""
        return prompt(None, "hi", *given)
    head, tail = "你".encode()[:2], "你".encode()[2:]
    pieces = [
        ("Par", entry("Par", -0.1, {"Par": -0.1, "Lyon": -3.0})),
        ("is", entry("is", -2.0, {"ty": -0.2, "is": -2.0})),
        ("", entry(head, -0.02)),
        ("你", entry(tail, -9.0, {"好": -0.01})),
        ("", entry("<end>", -0.001)),
    ]
    wanted = "logprobs" in body
    return streamed(*(weighed(text, *([token] if wanted else [])) for text, token in pieces), end(), DONE)


def last(engine: Any, *lines: str, **options: Any) -> list[str]:
    """Return what the last line adds to stderr."""
    before = talked(engine, *lines[:-1], **options)[1]
    return talked(engine, *lines, **options)[1].removeprefix(before).splitlines()


def test_requested_probabilities_are_shown_by_the_texts_of_tokens() -> None:
    server = served(paris)

    assert last(server.engine, "/probs on", "hi", "/probs") == [
        "Paris你", "", "1   90.5%  Par", "2   13.5%  is     rather ty 81.9%", "3   98.0%  \ufffd", "4  <0.05%  \ufffd      rather 好 99.0%", "5   99.9%  <end>",
        "5 tokens, log-likelihood -11.12, -2.224 a token, perplexity 9.25",
    ]  # fmt: skip
    assert [(body["logprobs"], body["top_logprobs"]) for body in server.asked] == [(True, 10)] * 2


def test_alternatives_are_shown_without_a_fork_and_with_an_open_rank() -> None:
    engine = served(paris).engine

    assert last(engine, "hi", "/why 2", **ON) == ["token 2 of 5", "#1   81.9%  ty", "#2   13.5%  is  ← said"]
    assert last(engine, "hi", "/why 4", **ON) == ["token 4 of 5", "#1    99.0%  好", "#2+  <0.05%  \ufffd   ← said"]
    assert last(engine, "hi", "/why 6", **ON) == ["sftchat: error: N is 6; the reply has 5 tokens"]


def test_probabilities_are_not_requested_by_default_and_the_command_is_suggested() -> None:
    server = served(paris)
    words = "sftchat: error: no log-probabilities were asked for with this reply; '/probs on' asks for them from the next on, then '/regen' replies again"

    for line in ("/probs", "/why 1"):
        assert last(server.engine, "hi", line) == [words]
    assert all("logprobs" not in body for body in server.asked)
    assert last(server.engine, "hi", "/probs on", "/regen", "/probs")[0] == "Paris你"
    assert last(server.engine, "/probs on", "/probs off", "hi", "/probs") == [words]
    assert last(server.engine, "/probs maybe") == ["sftchat: error: /probs is 'maybe', must be 'all', 'on' or 'off'"]
    assert last(server.engine, "/probs") == ["sftchat: error: there is no reply to look at yet"]


@pytest.mark.filterwarnings("ignore:model 'small' of .* gives no log-probabilities")
def test_a_server_without_probabilities_gives_no_traceback() -> None:
    refuses = {"error": {"message": "logprobs is not supported with this model"}}
    silent = served(lambda body: streamed(weighed("Paris"), end(), DONE))
    strict = served(lambda body: httpx2.Response(400, json=refuses) if "logprobs" in body else streamed(weighed("Paris"), end(), DONE))

    for engine in (silent.engine, strict.engine):
        assert last(engine, "hi", "/probs", **ON) == ["sftchat: error: no log-probabilities came with this reply"]


def test_a_given_answer_is_scored_where_the_server_supports_it() -> None:
    engine = served(paris).engine

    assert last(engine, "hi", "/likelihood ab") == [
        "served  2 tokens, log-likelihood -2.00, -1.000 a token, perplexity 2.72; the token that ends a reply is not among them"
    ]
    assert last(engine, "hi", "/likelihood", **ON) == ["served  5 tokens, log-likelihood -11.12, -2.224 a token, perplexity 9.25"]


def test_a_missing_feature_of_a_server_is_one_line_with_one_model_or_two() -> None:
    lacking = "model 'small': its server does not give the log-probabilities of a given text (prompt_logprobs): it accepts the request but sends none"
    plain = served(
        lambda body: httpx2.Response(200, json={"choices": []}) if "prompt_logprobs" in body else streamed(weighed("Paris"), end(), DONE)
    )
    local = ScriptedEngine({"hi": "abc"}, name="local", likeliest=[{"g": 0.5}, {"\n": 0.5}])

    assert last(plain.engine, "hi", "/likelihood g") == [f"sftchat: error: {lacking}"]
    assert last(plain.engine, "hi", "/likelihood g", others=[local]) == [
        f"served  {lacking}", "local   2 tokens, log-likelihood -1.39, -0.693 a token, perplexity 2",
    ]  # fmt: skip


def test_a_server_scores_the_text_of_a_reply_that_a_local_model_gave() -> None:
    services = ChatDesk(models=ModelLoader(check=str, load=lambda model: served(paris).engine))

    assert last(ScriptedEngine({"hi": "ab"}), "hi", "/model served", "/likelihood", services=services) == [
        "served  2 tokens, log-likelihood -2.00, -1.000 a token, perplexity 2.72; the token that ends a reply is not among them"
    ]


def test_a_continued_reply_keeps_the_tokens_of_its_beginning() -> None:
    def halves(body: dict[str, Any]) -> httpx2.Response:
        begun = body["messages"][-1]["role"] == "assistant"
        text = "is" if begun else "Par"
        tokens = [entry(text)] if "logprobs" in body else []
        return streamed(weighed(text, *tokens), end("stop" if begun else "length"), DONE)

    server = served(halves)

    assert [line.split()[-1] for line in last(server.engine, "hi", "/continue", "/probs", **ON)[2:4]] == ["Par", "is"]
    unknown = last(server.engine, "hi", "/probs on", "/continue", "/probs")
    assert unknown == ["sftchat: error: no log-probabilities came with this reply"]


def test_probabilities_are_saved_with_the_session_and_a_corrected_reply_has_none(view: Any, tmp_path: Path) -> None:
    log = view(served(paris).engine, sampling=SamplingParams(max_new_tokens=20), services=ChatDesk(rows=Rows(tmp_path)))
    log.type("/probs on", "hi")
    conversation = log.chat.conversation
    node = conversation.node(conversation.head)

    assert [choice.token.text for choice in node.answers[0].choices] == ["Par", "is", "\ufffd", "\ufffd", "<end>"]
    assert node_from_json(node.id, node.parent, node_to_json(node)) == node
    assert log.type("/fix Lyon") != []
    fixed = log.chat.conversation
    assert fixed.node(fixed.head).answers[0].choices == ()


def test_probabilities_are_drawn_in_a_terminal(chat: Any) -> None:
    shown = chat(served(paris).engine)
    shown.type("/probs on\r")
    shown.screen.wait("asked for log-probabilities: on")
    shown.say("hi")
    shown.type("/probs\r")
    text = shown.screen.wait("perplexity")

    assert "2   13.5%  is     rather ty 81.9%" in text
    assert "Paris你" in text
