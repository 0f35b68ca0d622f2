"""Engine for OpenAI-compatible servers: concurrent requests behind a synchronous iterator."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

import httpx2
from anyio import create_task_group, move_on_after
from anyio.from_thread import start_blocking_portal

from sftchat.engine import Chunk, Request
from sftchat.errors import EngineError, SftchatWarning, UsageError, first_line
from sftchat.inference.openai.likelihood import score_text
from sftchat.inference.openai.limits import (
    RETRYABLE_STATUSES,
    AdaptiveConcurrencyLimit,
    LimitedReader,
    LimitExceeded,
    RequestFailed,
    Retries,
    retry_after,
)
from sftchat.inference.openai.protocol import (
    DONE,
    OTHER_REFUSAL_STATUSES,
    REFUSAL_STATUSES,
    USAGE,
    Adaptation,
    adapt,
    adaptation_to,
    error_fields,
    path_and_body,
    read_event,
    reply_end,
)
from sftchat.inference.openai.reply import StreamedReply
from sftchat.inference.openai.server import KEYS, Server, ServerResponse, check_model, server_and_model
from sftchat.types import Choice

IDLE_CHUNK_SECONDS = 0.1
"""Seconds without data after which the caller gets an empty chunk, so that it can cancel while the server is busy."""
DRAIN_SECONDS = 1.0
"""Seconds to read the end of a stream after its last event; only a fully read connection can be reused."""
EVENT_STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8"}
"""Headers of a decompressed stream; event streams are always UTF-8, whatever the server's header says."""
EVENT_TYPES = ("text/event-stream", "text/plain", "application/octet-stream", "")
"""Content types of event streams: the standard one, and those that some servers and proxies send instead."""
TRAILING_SECONDS = 10.0
"""Seconds to wait for data after the end of a reply, such as the token count."""

Emitted = Chunk | EngineError | SftchatWarning
Emit = Callable[[Emitted], None]


class EndpointEngine:
    """Generates replies with an OpenAI-compatible server.

    Requests run in an event loop in a separate thread; the caller's thread takes requests from the iterable and yields the chunks.

    Args:
        name: Name of the model, as the user gave it.
        server: The server.
        model: Name of the model on the server.
        concurrency: Maximum number of simultaneous requests.
        retries: Retry policy.
        extra_body: Additional fields of the JSON body, overriding the engine's own.
        template_arguments: Arguments of the server's chat template, sent as ``chat_template_kwargs``.
    """

    def __init__(
        self, name: str, server: Server, model: str, *, concurrency: int = 16, retries: Retries | None = None,
        extra_body: Mapping[str, Any] | None = None, template_arguments: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.model = model
        self._server = server
        self._concurrency = concurrency
        self._retries = retries or Retries()
        self._extra_body = dict(extra_body or {})
        self._template_arguments = dict(template_arguments or {})
        self._learned: dict[str, list[Adaptation]] = {}
        self._warned: set[tuple[str, str]] = set()

    def close(self) -> None:
        """Do nothing: connections are closed at the end of each call."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies; closing the iterator closes the connections of running requests.

        Raises:
            EngineError: When the server is unreachable, or refuses every request.
        """
        source = iter(requests)
        emitted: SimpleQueue[Emitted] = SimpleQueue()
        orders: asyncio.Queue[Request] = asyncio.Queue()
        waiting: set[str] = set()
        with start_blocking_portal() as portal:
            # leaving this block early cancels the service, which ends before the block does
            service = portal.start_task_soon(self._serve, orders, emitted.put)
            while True:
                while len(waiting) < self._concurrency and (request := next(source, None)) is not None:
                    waiting.add(request.id)
                    portal.call(orders.put_nowait, request)
                if not waiting:
                    service.cancel()
                    return
                try:
                    output = emitted.get(timeout=IDLE_CHUNK_SECONDS)
                except Empty:
                    if service.done():
                        service.result()  # raises the service's exception
                    output = Chunk(next(iter(waiting)))
                if isinstance(output, SftchatWarning):
                    warnings.warn(output, stacklevel=2)
                    continue
                if isinstance(output, EngineError):
                    raise output
                if output.finish_reason is not None:
                    waiting.remove(output.request_id)
                yield output

    def choices(self, request: Request, reply: str | Sequence[int], *, ended: bool = True, alternatives: int = 0) -> tuple[Choice, ...]:
        """Return the log-probability of each token of a given reply, if the server supports it; see ``score_text``.

        Args:
            request: The prompt.
            reply: Text; token ids are not supported.
            ended: Ignored: the end-of-reply token is not scored.
            alternatives: Number of top alternatives per token.

        Raises:
            UsageError: When the reply is empty or is not text.
            EngineError: When the server does not support it; names the missing feature.
        """
        if not isinstance(reply, str) or not reply:
            raise UsageError("there is nothing to judge: give the text of a reply")
        return score_text(self._ask, request, self.model, reply, alternatives, template_arguments=self._template_arguments)

    def _ask(self, path: str, body: Mapping[str, Any], tokens: int) -> ServerResponse:
        """Send a request that is not streamed, adapted to what the server refuses; raises ``EngineError``."""
        while True:
            full_body = adapt({**body, **self._extra_body, "stream": False}, self._learned.get(body["model"], ()))
            try:
                answer = self._server.ask("POST", path, self._server.limits.of_event(tokens), full_body)
            except (httpx2.RequestError, LimitExceeded) as error:
                message = error.message if isinstance(error, LimitExceeded) else self._server.sanitize(first_line(error))
                raise EngineError(f"the server at {self._server.url} did not answer: {message}") from None
            if not self._learns(answer, full_body, _warn):
                return replace(answer, error=self._server.error_of(answer) if answer.status != 200 else "")

    async def _serve(self, orders: asyncio.Queue[Request], emit: Emit) -> None:
        limit = AdaptiveConcurrencyLimit(self._concurrency)
        async with self._server.client() as client, create_task_group() as group:
            while True:
                request = await orders.get()
                group.start_soon(self._answer, client, limit, request, emit)

    async def _answer(self, client: httpx2.AsyncClient, limit: AdaptiveConcurrencyLimit, request: Request, emit: Emit) -> None:
        """Process one request with its retries; a reply of which text has been emitted is not restarted."""
        attempt, has_text, has_thoughts = 0, False, False
        while True:
            attempt += 1
            try:
                async with limit.slots:
                    period = limit.period
                    async with aclosing(self._attempt(client, request, emit)) as chunks:
                        async for chunk in chunks:
                            has_text, has_thoughts = has_text or bool(chunk.text), has_thoughts or bool(chunk.thoughts)
                            emit(chunk)
                limit.on_success()
                return
            except RequestFailed as error:
                failure = error
            if failure.resend:
                attempt -= 1
                continue
            if failure.rate_limited:
                limit.on_rate_limit(period)
            delay = None if has_text else self._retries.delay(attempt, failure)
            if delay is None:
                break
            if has_thoughts:
                emit(Chunk(request.id, revises="again"))
            await self._retries.sleep(delay)
        message = self._server.sanitize(failure.message) + (f" ({attempt} attempts)" if attempt > 1 else "")
        if failure.fatal or ((failure.over_limit or (failure.retryable and not has_text)) and limit.on_failure()):
            emit(EngineError(f"the server at {self._server.url} answers no more: {message}"))
        else:
            emit(Chunk(request.id, finish_reason="error", error=message))

    async def _attempt(self, client: httpx2.AsyncClient, request: Request, emit: Emit) -> AsyncGenerator[Chunk]:
        """Send a request once and emit its chunks; raises ``RequestFailed``."""
        path, body = path_and_body(request, self.model, template_arguments=self._template_arguments)
        body = adapt({**body, **self._extra_body}, self._learned.get(body["model"], ()))
        tokens = request.sampling.max_new_tokens
        reason, prompt_tokens, completion_tokens = "", 0, 0
        reply = StreamedReply(request, self._server.redaction, self._server.limits)
        reader = LimitedReader(self._server.request_timeout)
        try:
            async with self._server.answer(client, "POST", path, reader, body) as response:
                if response.status_code != 200:
                    raise self._refusal(await self._server.read(response, reader, 0), request, body, emit)
                async with aclosing(self._events(response, reader, tokens)) as events:
                    async for data in events:
                        if data == DONE:
                            reason = reason or ("stop" if reply.has_text else "")  # the server reported that the reply is complete
                            break
                        delta = read_event(data, self._server.redaction.text)
                        for chunk in reply.feed(delta):
                            yield chunk
                        prompt_tokens = delta.prompt_tokens or prompt_tokens
                        completion_tokens = delta.completion_tokens or completion_tokens
                        if delta.finish_reason and not reason:
                            reader.shorten(TRAILING_SECONDS)
                        reason = delta.finish_reason or reason or ("stop" if delta.whole else "")
                        if reply.stopped or reply.full:
                            break
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            message = f"no connection ({self._server.sanitize(first_line(error))}); check that it still runs and that the address is right"
            raise RequestFailed(message, retryable=True, fatal=True) from None
        except (httpx2.RequestError, LimitExceeded) as error:
            if not (reason or reply.stopped or reply.full):  # an interruption after the end of the reply loses nothing
                raise self._broken(error, tokens) from None
        if not (reason or reply.stopped or reply.full):
            raise RequestFailed("the stream ended before the reply did", retryable=True)
        text, thoughts = reply.end()
        model, url = request.adapter or self.model, self._server.url
        if reply.full:
            reason = "length"
            self._warn_once(
                "length", model, f"the server at {url} wrote on after max_tokens {tokens}; replies of model '{model}' are cut", emit
            )
        finish_reason = "stop" if reply.stopped else reply_end(reason, reply.called)
        if "logprobs" in body and reply.has_text and not reply.has_logprobs:
            self._warn_once(
                "logprobs", model, f"model '{model}' of {url} gives no log-probabilities: its server takes the request and sends none", emit
            )
        choices = reply.last_choices(ended=finish_reason == "stop")
        logprobs = tuple(choice.logprob for choice in choices) or None
        yield Chunk(
            request.id, text, (), finish_reason, prompt_tokens, logprobs, unlisted_tokens=completion_tokens, thoughts=thoughts, refused=reply.refused,
            choices=choices,
        )  # fmt: skip

    async def _events(self, response: httpx2.Response, reader: LimitedReader, tokens: int) -> AsyncGenerator[str]:
        """Yield the data of each event of a response; a response that is not streamed is one event.

        The last one is ``DONE`` if the server sent it.

        Raises:
            RequestFailed: When the response is neither a stream nor JSON.
            LimitExceeded: When it is too large.
        """
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        limits = self._server.limits
        if kind == "application/json":
            yield (await self._server.read(response, reader, limits.of_event(tokens))).text
            return
        if kind not in EVENT_TYPES:
            raise _no_events(kind)
        async with aclosing(reader.parts(response, limits.of_stream(tokens))) as parts:
            counted = httpx2.Response(200, headers=EVENT_STREAM_HEADERS, content=error_fields(parts), request=response.request)
            done = received = False
            events = aiter(httpx2.EventSource(counted, limits.of_event(tokens)))
            async for event in events:
                if event.data.strip() == DONE:
                    done = True
                    break
                if event.data:
                    received = True
                    yield event.data
            with move_on_after(DRAIN_SECONDS):
                async for _ in events:
                    pass
            if done:
                yield DONE
            elif not received and kind != EVENT_TYPES[0]:
                raise _no_events(kind)

    def _broken(self, error: httpx2.RequestError | LimitExceeded, tokens: int) -> RequestFailed:
        if isinstance(error, LimitExceeded):
            return error
        if isinstance(error, httpx2.SSEError):
            return LimitExceeded(f"the server sent an event of more than {self._server.limits.of_event(tokens):,} bytes")
        if isinstance(error, httpx2.TimeoutException):
            return RequestFailed(f"nothing came for {self._server.timeout:g} s; --timeout allows more", retryable=True)
        return RequestFailed(f"the connection broke: {self._server.sanitize(first_line(error))}", retryable=True)

    def _warn_once(self, kind: str, model: str, warning: str, emit: Emit) -> None:
        """Emit a warning unless one of its kind was emitted for the model."""
        if (kind, model) not in self._warned:
            self._warned.add((kind, model))
            emit(SftchatWarning(warning))

    def _learns(self, answer: ServerResponse, body: Mapping[str, Any], emit: Emit) -> bool:
        """Whether to adapt the request after a refusal; a new adaptation is stored for the model and reported once."""
        if answer.status not in (*REFUSAL_STATUSES, *OTHER_REFUSAL_STATUSES) or (adaptation := adaptation_to(answer.text, body)) is None:
            return False
        if answer.status not in REFUSAL_STATUSES and adaptation not in OTHER_REFUSAL_STATUSES[answer.status]:
            return False
        model = str(body["model"])
        learned = self._learned.setdefault(model, [])
        if adaptation not in learned:
            learned.append(adaptation)
            if adaptation is not USAGE:  # without token counts the replies are as good
                emit(SftchatWarning(f"model '{model}' of {self._server.url} {adaptation.message}"))
        return adapt(dict(body), learned) != body

    def _refusal(self, answer: ServerResponse, request: Request, body: Mapping[str, Any], emit: Emit) -> RequestFailed:
        """Return the error for a response with a status other than 200."""
        status, message = answer.status, self._server.error_of(answer)
        if self._learns(answer, body, emit):
            return RequestFailed(message, resend=True)
        if status in RETRYABLE_STATUSES or status >= 500:
            wait = retry_after(answer.headers.get("retry-after"), self._retries.now())
            requested = f" (it asks to wait {wait:.0f} s)" if wait else ""
            return RequestFailed(message + requested, retryable=True, rate_limited=status == 429, wait=wait)
        if status in (401, 403):
            return RequestFailed(f"{message}; set {' or '.join(KEYS)} to a key that it takes", fatal=True)
        if status in (400, 422) and request.reply_prefix and request.prompt is None:
            return RequestFailed(f"the server does not go on with a reply that has begun (continue_final_message): {message}")
        fatal = status // 100 == 3 or (status == 404 and not request.adapter)
        return RequestFailed(message, fatal=fatal)


def open_endpoint(
    address: str, *, key: str | None = None, timeout: float = 120.0, request_timeout: float = 600.0,
    transport: httpx2.MockTransport | None = None, **options: Any,
) -> EndpointEngine:  # fmt: skip
    """Check that a server answers and has a model, and open the model.

    Args:
        address: ``http://HOST:PORT/v1#MODEL``; the name may be omitted if the server lists exactly one model.
        key: API key; by default from the environment.
        timeout: See ``Server``.
        request_timeout: See ``Server``.
        transport: See ``Server``.
        options: Options of ``EndpointEngine``.

    Raises:
        UsageError: When the model has no name, or the server does not serve it.
        ModelError: When the server is unreachable, or refuses the key.
    """
    server, model = server_and_model(address, key=key, timeout=timeout, request_timeout=request_timeout, transport=transport)
    return EndpointEngine(address, server, check_model(server, model), **options)


def _warn(output: Emitted) -> None:
    """Issue a Python warning, for requests from the caller's thread."""
    if isinstance(output, SftchatWarning):
        warnings.warn(output, stacklevel=2)


def _no_events(kind: str) -> RequestFailed:
    message = f"the answer is '{kind or 'of no type'}' and no event stream; check the address, which mostly ends in /v1"
    return RequestFailed(message, fatal=True)
