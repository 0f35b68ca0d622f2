"""The OpenAI protocol: requests as JSON, changed to what a server refuses in them, and server events as parts of a reply."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.engine import Request
from sftchat.inference.openai.limits import RETRYABLE_STATUSES, RequestFailed
from sftchat.inference.openai.logprobs import Redact, choices_of, logprobs_fields
from sftchat.protocol import error_message, finish_reason, parse_content, unusable_reply_message
from sftchat.types import Choice, FinishReason

DONE = "[DONE]"
"""Data of the event after the last one."""
ERROR = b"error:"
"""Field of an event stream in which llama-server sends errors; it is not part of the standard."""
OWN_KEYS = ("context", "weight")
"""Keys of a message that are private to sftchat; some servers refuse unknown keys."""
MAX_COUNT = 1_000_000_000
"""Token counts above this are invalid."""
RETRYABLE_CODES = ("server_error", "internal", "overloaded", "unavailable", "timeout", "rate_limit", "too_many_requests")
"""Substrings of error codes and types that are worth a retry, in lower case."""


@dataclass(frozen=True)
class Delta:
    """The content of one event.

    Attributes:
        text: New text of the reply.
        finish_reason: The server's finish reason; empty while the reply goes on.
        prompt_tokens: Length of the prompt, if this event reports it; at most ``MAX_COUNT``.
        completion_tokens: Length of the reply, thoughts and usually the stop token included; likewise.
        thoughts: New text of the server's separate reasoning field.
        refused: Whether the server marked the text as a refusal.
        called: Names of functions that the model calls.
        whole: Whether the event is a complete response and not a part of a stream.
        choices: Tokens with log-probabilities, those of thoughts and the end included.
    """

    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    thoughts: str = ""
    refused: bool = False
    called: tuple[str, ...] = ()
    whole: bool = False
    choices: tuple[Choice, ...] = ()


def path_and_body(
    request: Request, model: str, *, usage: bool = True, template_arguments: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the path below the server's address and the JSON body of a request.

    ``top_p`` and nonstandard parameters (``top_k``, ``repetition_penalty``, ``chat_template_kwargs``) are sent only if they differ from their
    defaults: vLLM and SGLang support them, others may refuse the request.

    Args:
        request: The request; an adapter is named as in vLLM: as a model next to its base.
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
    optional: dict[str, tuple[bool, Any]] = {
        "stream_options": (usage, {"include_usage": True}),
        "top_p": (sampling.top_p != 1.0, sampling.top_p),
        "chat_template_kwargs": (bool(arguments), arguments),
        "seed": (sampling.temperature > 0, sampling.seed),
        "stop": (bool(sampling.stop), list(sampling.stop)),
        "top_k": (sampling.top_k > 0, sampling.top_k),
        "tools": (bool(request.tools), list(request.tools)),
        "repetition_penalty": (sampling.repetition_penalty != 1.0, sampling.repetition_penalty),
    }
    body |= {name: value for name, (wanted, value) in optional.items() if wanted}
    body |= logprobs_fields(request.logprobs, chat=request.prompt is None)
    if request.prompt is not None:
        return "/completions", {**body, "prompt": request.prompt + request.reply_prefix}
    messages = [{key: value for key, value in turn.items() if key not in OWN_KEYS} for turn in request.messages]
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
        raise RequestFailed(f"the server sent what the protocol does not have: {data}", retryable=True) from None
    try:
        if error := _error_of(event):
            raise error
        choice = (event.get("choices") or [{}])[0]
        whole_message = choice.get("message")  # of a response that was not streamed
        content = parse_content(choice.get("delta") or whole_message or {"content": choice.get("text")})
        usage = event.get("usage")
        counts = usage if isinstance(usage, Mapping) else {}
        return Delta(
            content.text,
            _optional_text(choice.get("finish_reason")),
            _count(counts.get("prompt_tokens")),
            _count(counts.get("completion_tokens")),
            content.thoughts,
            content.refused,
            content.called_functions,
            bool(whole_message),
            choices_of(choice.get("logprobs"), redact),
        )
    except (TypeError, AttributeError, LookupError) as error:
        # messages of our own TypeErrors begin like this; Python's own messages would not help the user
        detail = str(error) if isinstance(error, TypeError) and str(error).startswith(("its ", "a part ")) else ""
        raise RequestFailed(f"the server sent what the protocol does not have{f' ({detail})' if detail else ''}: {data}") from None


async def error_fields(parts: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Yield an event stream in which lines that begin with ``error:``, as llama-server sends them, begin with ``data:``.

    Args:
        parts: Parts of the stream, split anywhere.
    """
    pending, at_line_start = b"", True  # possible beginning of the field, and whether a line begins there
    async for part in parts:
        text = pending + part
        line = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        tail = text[line:]
        pending = tail if (line or at_line_start) and len(tail) < len(ERROR) and ERROR.startswith(tail) else b""
        ready = text[: len(text) - len(pending)]
        if at_line_start and ready.startswith(ERROR):
            ready = b"data:" + ready[len(ERROR) :]
        yield re.sub(rb"(?<=[\r\n])error:", b"data:", ready)
        at_line_start = bool(pending) or text.endswith((b"\n", b"\r"))
    if pending:
        yield pending


def reply_end(reason: str, called: tuple[str, ...] = ()) -> FinishReason:
    """Convert the server's finish reason to sftchat's.

    Args:
        reason: The server's finish reason.
        called: Names of functions that the model calls.

    Raises:
        RequestFailed: When the finish reason means that there is no usable reply, such as ``content_filter`` or ``tool_calls``.
    """
    converted = finish_reason(reason)
    if converted not in ("stop", "length"):
        raise RequestFailed(unusable_reply_message(reason) + (f": the model calls {', '.join(called)}" if called else ""))
    return converted


def _error_of(event: Mapping[str, Any]) -> RequestFailed | None:
    """Return the error that an event reports, with or without choices; None if it reports none.

    It is worth a retry if the code or type indicates a temporary error: HTTP status 408, 409, 429 or 5xx, or a word such as ``server_error``.
    """
    if not event.get("error") and event.get("choices"):
        return None
    if not (message := error_message(event)):
        return None
    error = event["error"] if isinstance(event.get("error"), Mapping) else event
    codes = [error.get(name, event.get(name)) for name in ("code", "status", "type")]
    numbers = [int(code) for code in codes if isinstance(code, int | str) and str(code).isdecimal() and len(str(code)) == 3]
    named = [str(code).lower().replace(" ", "_") for code in codes if isinstance(code, str)]
    if numbers:
        retryable = numbers[0] in RETRYABLE_STATUSES or numbers[0] >= 500
    else:
        retryable = any(code in name for name in named for code in RETRYABLE_CODES)
    rate_limited = 429 in numbers or any("rate_limit" in name for name in named)
    return RequestFailed(message, retryable=retryable, rate_limited=rate_limited)


def _optional_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise TypeError("its finish_reason is no text")


def _count(number: Any) -> int:
    """Return a token count; 0, meaning unknown, for invalid values."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= MAX_COUNT:
        return 0
    return int(number) if number == int(number) else 0


Body = dict[str, Any]
REFUSAL_STATUSES = (400, 422)
"""HTTP statuses with which a server refuses a request as it is."""
MAX_STOPS = 4
"""Maximum number of stop strings in OpenAI's API."""
COMMON_ALTERNATIVES = 5
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
        message: Message for the user, after the name of the model.
        apply: Removes what was refused from a copy of the body, in place.
    """

    name: str
    message: str
    apply: Callable[[Body], None]


def _without(parameter: str, message: str) -> Adaptation:
    return Adaptation(parameter, message, lambda body: body.pop(parameter, None))


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
        if _number(body.get(name)) > COMMON_ALTERNATIVES:
            body[name] = COMMON_ALTERNATIVES


def _number(value: Any) -> int:
    """Return a number of alternatives; 0 for True (log-probabilities only) and for other types."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _system_into_user(body: Body) -> None:
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
RENAMED = Adaptation("max_completion_tokens", "takes max_completion_tokens for max_tokens", _rename_max_tokens)
TEMPERATURE = _without("temperature", "takes no temperature: its replies are samples at its own")
TOP_P = _without("top_p", "takes no top_p")
FEW_STOPS = Adaptation("few stops", f"takes no more than {MAX_STOPS} stop strings; the others are cut here", _limit_stops)
STOP = _without("stop", "takes no stop strings; they are cut here")
SEED = _without("seed", "takes no seed: its samples cannot be repeated")
LOGPROBS = Adaptation("logprobs", "gives no log-probabilities: its server refuses to", _remove_logprobs)
FEW_LOGPROBS = Adaptation("few logprobs", f"names no more than {COMMON_ALTERNATIVES} alternatives to a token", _limit_alternatives)
SYSTEM_TURN = Adaptation("system turn", "takes no system turn; it is put before the user's first message", _system_into_user)

OTHER_REFUSAL_STATUSES = {403: (LOGPROBS,), 500: (LOGPROBS, SYSTEM_TURN)}
"""Other statuses and what some servers refuse with them: OpenAI's API log-probabilities of some models, llama-server an error of the template."""


def adaptation_to(text: str, body: Mapping[str, Any]) -> Adaptation | None:
    """Return the adaptation to a refusal; None if nothing can be removed to satisfy the server.

    Args:
        text: Content of a response with a status of ``REFUSAL_STATUSES``.
        body: The refused body.
    """
    if "stream_options" in body and "stream_options" in text:
        return USAGE
    words, parameter = _message_and_parameter(text)
    if "logprobs" in body and re.search(r"(?<!prompt_)log_?probs|log[- ]?probabilit", f"{words} {parameter}", re.IGNORECASE):
        asks_for_many = max(_number(body["logprobs"]), _number(body.get("top_logprobs"))) > COMMON_ALTERNATIVES
        return FEW_LOGPROBS if asks_for_many and _TOO_MANY.search(words) else LOGPROBS
    named = {name for name in ("max_tokens", "temperature", "top_p", "stop", "seed") if name in body and re.search(rf"\b{name}\b", words)}
    if parameter in body:
        named.add(parameter)
    if "max_tokens" in body and "max_completion_tokens" in words:
        return RENAMED
    stops = body.get("stop", ())
    if "stop" in named and len(stops) > MAX_STOPS and re.search(r"\b(4|four|at most|too (many|long)|maximum|max)\b", words, re.IGNORECASE):
        return FEW_STOPS
    if _refuses_system_turn(words, body):
        return SYSTEM_TURN
    if not _UNSUPPORTED.search(words):
        return None
    if "top_p" in named:
        return TOP_P
    return next((adaptation for adaptation in (TEMPERATURE, STOP, SEED) if adaptation.name in named), None)


def _refuses_system_turn(words: str, body: Mapping[str, Any]) -> bool:
    """Whether a refusal concerns the system turn of the body, given that the other roles alternate as templates require."""
    roles = [message["role"] for message in body.get("messages", ())]
    rest = [role for role in roles if role not in SYSTEM]
    if len(rest) == len(roles):
        return False
    if _ROLES.search(words):
        return "optional system" not in words and all(role == ("user", "assistant")[index % 2] for index, role in enumerate(rest))
    named = re.search(r"\b(system|developer)\b", words, re.IGNORECASE)
    return named is not None and (_UNSUPPORTED.search(words) is not None or "not enabled" in words)


def adapt(body: Body, learned: Collection[Adaptation]) -> Body:
    """Return a body after all adaptations learned for its model.

    Args:
        body: The unadapted body.
        learned: Earlier adaptations to the server.
    """
    result = dict(body)
    for adaptation in learned:
        adaptation.apply(result)
    return result


def _message_and_parameter(text: str) -> tuple[str, str]:
    try:
        answer = load_json(text, last_wins=True)
    except ValueError:
        return text, ""
    error = answer.get("error") if isinstance(answer, Mapping) else None
    parameter = error.get("param") if isinstance(error, Mapping) else None
    code = error.get("code") if isinstance(error, Mapping) else None
    return f"{error_message(answer) or text} {code if isinstance(code, str) else ''}", parameter if isinstance(parameter, str) else ""
