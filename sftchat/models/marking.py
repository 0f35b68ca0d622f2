"""Special tokens that only the template may write: what looks like one in a message is marked, encoded as text, and can be unmarked again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftchat.types import Message


@dataclass(frozen=True)
class Forgeries:
    """Expressions that find what looks like a special token.

    Attributes:
        anybody: Every added token.
        model: Those that are special. The others, such as ``<think>`` of a tokenizer that has it, a model writes as tokens, and what it said is read
            again as it was written.
    """

    anybody: Any
    model: Any


def forgeries(tokenizer: Any) -> Forgeries:
    """The expressions for a tokenizer."""
    added = tokenizer.added_tokens_decoder.values()
    return Forgeries(_pattern(token.content for token in added), _pattern(token.content for token in added if token.special))


def marked(found: Forgeries, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Mark what looks like a special token in messages, so that nobody can forge one.

    Args:
        found: Expressions for it.
        messages: The turns; arguments of tool calls that are JSON text, as OpenAI writes them, become objects, as most templates expect.
    """
    turns = _with_arguments(messages, _as_object)
    return [_mark(turn, found.model if turn["role"] == "assistant" else found.anybody) for turn in turns]


def marked_tools(found: Forgeries, tools: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Mark what looks like a special token in the descriptions of tools."""
    return [_mark(dict(tool), found.anybody) for tool in tools]


def unmarked(text: str) -> str:
    """The text without the markers around forged special tokens."""
    from transformers.utils.chat_template_utils import _CONTROL_TOKEN_END, _CONTROL_TOKEN_START

    return text.replace(_CONTROL_TOKEN_START, "").replace(_CONTROL_TOKEN_END, "")


def encode(tokenizer: Any, pieces: Sequence[str]) -> list[int]:
    """Tokenise pieces one by one, marked tokens as text.

    Raises:
        ValueError: When the tokenizer makes a special token of any text that looks like it.
    """
    from transformers.utils import chat_template_utils

    # a lone marker is dropped by the encoder, yet keeps the text on its two sides apart
    ids: list[int] = chat_template_utils.encode_marked_chat(tokenizer, chat_template_utils._CONTROL_TOKEN_START.join(pieces))
    return ids


def _pattern(tokens: Any) -> Any:
    """The expression that finds these tokens."""
    from transformers.utils.chat_template_utils import _get_control_token_patterns

    return _get_control_token_patterns(tuple(tokens))[0]


def _mark(value: Any, pattern: Any) -> Any:
    """The value with every text in it marked."""
    from transformers.utils.chat_template_utils import mark_control_tokens

    return mark_control_tokens(value, pattern)


def with_text_arguments(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The turns with the arguments of tool calls as JSON text, for templates that concatenate them."""
    return _with_arguments(turns, lambda given: given if isinstance(given, str) else json.dumps(given, ensure_ascii=False))


def _with_arguments(turns: Sequence[Mapping[str, Any]], change: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """The turns with the arguments of their tool calls changed."""
    changed: list[dict[str, Any]] = []
    for turn in turns:
        calls = []
        for call in turn.get("tool_calls") or ():
            function = call.get("function", call)
            function = {**function, "arguments": change(function.get("arguments", {}))}
            calls.append({**call, "function": function} if "function" in call else function)
        changed.append({**turn, "tool_calls": calls} if calls else dict(turn))
    return changed


def _as_object(given: Any) -> Any:
    """Arguments as an object; text that is no JSON stays as it is."""
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return given
