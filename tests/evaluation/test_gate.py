"""The gate: options as typed, the outcome of each metric, the verdict and its exit code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sftchat import Task, UsageError
from sftchat.evaluation.evaluate import compare
from sftchat.evaluation.gate import Verdict, decide_verdict, gate_comparisons
from sftchat.evaluation.gate_options import GateConfig, GateOptions, parse_floors
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import ModelResult

Result = Callable[..., ModelResult]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f1", "floor 'f1' must be METRIC=X with a number X, such as f1=0.8"),
        ("f1=high", "floor 'f1=high' must be METRIC=X with a number X, such as f1=0.8"),
        ("f1=nan", "floor 'f1=nan' must be METRIC=X with a number X, such as f1=0.8"),
        ("f2=1", "unknown metric 'f2' (available: exact, f1)"),
    ],
)
def test_impossible_floors_are_refused(task: Task, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_floors([text], task)

    assert str(caught.value) == message


def test_floors_are_for_metrics_that_should_be_high_and_come_once(task: Task) -> None:
    low = replace(task, metrics=(replace(task.metric, higher_is_better=False),))

    assert parse_floors(["f1=0.8", "exact=.5"], task) == {"f1": 0.8, "exact": 0.5}
    with pytest.raises(UsageError, match=r"^metric 'f1' has two floors$"):
        parse_floors(["f1=0.8", "f1=0.9"], task)
    with pytest.raises(UsageError, match=r"^metric 'f1' is better when lower, so a floor makes no sense$"):
        parse_floors(["f1=0.8"], low)


def test_without_demands_there_is_no_verdict(result: Result) -> None:
    assert decide_verdict(Report("triples", (result("nano", "+-"),)), GateConfig()) == Verdict()


def test_a_floor_is_met_by_its_very_value_and_missed_below_it(result: Result) -> None:
    report = Report("triples", (result("nano", "++++-", 5),))

    assert decide_verdict(report, GateConfig(floors={"exact": 0.8})) == Verdict(
        "pass", ("nano on gold.jsonl: exact 0.800 meets the floor 0.8",)
    )
    assert decide_verdict(report, GateConfig(floors={"f1": 0.81})) == Verdict(
        "fail", ("nano on gold.jsonl: f1 0.800 is under the floor 0.81",)
    )


def gated(report: Report, config: GateConfig) -> Report:
    comparisons, gates = gate_comparisons(report.comparisons, lambda comparison: config.gated)
    return replace(report, comparisons=comparisons, gates=gates)


@pytest.mark.parametrize(
    ("before", "after", "line", "outcome", "strict"),
    [
        ("++++++", "------", "regressed, worse than old: f1 -100.0 points [-100.0, -35.1], p = 0.0312", "fail", 1),
        ("------", "++++++", "better than old: f1 +100.0 points [+35.1, +100.0], p = 0.0312", "pass", 0),
        ("+++", "+++", "fine against old: f1 +0.0 points [-70.8, +70.8], p = 1, no item changed its counts", "pass", 0),
        (
            "+++",
            "++-",
            "inconclusive against old: a drop of 86.5 points of f1 cannot be excluded, the margin is 2; "
            "3 items are too few for any drop to be significant, it takes 6; f1 -33.3 points [-100.0, +44.5], p = 1",
            "inconclusive",
            4,
        ),
    ],
)
def test_only_a_significant_drop_fails(task: Task, result: Result, before: str, after: str, line: str, outcome: str, strict: int) -> None:
    old, new = result("old", before, len(before)), result("new", after, len(after))
    rules = GateOptions().parse(task, ())
    report = gated(Report("triples", (new,), (old,), (compare(old, new, task),)), rules)
    plain, demanding = decide_verdict(report, rules), decide_verdict(report, replace(rules, strict=True))

    assert (plain.reasons, plain.outcome, plain.exit_code) == ((f"new on gold.jsonl: {line}",), outcome, strict % 4)
    assert (demanding.reasons, demanding.outcome, demanding.exit_code) == (plain.reasons, outcome, strict)


def test_unanswered_items_are_never_counted_as_low_scores(result: Result) -> None:
    verdict = decide_verdict(Report("triples", (result("nano", "--!!", 4), result("dead", "!!!!", 4))), GateConfig(floors={"f1": 0.5}))

    assert verdict == Verdict(
        "could not judge",
        (
            "nano on gold.jsonl: f1 0.000 is under the floor 0.5",
            "dead on gold.jsonl: no f1, nothing was answered",
            "6 items were not answered, the first 'i2' by nano: server gone",
        ),
    )
