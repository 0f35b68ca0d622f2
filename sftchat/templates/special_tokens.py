"""Protection against forged special tokens: text in a message that looks like one is marked and encoded as text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.types import Message

START, END = "\U000f0000", "\U000f0001"
"""Markers around text that looks like a special token: private-use characters, removed from messages before marking."""
MATCHES_NOWHERE = "(?!)"
"""Regular expression that never matches."""


@dataclass(frozen=True)
class SpecialTokenPatterns:
    """Patterns of text that looks like a special token.

    Attributes:
        any_role: All added tokens.
        model: Only the special ones. A model generates the others, such as ``<think>``, as tokens, and its replies are encoded in the same way.
    """

    any_role: re.Pattern[str]
    model: re.Pattern[str]


def special_token_patterns(tokenizer: Any) -> SpecialTokenPatterns:
    """Return the patterns for a tokenizer."""
    added = tokenizer.added_tokens_decoder.values()
    return SpecialTokenPatterns(_pattern(token.content for token in added), _pattern(token.content for token in added if token.special))


def marked(patterns: SpecialTokenPatterns, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Mark text in messages that looks like a special token.

    Args:
        patterns: Patterns of the tokenizer.
        messages: The turns; JSON text in arguments of tool calls (OpenAI's format) becomes objects, as most templates expect.
    """
    turns = _with_arguments(messages, _as_object)
    return [_mark(turn, patterns.model if turn["role"] == "assistant" else patterns.any_role) for turn in turns]


def marked_tools(patterns: SpecialTokenPatterns, tools: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Mark text in tool descriptions that looks like a special token."""
    return [_mark(dict(tool), patterns.any_role) for tool in tools]


def unmarked(text: str) -> str:
    """Return the text without the markers."""
    return text.replace(START, "").replace(END, "")


@dataclass(frozen=True)
class _Part:
    """Text within a piece that is encoded in one way.

    Attributes:
        piece: Index of the piece in its row.
        text: The text, never empty.
        is_marked: Whether it is marked.
        is_first: Whether it begins its row.
    """

    piece: int
    text: str
    is_marked: bool
    is_first: bool

    @property
    def encoded_as(self) -> str:
        """Text for the tokenizer: some tokenizers add a space before the first word, so all parts but a row's first follow a newline."""
        return self.text if self.is_first else f"\n{self.text}"


def encode(tokenizer: Any, rows: Sequence[Sequence[str]]) -> Iterator[list[list[int]]]:
    """Tokenize rows of pieces, each piece separately and marked tokens as text; yields the ids of each piece, row by row.

    The ids of a piece do not depend on later text, so the pieces of a prompt have the same ids in every row that continues it. They equal those of
    transformers' ``encode_marked_chat`` for the pieces with a single marker between them. All text is tokenized in one call, because a call costs as
    much as tens of tokens.

    Args:
        tokenizer: A transformers tokenizer.
        rows: The pieces of each row.

    Raises:
        ValueError: When the tokenizer encodes marked text as a special token; the rows before it have been yielded.
    """
    added = _pattern(tokenizer.added_tokens_encoder).pattern
    markers = re.compile(f"{START}({added}){END}|[{START}{END}]")
    cut = [_parts(markers, pieces) for pieces in rows]
    plain = {part for parts in cut for part in parts if not part.is_marked}
    newline: list[int] = tokenizer.encode("\n", add_special_tokens=False)
    ids_by_text = _encoded(tokenizer, {part.encoded_as for part in plain})
    merged = {part.text for part in plain if not part.is_first and ids_by_text[part.encoded_as][: len(newline)] != newline}
    ids_by_text |= _encoded(tokenizer, merged)

    def ids_of(part: _Part) -> list[int]:
        if not part.is_marked:
            return ids_by_text[part.text] if part.is_first or part.text in merged else ids_by_text[part.encoded_as][len(newline) :]
        ids = _encoded_as_text(tokenizer, f"\n{part.text}")
        ids = ids[len(newline) :] if ids[: len(newline)] == newline else _encoded_as_text(tokenizer, part.text)
        if tokenizer.convert_tokens_to_ids(part.text) in ids:
            raise ValueError(f"the tokenizer produces {part.text!r} from plain text")
        return ids

    for pieces, parts in zip(rows, cut, strict=True):
        ids: list[list[int]] = [[] for _ in pieces]
        for part in parts:
            ids[part.piece] += ids_of(part)
        yield ids


def _parts(markers: Any, pieces: Sequence[str]) -> list[_Part]:
    """Split a row at its markers; a single marker is removed, but keeps the text on its two sides separate."""
    split = ((piece, index, text) for piece, whole in enumerate(pieces) for index, text in enumerate(markers.split(whole)))
    return [_Part(piece, text, index % 2 == 1, piece == index == 0) for piece, index, text in split if text]


def _encoded(tokenizer: Any, texts: Iterable[str]) -> dict[str, list[int]]:
    listed = list(texts)
    return dict(zip(listed, tokenizer(listed, add_special_tokens=False)["input_ids"], strict=True)) if listed else {}


def _encoded_as_text(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text without special tokens: normalizer, pre-tokenizer and model of the tokenizer, without added tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer written in Python
        ids: list[int] = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text, split_special_tokens=True))
        return ids
    normal = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    words = [normal] if backend.pre_tokenizer is None else [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]
    return [token.id for word in words for token in backend.model.tokenize(word)]


def _pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for these tokens, longer ones first."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or MATCHES_NOWHERE)


def _mark(value: Any, pattern: re.Pattern[str]) -> Any:
    """Mark all strings in a value; keys of objects are not changed."""
    if isinstance(value, str):
        return pattern.sub(f"{START}\\g<0>{END}", unmarked(value))
    if isinstance(value, Mapping):
        return {key: _mark(inner, pattern) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mark(inner, pattern) for inner in value]
    return value


def with_text_arguments(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the turns with arguments of tool calls as JSON text, for templates that concatenate them."""
    return _with_arguments(turns, lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _with_arguments(turns: Sequence[Mapping[str, Any]], change: Callable[[Any], Any]) -> list[dict[str, Any]]:
    changed: list[dict[str, Any]] = []
    for turn in turns:
        calls = []
        for call in turn.get("tool_calls") or ():
            function = call.get("function", call)
            function = {**function, "arguments": change(function.get("arguments", {}))}
            calls.append({**call, "function": function} if "function" in call else function)
        changed.append({**turn, "tool_calls": calls} if calls else dict(turn))
    return changed


def _as_object(value: Any) -> Any:
    """Parse arguments as an object; invalid JSON is returned unchanged."""
    try:
        return load_json(value) if isinstance(value, str) else value
    except ValueError:
        return value
