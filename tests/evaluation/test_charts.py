"""Charts: round ticks, and nothing outside the picture."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.evaluation.report.charts import Point, Series, axis_range, axis_ticks, draw_curves


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.43, 0.96, [0.5, 0.6, 0.7, 0.8, 0.9]), (-3, 12, [0, 5, 10])]
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert axis_ticks(low, high) == expected


@given(st.lists(st.tuples(st.integers(0, 10**7), st.floats(-1e6, 1e6)), min_size=1, max_size=40), st.none() | st.floats(-1e6, 1e6))
def test_any_curve_stays_inside_its_picture(points: list[tuple[int, float]], baseline: float | None) -> None:
    drawing = draw_curves([Series("run", tuple(Point(step, value) for step, value in points))], baseline, 328, "f1")

    for x, y in re.findall(r'<circle cx="([^"]+)" cy="([^"]+)"', drawing):
        assert 0 <= float(x) <= 328
        assert 0 <= float(y) <= 220


def test_an_axis_of_shares_is_0_to_1() -> None:
    assert axis_range([0.2, None, 0.9]) == (0, 1)
    assert axis_range([1.5, 3.0]) == (1.5, 3.0)
    assert axis_range([7.0]) == (6.5, 7.5)
