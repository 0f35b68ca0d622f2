"""Protection against forged special tokens: text of a message that looks like a special token is marked, and encoded as plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.types import Message

START, END = "\U000f0000", "\U000f0001"
"""Markers before and after text that looks like a special token: private-use characters, removed from messages before marking."""
MATCHES_NOWHERE = "(?!)"
"""Regular expression that never matches."""


@dataclass(frozen=True)
class SpecialTokenPatterns:
    """Patterns of text that looks like a special token.

    Attributes:
        any_role: Matches all added tokens; for turns of users, systems and tools.
        model: Matches only special added tokens; for replies. A model generates the others, such as ``<think>``, as tokens, and its replies are
            encoded in the same way.
    """

    any_role: re.Pattern[str]
    model: re.Pattern[str]


def special_token_patterns(tokenizer: Any) -> SpecialTokenPatterns:
    """Return the patterns for a tokenizer."""
    added = tokenizer.added_tokens_decoder.values()
    return SpecialTokenPatterns(
        _compile_alternatives(token.content for token in added), _compile_alternatives(token.content for token in added if token.special)
    )


def mark_turns(patterns: SpecialTokenPatterns, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Mark text in messages that looks like a special token.

    Args:
        patterns: Patterns of the tokenizer.
        messages: The turns; JSON text in arguments of tool calls (OpenAI's format) becomes objects, as most templates expect.
    """
    turns = _convert_arguments(messages, _parse_arguments)
    return [_mark(turn, patterns.model if turn["role"] == "assistant" else patterns.any_role) for turn in turns]


def mark_tools(patterns: SpecialTokenPatterns, tools: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Mark text in tool descriptions that looks like a special token."""
    return [_mark(dict(tool), patterns.any_role) for tool in tools]


def unmark(text: str) -> str:
    """Return the text without the markers."""
    return text.replace(START, "").replace(END, "")


@dataclass(frozen=True)
class _Part:
    """A part of a piece: a marked text, or the text between two marked ones.

    Attributes:
        piece: Index of the piece in its row.
        text: The text, never empty.
        is_marked: Whether the text is encoded without special tokens.
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


def encode_pieces(tokenizer: Any, rows: Sequence[Sequence[str]]) -> Iterator[list[list[int]]]:
    """Tokenize each piece of each row separately; yield the ids of each piece, row by row.

    Text of a message that looks like a special token is marked (``mark_turns``) and encoded as plain text. The ids of a piece do not depend on later
    text, so the pieces of a prompt have the same ids in every row that continues it. The ids equal those of transformers' ``encode_marked_chat`` for
    the pieces joined by single markers. All unmarked text is tokenized in one call, because a call costs as much as tens of tokens.

    Args:
        tokenizer: A transformers tokenizer.
        rows: The pieces of each row.

    Raises:
        ValueError: When the tokenizer encodes marked text as a special token; the rows before it have been yielded.
    """
    added = _compile_alternatives(tokenizer.added_tokens_encoder).pattern
    marked_text = re.compile(f"{START}({added}){END}|[{START}{END}]")
    parts_by_row = [_split_row(marked_text, pieces) for pieces in rows]
    plain = {part for parts in parts_by_row for part in parts if not part.is_marked}
    newline: list[int] = tokenizer.encode("\n", add_special_tokens=False)
    ids_by_text = _encode_texts(tokenizer, [part.encoded_as for part in plain])
    # texts that share their first token with the newline are encoded again without it
    merged_with_newline = {part.text for part in plain if not part.is_first and ids_by_text[part.encoded_as][: len(newline)] != newline}
    ids_by_text |= _encode_texts(tokenizer, merged_with_newline)

    def ids_of(part: _Part) -> list[int]:
        if not part.is_marked:
            if part.is_first or part.text in merged_with_newline:
                return ids_by_text[part.text]
            return ids_by_text[part.encoded_as][len(newline) :]
        ids = _encode_as_text(tokenizer, f"\n{part.text}")
        ids = ids[len(newline) :] if ids[: len(newline)] == newline else _encode_as_text(tokenizer, part.text)
        if tokenizer.convert_tokens_to_ids(part.text) in ids:
            raise ValueError(f"the tokenizer produces {part.text!r} from plain text")
        return ids

    for pieces, parts in zip(rows, parts_by_row, strict=True):
        ids: list[list[int]] = [[] for _ in pieces]
        for part in parts:
            ids[part.piece] += ids_of(part)
        yield ids


def _split_row(marked_text: re.Pattern[str], pieces: Sequence[str]) -> list[_Part]:
    """Split the pieces of a row at marked text; a single marker is removed, but keeps the texts on its two sides separate."""
    parts = []
    for piece, piece_text in enumerate(pieces):
        # the pattern has one group, so every second element is marked text, or None for a single marker
        for index, text in enumerate(marked_text.split(piece_text)):
            if text:
                parts.append(_Part(piece, text, is_marked=index % 2 == 1, is_first=piece == index == 0))
    return parts


def _encode_texts(tokenizer: Any, texts: Iterable[str]) -> dict[str, list[int]]:
    unique_texts = list({*texts})
    if not unique_texts:
        return {}
    return dict(zip(unique_texts, tokenizer(unique_texts, add_special_tokens=False)["input_ids"], strict=True))


def _encode_as_text(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text without special tokens: normalizer, pre-tokenizer and model of the tokenizer, without added tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer written in Python
        ids: list[int] = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text, split_special_tokens=True))
        return ids
    normalized = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    words = [normalized] if backend.pre_tokenizer is None else [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized)]
    return [token.id for word in words for token in backend.model.tokenize(word)]


def _compile_alternatives(tokens: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of some tokens, longer ones first."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or MATCHES_NOWHERE)


def _mark(value: Any, pattern: re.Pattern[str]) -> Any:
    """Mark all strings in a value; keys of objects are not changed."""
    if isinstance(value, str):
        return pattern.sub(f"{START}\\g<0>{END}", unmark(value))
    if isinstance(value, Mapping):
        return {key: _mark(inner, pattern) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mark(inner, pattern) for inner in value]
    return value


def arguments_as_text(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the turns with arguments of tool calls as JSON text, for templates that concatenate them."""
    return _convert_arguments(turns, lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _convert_arguments(turns: Sequence[Mapping[str, Any]], convert: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Return the turns with the arguments of each tool call converted; a call has them itself or under ``function``, as in OpenAI's format."""
    converted: list[dict[str, Any]] = []
    for turn in turns:
        calls = []
        for call in turn.get("tool_calls") or ():
            function = call.get("function", call)
            function = {**function, "arguments": convert(function.get("arguments", {}))}
            calls.append({**call, "function": function} if "function" in call else function)
        converted.append({**turn, "tool_calls": calls} if calls else dict(turn))
    return converted


def _parse_arguments(value: Any) -> Any:
    """Parse arguments that are JSON text; invalid JSON is returned unchanged."""
    try:
        return load_json(value) if isinstance(value, str) else value
    except ValueError:
        return value
