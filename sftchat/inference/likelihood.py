"""Likelihoods of continuations with a local model, in batches.

The continuations of one prompt share its prefill: the prompts of a batch are prefilled once, and the keys and values of each are copied for its
continuations. A continuation of one token needs no further pass. Prompts that begin with the same tokens, such as few-shot rows, share the prefill of
these tokens too. Prompts with a single continuation, and models whose state cannot be copied by row (recurrent layers, chunked attention), are
computed as whole sequences. Log-probabilities are computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from sftchat._util.fallback import reason_of, report_fallback
from sftchat.engine import Chunk, Request
from sftchat.errors import EngineError, SftchatError, first_line
from sftchat.inference.batch import Batch
from sftchat.inference.continuations import ScoredPrompt, ScoredRequest, TokenScore
from sftchat.inference.kv_cache import MIN_SHARED_TOKENS, common_prefix_length, free_bytes, is_out_of_memory, shared_length
from sftchat.inference.scheduler import LIBRARY_CHANGED_ERRORS
from sftchat.likelihood import likelihood_chunk

WINDOW = 2048
"""Number of requests taken from the iterable and sorted by length at a time."""
MAX_PASS_TOKENS = 2048
"""Maximum number of tokens, padding included, of one forward pass, unless a single sequence is longer."""
MAX_LOGITS_BYTES = 1 << 28
"""Maximum size of the logits of one forward pass in float32, unless the model has recurrent layers."""
CACHE_SHARE = 0.25
"""Share of the free memory for the keys and values of a group of prompts, and for their copies in one forward pass."""
POSITIONS_AT_ONCE = 256
"""Number of positions whose probabilities over the vocabulary are computed at a time."""
FLOAT32_TOLERANCE, LOW_PRECISION_TOLERANCE = 1e-3, 0.1
"""Maximum difference between log-likelihoods with and without shared prefill, relative to one plus their norm."""
SHARING = "sharing the prefill of continuations"


class _Sequence(NamedTuple):
    """One continuation of a prompt; ``row`` and ``place`` say of which prompt of the group and which of its continuations."""

    row: int
    place: int
    ids: list[int]


@dataclass
class Sharing:
    """Whether a model's continuations share their prefill; kept for as long as the model is open.

    Attributes:
        allowed: False once it has failed.
        verified: Whether the first shared prefill gave the log-likelihoods of the whole sequence.
    """

    allowed: bool = True
    verified: bool = False


class LikelihoodScorer:
    """Computes the likelihoods of continuations with one model.

    Args:
        name: Name of the model, for messages.
        new_batch: Returns a new, empty ``Batch`` of the model.
        max_rows: Maximum number of prompts of one group.
        vocabulary: Number of tokens in the vocabulary.
        sharing: What is known of the model; updated.
    """

    def __init__(self, name: str, new_batch: Callable[[], Batch], max_rows: int, vocabulary: int, sharing: Sharing) -> None:
        self._name = name
        self._new_batch = new_batch
        self._batch = new_batch()
        self._max_rows = max_rows
        self._max_positions = max(1, min(MAX_PASS_TOKENS, MAX_LOGITS_BYTES // (4 * vocabulary)))
        self._budget: int | None = None  # maximum number of rows times columns of keys and values; None until the first prefill
        self._sharing = sharing

    @property
    def _shares(self) -> bool:
        return self._sharing.allowed and self._batch.mergeable

    def answer(self, requests: Iterable[Request], prepare: Callable[[Request], ScoredRequest]) -> Iterator[Chunk]:
        """Answer requests with continuations, the longest prompts of each window first.

        Args:
            requests: Requests with continuations.
            prepare: Tokenizes a request; raises ``SftchatError`` for one that cannot be scored, which then fails alone.

        Raises:
            EngineError: When the model fails.
        """
        source = iter(requests)
        while window := list(islice(source, WINDOW)):
            owners: dict[int, ScoredRequest] = {}  # by id of the prompt
            for request in window:
                try:
                    scored = prepare(request)
                except SftchatError as error:
                    yield Chunk(request.id, finish_reason="error", error=str(error))
                else:
                    owners |= {id(prompt): scored for prompt in scored.prompts}
            for adapter, group, shares in self._groups(list(owners.values())):
                self._score(adapter, group, shares)
                for scored in {id(owner): owner for prompt in group if (owner := owners[id(prompt)]).complete}.values():
                    yield _answer(scored)

    def _groups(self, requests: Sequence[ScoredRequest]) -> Iterator[tuple[str, list[ScoredPrompt], bool]]:
        """Yield groups of prompts to score together: the adapter, the prompts, and whether continuations share their prefill."""
        prompts = {id(prompt): (request.adapter, prompt) for request in requests for prompt in request.prompts}
        single = [prompt.ids for _, prompt in prompts.values() if len(prompt.continuations) == 1]
        begin_alike = len(single) > 1 and 4 * common_prefix_length(single) >= MIN_SHARED_TOKENS
        waiting: dict[tuple[str, bool], list[ScoredPrompt]] = {}
        for adapter, prompt in prompts.values():
            shares = self._shares and (begin_alike or len(prompt.continuations) > 1)
            waiting.setdefault((adapter, shares), []).append(prompt)
        for (adapter, shares), queue in waiting.items():
            queue.sort(key=lambda prompt: len(prompt.ids))
            while queue:
                yield adapter, self._next_group(adapter, queue, shares), shares

    def _next_group(self, adapter: str, queue: list[ScoredPrompt], shares: bool) -> list[ScoredPrompt]:
        """Take the longest prompts of a queue that fit into one prefill; tokens that all begin with count once."""
        first = queue.pop()
        group, longest, common = [first], len(first.ids), len(first.ids)
        while queue and len(group) < self._max_rows:
            ids, count = queue[-1].ids, len(group) + 1
            if ids[:common] != first.ids[:common]:
                common = shared_length(ids, first.ids)
            shared = min(common, len(ids) - 1) if shares and self._batch.can_share((first.ids, ids), (adapter, adapter)) else 0
            if (count - 1) * shared < MIN_SHARED_TOKENS or self._budget is None:
                shared = 0
            if shared + count * (longest - shared) > MAX_PASS_TOKENS or (self._budget is not None and count * longest > self._budget):
                break
            group.append(queue.pop())
        return group

    def _score(self, adapter: str, group: list[ScoredPrompt], shares: bool) -> None:
        """Score the continuations of a group; when memory runs out, in halves. A prompt that does not fit alone gets an error.

        Raises:
            EngineError: When the model fails.
        """
        try:
            if shares and self._shares:
                self._score_shared(adapter, group)
            else:
                self._score_whole(adapter, group)
            return
        except Exception as error:  # third-party code may raise anything; it ends as an error of the engine
            reason, out_of_memory = first_line(error), is_out_of_memory(error)
            if not out_of_memory and not (shares and self._shares and isinstance(error, LIBRARY_CHANGED_ERRORS)):
                raise EngineError(f"model '{self._name}' failed while computing likelihoods: {reason}") from error
        self._batch = self._new_batch()
        if not out_of_memory:
            self._share_no_more(reason)
            self._score(adapter, group, shares)
        elif len(group) > 1:
            half = len(group) // 2
            self._budget = half * max(len(prompt.ids) for prompt in group)
            for part in (group[:half], group[half:]):
                self._score(adapter, part, shares)
        else:
            group[0].error = f"the memory does not hold the request, {len(group[0].ids)} tokens long: {reason}"

    def _score_shared(self, adapter: str, group: list[ScoredPrompt]) -> None:
        """Prefill each prompt once; its continuations follow copies of its keys and values."""
        prefill = self._batch.prepare([prompt.ids for prompt in group], [adapter] * len(group))
        while not self._batch.prefill(prefill):
            pass
        if self._budget is None:
            self._budget = int(CACHE_SHARE * free_bytes(self._batch.device) / prefill.bytes_per_token)
        assert prefill.logits is not None
        firsts = [(row, ids[0]) for row, prompt in enumerate(group) for ids in prompt.continuations]
        first_scores = iter(score_tokens(prefill.logits, [row for row, _ in firsts], [token for _, token in firsts]))
        scores = [[[next(first_scores)] for _ in prompt.continuations] for prompt in group]
        longer = [
            _Sequence(row, index, ids) for row, prompt in enumerate(group) for index, ids in enumerate(prompt.continuations) if len(ids) > 1
        ]
        width = max(prefill.lengths)
        for part in self._passes(longer, lambda sequence: len(sequence.ids) - 1, width):
            logits = self._batch.continue_prompts(prefill, [sequence.row for sequence in part], [sequence.ids[:-1] for sequence in part])
            for place, sequence in enumerate(part):
                targets = sequence.ids[1:]
                scores[sequence.row][sequence.place] += score_tokens(logits[place], range(len(targets)), targets)
        if not self._sharing.verified and longer:
            sequence = max(longer, key=lambda sequence: len(sequence.ids))
            if not self._agrees(adapter, group[sequence.row].ids, sequence.ids, scores[sequence.row][sequence.place]):
                self._share_no_more(reason_of(None))
                self._score_whole(adapter, group)
                return
            self._sharing.verified = True
        for prompt, prompt_scores in zip(group, scores, strict=True):
            prompt.scores = prompt_scores

    def _score_whole(self, adapter: str, group: list[ScoredPrompt]) -> None:
        """Compute every continuation with its prompt before it."""
        scores: list[list[list[TokenScore]]] = [[[] for _ in prompt.continuations] for prompt in group]
        sequences = [_Sequence(row, index, ids) for row, prompt in enumerate(group) for index, ids in enumerate(prompt.continuations)]
        for part in self._passes(sequences, lambda sequence: len(group[sequence.row].ids) + len(sequence.ids) - 1):
            inputs = [[*group[sequence.row].ids, *sequence.ids[:-1]] for sequence in part]
            columns = max(len(sequence.ids) for sequence in part)
            if len(part) == 1 and self._batch.mergeable and columns > self._max_positions:
                scores[part[0].row][part[0].place] = self._score_long(adapter, inputs[0], part[0].ids)
                continue
            logits = self._batch.sequence_logits(inputs, adapter, columns)
            for place, sequence in enumerate(part):
                count = len(sequence.ids)
                scores[sequence.row][sequence.place] = score_tokens(logits[place, -count:], range(count), sequence.ids)
        for prompt, prompt_scores in zip(group, scores, strict=True):
            prompt.scores = prompt_scores

    def _score_long(self, adapter: str, inputs: list[int], ids: Sequence[int]) -> list[TokenScore]:
        """Score a continuation whose logits are too large to hold all at once."""
        scores: list[TokenScore] = []
        for logits in self._batch.logits_in_parts(inputs, adapter, len(ids), self._max_positions):
            targets = ids[len(scores) : len(scores) + logits.shape[1]]
            scores += score_tokens(logits[0], range(len(targets)), targets)
        return scores

    def _passes(
        self, sequences: list[_Sequence], columns: Callable[[_Sequence], int], cached_columns: int | None = None
    ) -> Iterator[list[_Sequence]]:
        """Split sequences, the longest first, into those of one forward pass.

        Args:
            sequences: The sequences.
            columns: Returns the number of columns that the model reads of a sequence.
            cached_columns: Number of columns of keys and values before them; None for whole sequences.
        """
        waiting = sorted(sequences, key=columns)
        while waiting:
            longest = columns(waiting[-1])
            positions = longest if cached_columns is not None else max(len(sequence.ids) for sequence in waiting)
            count = min(MAX_PASS_TOKENS // max(1, longest), self._max_positions // max(1, positions))
            if cached_columns is not None and self._budget is not None:
                count = min(count, self._budget // (cached_columns + longest))
            count = max(1, count)
            yield waiting[-count:]
            del waiting[-count:]

    def _agrees(self, adapter: str, prompt: list[int], ids: list[int], scores: Sequence[TokenScore]) -> bool:
        """Whether the scores of a continuation are those of the whole sequence, up to rounding."""
        logits = self._batch.sequence_logits([[*prompt, *ids[:-1]]], adapter, len(ids))
        expected = [logprob for logprob, _ in score_tokens(logits[0], range(len(ids)), ids)]
        tolerance = FLOAT32_TOLERANCE if logits.dtype == torch.float32 else LOW_PRECISION_TOLERANCE
        if not all(map(math.isfinite, expected)):
            return True  # reported for the request
        return math.dist(expected, [logprob for logprob, _ in scores]) <= tolerance * (1 + math.hypot(*expected))

    def _share_no_more(self, reason: str) -> None:
        self._sharing.allowed = False
        report_fallback(SHARING, reason)


def _answer(scored: ScoredRequest) -> Chunk:
    """Return the chunk for a request whose prompts are all scored."""
    error = next((prompt.error for prompt in scored.prompts if prompt.error), "")
    if not error:
        try:
            return likelihood_chunk(scored.request, scored.likelihoods, len(scored.prompts[0].ids))
        except EngineError as not_finite:
            error = str(not_finite)
    return Chunk(scored.request.id, finish_reason="error", error=error)


def score_tokens(logits: Tensor, rows: Sequence[int], targets: Sequence[int]) -> list[TokenScore]:
    """Return the scores of tokens.

    Args:
        logits: Shape ``(rows, vocabulary)``.
        rows: The row of each token.
        targets: Token ids.
    """
    scores: list[TokenScore] = []
    for start in range(0, len(targets), POSITIONS_AT_ONCE):
        part = slice(start, start + POSITIONS_AT_ONCE)
        logprobs = logits[list(rows[part])].float().log_softmax(-1)
        ids = torch.tensor(list(targets[part]), device=logprobs.device)
        best = logprobs.argmax(-1) == ids
        scores += zip(logprobs.gather(1, ids[:, None])[:, 0].tolist(), best.tolist(), strict=True)
    return scores
