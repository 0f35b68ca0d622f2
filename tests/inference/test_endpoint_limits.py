"""The endpoint engine with servers that send too much: answers are limited in bytes, seconds, characters and pieces."""

from __future__ import annotations

import json
import time
import tracemalloc
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.engine import Chunk, collect
from sftchat.errors import EngineError, SftchatError, SftchatWarning
from sftchat.inference.openai.engine import EndpointEngine, open_endpoint
from sftchat.inference.openai.limits import ResponseLimits, Retries, parse_retry_after
from sftchat.inference.openai.server import Server
from sftchat.types import Reply, SamplingParams
from tests.inference.endpoint_kit import SSE, URL, Script, ask, bomb, delta, end, event, head, loopback, raw, reply, stream, streamed

SMALL = ResponseLimits(
    listing_bytes=9_000, error_bytes=500, event_bytes=1_000, event_bytes_per_token=100, stream_bytes=20_000, stream_bytes_per_token=1_000,
    characters=20, characters_per_token=10, pieces=10, pieces_per_token=2,
)  # fmt: skip
FOUR = SamplingParams(max_new_tokens=4)
CUT = "the server at {} did not stop after max_tokens 4; replies of model 'small' are cut"


async def at_once(seconds: float) -> None:
    pass


def engine_of(
    url: str, seconds: float = 5.0, transport: httpx2.MockTransport | None = None, limits: ResponseLimits = SMALL
) -> EndpointEngine:
    server = Server(url, "", 3.0, seconds, limits, transport)
    return EndpointEngine("served", server, "small", concurrency=1, retries=Retries(sleep=at_once))


def outcome(script: Script, seconds: float = 5.0, limits: ResponseLimits = SMALL) -> tuple[Reply | str, list[str]]:
    """Return the result of a request for four tokens, and the warnings."""
    with loopback([script] * 6) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SftchatWarning)
        found = engine_of(server.url, seconds, limits=limits)
        try:
            ((_, it),) = collect(found, [ask(sampling=FOUR)])
        except EngineError as error:
            it = error
    words = [str(warning.message).replace(server.url, "URL") for warning in caught]
    return (str(it).replace(server.url, "URL") if isinstance(it, EngineError) else it), words


TOO_LONG = "the request took longer than 0.3 s; --request-timeout allows more"


@pytest.mark.parametrize(
    "script",
    [
        raw(head() + delta("x"), b": ping\n\n", 0.05),
        raw(head(), delta(None, role="assistant").encode(), 0.05),
        raw(head(), delta("x").encode(), 0.05),
        raw("HTTP/1.1 200 Well\r\nx: ", b"y", 0.02),
        raw("", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
        raw(head("application/json"), b" ", 0.02),
        raw(head("application/json", status=500), b" ", 0.02),
    ],
    ids=["pings", "empty pieces", "a token now and then", "a header in drops", "interim answers", "JSON in drops", "an error in drops"],
)
def test_a_request_ends_at_its_time_limit_and_is_not_repeated(script: Script) -> None:
    begun = time.monotonic()

    assert outcome(script, 0.3, ResponseLimits()) == (TOO_LONG, [])
    assert time.monotonic() - begun < 3


def test_text_before_the_time_limit_was_delivered() -> None:
    with loopback([raw(head() + delta("fi") + delta("ne"), b": ping\n\n", 0.05)]) as server:
        chunks = [chunk for chunk in engine_of(server.url, 0.3).generate([ask()]) if chunk.text or chunk.finish_reason]

    assert chunks == [Chunk("r", "fi"), Chunk("r", "ne"), Chunk("r", finish_reason="error", error=TOO_LONG)]


def test_a_complete_reply_counts_though_the_server_keeps_pinging() -> None:
    assert outcome(raw(head() + delta("fine") + end(), b": ping\n\n", 0.05), 0.5) == (Reply("fine"), [])


def test_a_complete_reply_counts_though_the_server_falls_silent() -> None:
    with loopback([raw(head() + delta("fine") + end(), b" ", 9.0)]) as server:
        found = EndpointEngine("served", Server(server.url, timeout=0.3), "small")
        assert [it for _, it in collect(found, [ask()])] == [Reply("fine")]


@pytest.mark.parametrize("begun", ["", delta("so far")], ids=["nothing", "some text"])
def test_a_server_that_is_too_slow_for_all_requests_is_given_up(begun: str) -> None:
    with (
        loopback([raw(head() + begun, b": ping\n\n", 0.05)] * 9) as server,
        pytest.raises(EngineError, match=r"^the server at .* no longer answers: the request took longer than 0\.2 s; --request-timeout"),
    ):
        list(collect(engine_of(server.url, 0.2), [ask(id=str(n)) for n in range(9)]))

    assert len(server.asked) == 3


def test_an_endless_reply_is_cut_with_one_warning() -> None:
    text, words = outcome(raw(head(), delta("x").encode()))

    assert (text, words) == (Reply("x" * 18, "length"), [CUT.format("URL")])


def test_endless_thoughts_are_cut_with_one_warning() -> None:
    reply, words = outcome(raw(head(), delta(None, reasoning_content="hm").encode()))

    assert (reply, words) == (Reply("", "length", thoughts="hm" * 18), [CUT.format("URL")])


def test_a_piece_that_is_too_long_is_cut() -> None:
    assert outcome(stream(delta("x" * 900), end())) == (Reply("x" * 60, "length"), [CUT.format("URL")])


def test_an_unstreamed_answer_that_is_too_long_is_cut() -> None:
    whole = json.dumps({"choices": [{"message": {"content": "é" * 90}, "finish_reason": "stop"}]})

    assert outcome(raw(head("application/json") + whole)) == (Reply("é" * 60, "length"), [CUT.format("URL")])


def test_a_reply_at_the_limit_of_characters_and_pieces_is_complete() -> None:
    assert outcome(stream(*[delta("abc")] * 17, delta("x" * 9), end())) == (Reply("abc" * 17 + "x" * 9), [])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (raw(head(), b": ping\n\n" * 50), "the server sent more than 24,000 bytes"),
        (raw(head() + "data: ", b"x" * 100), "the server sent an event of more than 1,400 bytes"),
        (raw(head(), b"data: x\n"), "the server sent an event of more than 1,400 bytes"),
        (raw(head("application/json"), b" " * 99), "the server sent more than 1,400 bytes"),
        (raw(head("application/json") + "{" + " " * 1390), "the server's event is no JSON: { (6 attempts)"),
        (raw(head(status=400), b"no" * 99), "HTTP 400: " + "no" * 145 + "…"),
        (raw("HTTP/1.1 200 Well\r\n", b"x: y\r\n" * 900), None),
        (raw("HTTP/1.1 200 Well\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n1;", b"x" * 9000), None),
    ],
    ids=["pings", "an endless line", "an endless event", "JSON", "half a JSON", "an error", "headers", "chunk extensions"],
)
def test_endless_bytes_are_an_error_of_one_line(script: Script, words: str | None) -> None:
    found, warned = outcome(script)

    assert (isinstance(found, str), warned) == (True, [])
    assert words in (None, found)


@pytest.mark.parametrize("layers", [1, 5])
@pytest.mark.parametrize(
    ("content_type", "status", "begin", "words"),
    [
        ("text/event-stream", 200, "data: ", "the server sent an event of more than 4,202,496 bytes"),
        ("application/json", 200, "", "the server sent more than 4,202,496 bytes"),
        ("application/json", 400, "too long", "HTTP 400: too long"),
    ],
)
def test_a_compressed_answer_takes_no_more_memory_than_its_limit(
    content_type: str, status: int, begin: str, words: str, layers: int
) -> None:
    script = bomb(content_type, status, begin=begin, layers=layers)
    outcome(stream(reply()))  # imports
    tracemalloc.start()
    try:
        assert outcome(script, limits=ResponseLimits())[0] == words
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_an_endless_compressed_stream_ends() -> None:
    words = "the server sent more than 2,004,000 bytes"

    assert outcome(bomb("text/event-stream", fill=": ping\n\n"), limits=replace(SMALL, stream_bytes=2_000_000)) == (words, [])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (bomb("application/json"), "(the server sent more than 8,388,608 bytes); the address usually ends in /v1, or add #MODEL"),
        (bomb("application/json", 500, begin="oops"), "(HTTP 500: oops); the address usually ends in /v1, or add #MODEL"),
        (raw(head("application/json") + '{"data": [' + '{"id": "%s"}' % ("x" * 2000) + "]}"), "(its list is empty); the address usually ends in /v1, or add #MODEL"),
        (raw(head("application/json") + '{"data": [' + '{"id": "a"},' * 60 + '{"id": "b"}]}'), "has 61 models; add one to the address as #MODEL: " + "a, " * 49 + "a and 11 more"),
        (raw(head("application/json; charset=zlib") + "x"), "(its answer is no list of models); the address usually ends in /v1, or add #MODEL"),
        (raw(head("application/json") + '{"data": ' + "[" * 5000), "(its answer is no list of models); the address usually ends in /v1, or add #MODEL"),
    ],
    ids=["bomb", "error", "a long name", "many names", "an encoding that is none", "deep"],
)  # fmt: skip
def test_a_list_of_models_is_limited(script: Script, words: str) -> None:
    with loopback([], script) as server:
        tracemalloc.start()
        try:
            with pytest.raises(SftchatError) as error:
                open_endpoint(server.url)
            assert tracemalloc.get_traced_memory()[1] < 60 << 20
        finally:
            tracemalloc.stop()
    assert str(error.value).endswith(words)


def test_a_list_of_models_that_arrives_slowly_is_not_waited_for() -> None:
    with (
        loopback([], raw(head("application/json"), b" ", 0.05)) as server,
        pytest.raises(SftchatError, match=r"does not list its models: the request took longer than 0\.3 s; --request-timeout"),
    ):
        open_endpoint(server.url, request_timeout=0.3)


def test_a_model_that_is_not_listed_is_not_waited_for_either() -> None:
    with (
        loopback([raw(head("application/json"), b" ", 0.05)]) as server,
        pytest.raises(SftchatError, match=r"did not answer for model 'other': the request took longer than 1\.5 s; --request-timeout"),
    ):
        open_endpoint(f"{server.url}#other", request_timeout=1.5)


@pytest.mark.parametrize("count", [10**400, 10**18, -1, 1.5, float("nan"), float("inf"), "7", True, [1], {"a": 1}, None])
def test_an_impossible_count_is_ignored(count: Any) -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": count}})

    assert outcome(stream(delta("fine"), end(), usage)) == (Reply("fine"), [])


@pytest.mark.parametrize("usage", [7, "x", [1], True, {"completion_tokens": {}}, None])
def test_invalid_usage_is_ignored(usage: Any) -> None:
    assert outcome(stream(delta("fine"), end(), event({"choices": [], "usage": usage}))) == (Reply("fine"), [])


def test_whole_numbers_may_be_written_with_a_decimal_point() -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 3.0, "completion_tokens": 1e3}})

    assert outcome(stream(delta("fine"), end(), usage)) == (Reply("fine", "stop", 3, 1000), [])


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1" + "0" * 400, None), ("1e400", None), ("1e30", 1e9), ("9" * 90, 1e9), ("-1e30", 0.0), ("1" * 101, None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1e9), ("Fri, 31 Dec 9999 23:59:59 -9959", None), ("Mon, 01 Jan 0001 00:00:00 +9959", None),
        ("Mon, 01 Jan 0001 00:00:00 -0000", None), ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None), ("Fri, 99 Dec 2026 23:59:59 GMT", None),
    ],
)  # fmt: skip
def test_every_retry_after_gives_a_sensible_wait(header: str, seconds: float | None) -> None:
    found = parse_retry_after(header, now=1e9)

    assert found == seconds or (seconds is None and found in (None, 0.0))


def test_cookies_are_not_kept() -> None:
    seen: list[str | None] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("cookie"))
        return httpx2.Response(200, headers={**SSE, "set-cookie": "a=b; Path=/"}, text=reply())

    outcomes = [it for _, it in collect(engine_of(URL, transport=httpx2.MockTransport(handle)), [ask(id="1"), ask(id="2")])]

    assert (outcomes, seen) == ([Reply("fine", "stop", 5, 3)] * 2, [None, None])


# any answer at all

_odd = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["stop", "length", 10**400, -1, "x" * 300]),
)  # fmt: skip
_json = st.recursive(_odd, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["content", "id", "x"]), inner, max_size=3), max_leaves=6)  # fmt: skip


def _object(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Strategy for objects with some of these members, sometimes with other values."""
    return st.fixed_dictionaries({}, optional={name: one | _json if name != "content" else one | _odd for name, one in fields.items()})


_inner = _object(content=st.text(max_size=70), reasoning=st.text(max_size=5), role=st.just("assistant"))
_choice = _object(
    delta=_inner, message=_inner, text=st.text(max_size=5), finish_reason=st.sampled_from(["stop", "length"]), index=st.integers()
)
_event = _object(
    choices=st.lists(_choice, max_size=2),
    usage=_object(prompt_tokens=st.integers(), completion_tokens=st.floats()),
    error=_object(message=st.text(max_size=400), code=st.integers(0, 600)),
)
_line = st.one_of(
    _event.map(lambda value: f"data: {json.dumps(value)}\n\n"),
    st.sampled_from(["data: [DONE]\n\n", ": ping\n\n", "data: ", "retry: 9\n", "\r", "event: x\ndata: {\n\n", delta("a"), end(), "data: " + "[" * 300 + "\n\n"]),
    st.text(max_size=20),
)  # fmt: skip
_header = st.sampled_from(
    ["text/event-stream", "text/event-stream; charset=utf-16", "application/json", "application/json; charset=zlib", "text/html", ""]
)
_answer = st.fixed_dictionaries(
    {
        "status": st.sampled_from([200] * 8 + [101, 204, 301, 400, 401, 404, 422, 429, 500, 503, 599]),
        "headers": st.fixed_dictionaries(
            {"content-type": _header},
            optional={
                "content-encoding": st.sampled_from(["gzip", "deflate", "identity", "br", "gzip, gzip, gzip, gzip, gzip, gzip", "é"]),
                "retry-after": st.sampled_from(["0", "1", "9" * 400, "-1", "nan", "Fri, 31 Dec 9999 23:59:59 GMT"]),
                "location": st.sampled_from(["http://[", "//", "é", "x" * 5000]),
                "set-cookie": st.text("ab=;, ", max_size=9),
            },
        ),
        "lines": st.lists(_line, max_size=12),
        "endless": st.booleans() | st.just(False),
        "size": st.integers(1, 400),
    }
)


def _built(given: dict[str, Any]) -> httpx2.Response:
    """Yield the answer in packets of some size, on request with the last event repeated endlessly."""
    lines = [line.encode("utf-8", "surrogatepass") for line in given["lines"]]

    async def content() -> AsyncIterator[bytes]:
        data = b"".join(lines)
        for place in range(0, len(data), given["size"]):
            yield data[place : place + given["size"]]
        while given["endless"] and lines:
            yield lines[-1] or b"x"

    headers = [(name.encode(), value.encode("utf-8", "replace")) for name, value in given["headers"].items()]
    return httpx2.Response(given["status"], headers=headers, content=content())


@pytest.mark.filterwarnings("ignore:the server at:sftchat.errors.SftchatWarning")
@settings(deadline=None, max_examples=80)
@given(answers=st.lists(_answer, min_size=1, max_size=3))
def test_any_answer_is_a_reply_or_an_error_of_one_line_within_the_limits(answers: list[dict[str, Any]]) -> None:
    at: Iterator[int] = iter(range(1 << 30))

    def handle(request: httpx2.Request) -> httpx2.Response:
        return _built(answers[next(at) % len(answers)])

    begun = time.monotonic()
    found = engine_of(URL, 1.0, httpx2.MockTransport(handle))
    try:
        outcomes = dict(collect(found, [ask(id="1", sampling=FOUR), ask(id="2", sampling=FOUR)]))
    except EngineError as error:
        outcomes = {"1": error}

    for it in outcomes.values():
        if isinstance(it, EngineError):
            words = str(it)
            assert words.isprintable()
            assert 0 < len(words) < 700
        else:
            assert len(it.text) <= 60
            assert all(0 <= count <= 1e9 for count in (it.prompt_tokens, it.completion_tokens))
            it.text.encode()
    assert time.monotonic() - begun < 10


@settings(deadline=None, max_examples=60)
@given(given_answer=_answer, listed=_json)
def test_any_list_of_models_is_a_model_or_an_error_of_one_line(given_answer: dict[str, Any], listed: Any) -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        lines = [json.dumps({"data": listed})] if given_answer["status"] == 200 else given_answer["lines"]
        return _built({**given_answer, "lines": lines, "endless": False})

    try:
        found = open_endpoint(URL, key="", transport=httpx2.MockTransport(handle)).model
    except SftchatError as error:
        found = str(error)
    assert found
    assert "\n" not in found
    assert len(found) < 3000


def test_limits_grow_with_the_requested_tokens_up_to_a_maximum() -> None:
    limits = replace(SMALL, max_characters=1000)

    assert [
        (limits.max_reply_characters(n), limits.max_reply_pieces(n), limits.max_event_bytes(n), limits.max_stream_bytes(n))
        for n in (1, 10**6)
    ] == [
        (30, 12, 1_100, 21_000),
        (1000, 2_000_010, 100_001_000, 1_000_020_000),
    ]


def test_packets_without_text_do_not_count_as_pieces() -> None:
    with warnings.catch_warnings(record=True):
        server = httpx2.MockTransport(lambda request: streamed(*[delta("")] * 30, *[delta("x")] * 18, end()))
        assert [it for _, it in collect(engine_of(URL, transport=server), [ask(sampling=FOUR)])] == [Reply("x" * 18)]


def test_the_documentation_has_these_limits() -> None:
    limits, page = ResponseLimits(), (Path(__file__).parents[2] / "docs/endpoint.md").read_text(encoding="utf-8")
    mebibyte, kibibyte = 1 << 20, 1 << 10

    for words in (
        f"{limits.listing_bytes // mebibyte} MiB for the list of models",
        f"{limits.error_bytes // mebibyte} MiB of an error",
        f"{limits.event_bytes // mebibyte} MiB and {limits.event_bytes_per_token // kibibyte} KiB per token for an event",
        f"{limits.stream_bytes // mebibyte} MiB and {limits.stream_bytes_per_token // kibibyte} KiB per token for a whole stream",
        f"{limits.characters:,} characters and {limits.characters_per_token} per token",
        f"{limits.pieces} pieces and {limits.pieces_per_token} per token",
        f"never more than {limits.max_characters // mebibyte} Mi characters",
    ):
        assert words in page
