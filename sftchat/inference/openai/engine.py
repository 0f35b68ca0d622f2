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
from sftchat.inference.openai.adapting import ALSO_REFUSES, REFUSES, USAGE, Adaptation, adaptation_to, adapted
from sftchat.inference.openai.bounds import Meter, Overrun
from sftchat.inference.openai.events import DONE, ended, error_fields, path_and_body, read_event
from sftchat.inference.openai.likelihood import score_text
from sftchat.inference.openai.reply import StreamedReply
from sftchat.inference.openai.retries import RETRYABLE_STATUSES, AdaptiveConcurrencyLimit, RequestFailed, Retries, retry_after
from sftchat.inference.openai.server import KEYS, Answer, Server
from sftchat.types import Choice

IDLE_CHUNK_SECONDS = 0.1
"""Seconds without data after which the caller gets an empty chunk, so that it can cancel while the server is busy."""
DRAIN_SECONDS = 1.0
"""Seconds to read the end of a stream after its last event; only a fully read connection can be reused."""
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
"""Headers of a decompressed stream; event streams are always UTF-8, whatever the server's header says."""
EVENT_TYPES = ("text/event-stream", "text/plain", "application/octet-stream", "")
"""Content types of event streams: the standard one, and those that some servers and proxies send instead."""
AFTER_THE_END = 10.0
"""Seconds to wait for data after the end of a reply, such as the token count."""

News = Chunk | EngineError | SftchatWarning
Say = Callable[[News], None]


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
        arrived: SimpleQueue[News] = SimpleQueue()
        orders: asyncio.Queue[Request] = asyncio.Queue()
        waiting: set[str] = set()
        with start_blocking_portal() as portal:
            # leaving this block early cancels the service, which ends before the block does
            service = portal.start_task_soon(self._serve, orders, arrived.put)
            while True:
                while len(waiting) < self._concurrency and (request := next(source, None)) is not None:
                    waiting.add(request.id)
                    portal.call(orders.put_nowait, request)
                if not waiting:
                    service.cancel()
                    return
                try:
                    news = arrived.get(timeout=IDLE_CHUNK_SECONDS)
                except Empty:
                    if service.done():
                        service.result()  # raises the service's exception
                    news = Chunk(next(iter(waiting)))
                if isinstance(news, SftchatWarning):
                    warnings.warn(news, stacklevel=2)
                    continue
                if isinstance(news, EngineError):
                    raise news
                if news.finish_reason is not None:
                    waiting.remove(news.request_id)
                yield news

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

    def _ask(self, path: str, body: Mapping[str, Any], tokens: int) -> Answer:
        """Send a request that is not streamed, adapted to what the server refuses.

        Raises:
            EngineError: When there is no response.
        """
        while True:
            asked = adapted({**body, **self._extra_body, "stream": False}, self._learned.get(body["model"], ()))
            try:
                answer = self._server.ask("POST", path, self._server.bounds.of_event(tokens), asked)
            except (httpx2.RequestError, Overrun) as error:
                words = error.words if isinstance(error, Overrun) else self._server.shown(first_line(error))
                raise EngineError(f"the server at {self._server.url} did not answer: {words}") from None
            if not self._learns(answer, asked, _warn):
                return replace(answer, words=self._server.words(answer) if answer.status != 200 else "")

    async def _serve(self, orders: asyncio.Queue[Request], say: Say) -> None:
        """Process queued requests until cancelled."""
        pace = AdaptiveConcurrencyLimit(self._concurrency)
        async with self._server.client() as client, create_task_group() as group:
            while True:
                request = await orders.get()
                group.start_soon(self._answer, client, pace, request, say)

    async def _answer(self, client: httpx2.AsyncClient, pace: AdaptiveConcurrencyLimit, request: Request, say: Say) -> None:
        """Process one request with its retries; a reply of which text has been emitted is not restarted."""
        attempt, said, thought = 0, False, False
        while True:
            attempt += 1
            try:
                async with pace.places:
                    period = pace.period
                    async with aclosing(self._attempt(client, request, say)) as chunks:
                        async for chunk in chunks:
                            said, thought = said or bool(chunk.text), thought or bool(chunk.thoughts)
                            say(chunk)
                pace.answered()
                return
            except RequestFailed as found:
                trouble = found
            if trouble.otherwise:
                attempt -= 1
                continue
            if trouble.crowded:
                pace.refused(period)
            delay = None if said else self._retries.delay(attempt, trouble)
            if delay is None:
                break
            if thought:
                say(Chunk(request.id, revises="again"))
            await self._retries.sleep(delay)
        words = self._server.shown(trouble.words) + (f" ({attempt} attempts)" if attempt > 1 else "")
        if trouble.everywhere or ((trouble.spent or (trouble.passing and not said)) and pace.given_up()):
            say(EngineError(f"the server at {self._server.url} answers no more: {words}"))
        else:
            say(Chunk(request.id, finish_reason="error", error=words))

    async def _attempt(self, client: httpx2.AsyncClient, request: Request, say: Say) -> AsyncGenerator[Chunk]:
        """Send a request once and emit its chunks.

        Raises:
            RequestFailed: When there is no complete reply.
        """
        path, body = path_and_body(request, self.model, template_arguments=self._template_arguments)
        body = adapted({**body, **self._extra_body}, self._learned.get(body["model"], ()))
        tokens, bounds = request.sampling.max_new_tokens, self._server.bounds
        reason, prompt_tokens, completion_tokens = "", 0, 0
        said = StreamedReply(request, self._server.redaction, bounds)
        meter = Meter(self._server.request_timeout)
        try:
            async with self._server.answer(client, "POST", path, meter, body) as response:
                if response.status_code != 200:
                    raise self._refusal(await self._server.read(response, meter, 0), request, body, say)
                async with aclosing(self._events(response, meter, tokens)) as events:
                    async for data in events:
                        if data == DONE:
                            reason = reason or ("stop" if said.begun else "")  # the server reported that the reply is complete
                            break
                        piece = read_event(data, self._server.redaction.text)
                        for chunk in said.feed(piece):
                            yield chunk
                        prompt_tokens = piece.prompt_tokens or prompt_tokens
                        completion_tokens = piece.completion_tokens or completion_tokens
                        if piece.finish_reason and not reason:
                            meter.shorten(AFTER_THE_END)
                        reason = piece.finish_reason or reason or ("stop" if piece.whole else "")
                        if said.stopped or said.full:
                            break
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            words = f"no connection ({self._server.shown(first_line(error))}); check that it still runs and that the address is right"
            raise RequestFailed(words, passing=True, everywhere=True) from None
        except (httpx2.RequestError, Overrun) as error:
            if not (reason or said.stopped or said.full):  # an interruption after the end of the reply loses nothing
                raise self._broken(error, tokens) from None
        if not (reason or said.stopped or said.full):
            raise RequestFailed("the stream ended before the reply did", passing=True)
        text, thoughts = said.end()
        if said.full:
            reason = "length"
            self._warn_of_length(request, say)
        why = "stop" if said.stopped else ended(reason, said.called)
        if "logprobs" in body and said.begun and not said.weighed:
            self._warn_of_logprobs(request, say)
        choices = said.last_choices(ended=why == "stop")
        logprobs = tuple(choice.logprob for choice in choices) or None
        yield Chunk(
            request.id, text, (), why, prompt_tokens, logprobs, unlisted_tokens=completion_tokens, thoughts=thoughts, refused=said.refused,
            choices=choices,
        )  # fmt: skip

    async def _events(self, response: httpx2.Response, meter: Meter, tokens: int) -> AsyncGenerator[str]:
        """Yield the data of each event of a response; a response that is not streamed is one event.

        The last one is ``DONE`` if the server sent it.

        Raises:
            RequestFailed: When the response is neither a stream nor JSON.
            Overrun: When it is too large.
        """
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        bounds = self._server.bounds
        if kind == "application/json":
            yield (await self._server.read(response, meter, bounds.of_event(tokens))).text
            return
        if kind not in EVENT_TYPES:
            raise _no_events(kind)
        async with aclosing(meter.parts(response, bounds.of_stream(tokens))) as parts:
            counted = httpx2.Response(200, headers=EVENTS, content=error_fields(parts), request=response.request)
            done = heard = False
            events = aiter(httpx2.EventSource(counted, bounds.of_event(tokens)))
            async for event in events:
                if event.data.strip() == DONE:
                    done = True
                    break
                if event.data:
                    heard = True
                    yield event.data
            with move_on_after(DRAIN_SECONDS):
                async for _ in events:
                    pass
            if done:
                yield DONE
            elif not heard and kind != EVENT_TYPES[0]:
                raise _no_events(kind)

    def _broken(self, error: httpx2.RequestError | Overrun, tokens: int) -> RequestFailed:
        """Return the error for an interrupted response."""
        if isinstance(error, Overrun):
            return error
        if isinstance(error, httpx2.SSEError):
            return Overrun(f"the server sent an event of more than {self._server.bounds.of_event(tokens):,} bytes")
        if isinstance(error, httpx2.TimeoutException):
            return RequestFailed(f"nothing came for {self._server.timeout:g} s; --timeout allows more", passing=True)
        return RequestFailed(f"the connection broke: {self._server.shown(first_line(error))}", passing=True)

    def _warn_of_logprobs(self, request: Request, say: Say) -> None:
        """Warn, once per model, that the server ignores the request for log-probabilities."""
        model = request.adapter or self.model
        if ("logprobs", model) not in self._warned:
            self._warned.add(("logprobs", model))
            say(
                SftchatWarning(
                    f"model '{model}' of {self._server.url} gives no log-probabilities: its server takes the request and sends none"
                )
            )

    def _warn_of_length(self, request: Request, say: Say) -> None:
        """Warn, once per model, that the server does not limit the length of its replies."""
        model = request.adapter or self.model
        if ("length", model) not in self._warned:
            self._warned.add(("length", model))
            most = request.sampling.max_new_tokens
            say(SftchatWarning(f"the server at {self._server.url} wrote on after max_tokens {most}; replies of model '{model}' are cut"))

    def _learns(self, answer: Answer, body: Mapping[str, Any], say: Say) -> bool:
        """Whether to adapt the request after a refusal; a new adaptation is stored for the model and reported once."""
        if answer.status not in (*REFUSES, *ALSO_REFUSES) or (found := adaptation_to(answer.text, body)) is None:
            return False
        if answer.status not in REFUSES and found not in ALSO_REFUSES[answer.status]:
            return False
        model = str(body["model"])
        learned = self._learned.setdefault(model, [])
        if found not in learned:
            learned.append(found)
            if found is not USAGE:  # without token counts the replies are as good
                say(SftchatWarning(f"model '{model}' of {self._server.url} {found.words}"))
        return adapted(dict(body), learned) != body

    def _refusal(self, answer: Answer, request: Request, body: Mapping[str, Any], say: Say) -> RequestFailed:
        """Return the error for a response with a status other than 200."""
        status, words = answer.status, self._server.words(answer)
        if self._learns(answer, body, say):
            return RequestFailed(words, otherwise=True)
        if status in RETRYABLE_STATUSES or status >= 500:
            wait = retry_after(answer.headers.get("retry-after"), self._retries.now())
            asked = f" (it asks to wait {wait:.0f} s)" if wait else ""
            return RequestFailed(words + asked, passing=True, crowded=status == 429, wait=wait)
        if status in (401, 403):
            return RequestFailed(f"{words}; set {' or '.join(KEYS)} to a key that it takes", everywhere=True)
        if status in (400, 422) and request.reply_prefix and request.prompt is None:
            return RequestFailed(f"the server does not go on with a reply that has begun (continue_final_message): {words}")
        everywhere = status // 100 == 3 or (status == 404 and not request.adapter)
        return RequestFailed(words, everywhere=everywhere)


def _warn(news: News) -> None:
    """Issue a Python warning, for requests from the caller's thread."""
    if isinstance(news, SftchatWarning):
        warnings.warn(news, stacklevel=2)


def _no_events(kind: str) -> RequestFailed:
    """Return the error for a response that is not an event stream, or is an empty one."""
    words = f"the answer is '{kind or 'of no type'}' and no event stream; check the address, which mostly ends in /v1"
    return RequestFailed(words, everywhere=True)
