"""A running request: its tokens so far, and the chunk for each new token."""

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
    """A running request; it can be removed from a batch and prefilled again in another at any time.

    Attributes:
        request: The request.
        tokens: Token ids of prompt and reply so far.
        prompt_tokens: Number of prompt tokens.
        limit: Maximum number of tokens, prompt and reply together.
        sampler: Samples the tokens.
        detokenizer: Decodes the tokens.
        stop_ids: Tokens that end the reply.
        adapter: Key of the adapter within the model.
        cached_tokens: Number of prompt tokens from the prompt cache.
        opened: Whether the prompt ends within ``<think>``.
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
        """Append the next token; the chunk has a ``finish_reason`` if it was the last."""
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
        """End the reply with an error because the logits are not finite.

        Args:
            logit: The largest logit, which is not finite.
        """
        number = len(self.tokens) - self.prompt_tokens + 1
        why = f"the model's logits are not finite ({'NaN' if math.isnan(logit) else 'infinity'}) at token {number} of the reply"
        return Chunk(self.request.id, self.detokenizer.finish(), (), "error", self.prompt_tokens, error=why, opened=self.opened)

    def _last(self, text: str, tokens: tuple[int, ...], why: FinishReason) -> Chunk:
        return Chunk(self.request.id, text, tokens, why, self.prompt_tokens, cached_tokens=self.cached_tokens, opened=self.opened)
