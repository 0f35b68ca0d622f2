"""Parameters that a server refuses are left out or sent in another form: recognised from its HTTP 400, once per model, reported once."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from sftchat.engine import Request, collect
from sftchat.errors import EngineError
from sftchat.inference.openai.engine import open_endpoint
from sftchat.inference.openai.protocol import adapt, adaptation_to
from sftchat.types import Message, Reply, SamplingParams
from tests.inference.endpoint_kit import URL, Desk, ask, desk, reply, streamed

FINE = Reply("fine", "stop", 5, 3)
SAMPLED = SamplingParams(9, temperature=0.5, top_p=0.9, seed=3, stop=("\n",))
SYSTEM = (Message(role="system", content="Be brief."), Message(role="user", content="hi"))


def openai(parameter: str, words: str) -> httpx2.Response:
    error = {"message": words, "type": "invalid_request_error", "param": parameter, "code": "unsupported_parameter"}
    return httpx2.Response(400, json={"error": error})


def answered(server: Desk, *requests: Request) -> tuple[dict[str, Reply | str], list[str]]:
    """Return the result of each request, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = {id: str(it) if isinstance(it, EngineError) else it for id, it in collect(server.engine, requests)}
    return found, [str(warning.message) for warning in caught]


CASES: list[tuple[str, httpx2.Response, dict[str, Any], str]] = [
    (
        "max_tokens",
        openai("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
        {"max_completion_tokens": 9},
        "takes max_completion_tokens instead of max_tokens",
    ),
    (
        "temperature",
        openai("temperature", "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is supported."),
        {},
        "takes no temperature: its replies are sampled at its own",
    ),
    (
        "top_p",
        httpx2.Response(400, json={"error": {"message": "`temperature` and `top_p` cannot both be specified for this model."}}),
        {},
        "takes no top_p",
    ),
    ("stop", openai("stop", "Unsupported parameter: 'stop' is not supported with this model."), {}, "takes no stop strings; sftchat cuts its replies at them"),
    (
        "seed",
        httpx2.Response(422, json={"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}),
        {},
        "takes no seed: its samples cannot be repeated",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("parameter", "refusal", "instead", "words"), CASES, ids=[case[0] for case in CASES])
def test_a_refused_parameter_is_left_out_and_the_others_stay(
    parameter: str, refusal: httpx2.Response, instead: dict[str, Any], words: str
) -> None:
    server = desk(refusal, streamed(reply()), streamed(reply()), concurrency=1)

    found, warned = answered(server, ask(id="1", sampling=SAMPLED), ask(id="2", sampling=SAMPLED))

    assert found == {"1": FINE, "2": FINE}
    assert warned == [f"model 'small' of {URL} {words}"]
    first, *others = server.asked
    assert others == [{**{name: value for name, value in first.items() if name != parameter}, **instead}] * 2
    assert server.slept == []


def test_a_refused_system_turn_is_put_into_the_user_turn() -> None:
    refusal = httpx2.Response(400, json={"object": "error", "message": "System role not supported", "code": 400})
    server = desk(refusal, streamed(reply()))

    found, warned = answered(server, replace(ask(), messages=SYSTEM))

    assert found == {"r": FINE}
    assert server.asked[1]["messages"] == [{"role": "user", "content": "Be brief.\n\nhi"}]
    assert warned == [f"model 'small' of {URL} takes no system turn; it is put before the user's first message"]


NO_SYSTEM = [
    (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
    (400, "Developer instruction is not enabled for models/small"),
    (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
    (422, "Only user and assistant roles are supported!"),
    (500, "System role not supported"),
]


@pytest.mark.parametrize(("status", "words"), NO_SYSTEM)
def test_a_refused_system_turn_is_recognised_in_any_wording_and_keeps_its_place_in_later_turns(status: int, words: str) -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        system = any(turn["role"] == "system" for turn in json.loads(request.content)["messages"])
        return httpx2.Response(status, json={"error": {"message": words}}) if system else streamed(reply())

    server = Desk(handle)
    more = (*SYSTEM, Message(role="assistant", content="ok"), Message(role="user", content="and?"))
    begun = Request("p", SYSTEM, reply_prefix="fi")

    for request in (replace(ask(), messages=SYSTEM), replace(ask(), messages=more), begun):
        found, _ = answered(server, request)
        assert list(found.values()) == [FINE]
    contents = [[(turn["role"], turn["content"]) for turn in body["messages"]] for body in server.asked]
    put = ("user", "Be brief.\n\nhi")
    assert contents == [
        [("system", "Be brief."), ("user", "hi")], [put], [put, ("assistant", "ok"), ("user", "and?")], [put, ("assistant", "fi")],
    ]  # fmt: skip
    assert server.slept == []


@pytest.mark.parametrize(
    ("words", "turns"),
    [
        ("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...", SYSTEM),
        ("Conversation roles must alternate user/assistant/user/assistant/...", (*SYSTEM, Message(role="user", content="again"))),
        ("Conversation roles must alternate user/assistant/user/assistant/...", SYSTEM[1:]),
        ("System role not supported", SYSTEM[1:]),
    ],
)
def test_another_error_about_roles_is_not_a_refused_system_turn(words: str, turns: tuple[Message, ...]) -> None:
    server = desk(httpx2.Response(400, json={"error": {"message": words}}))

    assert answered(server, replace(ask(), messages=turns)) == ({"r": f"HTTP 400: {words}"}, [])


def test_stop_strings_beyond_four_are_not_sent_and_are_applied_locally() -> None:
    refusal = httpx2.Response(400, json={"error": {"message": "Invalid 'stop': array too long. Expected an array with maximum length 4."}})
    server = desk(refusal, streamed(reply("fine5!")))

    found, _ = answered(server, ask(sampling=SamplingParams(stop=("1", "2", "3", "4", "5"))))

    assert found == {"r": Reply("fine")}
    assert server.asked[1]["stop"] == ["1", "2", "3", "4"]


def picky(request: httpx2.Request) -> httpx2.Response:
    """Server like that of OpenAI's reasoning models, which names one refused parameter at a time."""
    body = json.loads(request.content)
    for name in ("stream_options", "max_tokens", "temperature", "top_p", "seed", "stop"):
        if name in body:
            return openai(name, f"Unsupported parameter: '{name}' is not supported. Use 'max_completion_tokens' instead." if name == "max_tokens" else f"Unsupported parameter: '{name}'")  # fmt: skip
    return streamed(reply())


def test_concurrent_requests_adapt_to_all_refusals_and_report_each_once() -> None:
    server = Desk(picky, {"concurrency": 8})

    found, warned = answered(server, *(ask(id=str(n), sampling=SAMPLED) for n in range(20)))

    assert found == {str(n): FINE for n in range(20)}
    assert len(warned) == len(set(warned)) == 5
    assert set(server.asked[-1]) == {"model", "stream", "max_completion_tokens", "messages"}


def test_parameters_refused_by_one_model_are_sent_to_another() -> None:
    server = desk(CASES[1][1], streamed(reply()), streamed(reply()), concurrency=1)

    answered(server, ask(id="1", sampling=SAMPLED), ask(id="2", sampling=SAMPLED, adapter="tuned"))

    assert [(body["model"], "temperature" in body) for body in server.asked] == [("small", True), ("small", False), ("tuned", True)]


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4744 in the messages, 256 in max_tokens).",
        "max_tokens is too large: 99999",
        "temperature must be at most 1.0",
        "top_p must be in (0, 1]",
        "the prompt was filtered",
        "unknown model",
    ],
)
def test_other_refusals_stay_refusals(words: str) -> None:
    server = desk(httpx2.Response(400, json={"error": {"message": words}}))

    assert answered(server, ask(sampling=SAMPLED)) == ({"r": f"HTTP 400: {words}"}, [])


def test_a_refusal_of_a_parameter_that_is_no_longer_sent_ends_the_request() -> None:
    server = Desk(lambda request: CASES[1][1])

    found, _ = answered(server, ask(sampling=SAMPLED))

    assert found == {"r": f"HTTP 400: {json.loads(CASES[1][1].content)['error']['message']}"}
    assert len(server.asked) == 2


def test_an_adaptation_changes_only_the_requests_that_it_applies_to() -> None:
    body = {"model": "m", "max_tokens": 3, "temperature": 0.0, "prompt": "hi"}

    for _, refusal, _, _ in CASES:
        full = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["\n"]}
        found = adaptation_to(refusal.text, full)
        assert found is not None
        once = adapt(body, [found])
        assert adapt(once, [found]) == once
        assert once["prompt"] == "hi"


def test_a_model_that_refuses_a_parameter_of_the_first_request_exists() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"data": [{"id": "other"}]}) if request.method == "GET" else picky(request)

    assert open_endpoint(f"{URL}#o3", key="", transport=httpx2.MockTransport(handle)).model == "o3"


def test_further_parameters_and_template_arguments_reach_the_server() -> None:
    options = {"extra_body": {"min_p": 0.1, "temperature": 0.7}, "template_arguments": {"enable_thinking": False, "style": "a"}}
    server = desk(streamed(reply()), streamed(reply()), concurrency=1, **options)

    answered(server, ask(id="1", template_arguments={"style": "b"}), ask(id="2", prompt="hi"))

    chat, text = server.asked
    assert (chat["min_p"], chat["temperature"], chat["chat_template_kwargs"]) == (0.1, 0.7, {"enable_thinking": False, "style": "b"})
    assert (text["min_p"], "chat_template_kwargs" in text) == (0.1, False)
