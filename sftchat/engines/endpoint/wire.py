"""The OpenAI protocol: a request as JSON, and what a server sends back as pieces of a reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftchat.engines.base import Request
from sftchat.engines.endpoint.retries import Trouble
from sftchat.engines.endpoint.server import error_of
from sftchat.parsing import parsed
from sftchat.types import FinishReason

DONE = "[DONE]"
"""The event after the last one."""
OURS = ("context", "weight")
"""Keys of a turn that mean nothing to a server; some refuse what they do not know."""
MOST_COUNTED = 1_000_000_000
"""Tokens above which a server's number is none."""
FINISH_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}


@dataclass(frozen=True)
class Piece:
    """What one event says.

    Attributes:
        text: New text of the reply; thoughts that the server keeps apart (``reasoning_content``) are not part of it.
        finish_reason: Why the reply ended, in the server's word; empty while it goes on.
        prompt_tokens: Length of the prompt, where this event says so; never more than ``MOST_COUNTED``.
        completion_tokens: Length of the reply, thoughts and mostly the stop token included, likewise.
    """

    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


def path_and_body(request: Request, model: str, *, usage: bool = True) -> tuple[str, dict[str, Any]]:
    """Where a request goes, below the server's address, and the JSON that is posted there.

    What no standard has (``top_k``, ``repetition_penalty``) is sent only when it is asked for: vLLM and SGLang take it, others may refuse the
    request.

    Args:
        request: An adapter is named as vLLM names it: a model beside its base.
        model: The name under which the server has the model.
        usage: Whether to ask for the number of tokens.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": request.adapter or model,
        "stream": True,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    optional: dict[str, tuple[bool, Any]] = {
        "stream_options": (usage, {"include_usage": True}),
        "seed": (sampling.temperature > 0, sampling.seed),
        "stop": (bool(sampling.stop), list(sampling.stop)),
        "top_k": (sampling.top_k > 0, sampling.top_k),
        "tools": (bool(request.tools), list(request.tools)),
        "repetition_penalty": (sampling.repetition_penalty != 1.0, sampling.repetition_penalty),
    }
    body |= {name: value for name, (wanted, value) in optional.items() if wanted}
    if request.prompt is not None:
        return "/completions", {**body, "prompt": request.prompt + request.reply_prefix}
    messages = [{key: value for key, value in turn.items() if key not in OURS} for turn in request.messages]
    if not request.reply_prefix:
        return "/chat/completions", {**body, "messages": messages}
    begun = [*messages, {"role": "assistant", "content": request.reply_prefix}]
    return "/chat/completions", {**body, "messages": begun, "continue_final_message": True, "add_generation_prompt": False}


def read_event(data: str) -> Piece:
    """What the data of one server-sent event says, or a whole answer that was not streamed.

    Raises:
        Trouble: When it is no JSON object of the protocol, or tells of an error; its words are the server's, of any length.
    """
    try:
        event = parsed(data)
        if not event.get("choices") and (error := error_of(event)):
            raise Trouble(error, passing=not _is_refusal(event))
        choice = (event.get("choices") or [{}])[0]
        inner = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        usage = event.get("usage")
        counts = usage if isinstance(usage, Mapping) else {}
        return Piece(
            _text(inner.get("content")),
            _text(choice.get("finish_reason")),
            _count(counts.get("prompt_tokens")),
            _count(counts.get("completion_tokens")),
        )
    except (ValueError, TypeError, AttributeError, LookupError):
        raise Trouble(f"the server sent what the protocol does not have: {data}", passing=True) from None


def finish_reason(said: str) -> FinishReason:
    """Ours for the server's.

    Raises:
        Trouble: When the reply ended in a way that makes it no reply, such as ``content_filter`` or ``tool_calls``.
    """
    if said not in FINISH_REASONS:
        raise Trouble(f"the server ended the reply with '{said}'")
    return FINISH_REASONS[said]


def _text(content: Any) -> str:
    """A text of an event, which may be absent."""
    if content is None or isinstance(content, str):
        return content or ""
    raise TypeError("it is no text")


def _count(number: Any) -> int:
    """A number of tokens; 0, which means that the server does not count, for anything that can be none."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= MOST_COUNTED:
        return 0
    return int(number) if number == int(number) else 0


def _is_refusal(event: Mapping[str, Any]) -> bool:
    """Whether an error in mid-stream has the code of a request that would be refused again."""
    error = event.get("error")
    code = error.get("code") if isinstance(error, Mapping) else event.get("code")
    return isinstance(code, int) and 400 <= code < 500 and code != 429
