"""The OpenAI protocol: requests as JSON, and server events as pieces of a reply."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from dataclasses import dataclass
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.engine import Request
from sftchat.inference.openai.logprobs import Redact, asked_for, choices_of
from sftchat.inference.openai.retries import RETRYABLE_STATUSES, RequestFailed
from sftchat.protocol import content_of, error_message, finish_reason, unfinished
from sftchat.types import Choice, FinishReason

DONE = "[DONE]"
"""Data of the event after the last one."""
ERROR = b"error:"
"""Field of an event stream in which llama-server sends errors; it is not part of the standard."""
OWN_KEYS = ("context", "weight")
"""Keys of a message that are private to sftchat; some servers refuse unknown keys."""
MOST_COUNTED = 1_000_000_000
"""Token counts above this are invalid."""
PASSING_CODES = ("server_error", "internal", "overloaded", "unavailable", "timeout", "rate_limit", "too_many_requests")
"""Substrings of error codes and types that are worth a retry, in lower case."""


@dataclass(frozen=True)
class Piece:
    """The content of one event.

    Attributes:
        text: New text of the reply.
        finish_reason: The server's finish reason; empty while the reply goes on.
        prompt_tokens: Length of the prompt, if this event reports it; at most ``MOST_COUNTED``.
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
    body |= asked_for(request.logprobs, chat=request.prompt is None)
    if request.prompt is not None:
        return "/completions", {**body, "prompt": request.prompt + request.reply_prefix}
    messages = [{key: value for key, value in turn.items() if key not in OWN_KEYS} for turn in request.messages]
    if not request.reply_prefix:
        return "/chat/completions", {**body, "messages": messages}
    begun = [*messages, {"role": "assistant", "content": request.reply_prefix}]
    return "/chat/completions", {**body, "messages": begun, "continue_final_message": True, "add_generation_prompt": False}


def read_event(data: str, redact: Redact = str) -> Piece:
    """Parse the data of one server-sent event, or of a response that was not streamed; the last of duplicate keys counts.

    Args:
        data: JSON.
        redact: Removes keys from the text of a token.

    Raises:
        RequestFailed: When it is not a JSON object of the protocol, or reports an error; its message is the server's, of any length.
    """
    try:
        event = load_json(data, last_wins=True)
    except ValueError:
        raise RequestFailed(f"the server sent what the protocol does not have: {data}", passing=True) from None
    try:
        if error := _error_of(event):
            raise error
        choice = (event.get("choices") or [{}])[0]
        whole = choice.get("message")
        content = content_of(choice.get("delta") or whole or {"content": choice.get("text")})
        usage = event.get("usage")
        counts = usage if isinstance(usage, Mapping) else {}
        return Piece(
            content.text,
            _word(choice.get("finish_reason")),
            _count(counts.get("prompt_tokens")),
            _count(counts.get("completion_tokens")),
            content.thoughts,
            content.refused,
            content.called,
            bool(whole),
            choices_of(choice.get("logprobs"), redact),
        )
    except (TypeError, AttributeError, LookupError) as error:
        what = str(error) if isinstance(error, TypeError) and str(error).startswith(("its ", "a part ")) else ""
        raise RequestFailed(f"the server sent what the protocol does not have{f' ({what})' if what else ''}: {data}") from None


async def error_fields(parts: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Yield an event stream in which lines that begin with ``error:``, as llama-server sends them, begin with ``data:``.

    Args:
        parts: Parts of the stream, split anywhere.
    """
    held, fresh = b"", True  # possible beginning of the field, and whether a line begins there
    async for part in parts:
        text = held + part
        line = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        tail = text[line:]
        held = tail if (line or fresh) and len(tail) < len(ERROR) and ERROR.startswith(tail) else b""
        ready = text[: len(text) - len(held)]
        if fresh and ready.startswith(ERROR):
            ready = b"data:" + ready[len(ERROR) :]
        yield re.sub(rb"(?<=[\r\n])error:", b"data:", ready)
        fresh = bool(held) or text.endswith((b"\n", b"\r"))
    if held:
        yield held


def ended(said: str, called: tuple[str, ...] = ()) -> FinishReason:
    """Convert the server's finish reason to sftchat's.

    Args:
        said: The server's finish reason.
        called: Names of functions that the model calls.

    Raises:
        RequestFailed: When the finish reason means that there is no usable reply, such as ``content_filter`` or ``tool_calls``.
    """
    ours = finish_reason(said)
    if ours not in ("stop", "length"):
        raise RequestFailed(unfinished(said) + (f": the model calls {', '.join(called)}" if called else ""))
    return ours


def _error_of(event: Mapping[str, Any]) -> RequestFailed | None:
    """Return the error that an event reports, with or without choices; None if it reports none.

    It is worth a retry if the code or type indicates a temporary error: HTTP status 408, 409, 429 or 5xx, or a word such as ``server_error``.
    """
    if not event.get("error") and event.get("choices"):
        return None
    if not (words := error_message(event)):
        return None
    error = event["error"] if isinstance(event.get("error"), Mapping) else event
    codes = [error.get(name, event.get(name)) for name in ("code", "status", "type")]
    numbers = [int(code) for code in codes if isinstance(code, int | str) and str(code).isdecimal() and len(str(code)) == 3]
    named = [str(code).lower().replace(" ", "_") for code in codes if isinstance(code, str)]
    allowed = numbers[0] in RETRYABLE_STATUSES or numbers[0] >= 500 if numbers else False
    passing = allowed or (not numbers and any(known in name for name in named for known in PASSING_CODES))
    crowded = 429 in numbers or any("rate_limit" in name for name in named)
    return RequestFailed(words, passing=passing, crowded=crowded)


def _word(said: Any) -> str:
    """Return an optional string of an event."""
    if said is None or isinstance(said, str):
        return said or ""
    raise TypeError("its finish_reason is no text")


def _count(number: Any) -> int:
    """Return a token count; 0, meaning unknown, for invalid values."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= MOST_COUNTED:
        return 0
    return int(number) if number == int(number) else 0
