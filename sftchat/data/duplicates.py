"""Duplicates and near duplicates: word shingles of texts, in any language, without those of the shared instruction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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


def shingles(text: Sequence[str]) -> set[Shingle]:
    """Return all runs of ``SHINGLE_WORDS`` consecutive tokens."""
    return {tuple(text[start : start + SHINGLE_WORDS]) for start in range(len(text) - SHINGLE_WORDS + 1)}


def common_shingles(texts: Iterable[set[Shingle]], number: int) -> frozenset[Shingle]:
    """Return the shingles that so many of ``number`` texts share that they belong to the instruction."""
    counts = Counter(run for text in texts for run in text)
    limit = max(COMMON_TEXTS, int(COMMON_SHARE * number))
    return frozenset(run for run, count in counts.items() if count > limit)


def prompt_text(example: Example) -> str:
    """Return the text of all turns before the reply."""
    return "\n".join(turn["content"] for turn in example.messages)


def conversation_text(example: Example) -> str:
    """Return the text of all turns, including the reply."""
    return "\n".join(turn["content"] for turn in example.conversation)


K = TypeVar("K", str, bytes)


class DuplicateFinder:
    """First occurrences of prompts, rows and ids; stored as hashes, so that a file may be larger than memory."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self.prompts: dict[bytes, str] = {}
        self.rows: dict[bytes, str] = {}

    def find(self, example: Example) -> Iterator[tuple[str, str]]:
        """Compare an example with all earlier ones; yields problem class and message."""
        line = line_of(example.source)
        if example.id and (first := _first_occurrence(self.ids, example.id, line)):
            yield "duplicate-id", f"id {abbreviate(example.id)} is taken by line {first}; give every row its own"
        turns = example.conversation
        first_row = _first_occurrence(self.rows, digest(turns), line)
        # a text without a prompt, or a prompt without a reply, can be compared as a whole only
        replied = len(turns) > 1 and turns[-1]["role"] == "assistant"
        first_prompt = _first_occurrence(self.prompts, digest(turns[:-1]), line) if replied else ""
        if first_row:
            yield "duplicate", f"the same row as line {first_row}; remove one"
        elif first_prompt:
            yield "conflict", f"the same prompt as line {first_prompt} with another reply; keep one of them"


def _first_occurrence(table: dict[K, str], key: K, line: str) -> str:
    """Return the line of the first occurrence of a key; record it and return an empty string when this is the first."""
    if key in table:
        return table[key]
    table[key] = line
    return ""


def digest(value: object) -> bytes:
    """Return a short hash of a value's JSON."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()


THRESHOLD = 0.8
"""Similarity from which rows are near duplicates: with one name replaced in a passage they are, with all names replaced they are not."""
HASHES = 128
BANDS = (16, 8)
WARM_UP_ROWS = 1000
"""Number of rows to read before the first comparison, to determine the shingles of the instruction."""


@dataclass(frozen=True)
class NearDuplicate:
    """A row and the earlier row that it nearly duplicates.

    Attributes:
        source: Source of the row.
        first: Source of the earlier row.
        similarity: Estimated similarity, from the threshold to 1.
    """

    source: str
    first: str
    similarity: float

    @property
    def message(self) -> str:
        """The duplicate in one line."""
        return f"nearly the same row as line {line_of(self.first)} (similarity about {self.similarity:.2f})"


class NearDuplicateFinder:
    """Detects near duplicates of earlier kept rows (MinHash).

    A near duplicate is not compared with later rows: of a chain of slightly changed rows, the first is kept, and later ones that differ
    enough from it.

    Args:
        threshold: Similarity from which a row is a near duplicate; above 0, at most 1.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._kept: list[tuple[str, Any]] = []
        self._waiting: list[tuple[str, set[Shingle]]] = []
        self._instruction: frozenset[Shingle] | None = None

    @cached_property
    def _empty(self) -> Any:
        """Empty MinHash sketch; created lazily, because the import takes a second that files of short rows do not need."""
        from datasketch import MinHash

        return MinHash(num_perm=HASHES, seed=1, hashfunc=crc32)

    @cached_property
    def _index(self) -> Any:
        from datasketch import MinHashLSH

        return MinHashLSH(num_perm=HASHES, params=BANDS)

    def add(self, source: str, text: str) -> Iterator[NearDuplicate]:
        """Add a row; results may concern earlier rows, and there are none before ``WARM_UP_ROWS`` rows were added.

        Args:
            source: Unique source of the row.
            text: Text of the row.
        """
        text_shingles = shingles(words(text))
        if self._instruction is not None:
            yield from self._compare(source, text_shingles)
            return
        self._waiting.append((source, text_shingles))
        if len(self._waiting) == WARM_UP_ROWS:
            yield from self.flush()

    def flush(self) -> Iterator[NearDuplicate]:
        """Process the buffered rows; call it after the last ``add``."""
        if self._instruction is None:
            self._instruction = common_shingles((text_shingles for _, text_shingles in self._waiting), len(self._waiting))
        buffered, self._waiting = self._waiting, []
        for source, text_shingles in buffered:
            yield from self._compare(source, text_shingles)

    def _compare(self, source: str, text_shingles: set[Shingle]) -> Iterator[NearDuplicate]:
        """Compare a row with the kept ones, and keep it when none is near."""
        distinctive = text_shingles - (self._instruction or frozenset())
        if len(distinctive) < MIN_SHINGLES:
            return
        sketch = self._empty.copy()
        sketch.update_batch([" ".join(run).encode() for run in distinctive])
        similar = [(sketch.jaccard(self._kept[index][1]), -index) for index in self._index.query(sketch)]
        similarity, index = max(similar, default=(0.0, 0))
        if similarity >= self._threshold:
            yield NearDuplicate(source, self._kept[-index][0], round(float(similarity), 2))
            return
        self._index.insert(len(self._kept), sketch, check_duplication=False)
        self._kept.append((source, sketch))
