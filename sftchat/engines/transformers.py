"""The local engine: any causal language model of transformers, many requests at once, text as it comes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sftchat.engines.base import Chunk, Request
from sftchat.engines.detokenizer import Detokenizer
from sftchat.engines.row import Row
from sftchat.engines.sampling import Sampler
from sftchat.engines.scheduling import Scheduler
from sftchat.errors import EngineError, SftchatError, SftchatWarning
from sftchat.models.weights import Loaded
from sftchat.types import Message

WINDOW = 2048
"""Requests looked at together to be sorted by length; bounds memory for evalsets of any size."""


class TransformersEngine:
    """Answers requests with a loaded model.

    Args:
        name: What the user called the model.
        loaded: Weights, renderer and stop tokens.
        batch_size: The most requests decoded together.
    """

    def __init__(self, name: str, loaded: Loaded, batch_size: int = 128) -> None:
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
        """Answer requests, the longest prompts of each window first; a request joins the running batch as soon as another has left it.

        Raises:
            EngineError: When the model fails.
        """
        source = iter(requests)
        scheduler = Scheduler(self.name, self.loaded.model, self.loaded.stop_ids, self.batch_size)
        while True:
            window = [] if scheduler.waiting else list(islice(source, WINDOW if self.batch_size > 1 else 1))
            if len(window) > self.batch_size and not scheduler.mergeable:
                warnings.warn(
                    f"model '{self.name}' has layers whose state cannot be merged: its replies are made in batches that no other joins",
                    SftchatWarning,
                    stacklevel=2,
                )
            for request in window:
                try:
                    scheduler.add(self._prepare(request))
                except SftchatError as error:
                    yield Chunk(request.id, finish_reason="error", error=str(error))
            if not (window or scheduler.waiting or scheduler.running):
                return
            yield from scheduler.advance()

    def _prepare(self, request: Request) -> Row:
        """Render a request and refuse one that cannot fit."""
        renderer = self.loaded.renderer
        if request.adapter:
            raise EngineError(f"model '{self.name}' has no adapter '{request.adapter}'")
        if request.prompt is not None:
            ids = list(renderer.tokenizer.encode(request.prompt + request.reply_prefix))
        else:
            ids = list(renderer.prompt_ids(request.messages, request.reply_prefix, request.tools))
        if not ids:
            raise EngineError("the prompt is empty")
        room = self.context_length - len(ids)
        if room < 1:
            raise EngineError(
                f"the prompt has {len(ids)} tokens; the model's context holds {self.context_length}, prompt and reply together"
            )
        sampling = request.sampling
        limit = len(ids) + min(sampling.max_new_tokens, room)
        return Row(request, ids, len(ids), limit, Sampler(sampling, ids), Detokenizer(renderer.tokenizer, sampling.stop))
