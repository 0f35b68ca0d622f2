"""The smallest drop that an evalset can detect, and whether it is detected that often."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.bench_gate import found_share, two_models
from sftchat import Score, rate
from sftchat.evaluation.comparison import paired_difference
from sftchat.evaluation.gate_options import GatedMetric
from sftchat.evaluation.power import effect_lines, minimum_detectable_effect
from sftchat.evaluation.statistics import Counts, build_counts
from tests.evaluation.conftest import F1

RIGHT = rate("right", "right")


def marks(right: int, n: int) -> Counts:
    return build_counts(Score({"n": 1, "right": int(k < right)}) for k in range(n))


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_the_reported_drop_is_detected_in_four_of_five_samples(share: float) -> None:
    n, right = 200, 0.8
    drop = minimum_detectable_effect("gold", RIGHT, marks(160, n), GatedMetric("right")).drops[share] / 100
    draw = np.random.default_rng(0)
    found = 0
    for _ in range(120):
        old = draw.random(n) < right
        new = np.where(draw.random(n) < share, draw.random(n) < right - drop / share, old)
        tables = [Counts(("n", "right"), np.stack([np.ones(n), marks.astype(float)], axis=1)) for marks in (old, new)]
        found += paired_difference(tables[0], tables[1], RIGHT, resamples=500).judgement == "worse"

    assert 0.7 <= found / 120 <= 0.9


def test_the_reported_drop_holds_for_a_metric_that_is_not_a_mean() -> None:
    draw = np.random.default_rng(3)
    before, _ = two_models(draw, 300, 0.0)
    drop = minimum_detectable_effect("gold", F1, before, GatedMetric("f1")).drops[0.2] / 100
    worse = sum(paired_difference(*two_models(draw, 300, drop), F1, resamples=500).judgement == "worse" for _ in range(100)) / 100

    assert worse >= 0.7  # triples of an item are resampled one by one here, so the power is a little higher than for whole items


def test_the_simulation_has_the_stated_f1() -> None:
    before, after = two_models(np.random.default_rng(0), 20_000, 0.03)
    f1 = [2 * table.rows[:, 2].sum() / table.rows[:, :2].sum() for table in (before, after)]

    assert f1 == pytest.approx([0.80, 0.77], abs=0.005)
    assert found_share(0.8, 0.5) == pytest.approx(0.75)


def test_items_that_are_all_right_still_need_six_to_break() -> None:
    found = minimum_detectable_effect("gold", RIGHT, marks(100, 100), GatedMetric("right"))

    assert {round(drop, 1) for drop in found.drops.values()} == {7.9}
    assert effect_lines(minimum_detectable_effect("gold", RIGHT, marks(3, 3), GatedMetric("right"))) == (
        "gold, 3 items: right 1.000; no drop can be detected with fewer than 6 items",
    )


def test_a_metric_near_0_cannot_drop_far() -> None:
    assert effect_lines(minimum_detectable_effect("gold", RIGHT, marks(0, 8), GatedMetric("right"))) == (
        "gold, 8 items: right 0.000; no drop can be detected with 80% power, because the metric cannot fall that far",
    )


def test_gating_several_metrics_reduces_power() -> None:
    alone, among = (minimum_detectable_effect("gold", RIGHT, marks(320, 400), GatedMetric("right"), tests).drops[0.2] for tests in (1, 4))

    assert alone < among
