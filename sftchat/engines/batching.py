"""A batch of sequences decoded together: left-padded prompts, one cache, rows leave as they end."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from sftchat.models.weights import unwrapped


class Batch:
    """The state of a running batch.

    Left padding puts every row's newest token in the last column. Padding is masked and positions count real tokens, so a row's logits are those it
    would have alone, up to the rounding of the matrix products.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids of each row, none empty.
    """

    def __init__(self, model: Any, prompts: list[list[int]]) -> None:
        from transformers import DynamicCache

        self._model = model
        self._device = model.device
        self._cache = DynamicCache(config=model.config)
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=self._device)
        self._mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=self._device)
        accepted = inspect.signature(unwrapped(model).forward).parameters
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._positions = "position_ids" in accepted
        self.logits: Tensor = self._forward(ids, (self._mask.cumsum(-1) - 1).clamp(min=0))
        """Next-token logits of each row, shape ``(rows, vocabulary)``."""

    def step(self, tokens: Tensor, rows: list[int]) -> None:
        """Feed one token to each row that goes on.

        Args:
            tokens: Shape ``(len(rows),)``.
            rows: Indices, in the current batch, of the rows to keep, ascending.
        """
        if len(rows) < self._mask.shape[0]:
            keep = torch.tensor(rows, device=self._device)
            self._cache.batch_select_indices(keep)
            self._mask = self._mask[keep]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(rows), 1)], dim=1)
        self.logits = self._forward(tokens.to(self._device)[:, None], self._mask.sum(-1, keepdim=True) - 1)

    @torch.inference_mode()
    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Run the model and return the logits of the last column."""
        arguments = {**self._extra, **({"position_ids": positions} if self._positions else {})}
        # a batch without padding needs no mask, and attention without a mask takes the faster kernel
        mask = None if bool(self._mask.all()) else self._mask
        logits: Tensor = self._model(input_ids=ids, attention_mask=mask, past_key_values=self._cache, use_cache=True, **arguments).logits
        return logits[:, -1]
