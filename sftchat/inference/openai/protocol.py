"""The OpenAI protocol: requests as JSON, the same without what a server refuses, and server events as parts of a reply."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.engine import Request
from sftchat.inference.openai.limits import RETRYABLE_STATUSES, RequestFailed
from sftchat.inference.openai.logprobs import Redact, logprobs_fields, parse_choices
from sftchat.protocol import CallPart, error_message, finish_reason, parse_content, unusable_reply_message
from sftchat.types import Choice, FinishReason

DONE = "[DONE]"
"""Data of the event that ends a stream."""
ERROR_FIELD = b"error:"
"""Field of an event stream in which llama-server sends errors; it is not part of the standard."""
PRIVATE_KEYS = ("context", "weight")
"""Keys of a message that only sftchat uses; some servers refuse unknown keys."""
MAX_TOKEN_COUNT = 1_000_000_000
"""Token counts above this are invalid."""
RETRYABLE_CODES = ("server_error", "internal", "overloaded", "unavailable", "timeout", "rate_limit", "too_many_requests")
"""Substrings of error codes and types that are worth a retry, in lower case."""


@dataclass(frozen=True)
class Delta:
    """The content of one event.

    Attributes:
        text: New text of the reply.
        finish_reason: The server's finish reason; empty while the reply goes on.
        prompt_tokens: Length of the prompt, at most ``MAX_TOKEN_COUNT``; 0 if the event does not report it.
        completion_tokens: Length of the reply, thoughts and usually the stop token included; 0 if the event does not report it.
        thoughts: New text of the server's separate reasoning field.
        refused: Whether the server marked the text as a refusal.
        calls: Tool calls, or parts of them.
        complete: Whether the event is a complete response and not a part of a stream.
        choices: Tokens with log-probabilities, including those of thoughts and the token that ended the reply.
    """

    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    thoughts: str = ""
    refused: bool = False
    calls: tuple[CallPart, ...] = ()
    complete: bool = False
    choices: tuple[Choice, ...] = ()


def path_and_body(
    request: Request, model: str, *, usage: bool = True, template_arguments: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the path of a request, below the server's address, and its JSON body.

    ``top_p`` and nonstandard parameters (``top_k``, ``repetition_penalty``, ``chat_template_kwargs``) are sent only if they differ from their
    defaults: vLLM and SGLang support them, others may refuse the request.

    Args:
        request: The request; its adapter is sent as the name of the model, as in vLLM.
        model: Name of the model on the server.
        usage: Whether to request token counts.
        template_arguments: Default arguments of the server's chat template; those of the request override them.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": request.adapter or model,
        "stream": True,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    arguments = {**(template_arguments or {}), **request.template_arguments} if request.prompt is None else {}
    optional: dict[str, tuple[bool, Any]] = {  # whether to include a field, and its value
        "stream_options": (usage, {"include_usage": True}),
        "top_p": (sampling.top_p != 1.0, sampling.top_p),
        "chat_template_kwargs": (bool(arguments), arguments),
        "seed": (sampling.temperature > 0, sampling.seed),
        "stop": (bool(sampling.stop), list(sampling.stop)),
        "top_k": (sampling.top_k > 0, sampling.top_k),
        "tools": (bool(request.tools), list(request.tools)),
        "repetition_penalty": (sampling.repetition_penalty != 1.0, sampling.repetition_penalty),
    }
    body |= {name: value for name, (included, value) in optional.items() if included}
    body |= logprobs_fields(request.logprobs, chat=request.prompt is None)
    if request.prompt is not None:
        return "/completions", {**body, "prompt": request.prompt + request.reply_prefix}
    messages = [{key: value for key, value in message.items() if key not in PRIVATE_KEYS} for message in request.messages]
    if not request.reply_prefix:
        return "/chat/completions", {**body, "messages": messages}
    messages.append({"role": "assistant", "content": request.reply_prefix})
    return "/chat/completions", {**body, "messages": messages, "continue_final_message": True, "add_generation_prompt": False}


def read_event(data: str, redact: Redact = str) -> Delta:
    """Parse the data of one server-sent event, or the body of a response that was not streamed.

    Args:
        data: JSON; when an object has a key twice, the last value is used.
        redact: Removes API keys from the text of a token.

    Raises:
        RequestFailed: When the JSON does not follow the protocol, or reports an error; the message contains the server's text, of any length.
    """
    try:
        event = load_json(data, last_wins=True)
    except ValueError:
        raise RequestFailed(f"the server's event is no JSON: {data}", retryable=True) from None
    try:
        if error := _error_of(event):
            raise error
        choices = event.get("choices") or [{}]
        choice = choices[0]
        complete_message = choice.get("message")  # of a response that was not streamed
        content = parse_content(choice.get("delta") or complete_message or {"content": choice.get("text")})
        reason = choice.get("finish_reason")
        if not isinstance(reason, str | None):
            raise TypeError("its finish_reason is no text")
        usage = event.get("usage")
        counts = usage if isinstance(usage, Mapping) else {}
        return Delta(
            content.text,
            reason or "",
            _token_count(counts.get("prompt_tokens")),
            _token_count(counts.get("completion_tokens")),
            content.thoughts,
            content.refused,
            content.calls,
            bool(complete_message),
            parse_choices(choice.get("logprobs"), redact),
        )
    except (TypeError, AttributeError, LookupError) as error:
        # only messages of sftchat's own TypeErrors begin like this; Python's messages would not help the user
        detail = str(error) if isinstance(error, TypeError) and str(error).startswith(("its ", "a part ")) else ""
        raise RequestFailed(f"the server's event does not follow the protocol{f' ({detail})' if detail else ''}: {data}") from None


async def rename_error_fields(parts: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Yield an event stream in which lines that begin with ``error:``, as llama-server sends them, begin with ``data:``.

    Args:
        parts: Parts of the stream, split anywhere.
    """
    pending, at_line_start = b"", True  # end of the previous part that may begin the field, and whether a line begins there
    async for part in parts:
        text = pending + part
        line_start = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        last_line = text[line_start:]
        is_line_start = line_start > 0 or at_line_start
        pending = last_line if is_line_start and last_line != ERROR_FIELD and ERROR_FIELD.startswith(last_line) else b""
        ready = text[: len(text) - len(pending)]
        if at_line_start and ready.startswith(ERROR_FIELD):
            ready = b"data:" + ready[len(ERROR_FIELD) :]
        yield re.sub(rb"(?<=[\r\n])error:", b"data:", ready)
        at_line_start = bool(pending) or text.endswith((b"\n", b"\r"))
    if pending:
        yield pending


def usable_finish_reason(reason: str, called_functions: tuple[str, ...] = (), *, wants_calls: bool = False) -> FinishReason:
    """Convert the server's finish reason to ``stop`` or ``length``.

    Args:
        reason: The server's finish reason.
        called_functions: Names of functions that the model calls.
        wants_calls: Whether the request had tools, so that calls are a reply.

    Raises:
        RequestFailed: When the finish reason means that there is no usable reply, such as ``content_filter``.
    """
    converted = finish_reason(reason, has_calls=wants_calls and bool(called_functions))
    if converted not in ("stop", "length"):
        raise RequestFailed(
            unusable_reply_message(reason) + (f": the model calls {', '.join(called_functions)}" if called_functions else "")
        )
    return converted


def _error_of(event: Mapping[str, Any]) -> RequestFailed | None:
    """Return the error that an event reports, with or without choices; None if it reports none.

    A retry is allowed if the code or type indicates a temporary error: HTTP status 408, 409, 429 or 5xx, or a word such as ``server_error``.
    """
    if not event.get("error") and event.get("choices"):
        return None
    if not (message := error_message(event)):
        return None
    error = event["error"] if isinstance(event.get("error"), Mapping) else event
    codes = [error.get(name, event.get(name)) for name in ("code", "status", "type")]
    statuses = [int(code) for code in codes if isinstance(code, int | str) and str(code).isdecimal() and len(str(code)) == 3]
    words = [code.lower().replace(" ", "_") for code in codes if isinstance(code, str)]
    if statuses:
        retryable = statuses[0] in RETRYABLE_STATUSES or statuses[0] >= 500
    else:
        retryable = any(code in word for word in words for code in RETRYABLE_CODES)
    rate_limited = 429 in statuses or any("rate_limit" in word for word in words)
    return RequestFailed(message, retryable=retryable, rate_limited=rate_limited)


def _token_count(number: Any) -> int:
    """Return a token count; 0, meaning unknown, for invalid values."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= MAX_TOKEN_COUNT:
        return 0
    return int(number) if number == int(number) else 0


Body = dict[str, Any]
REFUSAL_STATUSES = (400, 422)
"""HTTP statuses with which a server refuses a request as it is."""
MAX_STOPS = 4
"""Maximum number of stop strings in OpenAI's API."""
COMMON_ALTERNATIVES = 5
"""Number of alternatives per token that all servers with log-probabilities support."""
_UNSUPPORTED = re.compile(  # messages of servers that do not support a parameter
    r"unsupported|not support|unrecognized|unknown|extra_forbidden|extra (inputs|fields)|not permitted|not allowed|unexpected|deprecated"
    r"|only the default|cannot both|can't both|not both|both .* (specified|set|provided)|does not accept|not accept|invalid (field|parameter|argument)",
    re.IGNORECASE,
)
_ABOVE_LIMIT = re.compile(r"greater|larger|exceed|at most|less than|maximum|\bmax\b|between|range|<=|too (many|large)", re.IGNORECASE)
_ROLES_MUST_ALTERNATE = re.compile(r"roles must alternate|only user and assistant roles", re.IGNORECASE)
"""Messages of templates that refuse a conversation's roles; templates that support a system turn also mention an optional system message."""


@dataclass(frozen=True)
class Adaptation:
    """A change to a model's requests after its server has refused one.

    Attributes:
        message: Message for the user, after the name of the model.
        apply: Removes from a body, in place, what the server refused.
    """

    message: str
    apply: Callable[[Body], None]


def _omission(parameter: str, message: str) -> Adaptation:
    return Adaptation(message, lambda body: body.pop(parameter, None))


def _rename_max_tokens(body: Body) -> None:
    if "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")


def _limit_stops(body: Body) -> None:
    """Limit the stop strings to ``MAX_STOPS``; the others are applied by the client."""
    if "stop" in body:
        body["stop"] = body["stop"][:MAX_STOPS]


def _remove_logprobs(body: Body) -> None:
    body.pop("logprobs", None)
    body.pop("top_logprobs", None)


def _limit_alternatives(body: Body) -> None:
    for name in ("logprobs", "top_logprobs"):
        if _alternatives_number(body.get(name)) > COMMON_ALTERNATIVES:
            body[name] = COMMON_ALTERNATIVES


def _alternatives_number(value: Any) -> int:
    """Return a number of alternatives; 0 for True (log-probabilities only) and for other types."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _move_system_into_user(body: Body) -> None:
    if "messages" not in body:
        return
    system = "\n\n".join(message["content"] for message in body["messages"] if message["role"] in SYSTEM_ROLES)
    messages = [dict(message) for message in body["messages"] if message["role"] not in SYSTEM_ROLES]
    body["messages"] = messages
    if system:
        first_user = next((message for message in messages if message["role"] == "user"), None)
        if first_user is None:
            messages.insert(0, {"role": "user", "content": system})
        else:
            first_user["content"] = f"{system}\n\n{first_user['content']}"


SYSTEM_ROLES = ("system", "developer")
OMIT_USAGE = _omission("stream_options", "is not asked to count tokens")
RENAME_MAX_TOKENS = Adaptation("takes max_completion_tokens instead of max_tokens", _rename_max_tokens)
LIMIT_STOPS = Adaptation(f"takes at most {MAX_STOPS} stop strings; sftchat cuts its replies at the others", _limit_stops)
OMIT_LOGPROBS = Adaptation("gives no log-probabilities: its server refuses to", _remove_logprobs)
LIMIT_ALTERNATIVES = Adaptation(f"gives at most {COMMON_ALTERNATIVES} alternatives per token", _limit_alternatives)
MOVE_SYSTEM = Adaptation("takes no system turn; it is put before the user's first message", _move_system_into_user)
OMISSIONS = {
    "top_p": _omission("top_p", "takes no top_p"),
    "temperature": _omission("temperature", "takes no temperature: its replies are sampled at its own"),
    "stop": _omission("stop", "takes no stop strings; sftchat cuts its replies at them"),
    "seed": _omission("seed", "takes no seed: its samples cannot be repeated"),
}
"""Adaptations that leave out a parameter, by its name; the first one that a refusal names is used."""

OTHER_REFUSAL_STATUSES = {403: (OMIT_LOGPROBS,), 500: (OMIT_LOGPROBS, MOVE_SYSTEM)}
"""Further HTTP statuses of refusals and the only adaptations to them: OpenAI's API sends 403 for log-probabilities, llama-server 500 for an error
of the template."""


def adaptation_to(text: str, body: Mapping[str, Any]) -> Adaptation | None:
    """Return the adaptation to a refusal; None if no adaptation satisfies the server.

    Args:
        text: Content of a response with a status of ``REFUSAL_STATUSES`` or ``OTHER_REFUSAL_STATUSES``.
        body: The refused body.
    """
    if "stream_options" in body and "stream_options" in text:
        return OMIT_USAGE
    message, parameter = _message_and_parameter(text)
    if "logprobs" in body and re.search(r"(?<!prompt_)log_?probs|log[- ]?probabilit", f"{message} {parameter}", re.IGNORECASE):
        alternatives = max(_alternatives_number(body["logprobs"]), _alternatives_number(body.get("top_logprobs")))
        return LIMIT_ALTERNATIVES if alternatives > COMMON_ALTERNATIVES and _ABOVE_LIMIT.search(message) else OMIT_LOGPROBS
    refused = {name for name in OMISSIONS if name in body and (name == parameter or re.search(rf"\b{name}\b", message))}
    if "max_tokens" in body and "max_completion_tokens" in message:
        return RENAME_MAX_TOKENS
    limits_stops = re.search(r"\b(4|four|at most|too (many|long)|maximum|max)\b", message, re.IGNORECASE)
    if "stop" in refused and len(body["stop"]) > MAX_STOPS and limits_stops:
        return LIMIT_STOPS
    if _refuses_system_turn(message, body):
        return MOVE_SYSTEM
    if not _UNSUPPORTED.search(message):
        return None
    return next((adaptation for name, adaptation in OMISSIONS.items() if name in refused), None)


def _refuses_system_turn(message: str, body: Mapping[str, Any]) -> bool:
    """Whether a refusal concerns the system turn of the body, given that the other roles alternate as templates require."""
    roles = [turn["role"] for turn in body.get("messages", ())]
    other_roles = [role for role in roles if role not in SYSTEM_ROLES]
    if len(other_roles) == len(roles):
        return False
    if _ROLES_MUST_ALTERNATE.search(message):
        alternate = all(role == ("user", "assistant")[index % 2] for index, role in enumerate(other_roles))
        return alternate and "optional system" not in message
    names_system = re.search(r"\b(system|developer)\b", message, re.IGNORECASE) is not None
    return names_system and (_UNSUPPORTED.search(message) is not None or "not enabled" in message)


def adapt(body: Body, adaptations: Collection[Adaptation]) -> Body:
    """Return a copy of a body after all adaptations to its model.

    Args:
        body: The body; not changed.
        adaptations: Earlier adaptations, in order.
    """
    result = dict(body)
    for adaptation in adaptations:
        adaptation.apply(result)
    return result


def _message_and_parameter(text: str) -> tuple[str, str]:
    """Return the error message of a response, with its code, and the parameter that the error names; empty if it names none."""
    try:
        answer = load_json(text, last_wins=True)
    except ValueError:
        return text, ""
    error = answer.get("error") if isinstance(answer, Mapping) else None
    parameter = error.get("param") if isinstance(error, Mapping) else None
    code = error.get("code") if isinstance(error, Mapping) else None
    return f"{error_message(answer) or text} {code if isinstance(code, str) else ''}", parameter if isinstance(parameter, str) else ""
