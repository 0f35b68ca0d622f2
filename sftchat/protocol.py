"""Parses responses of OpenAI-compatible servers, live or from files: finish reasons, content and errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sftchat.types import FinishReason

STOP = (
    "stop stopped stop_sequence stop_token eos eos_token eos_found end end_turn end_of_turn endoftext complete completed finished".split()
)
LENGTH = "length max_length max_tokens max_new_tokens max_output_tokens max_completion_tokens model_length token_limit context_length model_context_window_exceeded".split()  # fmt: skip
CANCELLED = ("cancelled", "canceled")
FINISH_REASONS: Mapping[str, FinishReason] = {
    **dict.fromkeys(STOP, "stop"),
    **dict.fromkeys(LENGTH, "length"),
    **dict.fromkeys(CANCELLED, "cancelled"),
}
"""Finish reasons of servers and of other programs, in lower case with underscores, mapped to ``FinishReason``. A reply with any other reason, such
as ``content_filter``, ``tool_calls`` or ``abort``, is unusable."""


def finish_reason(reason: str | None) -> FinishReason:
    """Convert a finish reason of a server or of another program.

    Args:
        reason: Finish reason in any case, such as ``STOP``, ``end_turn`` or ``eos_token``; None and the empty string mean a normal end.

    Returns:
        ``error`` for every value that is not in ``FINISH_REASONS``.
    """
    word = (reason or "stop").strip().lower().replace("-", "_").replace(" ", "_").removeprefix("finish_reason_")
    return FINISH_REASONS.get(word, "error")


def unusable_reply_message(reason: str) -> str:
    """Format the error message for a finish reason that is not in ``FINISH_REASONS``."""
    return f"the server ended the reply with '{reason}'"


def error_message(body: Any) -> str:
    """Extract the error message from a response in any of the known formats; empty when there is none.

    OpenAI and vLLM send ``{"error": {"message": …}}``, FastAPI ``{"detail": …}``, transformers ``{"error": "…"}``.

    Args:
        body: JSON of a response, or of one event of a stream.
    """
    for key in ("error", "message", "detail"):
        error = body.get(key) if isinstance(body, Mapping) else None
        if isinstance(error, Mapping):
            error = error.get("message") or error.get("type") or error.get("code")
        if error:
            return str(error)
    return ""


@dataclass(frozen=True)
class Content:
    """Content of a message, or of a delta.

    Attributes:
        text: Text of the reply, or of a refusal.
        thoughts: Reasoning that the server returns separately.
        refused: Whether the server marked the text as a refusal.
        called_functions: Names of the functions that the model calls.
    """

    text: str = ""
    thoughts: str = ""
    refused: bool = False
    called_functions: tuple[str, ...] = ()


def parse_content(message: Mapping[str, Any]) -> Content:
    """Parse a message of a complete response, or a delta of a stream.

    Args:
        message: Object with ``content`` as text or as a list of parts (of type ``text``, ``output_text``, ``thinking``, ``reasoning`` or
            ``refusal``), and optionally ``reasoning_content`` or ``reasoning``, ``refusal`` and ``tool_calls``.

    Raises:
        TypeError: When a value has the wrong type, or a part has another type than those; the message names it.
    """
    texts, thoughts, refusals = [], [], [_checked_text(message.get("refusal"), "refusal")]
    content = message.get("content")
    for part in content if isinstance(content, list) else [content]:
        if not isinstance(part, Mapping):
            texts.append(_checked_text(part, "content"))
            continue
        part_type = part.get("type")
        if part_type in ("text", "output_text"):
            texts.append(_checked_text(part.get("text"), "content"))
        elif part_type in ("thinking", "reasoning"):
            thoughts.append(_thought_text(part.get(part_type, part.get("text"))))
        elif part_type == "refusal":
            refusals.append(_checked_text(part.get("refusal"), "refusal"))
        else:
            raise TypeError(f"a part of its content is of kind '{part_type}', which is no text")
    # some servers send the same thoughts under both names
    thoughts.append(_checked_text(message.get("reasoning_content") or message.get("reasoning") or None, "reasoning"))
    calls = message.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    called_functions = tuple(str(function["name"]) for function in functions if isinstance(function, Mapping) and function.get("name"))
    refusal = "".join(refusals)
    return Content("".join(texts) + refusal, "".join(thoughts), bool(refusal), called_functions)


def _thought_text(content: Any) -> str:
    """Return the text of thoughts that are a text or a list of parts."""
    if not isinstance(content, list):
        return _checked_text(content, "thinking")
    return "".join(_checked_text(part.get("text") if isinstance(part, Mapping) else part, "thinking") for part in content)


def _checked_text(value: Any, what: str) -> str:
    """Return a text, and an empty one for None; raise ``TypeError`` for any other value."""
    if value is None or isinstance(value, str):
        return value or ""
    raise TypeError(f"its {what} is no text")
