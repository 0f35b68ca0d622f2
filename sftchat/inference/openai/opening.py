"""From ``http://HOST:PORT/v1#MODEL`` to an engine: is the server there, and does it have the model?"""

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
"""How servers answer to the name of a model that they do not have."""
MAX_LISTED_MODELS = 50
"""The most models that an error lists."""


def server_and_model(address: str, *, key: str | None = None, **how: Any) -> tuple[Server, str]:
    """Take an address apart.

    Args:
        address: ``http://HOST:PORT/v1#MODEL``, checked by ``sftchat.models.reference.resolve``.
        key: Of the server; by default the environment's.
        how: ``timeout``, ``request_timeout`` and ``transport``, as of ``Server``.

    Returns:
        The server, and the name of the model, empty when there is none.
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
    """Open a model behind a server after making sure that both are there.

    Args:
        address: ``http://HOST:PORT/v1#MODEL``; the name may be left out when the server lists exactly one model.
        concurrency: The most requests under way at once, at least 1.
        timeout: Seconds that may pass before the first and between two pieces of a reply.
        request_timeout: Seconds that one request may take in all.
        key: Of the server; by default what SFTCHAT_API_KEY or OPENAI_API_KEY holds.
        transport: What carries the requests instead of the network; for tests.
        retries: What happens after a failed attempt.
        extra_body: Further members of the JSON of every request, over ours.
        template_arguments: Arguments of the server's chat template, sent as ``chat_template_kwargs``.

    Raises:
        UsageError: When the model has no name, or one that the server does not know.
        ModelError: When nothing answers, or the key is refused.
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
    """The one model that a server has."""
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
    """Ask a model that is not listed for one token: servers answer to names that they do not list, such as adapters and local folders."""
    path, body = path_and_body(
        Request("", (Message(role="user", content="hi"),), sampling=SamplingParams(max_new_tokens=1)), model, usage=False
    )
    try:
        answer = server.ask("POST", path, server.bounds.of_event(1), {**body, "stream": False})
    except (httpx2.RequestError, Overrun) as error:
        raise ModelError(f"the server at {server.url} did not answer for model '{model}': {server.shown(first_line(error))}") from None
    if answer.status in REFUSES and adaptation_to(answer.text, body) is not None:
        return  # it refuses a parameter, so it knows the model
    if answer.status in MISTAKES:
        what = (
            unknown("model", model, names if len(names) <= MAX_LISTED_MODELS else get_close_matches(model, names, MAX_LISTED_MODELS))
            if names
            else f"no model '{model}'"
        )
        raise UsageError(f"{what} at {server.url}: {server.words(answer)}")
