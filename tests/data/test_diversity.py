"""Farthest-first selection of rows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.data.filter import select_diverse

DOGS = [f"the dog number {n} barks at the tree" for n in range(6)]


def test_one_row_of_every_kind_comes_before_a_second_of_any() -> None:
    texts = [*DOGS, "量子力学描述微观世界", *DOGS, "die Katze schläft auf dem Dach", "1 + 1 = 2"]
    for seed in range(5):
        chosen = select_diverse(texts, 4, seed)
        assert {6, 13, 14} <= set(chosen)


def test_the_same_seed_chooses_the_same_rows() -> None:
    texts = [f"{n} {n * 7 % 11} {n * 5 % 13}" for n in range(40)]
    assert select_diverse(texts, 9, 3) == select_diverse(texts, 9, 3)
    assert len({tuple(select_diverse(texts, 9, seed)) for seed in range(6)}) > 1


@settings(database=None, deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["", "a b", "a c", "好的", "a b", "。"]), max_size=8), st.integers(1, 9), st.integers(0, 3))
def test_as_many_rows_as_asked_for_are_chosen_once_each(texts: list[str], number: int, seed: int) -> None:
    chosen = select_diverse(texts, number, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(number, len(texts))
    assert all(0 <= place < len(texts) for place in chosen)
