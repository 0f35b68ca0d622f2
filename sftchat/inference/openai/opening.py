"""Open ``http://HOST:PORT/v1#MODEL``: check that the server is reachable and serves the model."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import httpx2

from sftchat.engine import Request
from sftchat.errors import ModelError, UsageError, first_line, unknown
from sftchat.inference.openai.adapting import REFUSES, adaptation_to
from sftchat.inference.openai.bounds import Overrun
from sftchat.inference.openai.engine import EndpointEngine
from sftchat.inference.openai.events import path_and_body
from sftchat.inference.openai.retries import Retries
from sftchat.inference.openai.server import Server, key_from_environment, served_models
from sftchat.types import Message, SamplingParams

MISTAKES = (400, 404, 422)
"""HTTP statuses with which servers reject an unknown model name."""
MAX_LISTED_MODELS = 50
"""Maximum number of models listed in an error message."""


def server_and_model(address: str, *, key: str | None = None, **how: Any) -> tuple[Server, str]:
    """Parse an address.

    Args:
        address: ``http://HOST:PORT/v1#MODEL``, checked by ``sftchat.models.reference.resolve``.
        key: API key; by default from the environment.
        how: ``timeout``, ``request_timeout`` and ``transport``, see ``Server``.

    Returns:
        The server, and the name of the model, empty if there is none.
    """
    url, _, model = address.partition("#")
    return Server(url.rstrip("/"), key_from_environment() if key is None else key, **how), model


def open_endpoint(
    address: str,
    *,
    concurrency: int = 16,
    timeout: float = 120.0,
    request_timeout: float = 600.0,
    key: str | None = None,
    transport: httpx2.MockTransport | None = None,
    retries: Retries | None = None,
    extra_body: Mapping[str, Any] | None = None,
    template_arguments: Mapping[str, Any] | None = None,
) -> EndpointEngine:
    """Open a model on a server after checking that both exist.

    Args:
        address: ``http://HOST:PORT/v1#MODEL``; the name may be omitted if the server lists exactly one model.
        concurrency: Maximum number of simultaneous requests, at least 1.
        timeout: Maximum time without data, in seconds.
        request_timeout: Maximum total time of one request, in seconds.
        key: API key; by default from SFTCHAT_API_KEY or OPENAI_API_KEY.
        transport: HTTP transport that replaces the network; for tests.
        retries: Retry policy.
        extra_body: Additional fields of the JSON body, overriding the engine's own.
        template_arguments: Arguments of the server's chat template, sent as ``chat_template_kwargs``.

    Raises:
        UsageError: When the model has no name, or the server does not serve it.
        ModelError: When the server is unreachable, or refuses the key.
    """
    server, model = server_and_model(address, key=key, timeout=timeout, request_timeout=request_timeout, transport=transport)
    listed, why = served_models(server)
    names = [entry["id"] for entry in listed]
    if not model:
        model = _only(names, why, server)
    elif model not in names:
        _try_name(server, model, names)
    return EndpointEngine(
        address, server, model, concurrency=concurrency, retries=retries, extra_body=extra_body, template_arguments=template_arguments
    )


def _only(names: list[str], why: str, server: Server) -> str:
    """Return the only model of a server."""
    if not names:
        raise ModelError(
            f"the server at {server.url} does not say which models it has ({why}); the address mostly ends in /v1, or add #MODEL"
        )
    if len(names) > 1:
        few = ", ".join(names[:MAX_LISTED_MODELS]) + (
            f" and {len(names) - MAX_LISTED_MODELS:,} more" if len(names) > MAX_LISTED_MODELS else ""
        )
        raise UsageError(f"the server at {server.url} has {len(names)} models; add one to the address as #MODEL: {few}")
    return names[0]


def _try_name(server: Server, model: str, names: list[str]) -> None:
    """Request one token from an unlisted model: servers may serve models that they do not list, such as adapters and local folders."""
    path, body = path_and_body(
        Request("", (Message(role="user", content="hi"),), sampling=SamplingParams(max_new_tokens=1)), model, usage=False
    )
    try:
        answer = server.ask("POST", path, server.bounds.of_event(1), {**body, "stream": False})
    except (httpx2.RequestError, Overrun) as error:
        raise ModelError(f"the server at {server.url} did not answer for model '{model}': {server.shown(first_line(error))}") from None
    if answer.status in REFUSES and adaptation_to(answer.text, body) is not None:
        return  # it refuses only a parameter, so the model exists
    if answer.status in MISTAKES:
        what = (
            unknown("model", model, names if len(names) <= MAX_LISTED_MODELS else get_close_matches(model, names, MAX_LISTED_MODELS))
            if names
            else f"no model '{model}'"
        )
        raise UsageError(f"{what} at {server.url}: {server.words(answer)}")
