"""Servers for tests of the endpoint engine: in-memory answers with chosen cuts, and a real loopback server that misbehaves."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2

from sftchat.engine import Request
from sftchat.inference.openai.engine import EndpointEngine
from sftchat.inference.openai.limits import Retries
from sftchat.inference.openai.server import Server
from sftchat.types import Message, SamplingParams

URL = "http://server.test/v1"
SSE = {"content-type": "text/event-stream"}


def ask(text: str = "hi", id: str = "r", **fields: Any) -> Request:
    sampling = fields.pop("sampling", SamplingParams())
    return Request(id, (Message(role="user", content=text),), sampling=sampling, **fields)


def event(payload: object) -> str:
    return f"data: {json.dumps(payload)}\n\n"


def delta(text: str | None = None, **more: Any) -> str:
    return event({"choices": [{"index": 0, "delta": {"content": text, **more}}]})


def end(reason: str = "stop") -> str:
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
DONE = "data: [DONE]\n\n"


def reply(text: str = "fine", reason: str = "stop") -> str:
    """Return the events of a complete reply, one character each."""
    return "".join(map(delta, text)) + end(reason) + USAGE + DONE


def streamed(*packets: str | bytes) -> httpx2.Response:
    """An event stream that arrives in these packets."""

    async def content() -> AsyncIterator[bytes]:
        for packet in packets:
            yield packet.encode() if isinstance(packet, str) else packet

    return httpx2.Response(200, headers=SSE, content=content())


Answer = Callable[[httpx2.Request], httpx2.Response]


@dataclass
class Desk:
    """Engine with an in-memory server and a simulated clock.

    Attributes:
        answers: What the server answers, in order, or to everything.
        asked: Bodies of the requests.
        slept: The waits of the engine, in seconds.
        clock: Simulated seconds per second of waiting.
    """

    answers: Iterator[httpx2.Response | Exception] | Answer
    options: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    clock: float = 0.0

    def __post_init__(self) -> None:
        server = Server(URL, self.options.pop("key", ""), transport=httpx2.MockTransport(self._handle))
        retries = Retries(sleep=self._sleep, random=lambda: 1.0, now=lambda: 1_000_000.0)
        self.engine = EndpointEngine("served", server, "small", retries=retries, **self.options)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds * self.clock)

    def _handle(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(json.loads(request.content))
        self.paths.append(request.url.path)
        if callable(self.answers):
            return self.answers(request)
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def desk(*answers: httpx2.Response | Exception, **options: Any) -> Desk:
    return Desk(iter(answers), options)


Script = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Loopback:
    """A real server that answers each request with the next script.

    Attributes:
        url: Its address.
        asked: The bodies it was sent.
    """

    scripts: Iterator[Script]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    authorized: list[str | None] = field(default_factory=list)


@contextmanager
def loopback(scripts: Iterable[Script], models: Script | None = None, *, quiet: bool = False) -> Iterator[Loopback]:
    """Run a server on a free port until the block ends. ``/models`` lists the model ``small``, or runs a script.

    A quiet server prints nothing about disconnected clients.
    """
    state = Loopback(iter(scripts))
    listing = models or answer(200, json.dumps({"data": [{"id": "small", "max_model_len": 512, "root": "/models/small"}]}))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            listing(self)

        def do_POST(self) -> None:
            state.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            state.authorized.append(self.headers["authorization"])
            next(state.scripts)(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if quiet:
        server.handle_error = lambda request, address: None  # type: ignore[method-assign]
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(status: int, body: str, content_type: str = "application/json", **headers: str) -> Script:
    """Answer with a whole body."""

    def script(handler: BaseHTTPRequestHandler) -> None:
        data = body.encode()
        handler.send_response(status)
        for name, value in {"content-type": content_type, "content-length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return script


def stream(*packets: str, whole: bool = True, pause: threading.Event | None = None, gone: threading.Event | None = None) -> Script:
    """Answer with an event stream, chunk by chunk.

    Args:
        packets: What is sent.
        whole: Whether the stream ends according to HTTP; otherwise the connection is closed.
        pause: Waiting time after the packets.
        gone: Set when the client has closed the connection by the end of the pause.
    """

    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for packet in packets:
            data = packet.encode()
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            handler.wfile.flush()
        if gone is not None:
            handler.connection.settimeout(30)
            if handler.connection.recv(1) == b"":
                gone.set()
        if pause is not None:
            pause.wait(30)
        handler.close_connection = not whole
        if whole and gone is None and pause is None:
            handler.wfile.write(b"0\r\n\r\n")

    return script


def raw(first: str, again: bytes = b"", pause: float = 0.0, times: int = 1 << 60) -> Script:
    """Answer with raw bytes and close the connection.

    Args:
        first: First bytes, such as the head.
        again: Bytes repeated while the client is connected.
        pause: Seconds before each repetition.
        times: Maximum number of repetitions.
    """

    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        try:
            handler.wfile.write(first.encode())
            for _ in range(times if again else 0):
                time.sleep(pause)
                handler.wfile.write(again)
                handler.wfile.flush()
        except OSError:
            pass  # the client has disconnected

    return script


def head(content_type: str = "text/event-stream", encoding: str = "", status: int = 200) -> str:
    """The head of an answer whose content ends with the connection."""
    coded = f"content-encoding: {encoding}\r\n" if encoding else ""
    return f"HTTP/1.1 {status} Well\r\ncontent-type: {content_type}\r\n{coded}connection: close\r\n\r\n"


def bomb(content_type: str, status: int = 200, *, begin: str = "", fill: str = " ", layers: int = 1) -> Script:
    """Answer with 64 mebibytes, compressed a thousand times in the first layer."""
    return raw(head(content_type, ", ".join(["gzip"] * layers), status), _squeezed(begin, fill, layers), times=1)


@cache
def _squeezed(begin: str, fill: str, layers: int) -> bytes:
    """The content of a bomb; making one takes a while."""
    content = begin.encode() + fill.encode() * ((64 << 20) // len(fill))
    for _ in range(layers):
        squeezed = zlib.compressobj(1, zlib.DEFLATED, 31)
        content = squeezed.compress(content) + squeezed.flush()
    return content
