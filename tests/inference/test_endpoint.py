"""The endpoint engine with an in-memory server: what is sent, read and retried; without waiting."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.engine import Chunk, Engine, collect
from sftchat.errors import EngineError
from sftchat.inference.openai.protocol import rename_error_fields
from sftchat.types import Reply, SamplingParams
from tests.inference.endpoint_kit import DONE, SSE, USAGE, Desk, ask, delta, desk, end, event, reply, streamed

GREEDY = {"model": "small", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.0, "max_tokens": 256}

FINE = Reply("fine", "stop", 5, 3)


def answers(found: Desk, *requests: Any) -> dict[str, Reply | str]:
    """Return the reply or the error message of each request."""
    return {id: str(it) if isinstance(it, EngineError) else it for id, it in collect(found.engine, requests or [ask()])}


def test_it_implements_engine() -> None:
    assert isinstance(desk().engine, Engine)
    assert desk().engine.name == "served"


def test_messages_go_to_chat_completions_and_the_pieces_become_a_reply() -> None:
    server = desk(streamed(delta(None, role="assistant"), reply("你好")))

    chunks = list(server.engine.generate([ask("谁？")]))

    assert chunks == [Chunk("r", "你"), Chunk("r", "好"), Chunk("r", finish_reason="stop", prompt_tokens=5, unlisted_tokens=3)]
    assert server.paths == ["/v1/chat/completions"]
    assert server.asked == [{**GREEDY, "messages": [{"role": "user", "content": "谁？"}]}]


def test_training_keys_of_a_turn_are_not_sent() -> None:
    server = desk(streamed(reply()))
    turns = (
        {"role": "user", "content": "a\n\nb", "context": "b"},
        {"role": "assistant", "content": "c", "weight": 0},
        {"role": "user", "content": "d"},
    )

    answers(server, replace(ask(), messages=turns))

    assert server.asked[0]["messages"] == [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]


def test_token_counts_are_those_of_the_server() -> None:
    assert answers(desk(streamed(reply("ab", "length")))) == {"r": Reply("ab", "length", 5, 3)}


def test_a_prompt_goes_to_completions() -> None:
    server = desk(streamed(event({"choices": [{"text": "lo"}]}), event({"choices": [{"text": "", "finish_reason": "stop"}]}), DONE))

    assert answers(server, ask(prompt="hel")) == {"r": Reply("lo")}
    assert (server.paths, server.asked[0]["prompt"], "messages" in server.asked[0]) == (["/v1/completions"], "hel", False)


def test_non_standard_parameters_are_sent_only_on_request() -> None:
    server = desk(streamed(reply()))
    sampling = SamplingParams(9, temperature=0.5, top_p=0.9, top_k=7, repetition_penalty=1.1, seed=3, stop=("\n",))

    answers(server, ask(sampling=sampling))

    assert {name: value for name, value in server.asked[0].items() if name not in ("messages", "stream", "stream_options")} == {
        "model": "small", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.1, "seed": 3, "stop": ["\n"],
    }  # fmt: skip


def test_an_adapter_is_a_model_next_to_its_base() -> None:
    server = desk(streamed(reply()))

    answers(server, ask(adapter="tuned"))

    assert server.asked[0]["model"] == "tuned"


def test_a_partial_reply_is_continued() -> None:
    server = desk(streamed(reply("lo")), streamed(event({"choices": [{"text": "lo", "finish_reason": "stop"}]})))

    assert answers(server, ask(reply_prefix="hel"), ask(id="p", prompt="say ", reply_prefix="hel"))["r"] == Reply("lo", "stop", 5, 3)
    chat, text = sorted(server.asked, key=lambda body: "prompt" in body)
    assert chat["messages"][-1] == {"role": "assistant", "content": "hel"}
    assert (chat["continue_final_message"], chat["add_generation_prompt"], text["prompt"]) == (True, False, "say hel")


def test_a_server_that_cannot_continue_a_reply_is_reported() -> None:
    refused = httpx2.Response(422, json={"detail": "Unexpected fields in the request: {'continue_final_message'}"})

    assert answers(desk(refused), ask(reply_prefix="hel")) == {
        "r": "the server does not continue the given beginning of a reply (continue_final_message): "
        "HTTP 422: Unexpected fields in the request: {'continue_final_message'}"
    }


def test_thoughts_are_not_part_of_the_reply() -> None:
    thoughts = delta(None, reasoning_content="hm, ") + delta(None, reasoning="let me see")

    assert answers(desk(streamed(thoughts, reply("42")))) == {"r": Reply("42", "stop", 5, 3, thoughts="hm, let me see")}


HIDDEN = Reply("Paris", "stop", 5, 3, thoughts="Lyon? No.")


@pytest.mark.parametrize(
    "packets",
    [
        delta(None, reasoning_content="Lyon?") + delta(None, reasoning_content=" No.") + reply("Paris"),
        delta(None, reasoning="Lyon? No.", reasoning_content="Lyon? No.") + reply("Paris"),
        delta("", reasoning="Lyon? No.", reasoning_details=[{"type": "reasoning.text", "text": "Lyon? No."}]) + reply("Paris"),
        event({"choices": [{"delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Lyon? No."}]}]}}]})
        + event({"choices": [{"delta": {"content": [{"type": "text", "text": "Par"}]}}]})
        + reply("is"),
        event({"choices": [{"delta": {"content": [{"type": "reasoning", "text": "Lyon? No."}, {"type": "output_text", "text": "Paris"}]}}]})
        + reply(""),
        reply("<think>\nLyon? No.\n</think>\n\nParis"),
        reply("\nLyon? No.\n</think>\n\nParis"),
        delta("\nLyon? No.</th") + delta("ink>\nPa") + reply("ris"),
    ],
    ids=["reasoning_content", "both names", "details", "parts", "other parts", "tags", "no opening tag", "cut in the tag"],
)
def test_thoughts_are_separated_in_every_form(packets: str) -> None:
    assert answers(desk(streamed(packets))) == {"r": HIDDEN}


def test_thoughts_are_separate_chunks_and_text_that_becomes_thoughts_is_withdrawn() -> None:
    server = desk(streamed(delta(None, reasoning="hm"), delta("a"), end(), DONE), streamed(delta("hm"), delta("</think>a"), end(), DONE))

    assert list(server.engine.generate([ask()])) == [Chunk("r", thoughts="hm"), Chunk("r", "a"), Chunk("r", finish_reason="stop")]
    assert list(server.engine.generate([ask()])) == [
        Chunk("r", "hm"),
        Chunk("r"),
        Chunk("r", revises="thought"),
        Chunk("r", "a"),
        Chunk("r", finish_reason="stop"),
    ]


def test_a_stream_that_breaks_during_thoughts_is_repeated_and_its_thoughts_are_dropped() -> None:
    server = desk(streamed(delta(None, reasoning="half a thou")), streamed(delta(None, reasoning="Lyon? No."), reply("Paris")))

    assert answers(server) == {"r": HIDDEN}


def test_tags_in_a_raw_prompt_or_in_a_reply_that_is_continued_are_text() -> None:
    text = event({"choices": [{"text": "<think>a</think>b", "finish_reason": "stop"}]}) + DONE
    server = desk(streamed(text), streamed(reply("a</think>b")))

    assert answers(server, ask(prompt="hel")) == {"r": Reply("<think>a</think>b")}
    assert answers(server, ask(reply_prefix="<think>")) == {"r": Reply("a</think>b", "stop", 5, 3)}


def test_a_refusal_is_the_reply_and_is_marked() -> None:
    server = desk(
        streamed(delta(None, refusal=""), delta(None, refusal="I can't"), end(), DONE), streamed(delta(None, refusal=None), reply())
    )

    assert answers(server) == {"r": Reply("I can't", refused=True)}
    assert answers(server) == {"r": FINE}


@pytest.mark.parametrize("cuts", [[], [3], [3, 5], list(range(1, 30))])
def test_stop_strings_end_a_reply_when_the_server_ignores_them(cuts: list[int]) -> None:
    whole = "Paris\nQuestion: next\nAnswer: no"
    places = [0, *cuts, len(whole)]
    packets = [delta(whole[a:b]) for a, b in pairwise(places)]
    sampling = SamplingParams(stop=("\nQuestion:", "\nAnswer:"))

    assert answers(desk(streamed(*packets, end("length"), DONE)), ask(sampling=sampling)) == {"r": Reply("Paris")}


def test_the_beginning_of_a_stop_string_is_text_when_the_reply_ends() -> None:
    sampling = SamplingParams(stop=("\nQuestion:",))

    assert answers(desk(streamed(reply("Paris\nQuest"))), ask(sampling=sampling)) == {"r": Reply("Paris\nQuest", "stop", 5, 3)}
    assert answers(desk(streamed(delta(None, reasoning="a\nQuestion:b"), reply("Paris"))), ask(sampling=sampling)) == {
        "r": Reply("Paris", "stop", 5, 3, thoughts="a\nQuestion:b")
    }


def test_an_answer_that_is_not_streamed_is_a_reply_too() -> None:
    whole = {
        "choices": [{"message": {"role": "assistant", "content": "fine", "reasoning_content": "hm"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1},
    }

    assert answers(desk(httpx2.Response(200, json=whole))) == {"r": Reply("fine", "length", 5, 1, thoughts="hm")}


@pytest.mark.parametrize("said", ["content_filter", "tool_calls", "abort", "load", "SAFETY", "error", "cancelled"])
def test_another_finish_reason_is_a_failure_and_not_a_reply(said: str) -> None:
    server = desk(streamed(reply("half", said)))

    assert answers(server) == {"r": f"the server ended the reply with '{said}'"}
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "lines",
    [
        reply("你好").replace("data: ", "data:"),
        reply("你好").replace("\n", "\r\n"),
        reply("你好").replace("\n", "\r"),
        ": ping\n\n" + reply("你好").replace("\n\n", "\n\n: still here\n\n"),
        "event: chunk\nid: 7\nretry: 5\n" + reply("你好"),
        delta("你") + delta("好") + end() + USAGE,
        delta("你") + event({"choices": [{"delta": {"content": "好"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}),
    ],
    ids=["no space", "crlf", "cr", "comments", "other fields", "no DONE", "all in the last"],
)  # fmt: skip
def test_every_dialect_of_event_streams_is_read(lines: str) -> None:
    assert answers(desk(streamed(lines))) == {"r": Reply("你好", "stop", 5, 3)}


@settings(deadline=None, max_examples=40)
@given(text=st.text(max_size=6), cuts=st.lists(st.integers(0, 900), max_size=8), raw=st.booleans())
def test_packets_may_be_cut_anywhere_even_within_a_character(text: str, cuts: list[int], raw: bool) -> None:
    lines = reply(text)
    if raw:  # unescaped characters, including line separators that JSON allows
        lines = "".join(f"data: {json.dumps(json.loads(line[6:]), ensure_ascii=False)}\n\n" for line in lines.split("\n\n")[:-2]) + DONE
    data = lines.encode()
    places = [0, *sorted(cuts), len(data)]
    packets = [data[a:b] for a, b in pairwise(places) if a < b]

    assert answers(desk(streamed(*packets))) == {"r": Reply(text, "stop", 5, 3)}


def test_half_a_surrogate_pair_waits_for_its_other_half() -> None:
    server = desk(streamed(delta("\ud83d"), delta("\ude00!"), delta("\ude00"), delta("\ud83d"), end()))

    assert [chunk.text for chunk in server.engine.generate([ask()])] == ["😀!", "�", "�"]


PASSING = [
    httpx2.Response(500, text="oops"),
    httpx2.Response(503, json={"error": {"message": "loading"}}),
    httpx2.Response(408),
    httpx2.Response(409),
    httpx2.Response(429, json={"error": {"message": "slow down"}}),
    httpx2.ConnectError("connection refused"),
    httpx2.ConnectTimeout("too slow"),
    httpx2.ReadTimeout("silence"),
    httpx2.ReadError("connection reset by peer"),
    httpx2.RemoteProtocolError("peer closed connection without sending complete message body"),
    streamed(delta(None, role="assistant")),
    streamed("data: {not json}\n\n"),
    streamed(DONE),
    streamed(event({"error": {"message": "engine died", "code": 500}})),
    streamed(event({"error": {"message": "engine died", "type": "InternalServerError"}})),
    streamed(event({"error": {"message": "slow down", "code": "rate_limit_exceeded"}})),
    streamed(
        event({"error": {"message": "provider is gone", "code": 502}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]})
    ),
    httpx2.Response(200, headers={"content-type": "application/json"}, text="{"),
]


@pytest.mark.parametrize("failure", PASSING, ids=[str(n) for n in range(len(PASSING))])
def test_temporary_errors_are_retried(failure: httpx2.Response | Exception) -> None:
    server = desk(failure, streamed(reply()))

    assert answers(server) == {"r": FINE}
    assert server.slept == [0.5]


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        ("data: [1, 2]\n\n", "the server's event does not follow the protocol: [1, 2]"),
        (
            event({"choices": [{"delta": {"content": 7}}]}),
            'the server\'s event does not follow the protocol (its content is no text): {"choices": [{"delta": {"content": 7}}]}',
        ),
        (
            event({"choices": [{"delta": {"content": [{"type": "image_url"}]}}]}),
            "the server's event does not follow the protocol (a part of its content is of kind 'image_url', which is no text): "
            '{"choices": [{"delta": {"content": [{"type": "image_url"}]}}]}',
        ),
        (event({"error": "CUDA out of memory"}), "CUDA out of memory"),
        (event({"error": {"message": "the context overflows"}, "message": "it does"}), "the context overflows"),
        (event({"error": {"message": "too long", "code": 400, "type": "server_error"}}), "too long"),
        (event({"error": {"message": "no credit", "code": "402"}, "choices": []}), "no credit"),
        (
            event({"error": {"message": "no", "code": "bad"}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}),
            "no",
        ),
    ],
)
def test_permanent_errors_are_not_retried(packet: str, words: str) -> None:
    server = desk(streamed(packet))

    assert answers(server) == {"r": words}
    assert (len(server.asked), server.slept) == (1, [])


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_an_error_in_a_separate_field_is_read(cut: int) -> None:
    lines = delta("") + 'error: {"code": 400, "message": "the context is full", "type": "server_error"}\n\n'
    server = desk(streamed(lines[:cut], lines[cut : cut + 4], lines[cut + 4 :]))

    assert answers(server) == {"r": "the context is full"}
    assert len(server.asked) == 1


@settings(deadline=None, max_examples=60)
@given(text=st.text("error: \r\ndat"), cuts=st.lists(st.integers(0, 30), max_size=6))
def test_no_other_line_of_a_stream_is_changed(text: str, cuts: list[int]) -> None:
    async def parts() -> AsyncIterator[bytes]:
        places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
        for a, b in pairwise(places):
            yield text[a:b].encode()

    async def whole() -> str:
        return "".join([part.decode() async for part in rename_error_fields(parts())])

    assert asyncio.run(whole()) == re.sub("(^|(?<=[\r\n]))error:", "data:", text)


@pytest.mark.parametrize("kind", ["text/plain; charset=utf-8", "application/octet-stream", "Text/Plain", ""])
def test_events_under_another_content_type_are_read(kind: str) -> None:
    response = streamed(reply())
    response.headers["content-type"] = kind

    assert answers(desk(response)) == {"r": FINE}


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream"])
def test_an_answer_of_another_type_without_events_is_not_a_reply(kind: str) -> None:
    page = httpx2.Response(200, headers={"content-type": kind}, text="Ollama is running")

    with pytest.raises(EngineError, match=f"the answer is '{kind}' and no event stream; check the address"):
        answers(desk(page))


def test_an_error_next_to_choices_after_some_text_is_reported_and_not_retried() -> None:
    broken = {"error": {"message": "Provider disconnected", "code": "server_error"}, "choices": [{"delta": {}, "finish_reason": "error"}]}
    server = desk(streamed(delta("Par"), event(broken)))

    assert answers(server) == {"r": "Provider disconnected"}
    assert len(server.asked) == 1


def test_a_rate_limit_within_a_stream_halves_the_concurrency_like_a_429() -> None:
    limited = streamed(event({"error": {"message": "slow down", "code": 429}, "choices": []}))

    assert answers(desk(limited, streamed(reply()), concurrency=4)) == {"r": FINE}


def test_of_a_repeated_key_the_last_value_counts() -> None:
    twice = 'data: {"choices": [{"delta": {"content": "a", "content": "fine"}}], "id": 1, "id": 2}\n\n'

    assert answers(desk(streamed(twice, end()))) == {"r": Reply("fine")}


@pytest.mark.parametrize("said", ["eos_token", "STOP", "end_turn", "stop_sequence", "eos", "Finish_Reason_Stop", "COMPLETE"])
def test_other_words_for_a_finished_reply_are_read(said: str) -> None:
    assert answers(desk(streamed(reply("fine", said)))) == {"r": FINE}


@pytest.mark.parametrize("said", ["max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens"])
def test_other_words_for_a_cut_reply_are_read(said: str) -> None:
    assert answers(desk(streamed(reply("fine", said)))) == {"r": Reply("fine", "length", 5, 3)}


@pytest.mark.parametrize("reason", ["", None])
def test_a_stream_that_is_done_without_a_finish_reason_is_a_complete_reply(reason: str | None) -> None:
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})

    assert answers(desk(streamed(delta("fine"), last, DONE))) == {"r": Reply("fine")}


def test_an_unstreamed_answer_without_a_finish_reason_is_a_complete_reply() -> None:
    whole = {"choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": None}]}

    assert answers(desk(httpx2.Response(200, json=whole))) == {"r": Reply("fine")}


def test_a_function_call_without_tools_in_the_request_is_not_a_reply_and_the_function_is_named() -> None:
    call = delta(None, tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "get_weather", "arguments": ""}}])

    assert answers(desk(streamed(call, end("tool_calls")))) == {
        "r": "the server ended the reply with 'tool_calls': the model calls get_weather"
    }


def test_waits_double_up_to_a_cap_and_end_with_the_failure_of_one_request() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(500, text="oops") if b"bad" in request.content else streamed(reply())

    server = Desk(handle)

    assert answers(server, ask("bad", "1"), ask("good", "2")) == {"1": "HTTP 500: oops (6 attempts)", "2": FINE}
    assert server.slept == [0.5, 1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("header", ["7", "Mon, 12 Jan 1970 13:46:47 GMT"])
def test_retry_after_is_honoured_in_seconds_and_as_a_date(header: str) -> None:
    server = desk(httpx2.Response(429, headers={"retry-after": header}), streamed(reply()))

    assert answers(server) == {"r": FINE}
    assert server.slept == [7.5]


def test_a_retry_after_above_the_limit_is_not_waited_for() -> None:
    server = desk(httpx2.Response(429, headers={"retry-after": "3600"}, json={"error": {"message": "quota"}}))

    assert answers(server) == {"r": "HTTP 429: quota (it asks to wait 3600 s)"}
    assert server.slept == []


@pytest.mark.parametrize(
    "body",
    [{"error": {"message": "too long"}}, {"object": "error", "message": "too long"}, {"detail": "too long"}, {"error": "too long"}],
)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_fails_at_once_and_alone_with_the_servers_message(status: int, body: dict[str, Any]) -> None:
    server = desk(httpx2.Response(status, json=body), streamed(reply()), concurrency=1)

    assert answers(server, ask(id="1"), ask(id="2")) == {"1": f"HTTP {status}: too long", "2": FINE}
    assert server.slept == []


def test_a_refusal_during_a_stream_is_a_refusal() -> None:
    server = desk(streamed(event({"error": {"message": "too long", "code": 400}})))

    assert answers(server) == {"r": "too long"}


def test_a_cut_reply_is_not_repeated_after_some_text_was_delivered() -> None:
    server = desk(streamed(delta("fi")), streamed(reply()), concurrency=1)

    assert answers(server, ask(id="1"), ask(id="2")) == {"1": "the stream ended before the reply did", "2": FINE}


def test_a_cut_after_the_end_of_a_reply_loses_nothing() -> None:
    def broken() -> Any:
        async def content() -> Any:
            yield (delta("fine") + end()).encode()
            raise httpx2.ReadError("connection reset by peer")

        return httpx2.Response(200, headers=SSE, content=content())

    assert answers(desk(broken())) == {"r": Reply("fine")}


@pytest.mark.parametrize(
    ("failure", "attempts", "words"),
    [
        (httpx2.ConnectError("refused"), 6, "no connection (refused); check that it still runs and that the address is right (6 attempts)"),
        (httpx2.Response(401, json={"detail": "no key"}), 1, "HTTP 401: no key; set SFTCHAT_API_KEY or OPENAI_API_KEY to a key that it accepts"),
        (httpx2.Response(404, json={"detail": "Not Found"}), 1, "HTTP 404: Not Found"),
        (httpx2.Response(307, headers={"location": "http://other/v1"}), 1, "HTTP 307: redirects to http://other/v1"),
        (
            httpx2.Response(200, headers={"content-type": "text/html; charset=utf-8"}, text="<html>"),
            1,
            "the answer is 'text/html' and no event stream; check the address, which usually ends in /v1",
        ),
    ],
)  # fmt: skip
def test_errors_of_every_request_end_the_evaluation(failure: httpx2.Response | Exception, attempts: int, words: str) -> None:
    server = desk(*[failure] * attempts, concurrency=1)

    with pytest.raises(EngineError) as error:
        answers(server, *(ask(id=str(n)) for n in range(1000)))

    assert str(error.value) == f"the server at http://server.test/v1 no longer answers: {words}"
    assert len(server.asked) == attempts


def test_a_server_that_fails_all_requests_is_given_up_early() -> None:
    server = Desk(lambda request: httpx2.Response(500, text="oops"), {"concurrency": 1})

    with pytest.raises(EngineError, match=r"^the server at http://server.test/v1 no longer answers: HTTP 500: oops \(6 attempts\)$"):
        answers(server, *(ask(id=str(n)) for n in range(1000)))

    assert len(server.asked) == 18


def test_failures_between_successes_do_not_end_the_evaluation() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(500, text="oops") if b"bad" in request.content else streamed(reply())

    found = answers(Desk(handle, {"concurrency": 1}), *(ask(("good", "bad", "bad")[n % 3], str(n)) for n in range(12)))

    assert list(found.values()) == [FINE, "HTTP 500: oops (6 attempts)", "HTTP 500: oops (6 attempts)"] * 4


def test_an_html_page_is_not_quoted() -> None:
    server = desk(*[httpx2.Response(502, headers={"content-type": "text/html"}, text="<html>Bad Gateway</html>")] * 6)

    assert answers(server) == {"r": "HTTP 502 (6 attempts)"}


def test_a_server_that_refuses_to_count_tokens_is_not_asked_again() -> None:
    refused = httpx2.Response(400, json={"error": {"message": "unknown field: stream_options"}})
    server = desk(refused, streamed(delta("fine") + end()), streamed(delta("fine") + end()), concurrency=1)

    assert answers(server, ask(id="1"), ask(id="2")) == {"1": Reply("fine"), "2": Reply("fine")}
    assert ["stream_options" in body for body in server.asked] == [True, False, False]


def test_requests_start_as_slots_become_free_and_the_limit_is_kept() -> None:
    taken: list[int] = []
    begun, now, most = 0, 0, 0

    def handle(request: httpx2.Request) -> httpx2.Response:
        async def content() -> Any:
            nonlocal begun, now, most
            begun, now = begun + 1, now + 1
            most = max(most, now)
            while begun < 4:  # the first ones wait for each other
                await asyncio.sleep(0)
            yield delta("x").encode()
            yield (end() + DONE).encode()
            now -= 1

        return httpx2.Response(200, headers=SSE, content=content())

    def requests() -> Any:
        for n in range(40):
            taken.append(n)
            yield ask(id=str(n))

    server = Desk(handle, {"concurrency": 4})
    chunks = server.engine.generate(requests())
    first = next(chunks)

    assert (first.text, len(taken)) == ("x", 4)
    assert sum(chunk.finish_reason == "stop" for chunk in chunks) == 40
    assert (len(taken), most) == (40, 4)


def test_concurrency_is_reduced_while_the_server_reports_overload() -> None:
    """All 60 requests succeed with a server that accepts three at once."""
    now, refused = 0, 0

    def handle(request: httpx2.Request) -> httpx2.Response:
        nonlocal now, refused
        if now >= 3:
            refused += 1
            return httpx2.Response(429)
        now += 1

        async def content() -> Any:
            nonlocal now
            while not refused:  # even with slow requests, the fourth finds three running
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            yield delta("x").encode()
            now -= 1
            yield (end() + DONE).encode()

        return httpx2.Response(200, headers=SSE, content=content())

    server = Desk(handle, {"concurrency": 32}, clock=0.01)

    assert set(answers(server, *(ask(id=str(n)) for n in range(60))).values()) == {Reply("x")}
    assert 0 < refused < 120


def test_closing_the_iterator_ends_running_requests() -> None:
    closed: list[int] = []

    class Endless(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                yield delta("x").encode()
                await asyncio.sleep(0.001)

        async def aclose(self) -> None:
            closed.append(1)

    server = Desk(lambda request: httpx2.Response(200, headers=SSE, stream=Endless()), {"concurrency": 3})
    chunks = server.engine.generate(ask(id=str(n)) for n in range(9))
    heard: set[str] = set()
    while len(heard) < 3:
        heard.add(next(chunks).request_id)
    chunks.close()  # type: ignore[attr-defined]

    assert len(closed) == 3
    assert not [thread for thread in threading.enumerate() if "portal" in thread.name]


def test_a_caller_is_notified_of_a_silent_server_so_that_it_can_stop() -> None:
    released = threading.Event()

    class Silent(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while not released.is_set():
                await asyncio.sleep(0.01)
            yield reply().encode()

    server = Desk(lambda request: httpx2.Response(200, headers=SSE, stream=Silent()))
    chunks = server.engine.generate([ask()])

    assert next(chunks) == Chunk("r")
    released.set()
    assert "".join(chunk.text for chunk in chunks) == "fine"


def test_an_internal_error_is_raised_at_once() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ExceptionGroup) as error:
        list(Desk(handle).engine.generate([ask()]))

    assert error.value.exceptions[0].args == ("a bug",)


SECRET = "sk-very-secret"


@pytest.mark.parametrize("status", [400, 401, 500])
def test_the_key_is_sent_and_never_shown(status: int) -> None:
    sent: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers["authorization"])
        return httpx2.Response(status, json={"error": {"message": f"Incorrect API key provided: {SECRET}\x1b[31m"}})

    server = Desk(handle, {"key": SECRET})
    try:
        said = repr(answers(server))
    except EngineError as error:
        import traceback

        said = "".join(traceback.format_exception(error))

    assert set(sent) == {f"Bearer {SECRET}"}
    assert "Incorrect API key provided: ***" in said
    assert SECRET not in said + repr(server.engine) + repr(server.engine._server)
    assert "\x1b" not in said
