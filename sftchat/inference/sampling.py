"""Samples the next token of each row from its logits and its own sampling parameters, independently of other rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sftchat.types import SamplingParams


class Sampler:
    """Samples tokens for one request.

    Args:
        params: Sampling parameters; temperature 0 selects the most likely token.
        prompt_ids: Token ids of the prompt; the repetition penalty includes them, as in transformers.
    """

    def __init__(self, params: SamplingParams, prompt_ids: Sequence[int]) -> None:
        self.params = params
        self._seen = set(prompt_ids) if params.repetition_penalty != 1.0 else None
        self._generator = torch.Generator().manual_seed(params.seed) if params.temperature > 0 else None

    @property
    def plain(self) -> bool:
        """Whether sampling is the argmax of the unmodified logits, so that a whole batch can be sampled at once."""
        return self._generator is None and self._seen is None

    def choose(self, logits: Tensor) -> int:
        """Sample the next token.

        Args:
            logits: Logits of one position, shape ``(vocabulary,)``; none is NaN, and the largest is finite.
        """
        logits = logits.float().cpu()
        if self._seen is not None:
            logits = _penalise(logits, self._seen, self.params.repetition_penalty)
        if self._generator is None:
            token = int(logits.argmax())
        else:
            scaled = logits / self.params.temperature
            if not scaled.max().isfinite():  # at so low a temperature only the most likely token remains
                token = int(logits.argmax())
            else:
                kept = _keep(scaled, self.params.top_k, self.params.top_p)
                token = int(torch.multinomial(kept.softmax(-1), 1, generator=self._generator))
        if self._seen is not None:
            self._seen.add(token)
        return token


def likeliest(logits: Tensor) -> tuple[list[int], list[float]]:
    """Return the most likely token of each row and its logit, which is not finite if the row contains NaN or no finite maximum.

    numpy and torch both treat NaN as the largest value, so one pass is enough. numpy uses vector instructions where torch on a CPU does not: 20 times
    faster in float32, 8 times in bfloat16.

    Args:
        logits: Shape ``(rows, vocabulary)``.
    """
    if logits.device.type != "cpu":
        values, places = logits.max(-1)
        return places.tolist(), values.tolist()
    numbers = logits.float().numpy()
    found = numbers.argmax(-1)
    return found.tolist(), numbers[range(len(found)), found].tolist()


def _penalise(logits: Tensor, seen: set[int], penalty: float) -> Tensor:
    """Apply the repetition penalty (Keskar et al. 2019, equation 2, with negative logits handled)."""
    logits = logits.clone()
    index = torch.tensor(sorted(seen))
    values = logits[index]
    logits[index] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def _keep(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Mask all but the ``top_k`` most likely tokens, then all outside the nucleus (Holtzman et al. 2020)."""
    if 0 < top_k < logits.numel():
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    if top_p < 1.0:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        logits = logits.index_fill(0, order[before >= top_p], -torch.inf)
    return logits
