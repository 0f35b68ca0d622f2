"""Likelihood of a given reply, from servers that return log-probabilities of a prompt: vLLM, and with ``/completions`` SGLang."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Event
from typing import Any, NamedTuple

from sftchat._util.parsing import load_json
from sftchat.engine import Chunk, Request
from sftchat.errors import EngineError, SftchatError, UsageError
from sftchat.inference.openai.limits import RETRYABLE_STATUSES, RequestFailed, Retries, parse_retry_after
from sftchat.inference.openai.logprobs import logprobs_fields, make_choice, parse_choices, parse_logprob, parse_token
from sftchat.inference.openai.protocol import path_and_body
from sftchat.inference.openai.server import ServerResponse
from sftchat.inference.threads import answer_in_threads
from sftchat.likelihood import Likelihood, likelihood_chunk
from sftchat.types import UNNUMBERED, Choice, SamplingParams, Token

ONE_TOKEN = SamplingParams(max_new_tokens=1)
"""A server must generate at least one token."""
Post = Callable[[str, Mapping[str, Any], int], ServerResponse]
"""Posts a body to a path and returns the response, whose maximum size grows with the third argument, a number of tokens."""


class _PromptToken(NamedTuple):
    """A token of a prompt; ``id`` is the server's token id as text, empty if the server lists no alternatives for the token."""

    id: str
    choice: Choice


class _Alternative(NamedTuple):
    """A token that the server lists at a position of the prompt; ``rank`` counts from 0, None if unknown."""

    id: str
    token: Token
    logprob: float
    rank: int | None


class UnsupportedError(EngineError):
    """The server refused a request for the log-probabilities of a given text, or did not send them."""


class Unanswered(EngineError):
    """The server did not answer a request."""


def score_requests(
    requests: Iterable[Request], post: Post, model: str, *, concurrency: int, retries: Retries, template_arguments: Mapping[str, Any] | None
) -> Iterator[Chunk]:
    """Answer requests with continuations, several at a time.

    Args:
        requests: Taken from the iterable as threads become free.
        post: Sends a request to the server; called in threads.
        model: Name of the model on the server, for requests that do not name another.
        concurrency: Maximum number of requests at a time.
        retries: Retry policy.
        template_arguments: See ``score_texts``.

    Raises:
        UsageError: When a request asks for what no server gives.
        EngineError: When the server is unreachable, or does not give the log-probabilities of the first texts.
    """
    succeeded = False

    def answer(request: Request, cancelled: Event) -> Chunk:
        nonlocal succeeded

        def post_again(path: str, body: Mapping[str, Any], tokens: int) -> ServerResponse:
            return _repeated(lambda: post(path, body, tokens), retries, cancelled)

        try:
            chunk = score_request(post_again, request, request.adapter or model, template_arguments)
        except SftchatError as error:
            if isinstance(error, Unanswered | UsageError) or (isinstance(error, UnsupportedError) and not succeeded):
                raise
            return Chunk(request.id, finish_reason="error", error=str(error))
        succeeded = True
        return chunk

    return answer_in_threads(((request.id, request) for request in requests), answer, lambda _, running: len(running) < concurrency)


def _repeated(send: Callable[[], ServerResponse], retries: Retries, cancelled: Event) -> ServerResponse:
    """Send a request, and again after a failure that may pass, unless its answer is not needed any more; raises ``Unanswered``."""

    async def sleep(seconds: float) -> None:
        await retries.sleep(seconds)

    for attempt in itertools.count(1):
        response, unanswered, wait = None, None, None
        try:
            response = send()
            if response.status not in RETRYABLE_STATUSES and response.status < 500:
                break
            wait = parse_retry_after(response.headers.get("retry-after"), retries.now())
        except Unanswered as error:
            unanswered = error
        delay = retries.delay(attempt, RequestFailed("", retryable=True, wait=wait))
        if delay is None or cancelled.is_set():
            break
        asyncio.run(sleep(delay))
    if response is None:
        assert unanswered is not None
        raise unanswered
    return response


def score_request(post: Post, request: Request, model: str, template_arguments: Mapping[str, Any] | None = None) -> Chunk:
    """Answer a request with continuations.

    Args:
        post: Sends a request to the server.
        request: The request. White space at the end of a raw prompt is part of the continuations, whose first token it usually is.
        model: Name of the model on the server.
        template_arguments: See ``score_texts``.

    Raises:
        UsageError: When the end-of-reply token is to be scored, or the prompt is empty.
        UnsupportedError: When the server does not support this.
        EngineError: When the tokens of a text cannot be identified.
    """
    if request.ended:
        raise UsageError(f"model '{model}' is behind a server, which gives no likelihood of the end-of-reply token; leave 'ended' out")
    texts = request.continuations
    if request.prompt is not None:
        prompt = request.prompt + request.reply_prefix
        stripped = prompt.rstrip()
        if not stripped:
            raise UsageError(f"model '{model}' is behind a server, which gives no likelihood of the first token after an empty prompt")
        request, texts = replace(request, prompt=stripped, reply_prefix=""), tuple(prompt[len(stripped) :] + text for text in texts)
    scored = score_texts(post, request, model, texts, 1, template_arguments=template_arguments)
    return likelihood_chunk(request, map(Likelihood.of_choices, request.continuations, scored))


def score_texts(
    post: Post,
    request: Request,
    model: str,
    texts: Sequence[str],
    alternatives: int,
    *,
    template_arguments: Mapping[str, Any] | None = None,
) -> list[tuple[Choice, ...]]:
    """Return the tokens of texts as replies to a request, each with its log-probability; the end-of-reply token is excluded.

    For a conversation the server renders the prompt with each reply, and once without; the additional tokens are the reply's. This requires
    ``prompt_logprobs`` and ``continue_final_message``, as in vLLM. A raw prompt requires ``echo`` with ``logprobs``, as in vLLM and SGLang.

    Args:
        post: Sends a request to the server.
        request: The prompt.
        model: Name of the model on the server.
        texts: The replies; none is empty.
        alternatives: Number of top alternatives per token, at least 0.
        template_arguments: Default arguments of the server's chat template; those of the request override them.

    Raises:
        UnsupportedError: When the server does not support this; the message names the missing feature.
        EngineError: When the tokens of a text cannot be identified.
    """
    request = replace(request, sampling=ONE_TOKEN, logprobs=None, reply_ids=(), continuations=())

    def post_request(request: Request, fields: Mapping[str, Any], feature: str) -> Mapping[str, Any]:
        path, body = path_and_body(request, model, usage=False, template_arguments=template_arguments)
        # a token has at least one character, so this is at least the number of tokens in the response
        characters = sum(len(message["content"]) for message in request.messages) + len(request.prompt or "") + len(request.reply_prefix)
        response = post(path, {**body, **fields}, characters)
        if response.status != 200:
            raise _unsupported(model, feature, response.error)
        try:
            value = load_json(response.text, last_wins=True)
        except ValueError:
            value = None
        if not isinstance(value, Mapping):
            raise _unsupported(model, feature, "its answer is no JSON object")
        return value

    without_text: list[_PromptToken] = []
    scored: list[tuple[Choice, ...]] = []
    for text in texts:
        request_with_text = replace(request, reply_prefix=request.reply_prefix + text)
        if request.prompt is not None:
            answer = post_request(request_with_text, {"echo": True, **logprobs_fields(alternatives, chat=False)}, "echo")
            scored.append(_parse_echo(answer, request.prompt + request.reply_prefix, text, model))
            continue
        feature = "prompt_logprobs"
        with_text = _parse_prompt(post_request(request_with_text, {feature: alternatives}, feature), alternatives, model)
        without_text = without_text or _parse_prompt(post_request(request, {feature: 0}, feature), 0, model)
        count = len(without_text)
        if len(with_text) <= count or [token.id for token in with_text[:count]] != [token.id for token in without_text]:
            raise EngineError(
                f"model '{model}': its server's template begins a new reply and a continued one differently, so the tokens of the text cannot be identified"
            )
        scored.append(tuple(token.choice for token in with_text[count:]))
    return scored


def _unsupported(model: str, feature: str, reason: str) -> UnsupportedError:
    return UnsupportedError(f"model '{model}': its server does not give the log-probabilities of a given text ({feature}): {reason}")


def _parse_prompt(answer: Mapping[str, Any], max_alternatives: int, model: str) -> list[_PromptToken]:
    """Return the prompt tokens in vLLM's format: per token the alternatives by id, the token itself first; null for the very first token."""
    entries = answer.get("prompt_logprobs")
    if not isinstance(entries, list):
        raise _unsupported(model, "prompt_logprobs", "it accepts the request but sends none")
    tokens: list[_PromptToken] = []
    for entry in entries:
        if listed := _parse_alternatives(entry):
            own = listed[0]
            alternatives = [(other.token, other.logprob) for other in listed if other.rank is None or other.rank < max_alternatives]
            tokens.append(_PromptToken(own.id, make_choice(own.token, own.logprob, alternatives, own.rank)))
        else:
            tokens.append(_PromptToken("", Choice(Token(UNNUMBERED, ""), 0.0)))
    return tokens


def _parse_alternatives(entry: Any) -> list[_Alternative]:
    alternatives = []
    for id, value in entry.items() if isinstance(entry, Mapping) else ():
        if not isinstance(value, Mapping):
            continue
        token, logprob, rank = parse_token(value.get("decoded_token")), parse_logprob(value.get("logprob")), value.get("rank")
        if token is not None and logprob is not None:
            alternatives.append(_Alternative(id, token, logprob, rank - 1 if isinstance(rank, int) and rank > 0 else None))
    return alternatives


def _parse_echo(answer: Mapping[str, Any], prompt: str, text: str, model: str) -> tuple[Choice, ...]:
    """Return the tokens of a text after a prompt, from a response that repeats both.

    Raises:
        EngineError: When the response does not repeat both, no token begins where the text begins, or log-probabilities are missing.
    """
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    echo = first.get("text", "") if isinstance(first, Mapping) else ""
    logprobs = first.get("logprobs") if isinstance(first, Mapping) else None
    tokens = logprobs.get("tokens") if isinstance(logprobs, Mapping) else None
    if not isinstance(logprobs, Mapping) or not isinstance(tokens, list) or not str(echo).startswith(prompt + text):
        raise _unsupported(model, "echo", "it accepts the request but does not repeat the text")

    def has_one_per_token(value: Any) -> bool:
        return isinstance(value, list) and len(value) == len(tokens)

    starts: Any = logprobs.get("text_offset")
    if not has_one_per_token(starts) or not all(isinstance(start, int) for start in starts):
        starts = _token_starts(tokens)
    indices = [index for index, start in enumerate(starts) if len(prompt) <= start < len(prompt) + len(text)]
    columns = [name for name in ("tokens", "token_logprobs", "top_logprobs") if has_one_per_token(logprobs.get(name))]
    if not indices or starts[indices[0]] != len(prompt):
        raise EngineError(
            f"model '{model}': no token begins where the text begins, so its likelihood cannot be separated from the prompt's"
        )
    scored = parse_choices({name: [logprobs[name][index] for index in indices] for name in columns})
    if len(scored) != len(indices):
        raise _unsupported(model, "echo", "log-probabilities of some tokens are missing or invalid")
    return scored


def _token_starts(tokens: Sequence[Any]) -> list[int]:
    """Return the offset of each token in the text, computed from the lengths of the tokens."""
    ends = itertools.accumulate(len(token) if isinstance(token, str) else 0 for token in tokens)
    return [0, *ends][:-1]
