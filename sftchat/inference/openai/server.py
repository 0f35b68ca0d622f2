"""A server: where it is, the key that opens it, and what it says of itself."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2
from anyio.from_thread import start_blocking_portal

from sftchat._util.parsing import load_json
from sftchat.errors import ModelError, UsageError, first_line
from sftchat.inference.openai.bounds import Bounds, Meter, Overrun, Overtime
from sftchat.inference.openai.redaction import Redaction
from sftchat.protocol import error_message

KEYS = ("SFTCHAT_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, the first one that is set counts."""
CONNECT_SECONDS = 10.0
MAX_ERROR_CHARACTERS = 300
"""The most characters of a server's own words that an error repeats."""
LONGEST_NAME = 1000
"""Characters of a model's name; what is longer is no name."""


@dataclass(frozen=True)
class Answer:
    """What a server answered, read as far as it may be.

    Attributes:
        status: The HTTP status.
        headers: Of the answer.
        text: Its content; UTF-8, as JSON is, whatever the header says.
        words: Of an error, what the server says is wrong, fit to be shown, where the reader has filled it in.
    """

    status: int
    headers: Mapping[str, str]
    text: str
    words: str = ""


@dataclass(frozen=True)
class Server:
    """How a server is reached.

    Attributes:
        url: The address under which ``/chat/completions`` and ``/models`` are found, without a slash at its end.
        key: Sent with every request and shown nowhere; empty for none.
        timeout: Seconds that may pass before the first and between two pieces of an answer.
        request_timeout: Seconds that one request may take in all.
        bounds: What else an answer may take.
        transport: What carries the requests instead of the network; for tests.
    """

    url: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    request_timeout: float = 600.0
    bounds: Bounds = field(default=Bounds(), repr=False)
    transport: httpx2.MockTransport | None = None

    def client(self) -> httpx2.AsyncClient:
        """A client for many requests at once, to be closed; how many is not its business.

        Redirects are not followed, so that the key goes nowhere else, and cookies are not kept, so that requests do not grow.
        """
        authorization = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx2.AsyncClient(
            headers={"Accept-Encoding": "identity", **authorization},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=httpx2.Timeout(self.timeout, connect=CONNECT_SECONDS, pool=None),
            limits=httpx2.Limits(max_connections=None),
            transport=self.transport,
        )

    @asynccontextmanager
    async def answer(
        self, client: httpx2.AsyncClient, method: str, path: str, meter: Meter, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request; the answer can be read while the block lasts.

        Args:
            client: What carries it.
            method: ``GET`` or ``POST``.
            path: Below the address.
            meter: Counts what the answer takes.
            body: JSON that is sent.

        Raises:
            Overtime: When its head does not come in time.
            httpx2.RequestError: When there is none.
        """
        request = client.build_request(method, self.url + path, json=body)
        with meter.time():
            response = await client.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def read(self, response: httpx2.Response, meter: Meter, most: int) -> Answer:
        """Read an answer to its end; of a long error the beginning alone.

        Args:
            response: The answer.
            meter: Counts what it takes.
            most: Bytes that it may have when it is no error.

        Raises:
            Overrun: When it has more.
            Overtime: When it takes too long.
        """
        error = response.status_code != 200
        content = await meter.body(response, self.bounds.error_bytes if error else most, cut=error)
        return Answer(response.status_code, response.headers, content.decode("utf-8-sig", "replace"))

    def ask(self, method: str, path: str, most: int, body: Mapping[str, Any] | None = None) -> Answer:
        """Ask one question that is soon answered, and wait for the answer no longer than for a connection and a silence.

        Args:
            method: As for ``answer``.
            path: As for ``answer``.
            most: As for ``read``.
            body: As for ``answer``.

        Raises:
            Overrun: When the answer is too large.
            Overtime: When it does not come in time.
            httpx2.RequestError: When there is none.
        """

        async def question() -> Answer:
            meter = Meter(*min((CONNECT_SECONDS + self.timeout, "--timeout"), (self.request_timeout, "--request-timeout")))
            async with self.client() as client, self.answer(client, method, path, meter, body) as response:
                return await self.read(response, meter, most)

        with start_blocking_portal() as portal:
            return portal.call(question)

    @cached_property
    def redaction(self) -> Redaction:
        """What takes known keys out of the server's words: its own, and all that the environment has."""
        return Redaction({self.key, *(os.environ.get(name, "").strip() for name in KEYS)})

    def words(self, answer: Answer) -> str:
        """What a server says is wrong, in one line that can be shown: ``HTTP 400: the prompt is too long``."""
        if answer.status // 100 == 3:
            return f"HTTP {answer.status}: it is at {self.shown(answer.headers.get('location', 'another address'))}"
        try:
            said = error_message(load_json(answer.text, last_wins=True))
        except ValueError:
            said = "" if "html" in answer.headers.get("content-type", "") else answer.text
        return f"HTTP {answer.status}" + (f": {shown}" if (shown := self.shown(said)) else "")

    def shown(self, said: str) -> str:
        """A server's words made fit for a terminal: one line, not long, without keys and without control characters."""
        safe = self.redaction.text(said)[: 10 * MAX_ERROR_CHARACTERS]
        line = " ".join("".join(character if character.isprintable() else " " for character in safe).split())
        return line if len(line) <= MAX_ERROR_CHARACTERS else line[:MAX_ERROR_CHARACTERS] + "…"


def key_from_environment(environment: Mapping[str, str] = os.environ) -> str:
    """The key of the first variable that is set; empty when none is.

    Raises:
        UsageError: When it could not be sent in a header; names the variable and not the key.
    """
    for name in KEYS:
        key = environment.get(name, "").strip()
        if key:
            if not (key.isascii() and key.isprintable()):
                raise UsageError(f"{name} holds characters that no key has; set it again")
            return key
    return ""


def served_models(server: Server) -> tuple[list[dict[str, Any]], str]:
    """The models that a server lists, as it describes them, and the reason when it lists none.

    Raises:
        ModelError: When nothing answers, or the server refuses the key.
    """
    try:
        answer = server.ask("GET", "/models", server.bounds.listing_bytes)
    except Overtime as overtime:
        raise ModelError(f"the server at {server.url} does not say which models it has: {overtime.words}") from None
    except Overrun as overrun:
        return [], overrun.words
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        raise ModelError(
            f"no server answers at {server.url}: {server.shown(first_line(error))}; start it, or correct the address"
        ) from None
    if answer.status in (401, 403):
        raise ModelError(f"the server at {server.url} refuses the key ({server.words(answer)}); set {' or '.join(KEYS)}")
    if answer.status != 200:
        return [], server.words(answer)
    try:
        listed = server.redaction.value(load_json(answer.text, last_wins=True)["data"])
        models = [dict(model) for model in listed if isinstance(model["id"], str) and len(model["id"]) <= LONGEST_NAME]
    except (ValueError, KeyError, TypeError):
        return [], "what it sends is no list of models"
    return models, "" if models else "its list is empty"
