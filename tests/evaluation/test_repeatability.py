"""The self-check: whether a model repeats its replies, alone and in other batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sftchat import Example, Request, Task
from sftchat.evaluation.checks import check_repeatability
from sftchat.evaluation.evaluate import generate_outcomes
from sftchat.evaluation.results import SelfCheck
from sftchat.evaluation.scored import Item
from sftchat.testing import ScriptedEngine


def answered(engine: ScriptedEngine, task: Task, examples: list[Example]) -> list[Item]:
    return [outcome for outcome in generate_outcomes(engine, task, examples) if isinstance(outcome, Item)]


def test_a_deterministic_model_has_no_threshold(task: Task, example: Callable[..., Example]) -> None:
    engine = ScriptedEngine(lambda request: "甲-乙:夫妻")
    items = answered(engine, task, [example(str(number)) for number in range(10)])
    assert check_repeatability(engine, task, items) == SelfCheck(10, 3, 0, 0, {"f1": 0.0, "exact": 0.0})
    assert len(engine.requests) == 10 + 3 * 10


def test_a_reply_that_depends_on_its_batch_is_detected(task: Task, example: Callable[..., Example]) -> None:
    asked: list[str] = []

    def moody(request: Request) -> str:
        asked.append(request.id)
        return "无" if request.id == "3" and asked.count("3") > 1 else "甲-乙:夫妻"

    engine = ScriptedEngine(moody)
    items = answered(engine, task, [example(str(number)) for number in range(10)])
    found = check_repeatability(engine, task, items)
    assert (found.n, found.changed, found.rescored) == (10, 1, 1)
    assert found.floors == pytest.approx({"f1": 1 - 18 / 19, "exact": 0.1})


def test_another_wording_with_the_same_counts_changes_the_reply_and_no_metric(task: Task, example: Callable[..., Example]) -> None:
    count = iter(range(100))
    engine = ScriptedEngine(lambda request: f"甲-乙:{'夫妻' if next(count) % 2 else '兄弟'}")
    found = check_repeatability(engine, task, answered(engine, task, [example("a", gold="无")]))
    assert (found.changed, found.rescored, found.floors) == (1, 0, {"f1": 0.0, "exact": 0.0})


def test_a_fixed_sample_is_generated_again(task: Task, example: Callable[..., Example]) -> None:
    examples = [example(f"{number:03d}") for number in range(200)]
    first, second = ScriptedEngine(lambda request: "无"), ScriptedEngine(lambda request: "无")
    for engine in (first, second):
        assert check_repeatability(engine, task, answered(engine, task, examples), max_items=7).n == 7
    assert [request.id for request in first.requests] == [request.id for request in second.requests]


def test_without_replies_nothing_is_generated_again(task: Task) -> None:
    assert check_repeatability(ScriptedEngine([]), task, []) == SelfCheck(0, 3, 0, 0, {})
