"""The order of the rows: batches of similar lengths, in random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from torch.utils.data import Sampler

POOL = 50
"""Batches that are cut from one pool of rows: the more, the more alike the rows of a batch are, and the less random its company."""


class SimilarLengths(Sampler[int]):
    """Indices of rows such that every slice of a batch's size holds rows of similar lengths.

    transformers' own sampler for this (``group_by_length``) leaves the batches of each pool in descending order of length, so that training
    swings from long rows to short ones and back every fifty steps. Here the batches are shuffled.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of a batch, at least 1.
        seed: The same seed and epoch give the same order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of another epoch; the training loop calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Rows."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Every index once; a batch that is not full comes last."""
        rng = Random(f"{self.seed}-{self.epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        size, rest = self.batch_size, len(order) % self.batch_size
        full, left = order[: len(order) - rest], order[len(order) - rest :]
        pools = [sorted(full[at : at + POOL * size], key=lambda row: self.lengths[row]) for at in range(0, len(full), POOL * size)]
        batches = [pool[at : at + size] for pool in pools for at in range(0, len(pool), size)]
        rng.shuffle(batches)
        yield from (row for batch in batches for row in batch)
        yield from left
