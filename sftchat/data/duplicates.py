"""Duplicates and near duplicates: compares the word shingles of texts, in any language, without those of a common instruction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, TypeVar
from zlib import crc32

from sftchat.data.read import line_of
from sftchat.text import abbreviate, normalise, words
from sftchat.types import Example

SHINGLE_WORDS = 3
"""Words per shingle; each Chinese character is a word."""
MIN_SHINGLES = 8
"""Texts with fewer shingles are compared for equality only, because short questions resemble each other."""
COMMON_SHARE = 0.3
COMMON_TEXTS = 10
"""A shingle in more than this share of the texts, and in more than this many, belongs to the instruction."""

Shingle = tuple[str, ...]


def comparison_key(text: str) -> Shingle:
    """Return a key that ignores spaces, width, case and punctuation; for a text without other characters, the text itself."""
    return tuple(words(text)) or (normalise(text),)


def make_shingles(text: str) -> set[Shingle]:
    """Return all runs of ``SHINGLE_WORDS`` consecutive words of a text."""
    text_words = words(text)
    return {tuple(text_words[start : start + SHINGLE_WORDS]) for start in range(len(text_words) - SHINGLE_WORDS + 1)}


def find_common_shingles(shingles_of_texts: Sequence[set[Shingle]]) -> frozenset[Shingle]:
    """Return the shingles that are in so many texts that they belong to the instruction."""
    counts = Counter(shingle for text_shingles in shingles_of_texts for shingle in text_shingles)
    limit = max(COMMON_TEXTS, int(COMMON_SHARE * len(shingles_of_texts)))
    return frozenset(shingle for shingle, count in counts.items() if count > limit)


def prompt_text(example: Example) -> str:
    """Return the text of all turns before the reply."""
    return "\n".join(turn["content"] for turn in example.messages)


def conversation_text(example: Example) -> str:
    """Return the text of all turns, including the reply."""
    return "\n".join(turn["content"] for turn in example.conversation)


K = TypeVar("K", str, bytes)


class DuplicateFinder:
    """Detects repeated prompts, rows and ids; prompts and rows are stored as hashes, so that a file may be larger than memory."""

    def __init__(self) -> None:
        # each with the line of the first occurrence
        self._lines_of_ids: dict[str, str] = {}
        self._lines_of_prompts: dict[bytes, str] = {}
        self._lines_of_rows: dict[bytes, str] = {}

    def find(self, example: Example) -> Iterator[tuple[str, str]]:
        """Compare an example with all earlier ones, and remember it; yields problem class and message."""
        line = line_of(example.source)
        if example.id and (id_line := _find_or_record_line(self._lines_of_ids, example.id, line)):
            yield "duplicate-id", f"id {abbreviate(example.id)} is taken by line {id_line}; give every row its own"
        turns = example.conversation
        row_line = _find_or_record_line(self._lines_of_rows, hash_json(turns), line)
        has_prompt_and_reply = len(turns) > 1 and turns[-1]["role"] == "assistant"
        prompt_line = _find_or_record_line(self._lines_of_prompts, hash_json(turns[:-1]), line) if has_prompt_and_reply else ""
        if row_line:
            yield "duplicate", f"the same row as line {row_line}; remove one"
        elif prompt_line:
            yield "conflict", f"the same prompt as line {prompt_line} with another reply; keep one of them"


def _find_or_record_line(lines_by_key: dict[K, str], key: K, line: str) -> str:
    """Return the recorded line of a key; when there is none, record ``line`` and return an empty string."""
    if key in lines_by_key:
        return lines_by_key[key]
    lines_by_key[key] = line
    return ""


def hash_json(value: object) -> bytes:
    """Return a short hash of a value's JSON."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()


THRESHOLD = 0.8
"""Similarity from which rows are near duplicates: with one name replaced in a passage they are, with all names replaced they are not."""
HASHES = 128
"""Number of hash functions of a MinHash sketch."""
BANDS = (16, 8)
"""Bands of the index, and hashes in each: rows are compared when all hashes of a band are equal."""
WARM_UP_ROWS = 1000
"""Number of rows to read before the first comparison, to determine the shingles of the instruction."""


@dataclass(frozen=True)
class NearDuplicate:
    """A row and the earlier row that it nearly duplicates.

    Attributes:
        source: Source of the row.
        earlier: Source of the earlier row.
        similarity: Estimated similarity, from the threshold to 1.
    """

    source: str
    earlier: str
    similarity: float

    @property
    def message(self) -> str:
        """The duplicate in one line."""
        return f"nearly the same row as line {line_of(self.earlier)} (similarity about {self.similarity:.2f})"


class NearDuplicateFinder:
    """Detects near duplicates of earlier rows, with MinHash.

    Rows are compared only with earlier rows that are no near duplicates themselves. So of rows that each differ slightly from the
    one before, those are near duplicates that resemble the first.

    Args:
        threshold: Similarity from which a row is a near duplicate; above 0, at most 1.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._kept: list[tuple[str, Any]] = []  # source and sketch of rows that are no near duplicates
        self._buffer: list[tuple[str, set[Shingle]]] = []  # source and shingles of rows not compared yet
        self._instruction: frozenset[Shingle] | None = None  # shingles of the instruction; None before the warm-up ends

    @cached_property
    def _empty_sketch(self) -> Any:
        """Empty MinHash sketch; created lazily, because the import takes a second that files of short rows do not need."""
        from datasketch import MinHash

        return MinHash(num_perm=HASHES, seed=1, hashfunc=crc32)

    @cached_property
    def _index(self) -> Any:
        from datasketch import MinHashLSH

        return MinHashLSH(num_perm=HASHES, params=BANDS)

    def add(self, source: str, text: str) -> Iterator[NearDuplicate]:
        """Add a row; yields near duplicates among this and earlier rows, and none before ``WARM_UP_ROWS`` rows were added.

        Args:
            source: Unique source of the row.
            text: Text of the row.
        """
        self._buffer.append((source, make_shingles(text)))
        if self._instruction is not None or len(self._buffer) == WARM_UP_ROWS:
            yield from self.flush()

    def flush(self) -> Iterator[NearDuplicate]:
        """Process the buffered rows; call it after the last ``add``."""
        if self._instruction is None:
            self._instruction = find_common_shingles([row_shingles for _, row_shingles in self._buffer])
        rows, self._buffer = self._buffer, []
        for source, row_shingles in rows:
            yield from self._compare_with_kept(source, row_shingles - self._instruction)

    def _compare_with_kept(self, source: str, row_shingles: set[Shingle]) -> Iterator[NearDuplicate]:
        """Yield the most similar kept row if it reaches the threshold; else keep this row."""
        if len(row_shingles) < MIN_SHINGLES:
            return
        sketch = self._empty_sketch.copy()
        sketch.update_batch([" ".join(shingle).encode() for shingle in row_shingles])
        similarity, earlier_source = 0.0, ""
        for index in sorted(self._index.query(sketch)):
            kept_source, kept_sketch = self._kept[index]
            if (kept_similarity := float(sketch.jaccard(kept_sketch))) > similarity:
                similarity, earlier_source = kept_similarity, kept_source
        if similarity >= self._threshold:
            yield NearDuplicate(source, earlier_source, round(similarity, 2))
            return
        self._index.insert(len(self._kept), sketch, check_duplication=False)
        self._kept.append((source, sketch))
