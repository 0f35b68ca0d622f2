"""An OpenAI-compatible server: its address, its API key, and its responses to short requests."""

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
"""Environment variables for the API key; the first one that is set is used."""
CONNECT_SECONDS = 10.0
MAX_ERROR_CHARACTERS = 300
"""Maximum number of characters of a server's message in an error."""
LONGEST_NAME = 1000
"""Maximum number of characters of a model name; longer ones are invalid."""


@dataclass(frozen=True)
class Answer:
    """A response of a server, read up to its size limit.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        text: The content, always decoded as UTF-8 like JSON, whatever the header says.
        words: For an error, the server's message, sanitized for display; if the caller has set it.
    """

    status: int
    headers: Mapping[str, str]
    text: str
    words: str = ""


@dataclass(frozen=True)
class Server:
    """Address, key and limits of a server.

    Attributes:
        url: Base address of ``/chat/completions`` and ``/models``, without a trailing slash.
        key: API key, sent with every request and never shown; empty for none.
        timeout: Maximum time without data, in seconds.
        request_timeout: Maximum total time of one request, in seconds.
        bounds: Size limits of responses.
        transport: HTTP transport that replaces the network; for tests.
    """

    url: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    request_timeout: float = 600.0
    bounds: Bounds = field(default=Bounds(), repr=False)
    transport: httpx2.MockTransport | None = None

    def client(self) -> httpx2.AsyncClient:
        """Return an HTTP client for any number of simultaneous requests; the caller closes it.

        Redirects are not followed, so that the key is sent to no other server; cookies are not stored, so that requests do not grow.
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
        """Send a request; the response can be read within the block.

        Args:
            client: The HTTP client.
            method: ``GET`` or ``POST``.
            path: Path below the base address.
            meter: Measures the time.
            body: JSON body.

        Raises:
            Overtime: When the headers do not arrive in time.
            httpx2.RequestError: When there is no response.
        """
        request = client.build_request(method, self.url + path, json=body)
        with meter.time():
            response = await client.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def read(self, response: httpx2.Response, meter: Meter, most: int) -> Answer:
        """Read a response to its end; of a long error only the beginning.

        Args:
            response: The response.
            meter: Measures time and bytes.
            most: Maximum bytes of a response that is not an error.

        Raises:
            Overrun: When it is larger.
            Overtime: When it takes too long.
        """
        error = response.status_code != 200
        content = await meter.body(response, self.bounds.error_bytes if error else most, cut=error)
        return Answer(response.status_code, response.headers, content.decode("utf-8-sig", "replace"))

    def ask(self, method: str, path: str, most: int, body: Mapping[str, Any] | None = None) -> Answer:
        """Send a short request; wait for the response at most the time to connect plus ``timeout``.

        Args:
            method: See ``answer``.
            path: See ``answer``.
            most: See ``read``.
            body: See ``answer``.

        Raises:
            Overrun: When the response is too large.
            Overtime: When it does not arrive in time.
            httpx2.RequestError: When there is no response.
        """

        async def question() -> Answer:
            meter = Meter(*min((CONNECT_SECONDS + self.timeout, "--timeout"), (self.request_timeout, "--request-timeout")))
            async with self.client() as client, self.answer(client, method, path, meter, body) as response:
                return await self.read(response, meter, most)

        with start_blocking_portal() as portal:
            return portal.call(question)

    @cached_property
    def redaction(self) -> Redaction:
        """Redaction of the server's key and of all keys in the environment."""
        return Redaction({self.key, *(os.environ.get(name, "").strip() for name in KEYS)})

    def words(self, answer: Answer) -> str:
        """Return the server's error message in one line for display: ``HTTP 400: the prompt is too long``."""
        if answer.status // 100 == 3:
            return f"HTTP {answer.status}: it is at {self.shown(answer.headers.get('location', 'another address'))}"
        try:
            said = error_message(load_json(answer.text, last_wins=True))
        except ValueError:
            said = "" if "html" in answer.headers.get("content-type", "") else answer.text
        return f"HTTP {answer.status}" + (f": {shown}" if (shown := self.shown(said)) else "")

    def shown(self, said: str) -> str:
        """Sanitize a server's message for a terminal: one line, shortened, without keys and control characters."""
        safe = self.redaction.text(said)[: 10 * MAX_ERROR_CHARACTERS]
        line = " ".join("".join(character if character.isprintable() else " " for character in safe).split())
        return line if len(line) <= MAX_ERROR_CHARACTERS else line[:MAX_ERROR_CHARACTERS] + "…"


def key_from_environment(environment: Mapping[str, str] = os.environ) -> str:
    """Return the key from the first variable that is set; empty if none is.

    Raises:
        UsageError: When the key cannot be sent in a header; the message names the variable and not the key.
    """
    for name in KEYS:
        key = environment.get(name, "").strip()
        if key:
            if not (key.isascii() and key.isprintable()):
                raise UsageError(f"{name} holds characters that no key has; set it again")
            return key
    return ""


def served_models(server: Server) -> tuple[list[dict[str, Any]], str]:
    """Return the models that a server lists, as it describes them, and the reason if it lists none.

    Raises:
        ModelError: When the server is unreachable, or refuses the key.
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
