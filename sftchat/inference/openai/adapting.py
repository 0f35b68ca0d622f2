"""Adapts requests to a server: learns from its HTTP 400 which parameter it refuses and resends the request without it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.protocol import error_message

Body = dict[str, Any]
REFUSES = (400, 422)
"""HTTP statuses with which a server refuses a request as it is."""
MOST_STOPS = 4
"""Maximum number of stop strings in OpenAI's API."""
FEW_ALTERNATIVES = 5
"""Number of alternatives that all servers with log-probabilities support."""
_UNSUPPORTED = re.compile(
    r"unsupported|not support|unrecognized|unknown|extra_forbidden|extra (inputs|fields)|not permitted|not allowed|unexpected|deprecated"
    r"|only the default|cannot both|can't both|not both|both .* (specified|set|provided)|does not accept|not accept|invalid (field|parameter|argument)",
    re.IGNORECASE,
)

_TOO_MANY = re.compile(r"greater|larger|exceed|at most|less than|maximum|\bmax\b|between|range|<=|too (many|large)", re.IGNORECASE)
_ROLES = re.compile(r"roles must alternate|only user and assistant roles", re.IGNORECASE)
"""Messages of templates that have no system turns; templates that have them mention an optional system message instead."""


@dataclass(frozen=True)
class Adaptation:
    """A change to a model's requests after its server has refused one.

    Attributes:
        name: Unique name: the parameter or what is done to it.
        words: Message for the user, after the name of the model.
        apply: Removes what was refused from a copy of the body, in place.
    """

    name: str
    words: str
    apply: Callable[[Body], None]


def _without(parameter: str, words: str) -> Adaptation:
    """Return an adaptation that removes a parameter."""
    return Adaptation(parameter, words, lambda body: body.pop(parameter, None))


def _renamed(body: Body) -> None:
    """Replace ``max_tokens`` by ``max_completion_tokens``."""
    if "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")


def _few_stops(body: Body) -> None:
    """Limit the stop strings to ``MOST_STOPS``; the others are applied by the client."""
    if "stop" in body:
        body["stop"] = body["stop"][:MOST_STOPS]


def _without_logprobs(body: Body) -> None:
    """Remove the request for log-probabilities."""
    body.pop("logprobs", None)
    body.pop("top_logprobs", None)


def _few_alternatives(body: Body) -> None:
    """Limit the alternatives to ``FEW_ALTERNATIVES``."""
    for name in ("logprobs", "top_logprobs"):
        if _number(body.get(name)) > FEW_ALTERNATIVES:
            body[name] = FEW_ALTERNATIVES


def _number(value: Any) -> int:
    """Return a number of alternatives; 0 for True (log-probabilities only) and for other types."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _system_into_user(body: Body) -> None:
    """Prepend the system turn to the first user turn."""
    messages = [dict(message) for message in body.get("messages", ())]
    system = "\n\n".join(message["content"] for message in messages if message["role"] in SYSTEM)
    rest = [message for message in messages if message["role"] not in SYSTEM]
    first = next((message for message in rest if message["role"] == "user"), None)
    if system and first is None:
        rest.insert(0, {"role": "user", "content": system})
    elif system and first is not None:
        first["content"] = f"{system}\n\n{first['content']}"
    if "messages" in body:
        body["messages"] = rest


SYSTEM = ("system", "developer")
USAGE = _without("stream_options", "is not asked to count tokens")
RENAMED = Adaptation("max_completion_tokens", "takes max_completion_tokens for max_tokens", _renamed)
TEMPERATURE = _without("temperature", "takes no temperature: its replies are samples at its own")
TOP_P = _without("top_p", "takes no top_p")
FEW_STOPS = Adaptation("few stops", f"takes no more than {MOST_STOPS} stop strings; the others are cut here", _few_stops)
STOP = _without("stop", "takes no stop strings; they are cut here")
SEED = _without("seed", "takes no seed: its samples cannot be repeated")
LOGPROBS = Adaptation("logprobs", "gives no log-probabilities: its server refuses to", _without_logprobs)
FEW_LOGPROBS = Adaptation("few logprobs", f"names no more than {FEW_ALTERNATIVES} alternatives to a token", _few_alternatives)
SYSTEM_TURN = Adaptation("system turn", "takes no system turn; it is put before the user's first message", _system_into_user)

ALSO_REFUSES = {403: (LOGPROBS,), 500: (LOGPROBS, SYSTEM_TURN)}
"""Other statuses and what some servers refuse with them: OpenAI's API log-probabilities of some models, llama-server an error of the template."""


def adaptation_to(text: str, body: Mapping[str, Any]) -> Adaptation | None:
    """Return the adaptation to a refusal; None if nothing can be removed to satisfy the server.

    Args:
        text: Content of a response with a status of ``REFUSES``.
        body: The refused body.
    """
    if "stream_options" in body and "stream_options" in text:
        return USAGE
    words, parameter = _said(text)
    if "logprobs" in body and re.search(r"(?<!prompt_)log_?probs|log[- ]?probabilit", f"{words} {parameter}", re.IGNORECASE):
        few = max(_number(body["logprobs"]), _number(body.get("top_logprobs"))) > FEW_ALTERNATIVES
        return FEW_LOGPROBS if few and _TOO_MANY.search(words) else LOGPROBS
    named = {name for name in ("max_tokens", "temperature", "top_p", "stop", "seed") if name in body and re.search(rf"\b{name}\b", words)}
    if parameter in body:
        named.add(parameter)
    if "max_tokens" in body and "max_completion_tokens" in words:
        return RENAMED
    stops = body.get("stop", ())
    if "stop" in named and len(stops) > MOST_STOPS and re.search(r"\b(4|four|at most|too (many|long)|maximum|max)\b", words, re.IGNORECASE):
        return FEW_STOPS
    if _refuses_system_turn(words, body):
        return SYSTEM_TURN
    if not _UNSUPPORTED.search(words):
        return None
    if "top_p" in named:
        return TOP_P
    for name, found in (("temperature", TEMPERATURE), ("stop", STOP), ("seed", SEED)):
        if name in named:
            return found
    return None


def _refuses_system_turn(words: str, body: Mapping[str, Any]) -> bool:
    """Whether a refusal concerns the system turn of the body, given that the other roles alternate as templates require."""
    roles = [message["role"] for message in body.get("messages", ())]
    rest = [role for role in roles if role not in SYSTEM]
    if len(rest) == len(roles):
        return False
    if _ROLES.search(words):
        return "optional system" not in words and all(role == ("user", "assistant")[place % 2] for place, role in enumerate(rest))
    named = re.search(r"\b(system|developer)\b", words, re.IGNORECASE)
    return named is not None and (_UNSUPPORTED.search(words) is not None or "not enabled" in words)


def adapted(body: Body, learned: Collection[Adaptation]) -> Body:
    """Return a body after all adaptations learned for its model.

    Args:
        body: The unadapted body.
        learned: Earlier adaptations to the server.
    """
    result = dict(body)
    for adaptation in learned:
        adaptation.apply(result)
    return result


def _said(text: str) -> tuple[str, str]:
    """Return the message of a refusal, and the name of the parameter if given."""
    try:
        answer = load_json(text, last_wins=True)
    except ValueError:
        return text, ""
    error = answer.get("error") if isinstance(answer, Mapping) else None
    parameter = error.get("param") if isinstance(error, Mapping) else None
    code = error.get("code") if isinstance(error, Mapping) else None
    return f"{error_message(answer) or text} {code if isinstance(code, str) else ''}", parameter if isinstance(parameter, str) else ""
