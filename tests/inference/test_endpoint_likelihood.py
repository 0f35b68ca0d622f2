"""Likelihoods of continuations from servers that return log-probabilities of a prompt."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest

from sftchat.engine import Request, collect
from sftchat.errors import EngineError, UsageError
from sftchat.likelihood import Likelihood, parse_likelihoods
from sftchat.types import Reply
from tests.inference.endpoint_kit import Desk, ask, desk


def tokens(text: str) -> list[str]:
    """Words with the space before them."""
    return [f" {word}" if index else word for index, word in enumerate(text.split(" "))]


def entry(token: str, index: int) -> dict[str, Any] | None:
    """A token of a prompt in vLLM's format; only ``Paris`` is the most likely one."""
    if not index:
        return None
    best = {"decoded_token": "x", "logprob": -0.25, "rank": 1}
    own = {"decoded_token": token, "logprob": -float(len(token)), "rank": 1 if "Paris" in token else 7}
    return {token: own} | ({} if own["rank"] == 1 else {"x": best})


def vllm(request: httpx2.Request) -> httpx2.Response:
    """Answer like vLLM: prompt log-probabilities for chats, echo for raw prompts."""
    body = json.loads(request.content)
    if "prompt" in body:
        listed = tokens(body["prompt"])
        columns = {
            "tokens": listed,
            "token_logprobs": [None, *(-float(len(token)) for token in listed[1:])],
            "top_logprobs": [None, *({token: -float(len(token))} if "Paris" in token else {"x": -0.25} for token in listed[1:])],
        }
        return httpx2.Response(200, json={"choices": [{"text": f"{body['prompt']}!", "logprobs": columns}]})
    listed = ["<bos>"]
    for message in body["messages"]:
        listed += [f"<{message['role']}>", *tokens(message["content"])]
    if body["messages"][-1]["role"] == "user":
        listed.append("<assistant>")
    return httpx2.Response(200, json={"choices": [], "prompt_logprobs": [entry(token, index) for index, token in enumerate(listed)]})


def served(answers: Any = vllm, **options: Any) -> Desk:
    return Desk(answers, options)


def found(server: Desk, requests: Sequence[Request]) -> dict[str, tuple[Likelihood, ...] | str | None]:
    return {id: parse_likelihoods(reply.text) if isinstance(reply, Reply) else str(reply) for id, reply in collect(server.engine, requests)}


def test_the_choices_of_a_conversation_share_one_request_for_the_prompt_alone() -> None:
    server = served()

    likelihoods = found(server, [ask("where", continuations=("Paris", "not here"))])

    assert likelihoods == {"r": (Likelihood(-5.0, 1, 5, True), Likelihood(-8.0, 2, 8, False))}
    assert [[message["content"] for message in body["messages"]] for body in server.asked] == [
        ["where", "Paris"], ["where"], ["where", "not here"],
    ]  # fmt: skip


def test_white_space_at_the_end_of_a_raw_prompt_belongs_to_the_continuations() -> None:
    server = served()

    likelihoods = found(server, [ask(prompt="it is in ", continuations=("Paris", "the south"))])

    assert likelihoods == {"r": (Likelihood(-6.0, 1, 5, True), Likelihood(-10.0, 2, 9, False))}
    assert [body["prompt"] for body in server.asked] == ["it is in Paris", "it is in the south"]


def test_many_requests_are_answered_at_most_as_many_at_a_time_as_allowed() -> None:
    running, most, lock = 0, 0, threading.Lock()
    several = threading.Event()

    def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                several.set()
        several.wait(5)
        with lock:
            running -= 1
        return vllm(request)

    likelihoods = found(served(answer, concurrency=3), [ask(id=str(n), prompt=f"no {n}", continuations=(" Paris",)) for n in range(9)])

    assert likelihoods == {str(number): (Likelihood(-6.0, 1, 6, True),) for number in range(9)}
    assert most == 3


def test_a_failure_that_passes_is_repeated() -> None:
    failures = [httpx2.Response(503), httpx2.ConnectError("refused"), httpx2.Response(429, headers={"retry-after": "7"})]

    def answer(request: httpx2.Request) -> httpx2.Response:
        if failures:
            failure = failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        return vllm(request)

    server = served(answer)

    assert found(server, [ask(prompt="to", continuations=(" Paris",))]) == {"r": (Likelihood(-6.0, 1, 6, True),)}
    assert server.slept == [0.5, 1.0, 9.0]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([httpx2.Response(400, json={"error": {"message": "unknown field echo"}})], r"\(echo\): HTTP 400: unknown field echo$"),
        ([httpx2.ConnectError("refused")] * 6, "did not answer: refused$"),
    ],
)
def test_a_server_that_gives_none_ends_the_call(answers: list[Any], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        found(desk(*answers, concurrency=1), [ask(id=str(number), prompt="a", continuations=(" b",)) for number in range(3)])


def test_after_a_first_success_a_refused_request_fails_alone() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        too_long = len(json.loads(request.content)["prompt"]) > 50
        return httpx2.Response(400, json={"error": {"message": "too long"}}) if too_long else vllm(request)

    requests = [ask(id=text[:1], prompt=text, continuations=(" Paris",)) for text in ("a", "b" * 60, "c")]

    likelihoods = found(served(answer, concurrency=1), requests)

    assert likelihoods["a"] == likelihoods["c"] == (Likelihood(-6.0, 1, 6, True),)
    assert "HTTP 400: too long" in str(likelihoods["b"])


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ask(continuations=("a",), ended=True), "gives no likelihood of the end-of-reply token; leave 'ended' out"),
        (ask(prompt=" ", continuations=("a",)), "gives no likelihood of the first token after an empty prompt"),
    ],
)
def test_what_no_server_gives_is_refused(request_: Request, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        found(served(), [request_])


def test_closing_the_iterator_sends_no_more_requests() -> None:
    server = served(concurrency=1)
    chunks = server.engine.generate([ask(id=str(number), prompt="a", continuations=(" b",)) for number in range(50)])
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]

    assert len(server.asked) < 5
