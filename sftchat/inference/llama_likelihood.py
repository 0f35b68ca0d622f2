"""Likelihoods with llama.cpp, whose server returns log-probabilities of generated tokens only: each token to score is forced after those before it.

The server keeps the keys and values of its last prompts, so the tokens of one prompt's continuations share its prefill.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sftchat.engine import Chunk, Request
from sftchat.errors import EngineError, SftchatError
from sftchat.inference.continuations import ScoredRequest, TokenScore
from sftchat.inference.llama_server import SLOTS, Server
from sftchat.inference.threads import answer_in_threads
from sftchat.likelihood import likelihood_chunk

FORCED = 1000.0
"""Logit bias of a token that must be sampled; the reported probabilities are those before the bias."""
FIRST_ALTERNATIVES = 64
"""Number of alternatives searched first for a token that is not reported itself."""


class TokenScorer:
    """Returns probabilities of tokens after prompts, before sampling parameters; one request to llama.cpp per token.

    Args:
        server: The loaded model.
        end_token: Id of a token that ends a reply.
    """

    def __init__(self, server: Server, end_token: int) -> None:
        self._server = server
        self._end_token = end_token

    def score(self, prompt: Sequence[int], token: int, alternatives: int) -> tuple[float, dict[int, float]]:
        """Return the log-probability of a token after a prompt, and the most likely tokens with theirs, best first.

        Args:
            prompt: Token ids before it.
            token: Token id.
            alternatives: Number of most likely tokens, at least 1.

        Raises:
            EngineError: When llama.cpp fails.
        """
        entry = self._first_token(prompt, token, alternatives)
        if entry is not None:
            return entry["logprob"], {other["id"]: other["logprob"] for other in entry["top_logprobs"][:alternatives]}
        # llama.cpp reports no probability of a token that ends within a character: look for it among the alternatives of the end token
        count = max(alternatives, FIRST_ALTERNATIVES)
        while True:
            entry = self._first_token(prompt, self._end_token, count)
            values = {other["id"]: other["logprob"] for other in entry["top_logprobs"]} if entry is not None else {}
            if token in values:
                return values[token], dict(list(values.items())[:alternatives])
            if len(values) < count:
                raise EngineError(f"llama.cpp reports no probability of token {token}")
            count *= 16

    def _first_token(self, prompt: Sequence[int], token: int, alternatives: int) -> dict[str, Any] | None:
        """Force a token after a prompt and return llama.cpp's entry on it, with probabilities before the bias; None if it reports none."""
        entries: list[dict[str, Any]] = []

        def receive(event: Mapping[str, Any]) -> bool:
            if "error" in event:
                raise EngineError(str(event["error"].get("message", event["error"])))
            entries.extend((event["choices"][0].get("logprobs") or {}).get("content") or ())
            return False

        body = {
            "prompt": list(prompt), "max_tokens": 1, "stream": True, "seed": 0, "samplers": ["temperature"], "temperature": 0.0,
            "logprobs": alternatives, "logit_bias": [[token, FORCED]],
        }  # fmt: skip
        if error := self._server.complete(body, receive):
            raise EngineError(error)
        return entries[0] if entries else None


def score_requests(
    requests: Iterable[Request], prepare: Callable[[Request], ScoredRequest], scorer: TokenScorer, capacity: int
) -> Iterator[Chunk]:
    """Answer requests with continuations; at most ``SLOTS`` at a time, and only as many as fit into the context together.

    Args:
        requests: Requests with continuations.
        prepare: Tokenizes a request; raises ``SftchatError`` for one that cannot be scored, which then fails alone.
        scorer: Scores the tokens.
        capacity: Maximum number of tokens of all running requests together.
    """

    def prepared() -> Iterator[tuple[str, ScoredRequest | Chunk]]:
        for request in requests:
            try:
                yield request.id, prepare(request)
            except SftchatError as error:
                yield request.id, Chunk(request.id, finish_reason="error", error=str(error))

    def fits(following: ScoredRequest | Chunk, running: Sequence[ScoredRequest | Chunk]) -> bool:
        return len(running) < SLOTS and sum(map(_max_tokens, running)) + _max_tokens(following) <= capacity

    def answer(scored: ScoredRequest | Chunk, cancelled: threading.Event) -> Chunk:
        return scored if isinstance(scored, Chunk) else _answer(scored, scorer, cancelled)

    return answer_in_threads(prepared(), answer, fits)


def _max_tokens(scored: ScoredRequest | Chunk) -> int:
    """Return the largest number of tokens of a prompt with a continuation; 0 for a request that cannot be scored."""
    prompts = () if isinstance(scored, Chunk) else scored.prompts
    return max((len(prompt.ids) + max(map(len, prompt.continuations)) for prompt in prompts), default=0)


def _answer(scored: ScoredRequest, scorer: TokenScorer, cancelled: threading.Event) -> Chunk:
    """Score one request in a thread of the pool."""
    request = scored.request
    known: dict[tuple[int, ...], TokenScore] = {}  # continuations may begin with the same tokens

    def score(prompt: Sequence[int], ids: Sequence[int]) -> TokenScore:
        if tuple(ids) not in known:
            if cancelled.is_set():
                raise EngineError("cancelled")
            logprob, best = scorer.score([*prompt, *ids[:-1]], ids[-1], 1)
            known[tuple(ids)] = logprob, all(value <= logprob for value in best.values())
        return known[tuple(ids)]

    try:
        for prompt in scored.prompts:
            known.clear()
            prompt.scores = [[score(prompt.ids, ids[: end + 1]) for end in range(len(ids))] for ids in prompt.continuations]
        return likelihood_chunk(request, scored.likelihoods, len(scored.prompts[0].ids))
    except SftchatError as error:
        return Chunk(request.id, finish_reason="error", error=str(error))
