"""The published rules of other tools, as re-implemented in ``scripts/bench_gate.py``, on results with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.bench_gate import FAIL, PASS, Rows, micro_f1, soup_against, soup_suite, soup_task


def answered(right: int, items: int = 100) -> Rows:
    """Return counts (gold, pred, tp) of items with one triple each, the given number of them right; micro-F1 is their share."""
    return np.array([[1.0, 1.0, float(item < right)] for item in range(items)])


@pytest.mark.parametrize(
    ("after", "task", "suite", "against"),
    [
        (81, PASS, PASS, PASS),
        (80, FAIL, PASS, PASS),
        (79, FAIL, PASS, PASS),
        (77, FAIL, PASS, FAIL),
        (75, FAIL, PASS, FAIL),
        (74, FAIL, FAIL, FAIL),
    ],
)
def test_soup_requires_a_higher_task_score_and_no_suite_down_by_more_than_five_points(
    after: int, task: str, suite: str, against: str
) -> None:
    before = answered(80)

    assert micro_f1(before) == 0.8
    assert (soup_task(before, answered(after)), soup_suite(before, answered(after)), soup_against(before, answered(after))) == (
        task,
        suite,
        against,
    )
