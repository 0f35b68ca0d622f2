"""The order of the rows: batches of similar lengths, in random order."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sftchat.training.packing import SimilarLengths

LENGTHS = [7 * number % 101 for number in range(1000)]


@given(st.lists(st.integers(1, 500), max_size=300), st.integers(1, 9), st.integers(0, 3))
def test_every_row_comes_once(lengths: list[int], batch_size: int, epoch: int) -> None:
    sampler = SimilarLengths(lengths, batch_size, seed=0)
    sampler.set_epoch(epoch)
    assert sorted(sampler) == list(range(len(lengths)))
    assert len(sampler) == len(lengths)


def test_a_batch_holds_rows_of_similar_lengths() -> None:
    order = list(SimilarLengths(LENGTHS, 8, seed=0))
    batches = [[LENGTHS[row] for row in order[at : at + 8]] for at in range(0, len(order), 8)]
    assert max(max(batch) - min(batch) for batch in batches) <= 10


def test_batches_come_in_random_order() -> None:
    order = list(SimilarLengths(LENGTHS, 8, seed=0))
    means = [sum(LENGTHS[row] for row in order[at : at + 8]) / 8 for at in range(0, len(order), 8)]
    rising = sum(second > first for first, second in itertools.pairwise(means))
    assert 0.35 < rising / (len(means) - 1) < 0.65


def test_the_order_depends_on_seed_and_epoch() -> None:
    first, again, other = SimilarLengths(LENGTHS, 8, seed=0), SimilarLengths(LENGTHS, 8, seed=0), SimilarLengths(LENGTHS, 8, seed=1)
    assert list(first) == list(again) != list(other)
    again.set_epoch(1)
    assert list(first) != list(again)
