"""An OpenAI-compatible server: address, API key, list of models, short requests, and the removal of API keys from everything it sends."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote

import httpx2
from anyio.from_thread import start_blocking_portal

from sftchat._util.parsing import load_json
from sftchat.engine import Request
from sftchat.errors import ModelError, UsageError, first_line, unknown_name_message
from sftchat.inference.openai.limits import LimitedReader, LimitExceeded, RequestTimeout, ResponseLimits
from sftchat.inference.openai.protocol import REFUSAL_STATUSES, adaptation_to, path_and_body
from sftchat.protocol import error_message
from sftchat.types import Message, SamplingParams

KEYS = ("SFTCHAT_API_KEY", "OPENAI_API_KEY")
"""Environment variables for the API key; the first one that is set is used."""
CONNECT_SECONDS = 10.0
MAX_ERROR_CHARACTERS = 300
"""Maximum number of characters of a server's message in an error."""
MAX_NAME_CHARACTERS = 1000
"""Maximum number of characters of a model name; longer ones are invalid."""


@dataclass(frozen=True)
class ServerResponse:
    """A response of a server, read up to its size limit.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        text: The content, always decoded as UTF-8 like JSON, whatever the header says.
        error: The server's error message, sanitized for display; empty unless ``EndpointEngine`` has set it.
    """

    status: int
    headers: Mapping[str, str]
    text: str
    error: str = ""


@dataclass(frozen=True)
class Server:
    """Address, key and limits of a server.

    Attributes:
        url: Base address of ``/chat/completions`` and ``/models``, without a trailing slash.
        key: API key, sent with every request and never shown; empty for none.
        timeout: Maximum time without data, in seconds.
        request_timeout: Maximum total time of one request, in seconds.
        limits: Size limits of responses.
        transport: HTTP transport that replaces the network; for tests.
    """

    url: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    request_timeout: float = 600.0
    limits: ResponseLimits = field(default=ResponseLimits(), repr=False)
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
    async def stream(
        self, client: httpx2.AsyncClient, method: str, path: str, reader: LimitedReader, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request; its response, without the content, can be read within the block.

        Args:
            client: The HTTP client.
            method: ``GET`` or ``POST``.
            path: Path below the base address.
            reader: Limits the time until the headers arrive.
            body: JSON body.

        Raises:
            RequestTimeout: When the headers do not arrive in time.
            httpx2.RequestError: When there is no response.
        """
        request = client.build_request(method, self.url + path, json=body)
        with reader.within_time():
            response = await client.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def read(self, response: httpx2.Response, reader: LimitedReader, max_bytes: int) -> ServerResponse:
        """Read the content of a response; only the beginning of a long error.

        Args:
            reader: Limits time and bytes.
            max_bytes: Maximum size of a response that is not an error.

        Raises:
            LimitExceeded: When it is larger.
            RequestTimeout: When it takes too long.
        """
        is_error = response.status_code != 200
        content = await reader.body(response, self.limits.error_bytes if is_error else max_bytes, truncate=is_error)
        return ServerResponse(response.status_code, response.headers, content.decode("utf-8-sig", "replace"))

    def send(self, method: str, path: str, max_bytes: int, body: Mapping[str, Any] | None = None) -> ServerResponse:
        """Send a short request and return the response, with the arguments and exceptions of ``stream`` and ``read``.

        The maximum time is ``request_timeout``, or the time to connect plus ``timeout`` if that is shorter.
        """

        async def exchange() -> ServerResponse:
            seconds, option = min((CONNECT_SECONDS + self.timeout, "--timeout"), (self.request_timeout, "--request-timeout"))
            reader = LimitedReader(seconds, option)
            async with self.client() as client, self.stream(client, method, path, reader, body) as response:
                return await self.read(response, reader, max_bytes)

        with start_blocking_portal() as portal:
            return portal.call(exchange)

    @cached_property
    def redaction(self) -> Redaction:
        """Redaction of the server's key and of all keys in the environment."""
        return Redaction({self.key, *(os.environ.get(name, "").strip() for name in KEYS)})

    def error_of(self, response: ServerResponse) -> str:
        """Return the server's error message in one line for display: ``HTTP 400: the prompt is too long``."""
        is_redirect = response.status // 100 == 3
        if is_redirect:
            return f"HTTP {response.status}: redirects to {self.sanitize(response.headers.get('location', 'another address'))}"
        try:
            message = error_message(load_json(response.text, last_wins=True))
        except ValueError:
            message = "" if "html" in response.headers.get("content-type", "") else response.text
        line = self.sanitize(message)
        return f"HTTP {response.status}: {line}" if line else f"HTTP {response.status}"

    def sanitize(self, message: str) -> str:
        """Sanitize a server's message for a terminal: one line, shortened, without keys and control characters."""
        redacted = self.redaction.text(message)[: 10 * MAX_ERROR_CHARACTERS]  # bounds the work below
        printable = "".join(character if character.isprintable() else " " for character in redacted)
        line = " ".join(printable.split())
        return line if len(line) <= MAX_ERROR_CHARACTERS else line[:MAX_ERROR_CHARACTERS] + "…"


def key_from_environment(environment: Mapping[str, str] = os.environ) -> str:
    """Return the API key from the first variable of ``KEYS`` that is set; empty if none is set.

    Raises:
        UsageError: When the key cannot be sent in a header; the message names the variable and not the key.
    """
    for name in KEYS:
        key = environment.get(name, "").strip()
        if key:
            if not (key.isascii() and key.isprintable()):
                raise UsageError(f"{name} contains characters that no key has; set it again")
            return key
    return ""


def served_models(server: Server) -> tuple[list[dict[str, Any]], str]:
    """Return the models that a server lists, each as its JSON object with at least ``id``, and the reason if there are none.

    Raises:
        ModelError: When the server is unreachable, or refuses the key.
    """
    try:
        response = server.send("GET", "/models", server.limits.listing_bytes)
    except RequestTimeout as error:
        raise ModelError(f"the server at {server.url} does not list its models: {error.message}") from None
    except LimitExceeded as error:
        return [], error.message
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        message = f"no server answers at {server.url}: {server.sanitize(first_line(error))}; start it, or correct the address"
        raise ModelError(message) from None
    if response.status in (401, 403):
        raise ModelError(f"the server at {server.url} refuses the key ({server.error_of(response)}); set {' or '.join(KEYS)}")
    if response.status != 200:
        return [], server.error_of(response)
    try:
        listed = server.redaction.value(load_json(response.text, last_wins=True)["data"])
        models = [dict(model) for model in listed if isinstance(model["id"], str) and len(model["id"]) <= MAX_NAME_CHARACTERS]
    except (ValueError, KeyError, TypeError):
        return [], "its answer is no list of models"
    return models, "" if models else "its list is empty"


REPLACEMENT = "***"
MIN_KEY_CHARACTERS = 8
"""Shorter keys are not replaced: they are placeholders such as ``EMPTY`` or ``none``, words that a reply may contain."""


class Redaction:
    """Replaces known keys by ``***``, both literal and percent-encoded.

    Args:
        keys: API keys; those with fewer than ``MIN_KEY_CHARACTERS`` characters are ignored.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        forms = {form for key in keys if len(key) >= MIN_KEY_CHARACTERS for form in _encodings(key)}
        self.forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        """The strings to replace, longest first: each key and its percent-encoded forms."""
        self.pattern = re.compile("|".join(map(re.escape, self.forms))) if self.forms else None

    def __repr__(self) -> str:
        """Return a representation that does not contain the keys."""
        return f"<Redaction of {len(self.forms)} forms>"

    def text(self, text: str) -> str:
        """Return a text without the keys."""
        return text if self.pattern is None else self.pattern.sub(REPLACEMENT, text)

    def value(self, value: Any) -> Any:
        """Return a JSON value without the keys, which are replaced in all strings, also in the names of members."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(name): self.value(item) for name, item in value.items()}
        return value


class RedactedStream:
    """Replaces API keys in a streamed text; a suffix that may be the beginning of a key is held back.

    Attributes:
        replaced: Whether a key was replaced.
    """

    def __init__(self, redaction: Redaction) -> None:
        self.replaced = False
        self._redaction = redaction
        self._pending = ""

    def feed(self, text: str) -> str:
        """Add a piece; returns the text that can be emitted."""
        pattern = self._redaction.pattern
        if pattern is None:
            return text
        text, ready, position = self._pending + text, "", 0
        while True:
            match, held_back_from = pattern.search(text, position), self._partial_key_start(text, position)
            if match is None or held_back_from <= match.start():  # the second: a longer key may begin at or before the match
                break
            ready += text[position : match.start()] + REPLACEMENT
            self.replaced = True
            position = match.end()
        self._pending = text[held_back_from:]
        return ready + text[position:held_back_from]

    def end(self) -> str:
        """Return the text still held back; a partial key of at least ``MIN_KEY_CHARACTERS`` characters is replaced too."""
        pending, self._pending = self._pending, ""
        if len(pending) < MIN_KEY_CHARACTERS:
            return pending
        self.replaced = True
        return REPLACEMENT

    def _partial_key_start(self, text: str, position: int) -> int:
        """Return where the longest suffix begins that may be the beginning of a key, from ``position`` on; the length of the text if none may."""
        forms = self._redaction.forms
        for start in range(max(position, len(text) - len(forms[0]) + 1), len(text)):
            suffix = text[start:]
            if any(len(form) > len(suffix) and form.startswith(suffix) for form in forms):
                return start
        return len(text)


def _encodings(key: str) -> set[str]:
    """Return a key literally and percent-encoded, with and without escaped slashes, with escapes in upper and in lower case."""
    encoded = {quote(key, safe=safe) for safe in ("", "/")}
    return {key, *encoded, *(re.sub("%..", lambda escape: escape[0].lower(), form) for form in encoded)}


UNKNOWN_MODEL_STATUSES = (400, 404, 422)
"""HTTP statuses with which servers reject an unknown model name."""
MAX_LISTED_MODELS = 50
"""Maximum number of models listed in an error message."""


def server_and_model(address: str, *, key: str | None = None, **options: Any) -> tuple[Server, str]:
    """Parse the address of a model on a server.

    Args:
        address: ``http://HOST:PORT/v1#MODEL``, checked by ``sftchat.models.reference.resolve``.
        key: API key; by default from the environment.
        options: ``timeout``, ``request_timeout`` and ``transport``, see ``Server``.

    Returns:
        The server, and the name of the model; the name is empty if the address has none.
    """
    url, _, model = address.partition("#")
    return Server(url.rstrip("/"), key_from_environment() if key is None else key, **options), model


def check_model(server: Server, model: str) -> str:
    """Return the name of a model on a server, after a check that the server serves the model.

    Args:
        model: Name of the model; empty for the only one that the server lists.

    Raises:
        UsageError: When the model has no name, or the server does not serve it.
        ModelError: When the server is unreachable, or refuses the key.
    """
    models, reason = served_models(server)
    names = [entry["id"] for entry in models]
    if not model:
        return _only_name(names, reason, server)
    if model not in names:
        _test_name(server, model, names)
    return model


def _only_name(names: list[str], reason: str, server: Server) -> str:
    if not names:
        raise ModelError(f"the server at {server.url} does not list its models ({reason}); the address usually ends in /v1, or add #MODEL")
    if len(names) > 1:
        more = f" and {len(names) - MAX_LISTED_MODELS:,} more" if len(names) > MAX_LISTED_MODELS else ""
        listed = ", ".join(names[:MAX_LISTED_MODELS]) + more
        raise UsageError(f"the server at {server.url} has {len(names)} models; add one to the address as #MODEL: {listed}")
    return names[0]


def _test_name(server: Server, model: str, names: list[str]) -> None:
    """Request one token from an unlisted model: servers may serve models that they do not list, such as adapters and local folders."""
    request = Request("", (Message(role="user", content="hi"),), sampling=SamplingParams(max_new_tokens=1))
    path, body = path_and_body(request, model, usage=False)
    try:
        response = server.send("POST", path, server.limits.max_event_bytes(1), {**body, "stream": False})
    except (httpx2.RequestError, LimitExceeded) as error:
        raise ModelError(f"the server at {server.url} did not answer for model '{model}': {server.sanitize(first_line(error))}") from None
    if response.status in REFUSAL_STATUSES and adaptation_to(response.text, body) is not None:
        return  # the server refuses only a parameter, so the model exists
    if response.status in UNKNOWN_MODEL_STATUSES:
        similar = names if len(names) <= MAX_LISTED_MODELS else get_close_matches(model, names, MAX_LISTED_MODELS)
        problem = unknown_name_message("model", model, similar) if names else f"no model '{model}'"
        raise UsageError(f"{problem} at {server.url}: {server.error_of(response)}")
