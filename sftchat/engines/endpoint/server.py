"""A server: where it is, the key that opens it, and what it says of itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from sftchat.errors import ModelError, UsageError, first_line
from sftchat.parsing import parsed

KEYS = ("SFTCHAT_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, the first one that is set counts."""
CONNECT_SECONDS = 10.0
WORDS = 300
"""The most characters of a server's own words that an error repeats."""


@dataclass(frozen=True)
class Server:
    """How a server is reached.

    Attributes:
        url: The address under which ``/chat/completions`` and ``/models`` are found, without a slash at its end.
        key: Sent with every request and shown nowhere; empty for none.
        timeout: Seconds that may pass before the first and between two pieces of an answer.
        transport: What carries the requests instead of the network; for tests.
    """

    url: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    transport: httpx2.MockTransport | None = None

    def client(self) -> httpx2.Client:
        """A client for a few questions, to be closed."""
        return httpx2.Client(**self._arguments())

    def async_client(self) -> httpx2.AsyncClient:
        """A client for many requests at once, to be closed; how many is not its business."""
        return httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None), **self._arguments())

    def _arguments(self) -> dict[str, Any]:
        """What every client is made with; redirects are not followed, so that the key goes nowhere else."""
        return {
            "headers": {"Authorization": f"Bearer {self.key}"} if self.key else {},
            "timeout": httpx2.Timeout(self.timeout, connect=CONNECT_SECONDS, pool=None),
            "transport": self.transport,
        }

    def words(self, response: httpx2.Response) -> str:
        """What a server says is wrong, in one line that can be shown: ``HTTP 400: the prompt is too long``.

        Args:
            response: An answer whose body has been read.
        """
        if response.is_redirect:
            return f"HTTP {response.status_code}: it is at {self.shown(response.headers.get('location', 'another address'))}"
        try:
            said = error_of(parsed(response.text))
        except ValueError:
            said = "" if "html" in response.headers.get("content-type", "") else response.text
        return f"HTTP {response.status_code}" + (f": {shown}" if (shown := self.shown(said)) else "")

    def shown(self, said: str) -> str:
        """A server's words made fit for a terminal: one line, not long, without the key and without control characters."""
        safe = said.replace(self.key, "***") if self.key else said
        line = " ".join("".join(character if character.isprintable() else " " for character in safe).split())
        return line if len(line) <= WORDS else line[:WORDS] + "…"


def error_of(body: Any) -> str:
    """The message in any of the shapes in which servers wrap one; empty when there is none.

    OpenAI and vLLM send ``{"error": {"message": …}}``, FastAPI ``{"detail": …}``, transformers ``{"error": "…"}``.
    """
    for key in ("error", "message", "detail"):
        found = body.get(key) if isinstance(body, Mapping) else None
        if isinstance(found, Mapping):
            found = found.get("message") or found.get("type")
        if found:
            return str(found)
    return ""


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
        with server.client() as client:
            response = client.get(f"{server.url}/models")
            response.read()
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise ModelError(
            f"no server answers at {server.url}: {server.shown(first_line(error))}; start it, or correct the address"
        ) from None
    if response.status_code in (401, 403):
        raise ModelError(f"the server at {server.url} refuses the key ({server.words(response)}); set {' or '.join(KEYS)}")
    if response.status_code != 200:
        return [], server.words(response)
    try:
        listed = parsed(response.text)["data"]
        models = [dict(model) for model in listed if isinstance(model["id"], str)]
    except (ValueError, KeyError, TypeError):
        return [], "what it sends is no list of models"
    return models, "" if models else "its list is empty"
