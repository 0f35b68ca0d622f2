"""What two texts have in common: runs of consecutive words, whatever the language, with what belongs to the instruction left out."""

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
from sftchat.data.values import abbreviate
from sftchat.text import normalise, words
from sftchat.types import Example

SHINGLE_WORDS = 3
"""Words of a run; a Chinese character is one."""
MIN_SHINGLES = 8
"""Texts with fewer runs than this are alike only when they are the same: short questions resemble each other."""
COMMON_SHARE = 0.3
COMMON_TEXTS = 10
"""A run in more than this share of the texts, and in more than this many, belongs to the instruction."""

Run = tuple[str, ...]


def key(text: str) -> Run:
    """Equal for texts that differ in nothing but spaces, width, case and punctuation; the text itself where nothing else is in it."""
    return tuple(words(text)) or (normalise(text),)


def shingles(text: Sequence[str]) -> set[Run]:
    """Every run of ``SHINGLE_WORDS`` consecutive tokens."""
    return {tuple(text[at : at + SHINGLE_WORDS]) for at in range(len(text) - SHINGLE_WORDS + 1)}


def common(texts: Iterable[set[Run]], number: int) -> frozenset[Run]:
    """The runs that so many of a number of texts share that they say nothing: the instruction."""
    counts = Counter(run for text in texts for run in text)
    most = max(COMMON_TEXTS, int(COMMON_SHARE * number))
    return frozenset(run for run, count in counts.items() if count > most)


def prompt_text(example: Example) -> str:
    """Everything that is said before the reply."""
    return "\n".join(turn["content"] for turn in example.messages)


def whole_text(example: Example) -> str:
    """Everything that is said, the reply included."""
    return "\n".join(turn["content"] for turn in example.conversation)


K = TypeVar("K", str, bytes)


class Repeats:
    """Where prompts, rows and ids stood first; hashes, so that a file larger than memory can be checked."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self.prompts: dict[bytes, str] = {}
        self.rows: dict[bytes, str] = {}

    def problems(self, example: Example) -> Iterator[tuple[str, str]]:
        """Compare an example with all before it; yields classes and messages."""
        line = line_of(example.source)
        if example.id and (first := _before(self.ids, example.id, line)):
            yield "duplicate-id", f"id {abbreviate(example.id)} is taken by line {first}; give every row its own"
        turns = example.conversation
        first_row = _before(self.rows, digest(turns), line)
        # a text without a prompt, or a prompt without a reply, can only be the same as a whole
        replied = len(turns) > 1 and turns[-1]["role"] == "assistant"
        first_prompt = _before(self.prompts, digest(turns[:-1]), line) if replied else ""
        if first_row:
            yield "duplicate", f"the same row as line {first_row}; remove one"
        elif first_prompt:
            yield "conflict", f"the same prompt as line {first_prompt} with another reply; keep one of them"


def _before(table: dict[K, str], key: K, line: str) -> str:
    """The line where a key stood first; empty, and noted, when that is now."""
    if key in table:
        return table[key]
    table[key] = line
    return ""


def digest(value: object) -> bytes:
    """A short hash of a value's JSON."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()


THRESHOLD = 0.8
"""From here on two rows are nearly the same: a passage with one name replaced is, one with every name replaced is not."""
HASHES = 128
BANDS = (16, 8)
FIRST = 1000
"""Rows that are read before the first is judged, to learn which runs belong to the instruction."""


@dataclass(frozen=True)
class Near:
    """A row and the earlier one that it nearly is.

    Attributes:
        source: Where the row stands.
        first: Where the earlier one stands.
        similarity: Estimate, from the threshold to 1.
    """

    source: str
    first: str
    similarity: float


class NearDuplicates:
    """Takes rows one by one and says which are near to an earlier one that was kept.

    A row that is near is not compared with later ones: of a chain of ever so slightly changed rows the first stays, and with it those that
    are far enough from it.

    Args:
        threshold: Similarity from which on a row is near, above 0 and at most 1.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._kept: list[tuple[str, Any]] = []
        self._waiting: list[tuple[str, set[Run]]] = []
        self._instruction: frozenset[Run] | None = None

    @cached_property
    def _empty(self) -> Any:
        """The sketch of nothing; importing what makes sketches takes a second, which a file of short rows need not wait for."""
        from datasketch import MinHash

        return MinHash(num_perm=HASHES, seed=1, hashfunc=crc32)

    @cached_property
    def _index(self) -> Any:
        """The sketches kept, by their bands."""
        from datasketch import MinHashLSH

        return MinHashLSH(num_perm=HASHES, params=BANDS)

    def add(self, source: str, text: str) -> Iterator[Near]:
        """Take a row; what is found may be about earlier rows, and nothing is found before ``FIRST`` rows are there.

        Args:
            source: Where it stands; no other row stands there.
            text: What it says.
        """
        found = shingles(words(text))
        if self._instruction is not None:
            yield from self._judge(source, found)
            return
        self._waiting.append((source, found))
        if len(self._waiting) == FIRST:
            yield from self.rest()

    def rest(self) -> Iterator[Near]:
        """Judge the rows that still wait; call it after the last."""
        if self._instruction is None:
            self._instruction = common((found for _, found in self._waiting), len(self._waiting))
        waiting, self._waiting = self._waiting, []
        for source, found in waiting:
            yield from self._judge(source, found)

    def _judge(self, source: str, found: set[Run]) -> Iterator[Near]:
        """Compare a row with those kept, and keep it where none is near."""
        telling = found - (self._instruction or frozenset())
        if len(telling) < MIN_SHINGLES:
            return
        sketch = self._empty.copy()
        sketch.update_batch([" ".join(run).encode() for run in telling])
        alike = [(sketch.jaccard(self._kept[place][1]), -place) for place in self._index.query(sketch)]
        similarity, place = max(alike, default=(0.0, 0))
        if similarity >= self._threshold:
            yield Near(source, self._kept[-place][0], round(float(similarity), 2))
            return
        self._index.insert(len(self._kept), sketch, check_duplication=False)
        self._kept.append((source, sketch))
