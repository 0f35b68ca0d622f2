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

from sftchat.engine import Chunk, Request, answer_requests
from sftchat.errors import EngineError, SftchatWarning, UsageError, first_line
from sftchat.inference.openai.likelihood import Unanswered, score_requests, score_texts
from sftchat.inference.openai.limits import (
    RETRYABLE_STATUSES,
    AdaptiveConcurrencyLimit,
    LimitedReader,
    LimitExceeded,
    RequestFailed,
    Retries,
    parse_retry_after,
)
from sftchat.inference.openai.protocol import (
    DONE,
    OMIT_USAGE,
    OTHER_REFUSAL_STATUSES,
    REFUSAL_STATUSES,
    Adaptation,
    adapt,
    adaptation_to,
    path_and_body,
    read_event,
    rename_error_fields,
)
from sftchat.inference.openai.reply import StreamedReply
from sftchat.inference.openai.server import KEYS, Server, ServerResponse, check_model, server_and_model
from sftchat.types import Choice

IDLE_CHUNK_SECONDS = 0.1
"""Seconds without data after which the caller gets an empty chunk, so that it can cancel while the server is busy."""
DRAIN_SECONDS = 1.0
"""Seconds to read the end of a stream after its last event; only a fully read connection can be reused."""
EVENT_STREAM_TYPE = "text/event-stream"
EVENT_STREAM_HEADERS = {"content-type": f"{EVENT_STREAM_TYPE}; charset=utf-8"}
"""Headers of a decompressed stream; event streams are always UTF-8, whatever the server's header says."""
OTHER_STREAM_TYPES = ("text/plain", "application/octet-stream", "")
"""Content types that some servers and proxies send with an event stream instead of the standard one."""
TRAILING_SECONDS = 10.0
"""Seconds to wait for data after the end of a reply, such as the token count."""

Output = Chunk | EngineError | SftchatWarning
Emit = Callable[[Output], None]
"""Passes an output to the caller's thread: a chunk is yielded, an error raised, a warning issued."""


class EndpointEngine:
    """Generates replies with an OpenAI-compatible server.

    Requests are sent by an event loop in a separate thread; the caller's thread takes requests from the iterable and yields the chunks.

    Args:
        name: Name of the model, as the user gave it.
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
        self._adaptations: dict[str, list[Adaptation]] = {}  # by name of the model on the server
        self._reported: set[tuple[str, str]] = set()  # topic of a warning, and name of the model

    def close(self) -> None:
        """Do nothing: connections are closed at the end of each call."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies, or the likelihoods of continuations; closing the iterator closes the connections of running requests.

        Raises:
            EngineError: When the server is unreachable, or refuses every request.
        """
        return answer_requests(requests, self._generate, self._score)

    def _score(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests with continuations."""
        return score_requests(
            requests,
            self._post,
            self.model,
            concurrency=self._concurrency,
            retries=self._retries,
            template_arguments=self._template_arguments,
        )

    def _generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies."""
        source = iter(requests)
        outputs: SimpleQueue[Output] = SimpleQueue()
        to_send: asyncio.Queue[Request] = asyncio.Queue()
        unanswered: set[str] = set()
        with start_blocking_portal() as portal:
            # leaving this block early cancels the task, and waits for its end
            sending = portal.start_task_soon(self._send_all, to_send, outputs.put)
            while True:
                while len(unanswered) < self._concurrency and (request := next(source, None)) is not None:
                    unanswered.add(request.id)
                    portal.call(to_send.put_nowait, request)
                if not unanswered:
                    sending.cancel()
                    return
                try:
                    output = outputs.get(timeout=IDLE_CHUNK_SECONDS)
                except Empty:
                    if sending.done():
                        sending.result()  # raises the task's exception
                    output = Chunk(next(iter(unanswered)))
                if isinstance(output, SftchatWarning):
                    warnings.warn(output, stacklevel=2)
                    continue
                if isinstance(output, EngineError):
                    raise output
                if output.finish_reason is not None:
                    unanswered.remove(output.request_id)
                yield output

    def choices(self, request: Request, reply: str | Sequence[int], *, ended: bool = True, alternatives: int = 0) -> tuple[Choice, ...]:
        """Return the log-probability of each token of a given reply, as ``Scores`` describes; the end-of-reply token is never scored.

        Raises:
            UsageError: When the reply is empty, or consists of token ids.
            EngineError: When the server does not support this; the message names the missing feature.
        """
        if not isinstance(reply, str) or not reply:
            raise UsageError("there is nothing to score: give the text of a reply")
        return score_texts(self._post, request, self.model, [reply], alternatives, template_arguments=self._template_arguments)[0]

    def _post(self, path: str, body: Mapping[str, Any], tokens: int) -> ServerResponse:
        """Send a request that is not streamed (``likelihood.Post``), and again without a part that the server refuses; raises ``EngineError``."""
        while True:
            full_body = adapt({**body, **self._extra_body, "stream": False}, self._adaptations.get(body["model"], ()))
            try:
                response = self._server.send("POST", path, self._server.limits.max_event_bytes(tokens), full_body)
            except (httpx2.RequestError, LimitExceeded) as error:
                message = error.message if isinstance(error, LimitExceeded) else self._server.sanitize(first_line(error))
                raise Unanswered(f"the server at {self._server.url} did not answer: {message}") from None
            if not self._adapt_after_refusal(response, full_body, _issue_warning):
                return replace(response, error=self._server.error_of(response) if response.status != 200 else "")

    async def _send_all(self, to_send: asyncio.Queue[Request], emit: Emit) -> None:
        limit = AdaptiveConcurrencyLimit(self._concurrency)
        async with self._server.client() as client, create_task_group() as group:
            while True:
                request = await to_send.get()
                group.start_soon(self._generate_one, client, limit, request, emit)

    async def _generate_one(self, client: httpx2.AsyncClient, limit: AdaptiveConcurrencyLimit, request: Request, emit: Emit) -> None:
        """Emit the reply to one request; a failed attempt is repeated only if none of its text was emitted."""
        attempt, has_text, has_thoughts = 0, False, False
        while True:
            attempt += 1
            try:
                async with limit.slots:
                    decreases = limit.decreases
                    async with aclosing(self._stream(client, request, emit)) as chunks:
                        async for chunk in chunks:
                            has_text = has_text or bool(chunk.text)
                            has_thoughts = has_thoughts or bool(chunk.thoughts)
                            emit(chunk)
                limit.on_success()
                return
            except RequestFailed as error:
                failure = error
            if failure.resend:
                attempt -= 1
                continue
            if failure.rate_limited:
                limit.on_rate_limit(decreases)
            delay = None if has_text else self._retries.delay(attempt, failure)
            if delay is None:
                break
            if has_thoughts:
                emit(Chunk(request.id, revises="again"))
            await self._retries.sleep(delay)
        message = self._server.sanitize(failure.message) + (f" ({attempt} attempts)" if attempt > 1 else "")
        suspects_server = failure.over_limit or (failure.retryable and not has_text)
        if failure.fatal or (suspects_server and limit.on_failure()):
            emit(EngineError(f"the server at {self._server.url} no longer answers: {message}"))
        else:
            emit(Chunk(request.id, finish_reason="error", error=message))

    async def _stream(self, client: httpx2.AsyncClient, request: Request, emit: Emit) -> AsyncGenerator[Chunk]:
        """Send a request once and yield the chunks of its reply; raises ``RequestFailed``."""
        path, body = path_and_body(request, self.model, template_arguments=self._template_arguments)
        body = adapt({**body, **self._extra_body}, self._adaptations.get(body["model"], ()))
        max_tokens = request.sampling.max_new_tokens
        reply = StreamedReply(request, self._server.redaction, self._server.limits)
        reader = LimitedReader(self._server.request_timeout)
        interruption: RequestFailed | None = None
        try:
            async with self._server.stream(client, "POST", path, reader, body) as response:
                if response.status_code != 200:
                    raise self._failure_of(await self._server.read(response, reader, 0), request, body, emit)
                async with aclosing(self._events(response, reader, max_tokens)) as events:
                    async for data in events:
                        if data == DONE:
                            reply.mark_done()
                            break
                        delta = read_event(data, self._server.redaction.text)
                        if delta.finish_reason and not reply.server_reason:
                            reader.shorten(TRAILING_SECONDS)
                        for chunk in reply.feed(delta):
                            yield chunk
                        if reply.stopped or reply.truncated:
                            break
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            message = f"no connection ({self._server.sanitize(first_line(error))}); check that it still runs and that the address is right"
            raise RequestFailed(message, retryable=True, fatal=True) from None
        except (httpx2.RequestError, LimitExceeded) as error:
            interruption = self._interruption(error, max_tokens)  # ignored if the reply is already complete
        if not reply.is_complete:
            raise interruption or RequestFailed("the stream ended before the reply did", retryable=True)
        last_chunk = reply.finish()
        model, url = request.adapter or self.model, self._server.url
        if reply.truncated:
            warning = f"the server at {url} did not stop after max_tokens {max_tokens}; replies of model '{model}' are cut"
            self._warn_once("length", model, warning, emit)
        if "logprobs" in body and reply.has_text and not reply.has_logprobs:
            warning = f"model '{model}' of {url} gives no log-probabilities: its server accepts the request but sends none"
            self._warn_once("logprobs", model, warning, emit)
        yield last_chunk

    async def _events(self, response: httpx2.Response, reader: LimitedReader, max_tokens: int) -> AsyncGenerator[str]:
        """Yield the data of each event of a response, then ``DONE`` if the server sent it; a response that is not streamed is one event.

        Raises:
            RequestFailed: When the response is neither a stream nor JSON.
            LimitExceeded: When it is too large.
        """
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        limits = self._server.limits
        if content_type == "application/json":
            yield (await self._server.read(response, reader, limits.max_event_bytes(max_tokens))).text
            return
        if content_type not in (EVENT_STREAM_TYPE, *OTHER_STREAM_TYPES):
            raise _not_a_stream(content_type)
        async with aclosing(reader.parts(response, limits.max_stream_bytes(max_tokens))) as parts:
            decompressed = httpx2.Response(200, headers=EVENT_STREAM_HEADERS, content=rename_error_fields(parts), request=response.request)
            has_data = is_done = False
            events = aiter(httpx2.EventSource(decompressed, limits.max_event_bytes(max_tokens)))
            async for event in events:
                if event.data.strip() == DONE:
                    is_done = True
                    break
                if event.data:
                    has_data = True
                    yield event.data
            with move_on_after(DRAIN_SECONDS):
                async for _ in events:
                    pass
            if is_done:
                yield DONE
            elif not has_data and content_type != EVENT_STREAM_TYPE:
                raise _not_a_stream(content_type)

    def _interruption(self, error: httpx2.RequestError | LimitExceeded, max_tokens: int) -> RequestFailed:
        """Convert an error while the response was read."""
        if isinstance(error, LimitExceeded):
            return error
        if isinstance(error, httpx2.SSEError):
            return LimitExceeded(f"the server sent an event of more than {self._server.limits.max_event_bytes(max_tokens):,} bytes")
        if isinstance(error, httpx2.TimeoutException):
            return RequestFailed(f"nothing came for {self._server.timeout:g} s; --timeout allows more", retryable=True)
        return RequestFailed(f"the connection broke: {self._server.sanitize(first_line(error))}", retryable=True)

    def _warn_once(self, topic: str, model: str, warning: str, emit: Emit) -> None:
        """Emit a warning unless one on its topic was emitted for the model."""
        if (topic, model) not in self._reported:
            self._reported.add((topic, model))
            emit(SftchatWarning(warning))

    def _adapt_after_refusal(self, response: ServerResponse, body: Mapping[str, Any], emit: Emit) -> bool:
        """Store and report the adaptation of the model's requests to a refusal; return whether it changes this request, which is then sent again."""
        if response.status not in (*REFUSAL_STATUSES, *OTHER_REFUSAL_STATUSES):
            return False
        adaptation = adaptation_to(response.text, body)
        if adaptation is None or (response.status in OTHER_REFUSAL_STATUSES and adaptation not in OTHER_REFUSAL_STATUSES[response.status]):
            return False
        model = str(body["model"])
        adaptations = self._adaptations.setdefault(model, [])
        if adaptation not in adaptations:
            adaptations.append(adaptation)
            if adaptation is not OMIT_USAGE:  # token counts do not affect the replies
                emit(SftchatWarning(f"model '{model}' of {self._server.url} {adaptation.message}"))
        return adapt(dict(body), adaptations) != body

    def _failure_of(self, response: ServerResponse, request: Request, body: Mapping[str, Any], emit: Emit) -> RequestFailed:
        """Return the error for a response with a status other than 200; may store an adaptation."""
        status, message = response.status, self._server.error_of(response)
        if self._adapt_after_refusal(response, body, emit):
            return RequestFailed(message, resend=True)
        if status in RETRYABLE_STATUSES or status >= 500:
            wait = parse_retry_after(response.headers.get("retry-after"), self._retries.now())
            requested_wait = f" (it asks to wait {wait:.0f} s)" if wait else ""
            return RequestFailed(message + requested_wait, retryable=True, rate_limited=status == 429, wait=wait)
        if status in (401, 403):
            return RequestFailed(f"{message}; set {' or '.join(KEYS)} to a key that it accepts", fatal=True)
        if status in REFUSAL_STATUSES and request.reply_prefix and request.prompt is None:
            return RequestFailed(f"the server does not continue the given beginning of a reply (continue_final_message): {message}")
        is_redirect = status // 100 == 3
        return RequestFailed(message, fatal=is_redirect or (status == 404 and not request.adapter))


def open_endpoint(
    address: str, *, key: str | None = None, timeout: float = 120.0, request_timeout: float = 600.0,
    transport: httpx2.MockTransport | None = None, **options: Any,
) -> EndpointEngine:  # fmt: skip
    """Return an engine for a model behind a server, after a check that the server answers and has the model.

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


def _issue_warning(output: Output) -> None:
    """``Emit`` for a request sent from the caller's thread."""
    if isinstance(output, SftchatWarning):
        warnings.warn(output, stacklevel=2)


def _not_a_stream(content_type: str) -> RequestFailed:
    message = f"the answer is '{content_type or 'of no type'}' and no event stream; check the address, which usually ends in /v1"
    return RequestFailed(message, fatal=True)
