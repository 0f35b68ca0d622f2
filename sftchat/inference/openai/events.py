"""The OpenAI protocol: a request as JSON, and what a server sends back as pieces of a reply."""

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
"""The event after the last one."""
ERROR = b"error:"
"""The field of an event stream in which llama-server sends errors; the standard has none of that name."""
OWN_KEYS = ("context", "weight")
"""Keys of a turn that mean nothing to a server; some refuse what they do not know."""
MOST_COUNTED = 1_000_000_000
"""Tokens above which a server's number is none."""
PASSING_CODES = ("server_error", "internal", "overloaded", "unavailable", "timeout", "rate_limit", "too_many_requests")
"""What the codes and types of errors contain that another attempt may turn, in lower case."""


@dataclass(frozen=True)
class Piece:
    """What one event says.

    Attributes:
        text: New text of the reply.
        finish_reason: Why the reply ended, in the server's word; empty while it goes on.
        prompt_tokens: Length of the prompt, where this event says so; never more than ``MOST_COUNTED``.
        completion_tokens: Length of the reply, thoughts and mostly the stop token included, likewise.
        thoughts: New text of what the server keeps apart as reasoning.
        refused: The text is a refusal by the server's own word.
        called: Names of functions that the model calls.
        whole: The event is a whole answer and not a part of a stream.
        choices: Tokens with their log-probabilities, those of thoughts and of the end included.
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
    """Where a request goes, below the server's address, and the JSON that is posted there.

    ``top_p`` and what no standard has (``top_k``, ``repetition_penalty``, ``chat_template_kwargs``) is sent only when it differs from its
    default: vLLM and SGLang take it, others may refuse the request.

    Args:
        request: An adapter is named as vLLM names it: a model beside its base.
        model: The name under which the server has the model.
        usage: Whether to ask for the number of tokens.
        template_arguments: Arguments of the server's chat template, below those of the request.
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
    """What the data of one server-sent event says, or a whole answer that was not streamed. Of two values of one key the last one counts.

    Args:
        data: JSON.
        redact: Makes the text of a token without keys.

    Raises:
        Trouble: When it is no JSON object of the protocol, or tells of an error; its words are the server's, of any length.
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
    """An event stream in which a line that begins with ``error:``, as llama-server sends it, is one of ``data:``; others are as they were.

    Args:
        parts: Of the stream, cut anywhere.
    """
    held, fresh = b"", True  # what may be the beginning of the field, and whether a line begins there
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
    """Our finish reason for the server's.

    Args:
        said: The server's word.
        called: Names of functions that the model calls.

    Raises:
        Trouble: When the reply ended in a way that makes it no reply, such as ``content_filter`` or ``tool_calls``.
    """
    ours = finish_reason(said)
    if ours not in ("stop", "length"):
        raise RequestFailed(unfinished(said) + (f": the model calls {', '.join(called)}" if called else ""))
    return ours


def _error_of(event: Mapping[str, Any]) -> RequestFailed | None:
    """The error that an event tells of, beside its choices or without any; None when it tells of none.

    Another attempt is allowed when the code or the type says that the fault may pass: an HTTP status of 408, 409, 429 or 5xx, or a word such as
    ``server_error``. An error without either would be the same again.
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
    """A word of an event, which may be absent."""
    if said is None or isinstance(said, str):
        return said or ""
    raise TypeError("its finish_reason is no text")


def _count(number: Any) -> int:
    """A number of tokens; 0, which means that the server does not count, for anything that can be none."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= MOST_COUNTED:
        return 0
    return int(number) if number == int(number) else 0
