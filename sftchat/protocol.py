"""Parses responses of OpenAI-compatible servers, live or from files: finish reasons, content, tool calls and errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
as ``content_filter`` or ``abort``, is unusable."""
CALL_REASONS = ("tool_calls", "tool_call", "function_call", "tool_use")
"""Finish reasons of replies that end with tool calls; without any, such a reply is unusable."""


def finish_reason(reason: str | None, *, has_calls: bool = False) -> FinishReason:
    """Convert a finish reason of a server or of another program.

    Args:
        reason: Finish reason in any case, such as ``STOP``, ``end_turn`` or ``eos_token``; None and the empty string mean a normal end.
        has_calls: Whether the reply has tool calls.

    Returns:
        ``error`` for every value that is not in ``FINISH_REASONS``.
    """
    word = (reason or "stop").strip().lower().replace("-", "_").replace(" ", "_").removeprefix("finish_reason_")
    return "stop" if has_calls and word in CALL_REASONS else FINISH_REASONS.get(word, "error")


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
class CallPart:
    """A tool call of a message, or the part of one in a delta.

    Attributes:
        index: Position of the call in the reply.
        id: The server's id of the call; empty in later deltas.
        name: Name of the function; empty in later deltas.
        arguments: Its arguments as JSON text, or a part of that.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class ToolCalls:
    """The tool calls of one reply, collected from its deltas.

    Attributes:
        characters: Number of characters received so far, and of parts.
    """

    characters: int = 0
    _calls: list[CallPart] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, parts: Iterable[CallPart]) -> None:
        """Add the parts of a delta, or the calls of a message."""
        for part in parts:
            self.characters += 1 + len(part.name) + len(part.arguments)
            position = next((position for position in reversed(range(len(self._calls))) if self._calls[position].index == part.index), -1)
            # some servers send several calls under one index
            if position < 0 or (part.id and self._calls[position].id not in ("", part.id)):
                self._calls.append(part)
                continue
            call = self._calls[position]
            self._calls[position] = CallPart(call.index, call.id or part.id, call.name or part.name, call.arguments + part.arguments)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the called functions."""
        return tuple(call.name for call in self._calls if call.name)

    @property
    def text(self) -> str:
        """The calls as text, in the format of Hermes and Qwen: ``<tool_call>``, the JSON of the call and ``</tool_call>`` on lines of their own.

        Arguments that are no JSON object, such as those of a reply that was cut off, are written as they are, so the call cannot be parsed.
        """
        return "\n".join(_call_text(call.name, call.arguments) for call in self._calls)


def _call_text(name: str, arguments: str) -> str:
    written = arguments
    try:
        value = json.loads(arguments or "{}")
        written = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else arguments
    except (ValueError, RecursionError):
        pass  # no JSON: written as it is
    return f'<tool_call>\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {written}}}\n</tool_call>'


def with_calls(text: str, calls: str) -> str:
    """Append the text of tool calls to the text of a reply, on a new line."""
    return f"{text}\n{calls}" if text and calls else text or calls


@dataclass(frozen=True)
class Content:
    """Content of a message, or of a delta.

    Attributes:
        text: Text of the reply, or of a refusal.
        thoughts: Reasoning that the server returns separately.
        refused: Whether the server marked the text as a refusal.
        calls: Tool calls, or parts of them.
    """

    text: str = ""
    thoughts: str = ""
    refused: bool = False
    calls: tuple[CallPart, ...] = ()


def parse_content(message: Mapping[str, Any]) -> Content:
    """Parse a message of a complete response, or a delta of a stream.

    Args:
        message: Object with ``content`` as text or as a list of parts (of type ``text``, ``output_text``, ``thinking``, ``reasoning`` or
            ``refusal``), and optionally ``reasoning_content`` or ``reasoning``, ``refusal`` and
            ``tool_calls`` or ``function_call``.

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
    refusal = "".join(refusals)
    return Content("".join(texts) + refusal, "".join(thoughts), bool(refusal), tuple(_call_parts(message)))


def _call_parts(message: Mapping[str, Any]) -> Iterable[CallPart]:
    """Yield the tool calls of a message, and the call in its older form ``function_call``; what has no function is left out."""
    calls = message.get("tool_calls")
    entries = list(calls) if isinstance(calls, list) else []
    if isinstance(message.get("function_call"), Mapping) and not entries:
        entries = [{"function": message["function_call"]}]
    for position, call in enumerate(entries):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            continue
        index, arguments = call.get("index"), function.get("arguments")
        yield CallPart(
            index if isinstance(index, int) else position,
            str(call.get("id") or ""),
            str(function.get("name") or ""),
            arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments, ensure_ascii=False),
        )


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
