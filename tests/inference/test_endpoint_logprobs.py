"""Log-probabilities of servers: requested on demand, read in every form, aligned with the reply, and reported in one line when missing."""

from __future__ import annotations

import json
import warnings
from typing import Any

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sftchat.engine import Chunk, Inspects, Request, Scores
from sftchat.errors import EngineError, UsageError
from sftchat.inference.openai.logprobs import ReplyTokens, parse_choices
from sftchat.types import UNNUMBERED, Choice, SamplingParams, Token
from tests.inference.endpoint_kit import DONE, URL, Desk, ask, desk, end, event, streamed
from tests.inference.test_endpoint_adapting import openai

KEY = "sk-secret-0123456789"


def entry(token: str | bytes, logprob: float = -0.5, top: dict[str, float] | None = None, *, data: bool = True) -> dict[str, Any]:
    """Return a token in the format of chat completions."""
    raw = token if isinstance(token, bytes) else token.encode()
    text = raw.decode(errors="replace")
    others = [{"token": other, "logprob": value, "bytes": None} for other, value in (top or {}).items()]
    return {"token": text, "logprob": logprob, "bytes": list(raw) if data else None, "top_logprobs": others}


def weighed(text: str | None, *tokens: str | dict[str, Any], reason: str | None = None, **more: Any) -> str:
    """Return an event with text and tokens."""
    content = [entry(token) if isinstance(token, str) else token for token in tokens]
    return event({"choices": [{"index": 0, "delta": {"content": text, **more}, "logprobs": {"content": content}, "finish_reason": reason}]})


def probed(server: Desk, request: Request | None = None) -> tuple[str, str, tuple[Choice, ...], list[str]]:
    """Return text, thoughts and tokens of a reply with log-probabilities, and the warnings."""
    text = thoughts = ""
    choices: tuple[Choice, ...] = ()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for chunk in server.engine.generate([request or ask(logprobs=2)]):
            assert not chunk.error
            assert chunk.logprobs == (tuple(choice.logprob for choice in chunk.choices) or None)
            if chunk.revises == "thought":
                text, thoughts, choices = "", thoughts + text, ()
            text, thoughts, choices = text + chunk.text, thoughts + chunk.thoughts, choices + chunk.choices
    return text, thoughts, choices, [str(warning.message) for warning in caught]


def said(choices: tuple[Choice, ...]) -> list[str]:
    return [choice.token.text for choice in choices]


def test_log_probabilities_are_requested_only_on_demand() -> None:
    server = desk(*(streamed(weighed("a", "a"), end(), DONE) for _ in range(4)), concurrency=1)

    list(server.engine.generate([ask(id="1"), ask(id="2", logprobs=0), ask(id="3", logprobs=7), ask(id="4", prompt="hi", logprobs=7)]))

    assert [{name: body[name] for name in ("logprobs", "top_logprobs") if name in body} for body in server.asked] == [
        {}, {"logprobs": True}, {"logprobs": True, "top_logprobs": 7}, {"logprobs": 7},
    ]  # fmt: skip


def test_tokens_come_with_their_text_and_their_alternatives() -> None:
    tokens = [entry("Par", -0.1, {"Lyon": -3.0, "Par": -0.1}), entry("is", -2.0, {"ty": -0.2, "is": -2.0}), entry("<|end|>", -0.01)]
    server = desk(streamed(weighed("Par", tokens[0]), weighed("is", tokens[1]), weighed("", tokens[2], reason="stop"), DONE))

    chunks = list(server.engine.generate([ask(logprobs=2)]))

    par, place = (Token(UNNUMBERED, text) for text in ("Par", "is"))
    first = Choice(par, -0.1, 0, ((par, -0.1), (Token(UNNUMBERED, "Lyon"), -3.0)))
    second = Choice(place, -2.0, 1, ((Token(UNNUMBERED, "ty"), -0.2), (place, -2.0)))
    last = Choice(Token(UNNUMBERED, "<|end|>", special=True), -0.01)
    assert chunks == [
        Chunk("r", "Par", logprobs=(-0.1,), choices=(first,)),
        Chunk("r", "is", logprobs=(-2.0,), choices=(second,)),
        Chunk("r", finish_reason="stop", logprobs=(-0.01,), choices=(last,)),
    ]


def test_log_probabilities_of_unstreamed_answers_and_of_completions_are_read_too() -> None:
    content = {"content": [entry("Par"), entry("is")]}
    whole = {"choices": [{"message": {"content": "Paris"}, "logprobs": content, "finish_reason": "stop"}]}
    columns = {
        "tokens": ["Par", "is"],
        "token_logprobs": [-1, -0.5],
        "top_logprobs": [None, {"is": -0.5, "ty": -2.0}],
        "text_offset": [0, 3],
    }
    older = {"choices": [{"text": "Paris", "logprobs": columns, "finish_reason": "stop"}]}

    assert said(probed(desk(httpx2.Response(200, json=whole)))[2]) == ["Par", "is"]
    _, _, choices, _ = probed(desk(streamed(event(older), DONE)), ask(prompt="hi", logprobs=2))
    place = Token(UNNUMBERED, "is")
    assert choices == (
        Choice(Token(UNNUMBERED, "Par"), -1.0),
        Choice(place, -0.5, 0, ((place, -0.5), (Token(UNNUMBERED, "ty"), -2.0))),
    )


def test_an_event_may_have_several_tokens_or_none_and_text_may_come_later_than_its_tokens() -> None:
    server = desk(
        streamed(
            weighed("", role="assistant"),
            weighed("", "Par"),
            weighed("Paris", "is", " is"),
            weighed(" is ", " "),
            weighed("it", "it"),
            end(),
            DONE,
        )
    )

    text, _, choices, _ = probed(server)

    assert (text, said(choices)) == ("Paris is it", ["Par", "is", " is", " ", "it"])


def test_parts_of_a_character_keep_their_bytes() -> None:
    head, tail = "你".encode()[:2], "你".encode()[2:]
    server = desk(streamed(weighed("", entry(head)), weighed("你", entry(tail)), weighed("好", "好"), end(), DONE))

    text, _, choices, _ = probed(server)

    assert text == "你好"
    assert [(choice.token.text, choice.token.data) for choice in choices] == [("\ufffd", tuple(head)), ("\ufffd", tuple(tail)), ("好", ())]


def test_parts_of_a_character_without_bytes_share_the_text_before_the_next_token() -> None:
    part = entry("\ufffd", data=False)
    server = desk(streamed(weighed("", part), weighed("你", part), weighed("好", "好"), weighed("\n吗", "\n", "吗"), end(), DONE))

    assert said(probed(server, ask(logprobs=2, sampling=SamplingParams(stop=("\n",))))[2]) == ["\ufffd", "\ufffd", "好"]


THOUGHT = [
    [
        weighed(None, "hm", reasoning_content="hm"),
        weighed(None, " ok", reasoning_content=" ok"),
        weighed(None, "</think>"),
        weighed("Paris", "Paris"),
    ],
    [weighed("<think>", "<think>"), weighed("hm ok", "hm", " ok"), weighed("</think>\n\nPar", "</think>", "\n\nPar"), weighed("is", "is")],
    [weighed("hm ok", "hm", " ok"), weighed("</th", "</th"), weighed("ink>Paris", "ink>", "Paris")],
    [weighed("Paris", "hm", " ok", "Paris", reasoning_content="hm ok")],
]


@pytest.mark.parametrize("events", THOUGHT, ids=["field", "tags", "no opening tag", "one event"])
def test_tokens_of_thoughts_are_not_tokens_of_the_reply(events: list[str]) -> None:
    text, thoughts, choices, _ = probed(desk(streamed(*events, end(), DONE)))

    assert (text, thoughts.strip(), "".join(said(choices))) == ("Paris", "hm ok", "Paris")


def test_text_that_a_stop_string_cuts_off_has_no_tokens() -> None:
    server = desk(streamed(weighed("Par", "Par"), weighed("is\nQues", "is\n", "Ques"), weighed("tion", "tion"), end(), DONE))

    text, _, choices, _ = probed(server, ask(logprobs=2, sampling=SamplingParams(stop=("\nQuestion",))))

    assert (text, said(choices)) == ("Paris", ["Par", "is"])


def test_tokens_of_a_stop_string_that_the_server_cut_off_are_not_the_end() -> None:
    server = desk(streamed(weighed("Paris", "Paris"), weighed("", "\n", "Question", reason="stop"), DONE))

    assert said(probed(server)[2]) == ["Paris"]


def test_no_token_contains_a_key() -> None:
    server = desk(streamed(weighed("ok ", "ok "), *(weighed(letter, letter) for letter in KEY), weighed(" x", " x"), end(), DONE), key=KEY)

    text, _, choices, _ = probed(server)

    assert text == "ok *** x"
    assert said(choices) == ["ok "]


@pytest.mark.parametrize(
    "odd",
    [
        None, [], "none", {}, {"content": None}, {"content": "x"}, {"content": [None, 3, {}, {"token": 5, "logprob": -1}, {"token": "a", "logprob": "b"}]},
        {"content": [{"token": "a", "logprob": None}]}, {"tokens": ["a"], "token_logprobs": []}, {"tokens": [7], "token_logprobs": [-0.1]},
        {"tokens": ["a"], "token_logprobs": [float("nan")]},
    ],
)  # fmt: skip
def test_an_invalid_log_probability_is_left_out_and_the_reply_stays(odd: object) -> None:
    assert parse_choices(odd) == ()
    text, _, choices, warned = probed(desk(streamed(event({"choices": [{"delta": {"content": "a"}, "logprobs": odd}]}), end(), DONE)))

    assert (text, choices) == ("a", ())
    assert warned == [f"model 'small' of {URL} gives no log-probabilities: its server accepts the request but sends none"]


def test_a_server_that_sends_none_is_reported_once() -> None:
    server = Desk(lambda request: streamed(event({"choices": [{"delta": {"content": "a"}}]}), end(), DONE))

    assert len(probed(server)[3]) == 1
    assert probed(server)[3] == []
    assert probed(server, ask())[3] == []


REFUSALS = [
    openai("logprobs", "Unsupported parameter: 'logprobs' is not supported with this model."),
    httpx2.Response(
        403, json={"error": {"message": "You are not allowed to request logprobs from this model", "type": "invalid_request_error"}}
    ),
    httpx2.Response(400, json={"error": {"code": 400, "message": "Logprobs is not enabled for models/g", "status": "INVALID_ARGUMENT"}}),
    httpx2.Response(
        422, json={"detail": [{"type": "extra_forbidden", "loc": ["body", "logprobs"], "msg": "Extra inputs are not permitted"}]}
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_recognised_once_and_the_reply_comes_without(refusal: httpx2.Response) -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        return refusal if "logprobs" in json.loads(request.content) else streamed(weighed("a"), end(), DONE)

    server = Desk(handle)

    assert probed(server) == ("a", "", (), [f"model 'small' of {URL} gives no log-probabilities: its server refuses to"])
    assert probed(server) == ("a", "", (), [])
    assert ["logprobs" in body for body in server.asked] == [True, False, False]


def test_fewer_alternatives_are_requested_after_a_server_names_its_limit() -> None:
    refusal = httpx2.Response(400, json={"message": "Requested sample logprobs of 10, which is greater than max allowed: 5"})
    server = desk(refusal, streamed(weighed("a", "a"), end(), DONE))

    assert said(probed(server, ask(logprobs=10))[2]) == ["a"]
    assert [body["top_logprobs"] for body in server.asked] == [10, 5]


def test_a_refused_key_is_not_a_refused_parameter() -> None:
    server = desk(httpx2.Response(403, json={"error": {"message": "no access"}}))

    with pytest.raises(EngineError, match="no access"):
        list(server.engine.generate([ask(logprobs=2)]))


@given(st.data())
@example(None)
def test_the_tokens_make_up_the_reply_for_any_cuts(data: Any) -> None:
    letters = "ab <>/thinkA\n你"
    draw = (lambda strategy: data.draw(strategy)) if data is not None else None
    if draw is None:
        thought, answer, sizes, lags, stop = "", "x", [1], [1], ""
    else:
        thought = draw(st.sampled_from(["", "<think>ab</think>\n", "<think>b b</think>"]))
        answer = draw(st.text(letters, min_size=1, max_size=30).map(lambda text: "A" + text))
        sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=9))
        lags = draw(st.lists(st.integers(0, 4), min_size=1, max_size=9))
        stop = draw(st.sampled_from(["", "\n", "ab", "a\n", "你<"]))
    if "</think>" in answer:
        return
    stream, tokens, at = thought + answer, [], 0
    while at < len(stream):
        size = sizes[len(tokens) % len(sizes)]
        tokens.append(stream[at : at + size])
        at += size
    events, given_out = [], 0  # an event has one token; its text comes with it or later
    for place, _ in enumerate(tokens):
        ready = len("".join(tokens[: max(0, place + 1 - lags[place % len(lags)])]))
        events.append(weighed(stream[given_out:ready], entry(tokens[place], -float(place + 1))))
        given_out = max(given_out, ready)
    events.append(weighed(stream[given_out:], entry("<end>", -0.25), reason="stop"))

    text, _, choices, _ = probed(desk(streamed(*events, DONE)), ask(logprobs=0, sampling=SamplingParams(stop=(stop,) if stop else ())))

    body = [choice for choice in choices if not choice.token.special]
    assert "".join(said(tuple(body))) == text
    first = len(tokens) - len([1 for place in range(len(tokens)) if len("".join(tokens[: place + 1])) > len(thought)])
    assert [choice.logprob for choice in body] == [-float(first + place + 1) for place in range(len(body))]


def test_a_token_outside_the_text_is_dropped_unless_it_ends_the_reply() -> None:
    tokens = ReplyTokens()
    tokens.feed("ab", [Choice(Token(UNNUMBERED, text), -1.0) for text in ("<begin>", "ab", "<end>")])
    tokens.mark_as_reply(0, 2)

    assert said(tokens.take_until(2)) == ["ab"]
    assert said(last := tokens.take_rest(2, ended=True)) == ["<end>"]
    assert last[0].token.special


def prompt(*tokens: str | None, reply: bool = False) -> httpx2.Response:
    """Return vLLM's answer with log-probabilities of a prompt; the first token has none."""
    listed = [
        None if token is None else {str(sum(map(ord, token))): {"logprob": -float(len(token)), "rank": 2, "decoded_token": token}, "9": {"logprob": -0.25, "rank": 1, "decoded_token": "x"}}
        for token in tokens
    ]  # fmt: skip
    return httpx2.Response(200, json={"choices": [{"message": {"content": "!"}}], "prompt_logprobs": listed})


def test_a_given_text_is_scored_where_the_server_returns_prompt_log_probabilities() -> None:
    server = desk(prompt(None, "<user>", "hi", "<bot>", "Par", "is"), prompt(None, "<user>", "hi", "<bot>"))

    choices = server.engine.choices(ask(), "Paris", alternatives=1)

    assert isinstance(server.engine, Scores)
    assert not isinstance(server.engine, Inspects)
    assert choices == tuple(
        Choice(Token(UNNUMBERED, text), -float(len(text)), 1, ((Token(UNNUMBERED, "x"), -0.25),)) for text in ("Par", "is")
    )
    whole, bare = server.asked
    assert (whole["prompt_logprobs"], whole["stream"], whole["max_tokens"], whole["continue_final_message"]) == (1, False, 1, True)
    assert whole["messages"][-1] == {"role": "assistant", "content": "Paris"}
    assert (bare["prompt_logprobs"], bare["messages"]) == (0, [{"role": "user", "content": "hi"}])


def echoed(text: str, *tokens: str, **more: Any) -> httpx2.Response:
    columns = {
        "tokens": list(tokens),
        "token_logprobs": [None, *[-float(len(token)) for token in tokens[1:]]],
        "top_logprobs": None,
        **more,
    }
    return httpx2.Response(200, json={"choices": [{"text": text, "logprobs": columns}]})


def test_a_text_after_a_raw_prompt_is_scored_where_the_server_echoes_it() -> None:
    server = desk(
        echoed("say hello!", "say", " ", "hel", "lo", "!"), echoed("say hello!", "say", " h", "ello", "!", text_offset=[0, 3, 5, 9])
    )

    found = server.engine.choices(ask(prompt="say "), "hello")

    assert [(choice.token.text, choice.logprob) for choice in found] == [("hel", -3.0), ("lo", -2.0)]
    assert (server.asked[0]["echo"], server.asked[0]["logprobs"], server.asked[0]["prompt"]) == (True, 0, "say hello")
    with pytest.raises(EngineError, match="no token begins where the text begins"):
        server.engine.choices(ask(prompt="say "), "hello")


@pytest.mark.parametrize(
    ("answers", "request_", "words"),
    [
        ([httpx2.Response(200, json={"choices": []})], ask(), r"\(prompt_logprobs\): it accepts the request but sends none"),
        ([httpx2.Response(400, json={"error": {"message": "Unrecognized request argument: prompt_logprobs"}})], ask(), r"\(prompt_logprobs\): HTTP 400: Unrecognized request argument: prompt_logprobs"),
        ([httpx2.Response(200, text="<html>")], ask(), r"\(prompt_logprobs\): its answer is no JSON object"),
        ([httpx2.Response(200, json=[])], ask(), r"\(prompt_logprobs\): its answer is no JSON object"),
        ([httpx2.Response(500, json={"error": {"message": "Only no echo is supported"}})], ask(prompt="p"), r"\(echo\): HTTP 500: Only no echo is supported"),
        ([httpx2.Response(200, json={"choices": [{"text": "!"}]})], ask(prompt="p"), r"\(echo\): it accepts the request but does not repeat the text"),
        ([echoed("pParis", "p", "Paris", token_logprobs=[None, None])], ask(prompt="p"), r"\(echo\): log-probabilities of some tokens are missing or invalid"),
        ([echoed("pParis", "p", "Paris", token_logprobs=[None])], ask(prompt="p"), r"\(echo\): log-probabilities of some tokens are missing or invalid"),
        ([prompt(None, "a"), prompt(None, "b", "c")], ask(), "begins a new reply and a continued one differently"),
        ([httpx2.ConnectError("refused")], ask(), "did not answer: refused"),
    ],
)  # fmt: skip
def test_a_missing_feature_for_scoring_a_text_is_named(answers: list[Any], request_: Request, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        desk(*answers).engine.choices(request_, "Paris")


def test_a_text_to_score_must_not_be_empty() -> None:
    for reply in ("", (1, 2)):
        with pytest.raises(UsageError):
            desk().engine.choices(ask(), reply)


def test_scoring_a_text_uses_what_was_learned_of_the_server() -> None:
    refusal = openai("max_tokens", "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.")
    server = desk(refusal, prompt(None, "hi", "a"), prompt(None, "hi"))

    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert said(server.engine.choices(ask(), "a")) == ["a"]
    assert [set(body) & {"max_tokens", "max_completion_tokens"} for body in server.asked] == [
        {"max_tokens"}, {"max_completion_tokens"}, {"max_completion_tokens"},
    ]  # fmt: skip
