"""One request under way: what it has said, and the chunk that each new token makes."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from sftchat.engine import Chunk, Request
from sftchat.inference.detokenizer import Detokenizer
from sftchat.inference.sampling import Sampler
from sftchat.types import FinishReason


@dataclass(eq=False)
class RunningRequest:
    """A request under way; it can be taken out of a batch and read again elsewhere at any time.

    Attributes:
        request: What was asked.
        tokens: Prompt and reply so far.
        prompt_tokens: How many of them are the prompt's.
        limit: The most tokens of prompt and reply together.
        sampler: Chooses its tokens.
        detokenizer: Makes text of them.
        stop_ids: Tokens that end the reply.
        adapter: What the model answers with, as the model calls it.
        cached_tokens: Tokens of the prompt that were known from earlier requests.
        opened: The prompt ends within ``<think>``.
    """

    request: Request
    tokens: list[int]
    prompt_tokens: int
    limit: int
    sampler: Sampler
    detokenizer: Detokenizer
    stop_ids: Collection[int]
    adapter: str = ""
    cached_tokens: int = 0
    opened: bool = False

    def take(self, token: int) -> Chunk:
        """Take in the next token; the chunk has a ``finish_reason`` when it was the last."""
        if token in self.stop_ids:
            return self._last(self.detokenizer.finish(), (), "stop")
        self.tokens.append(token)
        text = self.detokenizer.add(token)
        if self.detokenizer.stopped:
            return self._last(text, (token,), "stop")
        if len(self.tokens) >= self.limit:
            return self._last(text + self.detokenizer.finish(), (token,), "length")
        return Chunk(self.request.id, text, (token,), opened=self.opened)

    def fail(self, logit: float) -> Chunk:
        """End the reply because no token can be chosen.

        Args:
            logit: What stands in place of a finite number.
        """
        number = len(self.tokens) - self.prompt_tokens + 1
        why = f"the model's logits are not finite ({'NaN' if math.isnan(logit) else 'infinity'}) at token {number} of the reply"
        return Chunk(self.request.id, self.detokenizer.finish(), (), "error", self.prompt_tokens, error=why, opened=self.opened)

    def _last(self, text: str, tokens: tuple[int, ...], why: FinishReason) -> Chunk:
        """The last chunk of the reply."""
        return Chunk(self.request.id, text, tokens, why, self.prompt_tokens, cached_tokens=self.cached_tokens, opened=self.opened)
