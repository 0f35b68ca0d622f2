"""API keys that a server repeats are removed from replies, errors and lists of models, for any cuts into pieces."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.engine import Chunk, collect
from sftchat.errors import EngineError, SftchatError
from sftchat.inference.openai.engine import EndpointEngine, open_endpoint
from sftchat.inference.openai.limits import Retries
from sftchat.inference.openai.server import RedactedStream, Redaction, Server, served_models
from sftchat.types import Reply
from tests.inference.endpoint_kit import URL, ask, delta, desk, end, event, reply, streamed

KEY = "sk-a/b+c=secret1"
ENCODED = quote(KEY, safe="")


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def streamed_text(redaction: Redaction, parts: list[str]) -> str:
    stream = RedactedStream(redaction)
    return "".join(map(stream.feed, parts)) + stream.end()


_KEYS = st.sampled_from(["abcabcab", "aaaaaaaa", "aaaaaaaab", "bcabcabc", KEY, "-/-/-/-/"])


@given(
    keys=st.sets(_KEYS, min_size=1, max_size=1),
    words=st.lists(_KEYS | st.text("abcks-/%2F+=", max_size=9)),
    cuts=st.lists(st.integers(0, 200)),
)
def test_a_key_is_replaced_for_any_cuts_between_pieces(keys: set[str], words: list[str], cuts: list[int]) -> None:
    redaction, text = Redaction(keys), "".join(words)

    assert streamed_text(redaction, pieces(text + "\n", cuts)) == redaction.text(text + "\n")


@given(keys=st.sets(_KEYS, min_size=1), words=st.lists(_KEYS | st.text("abcks-/%2F+=", max_size=9)), cuts=st.lists(st.integers(0, 200)))
def test_no_key_of_several_is_left(keys: set[str], words: list[str], cuts: list[int]) -> None:
    found = streamed_text(Redaction(keys), pieces("".join(words), cuts))

    assert [key for key in keys if key in found] == []


@given(text=st.text("ask-/%", max_size=30), rest=st.text(min_size=1, max_size=5))
def test_only_a_possible_beginning_of_a_key_is_held_back(text: str, rest: str) -> None:
    stream = RedactedStream(Redaction([KEY]))
    ready = stream.feed(text)

    waits = text[len(ready) :]
    assert ready + waits == text
    assert any(form.startswith(waits) for form in (KEY, ENCODED))
    assert stream.feed(rest + "\n") == waits + rest + "\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (KEY, "***"), (f"Bearer {KEY}, {KEY}", "Bearer ***, ***"), (KEY[:-1], KEY[:-1]), ("", ""),
        (f"?key={ENCODED}&", "?key=***&"), ("?sk-a%2fb%2bc%3dsecret1", "?***"), ("sk-a/b%2Bc%3Dsecret1", "***"),
    ],
    ids=["key", "twice", "a part", "nothing", "in an address", "small escapes", "a slash"],
)  # fmt: skip
def test_the_forms_that_are_replaced(said: str, shown: str) -> None:
    assert Redaction([KEY]).text(said) == shown


@pytest.mark.parametrize(("begun", "shown"), [(7, KEY[:7]), (8, "***"), (15, "***")])
def test_a_reply_that_ends_within_a_key_shows_only_a_few_characters_of_it(begun: int, shown: str) -> None:
    assert streamed_text(Redaction([KEY]), ["so: ", KEY[:begun]]) == "so: " + shown


@pytest.mark.parametrize("key", ["", "EMPTY", "none", "sk-1234"])
def test_placeholders_for_a_key_are_left_alone(key: str) -> None:
    assert Redaction([key]).text(f"the key is {key}.") == f"the key is {key}."


def test_json_is_searched_everywhere() -> None:
    value = {"id": f"a {KEY}", KEY: [KEY, 1, None, {"x": KEY}]}

    assert Redaction([KEY]).value(value) == {"id": "a ***", "***": ["***", 1, None, {"x": "***"}]}


def outcome(*answers: httpx2.Response) -> Reply | str:
    try:
        ((_, it),) = collect(desk(*answers, key=KEY).engine, [ask()])
    except EngineError as error:
        it = error
    return str(it) if isinstance(it, EngineError) else it


def test_a_reply_arrives_without_the_key_and_without_delay() -> None:
    server = desk(streamed(*[delta(part) for part in ("it is ", "sk", "-", KEY[3:9], KEY[9:], ". a sk")], end()), key=KEY)

    assert list(server.engine.generate([ask()])) == [
        Chunk("r", "it is "),
        Chunk("r", "***"),
        Chunk("r", ". a "),
        Chunk("r", "sk", finish_reason="stop"),
    ]


def test_a_key_in_single_characters_is_replaced() -> None:
    assert outcome(streamed(reply(f"({KEY})"))) == Reply("(***)", "stop", 5, 3)


def test_a_key_at_the_end_of_a_cut_reply_is_not_shown_partly() -> None:
    found = outcome(streamed(delta("so: " + KEY[:9]), event({"error": {"message": f"bad {KEY}", "code": 400}})))

    assert found == "bad ***"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.Response(400, json={"error": {"message": f"bad {KEY}"}}), "HTTP 400: bad ***"),
        (httpx2.Response(400, text="x" * 295 + KEY), "HTTP 400: " + "x" * 290 + "…"),
        (httpx2.Response(400, text="x" * 280 + " " + KEY), "HTTP 400: " + "x" * 280 + " ***"),
        (streamed(delta("a"), "data: " + "[" * 75 + KEY + "\n\n"), "the server's event is no JSON: " + "[" * 75 + "***"),
        (streamed(delta("a"), end(KEY)), "the server ended the reply with '***'"),
        (httpx2.Response(200, headers={"content-type": f"text/{KEY}"}), f"the server at {URL} no longer answers: the answer is 'text/***' and no event stream; check the address, which usually ends in /v1"),
        (httpx2.Response(302, headers={"location": f"http://x/?k={ENCODED}"}), f"the server at {URL} no longer answers: HTTP 302: redirects to http://x/?k=***"),
    ],
    ids=["an error", "cut before it", "cut after it", "no JSON", "a reason", "a type", "a redirection"],
)  # fmt: skip
def test_no_error_shows_a_key_or_a_part_of_one(answer: httpx2.Response, words: str) -> None:
    assert outcome(answer) == words


def test_a_broken_connection_shows_no_key() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.RemoteProtocolError(f"illegal header {request.headers['authorization']!r}")

    engine = EndpointEngine(
        "m", Server(URL, KEY, transport=httpx2.MockTransport(handle)), "small", concurrency=1, retries=Retries(attempts=1)
    )

    assert [str(it) for _, it in collect(engine, [ask()])] == ["the connection broke: illegal header 'Bearer ***'"]
    with pytest.raises(SftchatError, match=r"illegal header 'Bearer \*\*\*'"):
        open_endpoint(URL, key=KEY, transport=httpx2.MockTransport(handle))


def test_a_list_of_models_is_without_the_key() -> None:
    listing = {"data": [{"id": f"a-{KEY}", "root": [f"/x/{ENCODED}"]}]}
    server = Server(URL, KEY, transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json=listing)))

    assert served_models(server) == ([{"id": "a-***", "root": ["/x/***"]}], "")


def test_every_key_that_the_environment_has_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTCHAT_API_KEY", "sk-first-1234")
    monkeypatch.setenv("OPENAI_API_KEY", " sk-second-1234\n")
    server = Server(URL, "sk-given-1234")

    assert server.sanitize("sk-first-1234 sk-second-1234 sk-given-1234") == "*** *** ***"


def test_no_object_that_holds_the_key_shows_it() -> None:
    engine = desk(key=KEY).engine
    shown: list[Any] = [engine, engine._server, engine._server.redaction, engine._server.client().headers]

    assert [one for one in shown if KEY in repr(one) or ENCODED in repr(one)] == []
