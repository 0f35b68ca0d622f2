"""Special tokens that only the template may write: what looks like one in a message is marked, encoded as text, and can be unmarked again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftchat.parsing import parsed
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


@dataclass(frozen=True)
class _Part:
    """Text within a piece that is encoded in one way.

    Attributes:
        piece: Index of the piece in its row.
        text: The text, never empty.
        is_marked: Whether it is what looks like a special token in a message.
        is_first: Whether its row begins with it.
    """

    piece: int
    text: str
    is_marked: bool
    is_first: bool

    @property
    def encoded_as(self) -> str:
        """What the tokenizer is given: some put a space before the first word of a text, so all but that of a row comes after a newline."""
        return self.text if self.is_first else f"\n{self.text}"


def encode(tokenizer: Any, rows: Sequence[Sequence[str]]) -> Iterator[list[list[int]]]:
    """Tokenise rows of pieces, each piece on its own, marked tokens as text; yields the ids of each piece, row by row.

    The ids of a piece depend on nothing that comes after it, so the pieces of a prompt have the same ids in every row that continues it. They are those
    of transformers' ``encode_marked_chat`` for the pieces with a lone marker between them. All text goes through the tokenizer at once, because a
    call costs as much as tens of tokens.

    Args:
        tokenizer: A transformers tokenizer.
        rows: The pieces of each row.

    Raises:
        ValueError: When the tokenizer makes a special token of any text that looks like it; the rows before it have been yielded.
    """
    from transformers.utils.chat_template_utils import _encode_chat_piece, _get_control_token_patterns

    _, markers = _get_control_token_patterns(tuple(tokenizer.added_tokens_encoder))
    cut = [_parts(markers, pieces) for pieces in rows]
    plain = {part for parts in cut for part in parts if not part.is_marked}
    newline: list[int] = tokenizer.encode("\n", add_special_tokens=False)
    known = _encoded(tokenizer, {part.encoded_as for part in plain})
    merged = {part.text for part in plain if not part.is_first and known[part.encoded_as][: len(newline)] != newline}
    known |= _encoded(tokenizer, merged)

    def ids_of(part: _Part) -> list[int]:
        """The ids of a part."""
        if not part.is_marked:
            return known[part.text] if part.is_first or part.text in merged else known[part.encoded_as][len(newline) :]
        ids: list[int] = _encode_chat_piece(tokenizer, part.text, True, newline)
        if tokenizer.convert_tokens_to_ids(part.text) in ids:
            raise ValueError(f"the tokenizer produces {part.text!r} from plain text")
        return ids

    for pieces, parts in zip(rows, cut, strict=True):
        ids: list[list[int]] = [[] for _ in pieces]
        for part in parts:
            ids[part.piece] += ids_of(part)
        yield ids


def _parts(markers: Any, pieces: Sequence[str]) -> list[_Part]:
    """A row cut at what is marked; a lone marker goes, yet keeps the text on its two sides apart."""
    split = ((piece, at, text) for piece, given in enumerate(pieces) for at, text in enumerate(markers.split(given)))
    return [_Part(piece, text, at % 2 == 1, piece == at == 0) for piece, at, text in split if text]


def _encoded(tokenizer: Any, texts: Iterable[str]) -> dict[str, list[int]]:
    """The ids of each text, special tokens in it as such."""
    listed = list(texts)
    return dict(zip(listed, tokenizer(listed, add_special_tokens=False)["input_ids"], strict=True)) if listed else {}


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
        return parsed(given) if isinstance(given, str) else given
    except ValueError:
        return given
