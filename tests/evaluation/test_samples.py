"""Several samples of each item: requests, seeds, the joint score, and files of replies."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import Example, NotComparableError, Reply, SamplingParams, Score, Task, UsageError
from sftchat.evaluation.baseline import check_comparable, read_baseline
from sftchat.evaluation.evaluate import evaluate, generate_outcomes
from sftchat.evaluation.replies import outcome_line, read_replies
from sftchat.evaluation.samples import (
    check_samples,
    item_requests,
    join_scores,
    majority,
    pass_at_k,
    pass_sizes,
    raw_prompt,
    with_sample_metrics,
)
from sftchat.evaluation.scored import Failure, Item
from sftchat.scorers import exact
from sftchat.task import prompt_messages, score_reply
from sftchat.testing import ScriptedEngine

SAMPLED = SamplingParams(temperature=0.7)
ITEM = Example(({"role": "user", "content": "2 + 2"},), "4", "sum")


def task(samples: int = 1, **options: object) -> Task:
    scorer = exact()
    return Task("sums", "for tests", lambda n, seed: [], scorer.score, scorer.metrics, samples=samples, **options)  # type: ignore[arg-type]


def test_more_samples_leave_the_first_ones_as_they_are() -> None:
    two, four = (item_requests(task(samples), ITEM, SAMPLED) for samples in (2, 4))

    assert four[:2] == two
    assert len({request.sampling.seed for request in four}) == 4
    assert item_requests(task(), ITEM, SAMPLED)[0].sampling == four[0].sampling


def test_a_greedy_request_keeps_its_seed_and_id() -> None:
    (request,) = item_requests(task(), ITEM, SamplingParams(seed=3))

    assert (request.id, request.sampling) == ("sum", SamplingParams(seed=3))


def test_several_greedy_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="3 samples would be 3 equal replies: give a --temperature above 0, or -k 1"):
        check_samples(task(3), SamplingParams())


@given(samples=st.integers(1, 12), data=st.data())
def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_sample(samples: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    subsets = list(combinations(range(samples), k))

    share = sum(any(sample < right for sample in subset) for subset in subsets) / len(subsets)

    assert pass_at_k(samples, right, k) == pytest.approx(share, abs=1e-12)


def test_pass_is_reported_for_powers_of_two_and_for_all_samples() -> None:
    assert [pass_sizes(samples) for samples in (2, 3, 8, 10)] == [(1, 2), (1, 2, 3), (1, 2, 4, 8), (1, 2, 4, 8, 10)]


def test_the_item_is_the_unit_of_the_joint_score() -> None:
    right, wrong = Score({"n": 1, "correct": 1}, "4"), Score({"n": 1, "correct": 0}, "5", ("wrong_answer",), {"even": {"n": 1}})

    assert join_scores([right, wrong, right, wrong]) == Score(
        {"n": 1, "correct": 0.5, "items": 1, "maj@4": 1, "pass@1": 0.5, "pass@2": 1 - 1 / 6, "pass@4": 1},
        "4",
        ("wrong_answer",),
        {"even": {"n": 0.5}},
    )


def test_an_empty_answer_has_no_vote_unless_all_are_empty() -> None:
    answers = [Score({"n": 1}, answer) for answer in ("", "", "5", "4", "4")]

    assert (majority(answers), majority(answers[:2]), majority(answers[2:4])) == (3, 0, 0)


def test_samples_are_evaluated_with_their_metrics() -> None:
    counted = with_sample_metrics(task(4))

    result = evaluate(
        ScriptedEngine(lambda request: "4" if int(request.id.partition("#")[0]) % 2 else "5"), task(4), [ITEM], sampling=SAMPLED
    )

    assert [metric.name for metric in counted.metrics] == ["accuracy", "pass@1", "pass@2", "pass@4", "maj@4"]
    assert {metric.name: round(metric.value, 3) for metric in result.metrics} == {
        "accuracy": 0.5, "pass@1": 0.5, "pass@2": 0.833, "pass@4": 1.0, "maj@4": 0.0,
    }  # fmt: skip


def test_an_item_with_an_unanswered_sample_is_a_failure() -> None:
    engine = ScriptedEngine(lambda request: Reply("", "error") if request.id.startswith("1#") else "4")

    (outcome,) = generate_outcomes(engine, task(2), [ITEM], sampling=SAMPLED)

    assert isinstance(outcome, Failure)


def test_samples_are_written_with_their_item_and_read_again(tmp_path: Path) -> None:
    (outcome,) = generate_outcomes(ScriptedEngine(lambda request: f"{request.id} 4"), task(3), [ITEM], sampling=SAMPLED)
    assert isinstance(outcome, Item)
    file = tmp_path / "replies.jsonl"
    file.write_text(outcome_line(outcome), encoding="utf-8")

    assert read_replies(file) == {"sum": outcome.reply}
    assert [sample.text for sample in outcome.reply.samples] == ["0#sum 4", "1#sum 4", "2#sum 4"]


def test_numbered_samples_of_one_item_are_read_as_samples(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    file.write_text(
        "".join(json.dumps({"id": "a", "sample": number, "reply": str(number)}) + "\n" for number in range(3)), encoding="utf-8"
    )

    assert read_replies(file) == {"a": Reply("0", other_samples=(Reply("1"), Reply("2")))}


def test_a_baseline_of_other_settings_is_not_comparable(tmp_path: Path) -> None:
    file = tmp_path / "baseline.jsonl"
    header = {
        "sftchat_baseline": 2, "task": "sums", "metrics": ["accuracy"], "model": "m", "identity": "", "template_hash": "",
        "evalsets": [{"name": "e", "sha256": "", "size": 0}], "sampling": None, "settings": {"system": "Be brief."},
    }  # fmt: skip
    file.write_text(json.dumps(header) + "\n", encoding="utf-8")

    with pytest.raises(NotComparableError, match="made with other settings: samples unset then, 2 now"):
        check_comparable(read_baseline(file), task(2, system="Be brief."), [ITEM], SAMPLED)


def test_the_system_prompt_stands_first_and_few_shot_turns_follow_it() -> None:
    shots = ({"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"})
    own = Example(({"role": "system", "content": "own"}, *ITEM.messages))
    prompting = task(system="Add.", few_shot=lambda example: shots)

    assert prompt_messages(prompting, ITEM) == ({"role": "system", "content": "Add."}, *shots, *ITEM.messages)
    assert prompt_messages(prompting, own) == (own.messages[0], *shots, *own.messages[1:])
    assert raw_prompt(prompt_messages(prompting, ITEM)) == "Add.\n\n1 + 1 2\n\n2 + 2"


@pytest.mark.parametrize(
    ("thinking", "seen", "errors"), [("drop", "4", ()), ("keep", "<think>2 + 2</think>4", ("wrong_answer",)), ("off", "4", ())]
)
def test_the_scorer_gets_the_answer_unless_thoughts_are_kept(thinking: str, seen: str, errors: tuple[str, ...]) -> None:
    score = score_reply(task(thinking=thinking), ITEM, Reply("<think>2 + 2</think>4"))

    assert (score.answer, score.errors) == (seen, errors)


def test_unfinished_thoughts_are_an_error_class_of_their_own() -> None:
    score = score_reply(task(), ITEM, Reply("<think>2 + 2 is 4", "length"))

    assert score.errors == ("unfinished_thoughts",)


def test_a_rate_of_single_replies_is_no_rate_of_samples() -> None:
    assert [metric.per_item_rate for metric in with_sample_metrics(task(2)).metrics] == [False] * 4
