"""What stands twice in a file: ids, rows, prompts with another reply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import blake2b
from typing import TypeVar

from sftchat.data.reading import line_of
from sftchat.data.values import shown
from sftchat.types import Example

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
            yield "duplicate-id", f"id {shown(example.id)} is taken by line {first}; give every row its own"
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
