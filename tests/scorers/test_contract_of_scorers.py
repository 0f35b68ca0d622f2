"""What every scorer promises: any reply is scored, the gold reply is the top, counts have one set of keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sftchat.scorers
from sftchat import Example, Reply, Task
from sftchat.scorers import NAMES, Scorer
from sftchat.task import metric_value, score_reply
from sftchat.testing.fuzz import garbage_replies
from sftchat.testing.scores import ScoredReply, garbage_faults, gold_faults, metric_faults, speed_faults
from tests.scorers.cases import CASES, UNTESTED, Case

EACH_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{'-'.join(map(str, case.arguments))}")


def as_task(scorer: Scorer) -> Task:
    return Task("case", "for tests", lambda n, seed: [], scorer.score, scorer.metrics, validate_row=scorer.validate_row)


def test_every_scorer_has_a_case() -> None:
    assert UNTESTED == []


def test_no_module_has_the_name_of_a_scorer_which_it_would_hide_once_it_is_imported() -> None:
    modules = {path.stem for path in Path(sftchat.scorers.__file__).parent.glob("*.py")}

    assert modules & {*NAMES} == set()


@EACH_CASE
def test_a_scorer_keeps_the_contract_of_tasks(case: Case) -> None:
    task, examples = as_task(case.scorer), case.examples
    golds = [ScoredReply.of(task, example, example.gold or "") for example in examples]
    garbage, faults = garbage_faults(task, examples, seed=0)

    assert [*gold_faults(task, golds), *faults, *metric_faults(task, golds, garbage), *speed_faults(task, examples, 20)] == []
    assert [problem for example in examples for problem in task.validate_row(example)] == []


@EACH_CASE
@given(text=st.text(), gold=st.text(min_size=1))
def test_any_reply_to_any_gold_is_scored(case: Case, text: str, gold: str) -> None:
    task = as_task(case.scorer)
    example = Example(case.examples[0].messages, gold, "i", case.metadata)

    keys = {frozenset(score_reply(task, example, Reply(reply)).stats) for reply in (text, gold, *case.golds)}

    assert len(keys) == 1


@EACH_CASE
def test_a_reply_is_right_exactly_when_its_primary_metric_is_the_best_possible_or_reaches_the_threshold(case: Case) -> None:
    task, examples = as_task(case.scorer), case.examples
    for example in examples:
        top = metric_value(task.metric, score_reply(task, example, Reply(example.gold or "")).stats)
        lowest = top if case.right_from is None else case.right_from
        assert lowest <= top
        for reply in garbage_replies(0, list(case.golds), n=20):
            score = score_reply(task, example, reply)
            assert (not score.errors) == (lowest - 1e-9 <= metric_value(task.metric, score.stats) <= top + 1e-9), reply


@EACH_CASE
def test_the_settings_of_a_scorer_make_it_again(case: Case) -> None:
    again = Case(case.name, case.golds, case.scorer.settings, case.metadata)

    assert again.scorer.settings == case.scorer.settings
    assert {key: case.scorer.settings[key] for key in case.arguments} == dict(case.arguments)
