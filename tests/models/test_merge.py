"""Rounding of merged weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sftchat.models.merge import _round_weights, round_stochastically

DTYPES = (torch.bfloat16, torch.float16)


@given(
    numbers=st.lists(st.floats(-60000, 60000, width=32).filter(lambda number: number == 0 or abs(number) > 1e-4), min_size=1, max_size=20),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 9),
)
def test_a_number_is_rounded_to_a_neighbour_and_a_representable_one_stays(numbers: list[float], dtype: torch.dtype, seed: int) -> None:
    before = torch.tensor(numbers)

    rounded = round_stochastically(before.clone(), dtype, torch.Generator().manual_seed(seed))

    assert torch.equal(rounded, rounded.to(dtype).float())
    nearest = before.to(dtype).float()
    distance = torch.maximum(before.abs(), torch.tensor(1e-4)) * torch.finfo(dtype).eps
    assert ((rounded - before).abs() <= distance).all()
    assert torch.equal(rounded[nearest == before], before[nearest == before])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mean_of_many_roundings_is_the_number(dtype: torch.dtype) -> None:
    step = torch.finfo(dtype).eps
    numbers = torch.full((200_000,), 1 + step / 10)

    rounded = round_stochastically(numbers, dtype, torch.Generator().manual_seed(0))

    assert set(rounded.tolist()) == {1.0, 1 + step}
    assert float((rounded - 1).mean() / step) == pytest.approx(0.1, abs=0.005)


def test_float32_is_not_rounded_and_the_largest_number_does_not_become_infinite() -> None:
    numbers = torch.tensor([0.1, 65504.9])

    assert torch.equal(round_stochastically(numbers, torch.float32, torch.Generator()), numbers)
    assert all(
        torch.isfinite(round_stochastically(numbers, torch.float16, torch.Generator().manual_seed(seed)).to(torch.float16)).all()
        for seed in range(50)
    )


def test_small_changes_survive_stochastic_rounding() -> None:
    size = 2000
    layer = torch.nn.Linear(size, 1, bias=False).requires_grad_(False)
    layer.weight.data = torch.full((1, size), 1 + torch.finfo(torch.bfloat16).eps / 10)
    exact = float(layer(torch.ones(size)))

    rounding = _round_weights(layer, "bfloat16", lambda: abs(float(layer(torch.ones(size))) - exact))

    assert rounding == "random"
    assert abs(float(layer(torch.ones(size))) - exact) < (exact - size) / 5
    assert torch.equal(layer.weight, layer.weight.bfloat16().float())
