"""Convert examples to rows of a given format; rejects content that the format cannot represent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sftchat.errors import DataError, UsageError, unknown_name_message
from sftchat.types import Example, Message

RESERVED_KEYS = frozenset({
    "id", "metadata", "messages", "gold", "conversations", "prompt", "completion", "chosen", "text", "system", "functions",
    "instruction", "input", "context", "output", "response", "history", "label", "labels", "kto_tag",
})  # fmt: skip
"""Keys that have a meaning in one of the formats; metadata with these names is written under ``metadata`` to avoid confusion."""

SHAREGPT_NAMES = {"user": "human", "assistant": "gpt", "tool": "observation"}


def serialize(example: Example, format: str) -> dict[str, Any]:
    """Convert an example to a row; ``to_example`` of the row returns the same example, except for its source.

    Metadata become keys of the row; in an evalset row they are under ``metadata``.

    Args:
        example: The example.
        format: ``"messages"``, ``"prompt-completion"`` (as lists of turns), ``"alpaca"``, ``"sharegpt"``, ``"text"`` or ``"evalset"``.

    Raises:
        UsageError: When the format is unknown.
        DataError: When the format cannot represent the example; the message suggests another.
    """
    if format not in _WRITERS:
        raise UsageError(unknown_name_message("format", format, _WRITERS))
    row = {"id": example.id} if example.id else {}
    try:
        if not example.messages and format != "text":
            raise DataError(f"a text row has no turns, which {format} needs; choose the format text")
        row |= _WRITERS[format](example)
    except DataError as error:
        raise DataError(str(error), example.source) from None
    extra = dict(example.metadata)
    if not extra:
        return row
    return {**row, "metadata": extra} if format == "evalset" or RESERVED_KEYS & extra.keys() else {**row, **extra}


def _to_messages(example: Example) -> dict[str, Any]:
    return {"messages": _copy_turns(example.conversation)}


def _to_evalset(example: Example) -> dict[str, Any]:
    if example.gold is None:
        raise DataError("the row has no gold reply, which evalset needs; choose the format messages")
    return {"messages": _copy_turns(example.messages), "gold": example.gold}


def _to_prompt_completion(example: Example) -> dict[str, Any]:
    """Return both sides as turns, so that every conversation fits without a template."""
    _require_reply(example, "prompt-completion")
    return {"prompt": _copy_turns(example.conversation[:-1]), "completion": _copy_turns(example.conversation[-1:])}


def _to_alpaca(example: Example) -> dict[str, Any]:
    """Return instruction, input, output, history and system prompt; the input is separate only when the example kept it as context."""
    _require_reply(example, "alpaca")
    require_plain_turns(example, "alpaca")
    turns = example.conversation
    row: dict[str, Any] = {}
    if turns[0]["role"] == "system":
        row["system"] = turns[0]["content"]
        turns = turns[1:]
    *earlier_turns, question, reply = turns
    context = question.get("context", "")
    row["instruction"] = question["content"].removesuffix(f"\n\n{context}" if context else "")
    row["input"] = context
    row["output"] = reply["content"]
    if earlier_turns:
        history = [turn["content"] for turn in earlier_turns]
        row["history"] = [history[start : start + 2] for start in range(0, len(history), 2)]
    return row


def _to_sharegpt(example: Example) -> dict[str, Any]:
    """Return all turns with ShareGPT's names; a tool call is a turn of its own, as LLaMA-Factory reads it."""
    return {"conversations": [_to_sharegpt_turn(turn, index) for index, turn in enumerate(example.conversation)]}


def _to_sharegpt_turn(turn: Message, index: int) -> dict[str, Any]:
    """Return one turn; calls that `_plain_calls` cannot convert stay under ``tool_calls``."""
    extra = {key: value for key, value in turn.items() if key not in ("role", "content")}
    reserved = sorted(extra.keys() & {"from", "value"})
    if reserved:
        raise DataError(f"messages[{index}] also holds {reserved[0]}, which sharegpt needs itself; choose the format messages")
    calls = _to_plain_calls(turn)
    if calls is not None:
        del extra["tool_calls"]
        value = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
        return {"from": "function_call", "value": value, **extra}
    return {"from": SHAREGPT_NAMES.get(turn["role"], turn["role"]), "value": turn["content"], **extra}


def _to_plain_calls(turn: Message) -> list[dict[str, Any]] | None:
    """Return the calls of a turn, each as name and arguments; None without calls, or when other content would be lost."""
    calls = turn.get("tool_calls")
    if not calls or turn["content"]:
        return None
    plain_calls = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or function.keys() - {"name", "arguments"}:
            return None
        extra = {key: value for key, value in call.items() if key not in ("type", "function")}
        if call.get("type") != "function" or extra.keys() & function.keys():
            return None
        plain_calls.append({**extra, **function})
    return plain_calls


def _to_text(example: Example) -> dict[str, Any]:
    """Return the text of a text row; a conversation is rejected, because no template for its rendering is given."""
    if example.messages or example.gold is None:
        raise DataError("a conversation becomes text only by a template; say which with --template, or choose the format messages")
    return {"text": example.gold}


_WRITERS: dict[str, Callable[[Example], dict[str, Any]]] = {
    "messages": _to_messages,
    "prompt-completion": _to_prompt_completion,
    "alpaca": _to_alpaca,
    "sharegpt": _to_sharegpt,
    "text": _to_text,
    "evalset": _to_evalset,
}

FORMATS = tuple(_WRITERS)
"""All format names, as in ``--format`` and ``--to``."""


def _copy_turns(turns: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [dict(turn) for turn in turns]


def _require_reply(example: Example, format: str) -> None:
    if example.conversation[-1]["role"] != "assistant":
        raise DataError(f"the row has no reply, which {format} needs; choose the format messages")


def require_plain_turns(example: Example, format: str) -> None:
    """Reject turns that hold more than role and text, and tool turns.

    The key ``context`` is accepted although a format may drop it. Its text is part of ``content`` too, so no text is lost; but a template that writes
    the context under a heading can no longer do so.
    """
    for index, turn in enumerate(example.conversation):
        extra = [key for key in turn if key not in ("role", "content", "context")]
        if extra or turn["role"] == "tool":
            problem = f"also holds {', '.join(extra)}" if extra else "is a tool's"
            raise DataError(f"messages[{index}] {problem}, for which {format} has no place; choose the format messages")
