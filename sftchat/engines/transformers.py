"""The local engine: any causal language model of transformers, many requests at once, text as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch

from sftchat.engines.base import Chunk, Request
from sftchat.engines.batching import Batch
from sftchat.engines.detokenizer import Detokenizer
from sftchat.engines.sampling import Sampler
from sftchat.errors import EngineError, SftchatError, first_line
from sftchat.models.weights import Loaded
from sftchat.types import FinishReason, Message

WINDOW = 2048
"""Requests looked at together to be sorted by length; bounds memory for evalsets of any size."""


@dataclass
class _Row:
    """A request under way."""

    request: Request
    ids: list[int]
    limit: int
    sampler: Sampler
    detokenizer: Detokenizer
    made: int = 0
    last: int = field(default=0)


class TransformersEngine:
    """Answers requests with a loaded model.

    Args:
        name: What the user called the model.
        loaded: Weights, renderer and stop tokens.
        batch_size: The most requests decoded together.
    """

    def __init__(self, name: str, loaded: Loaded, batch_size: int = 64) -> None:
        self.name = name
        self.loaded = loaded
        self.batch_size = batch_size

    @property
    def context_length(self) -> int:
        """The most tokens that prompt and reply may have together."""
        config = self.loaded.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048)

    def render(self, messages: Sequence[Message]) -> str:
        """The templated text of a conversation, ready for the reply."""
        return self.loaded.renderer.prompt_text(messages)

    def close(self) -> None:
        """Nothing to free beyond what garbage collection frees."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests, the longest prompts of each window first so that rows of a batch are alike.

        Raises:
            EngineError: When the model fails, for instance for want of memory.
        """
        source = iter(requests)
        while window := list(islice(source, WINDOW if self.batch_size > 1 else 1)):
            rows = []
            for request in window:
                try:
                    rows.append(self._prepare(request))
                except SftchatError as error:
                    yield Chunk(request.id, finish_reason="error", error=str(error))
            rows.sort(key=lambda row: -len(row.ids))
            for start in range(0, len(rows), self.batch_size):
                yield from self._decode(rows[start : start + self.batch_size])

    def _prepare(self, request: Request) -> _Row:
        """Render a request and refuse one that cannot fit."""
        renderer = self.loaded.renderer
        if request.adapter:
            raise EngineError(f"model '{self.name}' has no adapter '{request.adapter}'")
        if request.prompt is not None:
            ids = renderer.tokenizer.encode(request.prompt + request.reply_prefix)
        else:
            ids = renderer.prompt_ids(request.messages, request.reply_prefix)
        room = self.context_length - len(ids)
        if room < 1:
            raise EngineError(
                f"the prompt has {len(ids)} tokens; the model's context holds {self.context_length}, prompt and reply together"
            )
        sampling = request.sampling
        return _Row(
            request, ids, min(sampling.max_new_tokens, room), Sampler(sampling, ids), Detokenizer(renderer.tokenizer, sampling.stop)
        )

    def _decode(self, rows: list[_Row]) -> Iterator[Chunk]:
        """Generate a batch token by token; rows that end leave it at once."""
        stop = set(self.loaded.stop_ids)
        try:
            batch = Batch(self.loaded.model, [row.ids for row in rows])
            while rows:
                chosen = self._choose(batch.logits, rows)
                kept = []
                for index, (row, token) in enumerate(zip(rows, chosen, strict=True)):
                    chunk = _advance(row, token, stop)
                    if chunk is not None:
                        yield chunk
                    if chunk is None or chunk.finish_reason is None:
                        kept.append(index)
                rows = [rows[index] for index in kept]
                if rows:
                    batch.step(torch.tensor([row.last for row in rows]), kept)
        except (RuntimeError, MemoryError, IndexError) as error:
            raise EngineError(f"model '{self.name}' failed while generating: {first_line(error)}") from error

    def _choose(self, logits: torch.Tensor, rows: list[_Row]) -> list[int]:
        """The next token of every row."""
        if all(row.sampler.plain for row in rows):
            likeliest: list[int] = logits.argmax(-1).tolist()
            return likeliest
        return [row.sampler.choose(logits[index]) for index, row in enumerate(rows)]


def _advance(row: _Row, token: int, stop: set[int]) -> Chunk | None:
    """Take in a token; returns what there is to say, which may be nothing yet."""
    if token in stop:
        return _finished(row, "stop", ())
    row.last = token
    row.made += 1
    text = row.detokenizer.add(token)
    if row.detokenizer.stopped:
        return Chunk(row.request.id, text, (token,), "stop", len(row.ids))
    if row.made >= row.limit:
        return Chunk(row.request.id, text + row.detokenizer.finish(), (token,), "length", len(row.ids))
    return Chunk(row.request.id, text, (token,))


def _finished(row: _Row, reason: FinishReason, token_ids: tuple[int, ...]) -> Chunk:
    """The last chunk of a row, with whatever text was held back."""
    return Chunk(row.request.id, row.detokenizer.finish(), token_ids, reason, len(row.ids))
