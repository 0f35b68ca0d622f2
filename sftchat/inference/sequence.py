"""One running request: how its next token is chosen (sampling, prompt lookup) and how its tokens become text."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sftchat.engine import Chunk, Request, emittable_length
from sftchat.inference.rendering import decode
from sftchat.types import FinishReason, SamplingParams


@dataclass(eq=False, kw_only=True)
class RunningRequest:
    """A running request, with everything that is needed to prefill it again in another batch.

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
        thoughts_opened: Whether the prompt ends with ``<think>``.
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
    thoughts_opened: bool = False

    def append(self, token: int) -> Chunk:
        """Append the next token; the chunk has a ``finish_reason`` if it was the last."""
        if token in self.stop_ids:
            return self._last_chunk(self.detokenizer.finish(), (), "stop")
        self.tokens.append(token)
        text = self.detokenizer.add(token)
        if self.detokenizer.stopped:
            return self._last_chunk(text, (token,), "stop")
        if len(self.tokens) >= self.limit:
            return self._last_chunk(text + self.detokenizer.finish(), (token,), "length")
        return Chunk(self.request.id, text, (token,), thoughts_opened=self.thoughts_opened)

    def fail(self, logit: float) -> Chunk:
        """End the reply with an error because the logits are not finite.

        Args:
            logit: The largest logit, which is not finite.
        """
        number = len(self.tokens) - self.prompt_tokens + 1
        error = f"the model's logits are not finite ({'NaN' if math.isnan(logit) else 'infinity'}) at token {number} of the reply"
        return self._last_chunk(self.detokenizer.finish(), (), "error", error)

    def _last_chunk(self, text: str, tokens: tuple[int, ...], reason: FinishReason, error: str = "") -> Chunk:
        return Chunk(
            self.request.id, text, tokens, reason, self.prompt_tokens, error=error, cached_tokens=self.cached_tokens,
            thoughts_opened=self.thoughts_opened,
        )  # fmt: skip


class Detokenizer:
    """Converts the token ids of one reply into pieces of text whose concatenation is the decoded reply.

    A piece never ends within a character and never contains a part of a stop string.

    Args:
        tokenizer: A transformers tokenizer.
        stop: Strings that end the reply and are not part of it.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._decoded = ""
        self._emitted = 0  # number of characters
        self._decode_next = self._incremental_decoder()
        self.stopped = False
        """Whether a stop string has appeared; no more text is emitted then."""

    def add(self, token_id: int) -> str:
        """Return the new text that a token completes; may be empty."""
        self._ids.append(token_id)
        self._decoded += self._decode_next(token_id)
        return self._release(final=False)

    def begin(self, token_ids: Sequence[int]) -> None:
        """Add the beginning of a reply without emitting its text."""
        for token in token_ids:
            self.add(token)
        self._emitted = len(self._decoded)
        self.stopped = False

    def finish(self) -> str:
        """Return the text still held back; incomplete characters become U+FFFD."""
        text = decode(self._tokenizer, self._ids)
        if text.startswith(self._decoded):
            self._decoded = text
        return self._release(final=True)

    def _release(self, final: bool) -> str:
        """Return the text that can no longer become part of a stop string."""
        if self.stopped:
            return ""
        end, self.stopped = emittable_length(self._decoded, self._emitted, self._stop, final=final)
        piece = self._decoded[self._emitted : end]
        self._emitted += len(piece)
        return piece

    def _incremental_decoder(self) -> Callable[[int], str]:
        """Return a function from the next token id to its text: that of the tokenizers library, or ``_decode_all`` for tokenizers written in Python."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is not None:
            from tokenizers.decoders import DecodeStream

            stream = DecodeStream([], skip_special_tokens=True)
            return lambda token_id: stream.step(backend, token_id) or ""
        return self._decode_all

    def _decode_all(self, _token_id: int) -> str:
        """Decode all tokens and return the new text; empty while it ends within a character."""
        text = decode(self._tokenizer, self._ids)
        return "" if text.endswith("\ufffd") else text[len(self._decoded) :]


class Sampler:
    """Samples tokens for one request, independently of other requests.

    Args:
        params: Sampling parameters; temperature 0 selects the most likely token.
        prompt_ids: Token ids of the prompt; the repetition penalty includes them, as in transformers.
    """

    def __init__(self, params: SamplingParams, prompt_ids: Sequence[int]) -> None:
        self.params = params
        self._seen = set(prompt_ids) if params.repetition_penalty != 1.0 else None
        self._generator = torch.Generator().manual_seed(params.seed) if params.temperature > 0 else None

    @property
    def is_argmax(self) -> bool:
        """Whether each token is the argmax of the unmodified logits, so that a whole batch can be sampled at once."""
        return self._generator is None and self._seen is None

    def choose(self, logits: Tensor) -> int:
        """Sample the next token.

        Args:
            logits: Logits of one position, shape ``(vocabulary,)``; none is NaN, and the largest is finite.
        """
        logits = logits.float().cpu()
        if self._seen is not None:
            logits = _penalise(logits, self._seen, self.params.repetition_penalty)
        scaled = None if self._generator is None else logits / self.params.temperature
        if scaled is None or not scaled.max().isfinite():  # greedy, or a temperature so low that the scaled logits overflow
            token = int(logits.argmax())
        else:
            candidates = _truncate(scaled, self.params.top_k, self.params.top_p)
            token = int(torch.multinomial(candidates.softmax(-1), 1, generator=self._generator))
        if self._seen is not None:
            self._seen.add(token)
        return token


def most_likely_tokens(logits: Tensor) -> tuple[list[int], list[float]]:
    """Return the most likely token of each row and its logit; the logit is not finite if the row contains NaN or has no finite maximum.

    numpy and torch both treat NaN as the largest value, so the maximum also reveals NaN. On a CPU numpy is used, because it is faster: 20 times in
    float32, 8 times in bfloat16.

    Args:
        logits: Shape ``(rows, vocabulary)``.
    """
    if logits.device.type != "cpu":
        max_logits, tokens = logits.max(-1)
        return tokens.tolist(), max_logits.tolist()
    array = logits.float().numpy()
    token_ids = array.argmax(-1)
    return token_ids.tolist(), array[range(len(token_ids)), token_ids].tolist()


def _penalise(logits: Tensor, seen: set[int], penalty: float) -> Tensor:
    """Apply the repetition penalty to seen tokens (Keskar et al. 2019, equation 2; negative logits are multiplied instead of divided)."""
    logits = logits.clone()
    index = torch.tensor(sorted(seen))
    values = logits[index]
    logits[index] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def _truncate(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Mask all but the ``top_k`` most likely tokens, then all outside the nucleus (Holtzman et al. 2020)."""
    if 0 < top_k < logits.numel():
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    if top_p < 1.0:
        descending, order = logits.sort(descending=True)
        probabilities = descending.softmax(-1)
        probability_of_likelier = probabilities.cumsum(-1) - probabilities
        logits = logits.index_fill(0, order[probability_of_likelier >= top_p], -torch.inf)
    return logits


NGRAM_SIZES = (3, 2, 1)
"""n-gram sizes in order of preference: a guess is the text after an earlier occurrence of the last n tokens.

Size 1 serves copied names, which their first token identifies.
"""
MIN_GUESSED_TOKENS = 3
"""Minimum length of a guess in tokens: a forward pass over four tokens is hardly slower than one over two, also with int8 weights."""
MAX_GUESSED_TOKENS = 16
"""Maximum length of a guess in tokens."""
MAX_WRONG_GUESSES = 12
"""Number of wrong guesses in a row from an n-gram size after which it makes none for the next ``PAUSE_TOKENS`` tokens."""
PAUSE_TOKENS = 32


@dataclass
class _NgramIndex:
    """The position after the last occurrence of each n-gram of one size, and the success of recent guesses with this size."""

    size: int
    position_after: dict[tuple[int, ...], int] = field(default_factory=dict)
    indexed_tokens: int = 0
    guess_length: int = MIN_GUESSED_TOKENS
    wrong_guesses: int = 0
    pause_left: int = 0

    def find(self, tokens: Sequence[int]) -> int | None:
        """Return the position after the last earlier occurrence of the final n tokens; None if there is none, or during a pause."""
        for end in range(max(self.indexed_tokens, self.size), len(tokens)):  # all n-grams except the final one
            self.position_after[tuple(tokens[end - self.size : end])] = end
        self.indexed_tokens = max(self.indexed_tokens, len(tokens))
        if self.pause_left:
            self.pause_left -= 1
            return None
        return self.position_after.get(tuple(tokens[-self.size :]))


class PromptLookupDecoder:
    """Prompt lookup decoding (Saxena 2023) for one greedy request: guesses that the text after an earlier occurrence of the last few tokens is repeated.

    The model checks a guess in one forward pass, so the output is unchanged. The length of a guess adapts to the number of correct tokens in the last
    guess, and guessing pauses after repeated failures, so that a text without repetition costs little extra.
    """

    def __init__(self) -> None:
        self._indexes = [_NgramIndex(size) for size in NGRAM_SIZES]
        self._last_used = self._indexes[0]

    def guess(self, tokens: Sequence[int], max_tokens: int) -> list[int]:
        """Return the guessed next tokens; often empty.

        Args:
            tokens: Token ids of prompt and reply so far; extends those of the previous call.
            max_tokens: Maximum number of guessed tokens.
        """
        matches = [(index, position) for index in self._indexes if (position := index.find(tokens)) is not None]
        if not matches:
            return []
        self._last_used, start = matches[0]
        return list(tokens[start : start + min(self._last_used.guess_length, max_tokens)])

    def learn(self, guessed: int, correct: int) -> None:
        """Update the guess length from the number of tokens in the last guess and how many of them were correct."""
        index = self._last_used
        index.wrong_guesses = 0 if correct else index.wrong_guesses + 1
        if correct == guessed:
            index.guess_length = min(2 * index.guess_length, MAX_GUESSED_TOKENS)
        else:
            index.guess_length = max(MIN_GUESSED_TOKENS, correct + 1)
        if index.wrong_guesses == MAX_WRONG_GUESSES:
            index.wrong_guesses, index.pause_left = 0, PAUSE_TOKENS
