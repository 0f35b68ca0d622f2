"""One request under way: what it has said, and the chunk that each new token makes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sftchat.engines.base import Chunk, Request
from sftchat.engines.detokenizer import Detokenizer
from sftchat.engines.sampling import Sampler


@dataclass(eq=False)
class Row:
    """A request under way; it can be taken out of a batch and read again elsewhere at any time.

    Attributes:
        request: What was asked.
        tokens: Prompt and reply so far.
        prompt_tokens: How many of them are the prompt's.
        limit: The most tokens of prompt and reply together.
        sampler: Chooses its tokens.
        detokenizer: Makes text of them.
    """

    request: Request
    tokens: list[int]
    prompt_tokens: int
    limit: int
    sampler: Sampler
    detokenizer: Detokenizer

    def take(self, token: int, stop_ids: Collection[int]) -> Chunk:
        """Take in the next token; the chunk has a ``finish_reason`` when it was the last."""
        if token in stop_ids:
            return Chunk(self.request.id, self.detokenizer.finish(), (), "stop", self.prompt_tokens)
        self.tokens.append(token)
        text = self.detokenizer.add(token)
        if self.detokenizer.stopped:
            return Chunk(self.request.id, text, (token,), "stop", self.prompt_tokens)
        if len(self.tokens) >= self.limit:
            return Chunk(self.request.id, text + self.detokenizer.finish(), (token,), "length", self.prompt_tokens)
        return Chunk(self.request.id, text, (token,))
