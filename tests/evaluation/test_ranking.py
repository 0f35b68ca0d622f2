"""Several checkpoints on one evalset: the best, and those that tie with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from sftchat import Example, Task
from sftchat.evaluation.checks import rank_checkpoints
from sftchat.evaluation.evaluate import evaluate
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.html import to_html
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import ModelResult
from sftchat.evaluation.scored import collect_outcomes
from sftchat.testing import ScriptedEngine

Answer = Callable[[str, int], ModelResult]


@pytest.fixture
def answer(task: Task, example: Callable[..., Example]) -> Answer:
    """A model that gets the first so many of sixty items right."""

    def make(name: str, right: int) -> ModelResult:
        examples = [example(f"{number:03d}") for number in range(60)]
        replies = {str(item.id): "甲-乙:夫妻" if number < right else "无" for number, item in enumerate(examples)}
        return evaluate(ScriptedEngine(replies, name=name), task, examples)

    return make


def test_checkpoints_stand_by_step_with_the_best_and_its_ties(answer: Answer, task: Task) -> None:
    results = [
        answer("run/checkpoint-300", 41),
        answer("run/checkpoint-100", 10),
        answer("run/checkpoint-20", 0),
        answer("run/checkpoint-200", 40),
    ]
    ranked = rank_checkpoints(results, task)
    assert [(r.step, r.best, r.tied) for r in ranked] == [(20, False, False), (100, False, False), (200, False, True), (300, True, True)]
    assert ranked[2].difference is not None
    assert (ranked[2].difference.differing, ranked[3].difference) == (1, None)


def test_among_equal_checkpoints_the_earliest_is_best(answer: Answer, task: Task) -> None:
    assert [r.best for r in rank_checkpoints([answer("checkpoint-2", 30), answer("checkpoint-1", 30)], task)] == [True, False]


def test_models_without_a_step_come_first_in_the_order_given(answer: Answer, task: Task) -> None:
    ranked = rank_checkpoints([answer("checkpoint-5", 3), answer("org/base", 0), answer("sftchat:nano", 0)], task)
    assert [r.result.model for r in ranked] == ["org/base", "sftchat:nano", "checkpoint-5"]


def test_models_without_replies_cannot_be_ranked(task: Task, answer: Answer) -> None:
    empty = ModelResult("m", answer("x", 1).evalset, collect_outcomes(()))
    with pytest.raises(ValueError, match="no result has a metric"):
        rank_checkpoints([empty], task)


def test_the_chart_marks_the_best_checkpoint_also_when_lower_is_better(answer: Answer, task: Task) -> None:
    primary, *others = task.metrics
    lower = replace(task, metrics=(replace(primary, higher_is_better=False), *others))
    results = (answer("run/checkpoint-1", 30), answer("run/checkpoint-2", 10))

    page = to_html(Report("triples", results, rankings=(rank_checkpoints(results, lower),)), Verdict())

    assert set(re.findall(r'<text class="best"[^>]*>([^<]+)<', page)) == {f"{results[1].metrics[0].value:.3f}"}
