"""The endpoint engine: many requests at once to a server, over a plain iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from queue import Empty, SimpleQueue

import httpx2
from anyio import create_task_group, move_on_after
from anyio.from_thread import start_blocking_portal

from sftchat.engines.base import Chunk, Request
from sftchat.engines.endpoint.pace import Pace
from sftchat.engines.endpoint.retries import PASSING, Retries, Trouble, retry_after
from sftchat.engines.endpoint.server import KEYS, Server
from sftchat.engines.endpoint.wire import DONE, finish_reason, path_and_body, read_event, whole_characters
from sftchat.errors import EngineError, first_line

SILENCE = 0.1
"""Seconds without news after which the caller gets an empty chunk, so that it can stop while the server thinks."""
DRAIN = 1.0
"""Seconds for the end of a stream after its last event; a connection read to its end can be used again."""

Say = Callable[[Chunk | EngineError], None]


class EndpointEngine:
    """Answers requests by asking an OpenAI-compatible server.

    The requests run in an event loop in a thread of their own; the caller's thread takes them from their source and hands out what arrives.

    Args:
        name: What the user called the model.
        server: Where it is.
        model: The name under which the server has it.
        concurrency: The most requests under way at once.
        retries: What happens after a failed attempt.
    """

    def __init__(self, name: str, server: Server, model: str, *, concurrency: int = 16, retries: Retries | None = None) -> None:
        self.name = name
        self.model = model
        self._server = server
        self._concurrency = concurrency
        self._retries = retries or Retries()
        self._usage = True

    def close(self) -> None:
        """Nothing to free: the connections of a call end with it."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests; closing the iterator closes the connections of those under way.

        Raises:
            EngineError: When the server is gone, or refuses every request.
        """
        source = iter(requests)
        arrived: SimpleQueue[Chunk | EngineError] = SimpleQueue()
        orders: asyncio.Queue[Request] = asyncio.Queue()
        waiting: set[str] = set()
        with start_blocking_portal() as portal:
            # whatever ends this block early cancels the service, which ends before the block does
            service = portal.start_task_soon(self._serve, orders, arrived.put)
            while True:
                while len(waiting) < self._concurrency and (request := next(source, None)) is not None:
                    waiting.add(request.id)
                    portal.call(orders.put_nowait, request)
                if not waiting:
                    service.cancel()
                    return
                try:
                    news = arrived.get(timeout=SILENCE)
                except Empty:
                    if service.done():
                        service.result()  # raises what ended it
                    news = Chunk(next(iter(waiting)))
                if isinstance(news, EngineError):
                    raise news
                if news.finish_reason is not None:
                    waiting.remove(news.request_id)
                yield news

    async def _serve(self, orders: asyncio.Queue[Request], say: Say) -> None:
        """Send every request that is ordered, until cancelled."""
        pace = Pace(self._concurrency)
        async with self._server.async_client() as client, create_task_group() as group:
            while True:
                request = await orders.get()
                group.start_soon(self._answer, client, pace, request, say)

    async def _answer(self, client: httpx2.AsyncClient, pace: Pace, request: Request, say: Say) -> None:
        """Carry one request through its attempts; a reply of which something has been handed out is not begun again."""
        attempt, said = 0, False
        while True:
            attempt += 1
            try:
                async with pace.places:
                    period = pace.period
                    async with aclosing(self._attempt(client, request)) as chunks:
                        async for chunk in chunks:
                            said = said or bool(chunk.text)
                            say(chunk)
                pace.answered()
                return
            except Trouble as found:
                trouble = found
            if trouble.crowded:
                pace.refused(period)
            delay = None if said else self._retries.delay(attempt, trouble)
            if delay is None:
                break
            await self._retries.sleep(delay)
        words = self._server.shown(trouble.words) + (f" ({attempt} attempts)" if attempt > 1 else "")
        if trouble.everywhere or (trouble.passing and not said and pace.given_up()):
            say(EngineError(f"the server at {self._server.url} answers no more: {words}"))
        else:
            say(Chunk(request.id, finish_reason="error", error=words))

    async def _attempt(self, client: httpx2.AsyncClient, request: Request) -> AsyncGenerator[Chunk]:
        """Send a request once and pass on what comes.

        Raises:
            Trouble: When that is no whole reply.
        """
        path, body = path_and_body(request, self.model, usage=self._usage)
        reason, prompt_tokens, completion_tokens, held = "", 0, 0, ""
        try:
            async with client.stream("POST", self._server.url + path, json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise self._refusal(response, request)
                async with aclosing(self._events(response)) as events:
                    async for data in events:
                        piece = read_event(data)
                        text, held = whole_characters(held + piece.text)
                        if text:
                            yield Chunk(request.id, text)
                        reason = piece.finish_reason or reason
                        prompt_tokens = piece.prompt_tokens or prompt_tokens
                        completion_tokens = piece.completion_tokens or completion_tokens
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            words = f"no connection ({self._server.shown(first_line(error))}); check that it still runs and that the address is right"
            raise Trouble(words, passing=True, everywhere=True) from None
        except httpx2.TimeoutException:
            raise Trouble(f"nothing came for {self._server.timeout:g} s; --timeout allows more", passing=True) from None
        except httpx2.RequestError as error:
            if not reason:  # what is cut off after the end of the reply is no loss
                raise Trouble(f"the connection broke: {self._server.shown(first_line(error))}", passing=True) from None
        if not reason:
            raise Trouble("the stream ended before the reply did", passing=True)
        end = finish_reason(reason)
        yield Chunk(request.id, "\ufffd" if held else "", (), end, prompt_tokens, unlisted_tokens=completion_tokens)

    async def _events(self, response: httpx2.Response) -> AsyncGenerator[str]:
        """The data of each event of an answer; an answer that is not streamed is one event.

        Raises:
            Trouble: When it is neither.
        """
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            await response.aread()
            yield response.text
            return
        if kind != "text/event-stream":
            raise Trouble(
                f"the answer is '{kind or 'of no type'}' and no event stream; check the address, which mostly ends in /v1", everywhere=True
            )
        response.encoding = "utf-8"  # the only one that event streams have, whatever the header says
        events = aiter(httpx2.EventSource(response))
        async for event in events:
            if event.data.strip() == DONE:
                break
            if event.data:
                yield event.data
        with move_on_after(DRAIN):
            async for _ in events:
                pass

    def _refusal(self, response: httpx2.Response, request: Request) -> Trouble:
        """What an answer other than 200 means for this request and for all others."""
        status, words = response.status_code, self._server.words(response)
        if status in PASSING or status >= 500:
            wait = retry_after(response.headers.get("retry-after"), self._retries.now())
            asked = f" (it asks to wait {wait:.0f} s)" if wait else ""
            return Trouble(words + asked, passing=True, crowded=status == 429, wait=wait)
        if status in (401, 403):
            return Trouble(f"{words}; set {' or '.join(KEYS)} to a key that it takes", everywhere=True)
        if status in (400, 422) and self._usage and "stream_options" in response.text:
            self._usage = False  # it counts no tokens; its replies are as good
            return Trouble(words, passing=True, wait=0.0)
        if status in (400, 422) and request.reply_prefix and request.prompt is None:
            return Trouble(f"the server does not go on with a reply that has begun (continue_final_message): {words}")
        everywhere = response.is_redirect or (status == 404 and not request.adapter)
        return Trouble(words, everywhere=everywhere)
