"""Labels found in replies, and the counts of the confusion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import Example, Reply, Score, UsageError
from sftchat.scorers import choice
from sftchat.task import metric_value

LABELS = ("billing", "not urgent", "urgent", "其他", "C++")
SYNONYMS = {"billing": ("invoice", "账单"), "C++": ("cpp",)}
SCORER = choice(labels=LABELS, synonyms=SYNONYMS)


def score(gold: str, reply: str) -> Score:
    return SCORER.score(Example(({"role": "user", "content": "?"},), gold, "i"), Reply(reply))


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("Billing.", "billing"),
        ("“ＢＩＬＬＩＮＧ”", "billing"),
        ("An invoice question", "billing"),
        ("属于账单问题", "billing"),
        ("类别：billing类", "billing"),
        ("It is not urgent", "not urgent"),
        ("urgent!", "urgent"),
        ("这属于其他类", "其他"),
        ("I'd say C++, clearly", "C++"),
        ("billing, yes, billing (invoice)", "billing"),
    ],
)
def test_the_only_label_of_a_reply_is_its_answer(reply: str, label: str) -> None:
    assert (score(label, reply).answer, score(label, reply).errors) == (label, ())


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("not urgent, or urgent", "ambiguous"),
        ("billing or urgent", "ambiguous"),
        ("billings", "unknown_label"),
        ("no idea", "unknown_label"),
        ("urgent", "wrong_label"),
        ("", "empty"),
        ("I'm sorry, I cannot say.", "refused"),
    ],
)
def test_every_wrong_reply_has_one_error_class(reply: str, error: str) -> None:
    assert score("billing", reply).errors == (error,)


def test_a_score_counts_the_answer_by_label() -> None:
    scorer = choice(labels=("a", "b"))
    example = Example(({"role": "user", "content": "?"},), "a", "i")

    assert scorer.score(example, Reply("B")) == Score(
        {
            **{"n": 1, "correct": 0, "tp": 0, "pred": 1, "gold": 1},
            **{"tp:a": 0, "pred:a": 0, "gold:a": 1, "tp:b": 0, "pred:b": 1, "gold:b": 0},
        },
        "b",
        ("wrong_label",),
        {"a": {"tp": 0, "pred": 0, "gold": 1}, "b": {"tp": 0, "pred": 1, "gold": 0}},
        expected="a",
    )


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, "nothing"))), min_size=1))
def test_the_metrics_are_those_of_the_confusion(pairs: list[tuple[str, str]]) -> None:
    scores = [score(gold, reply) for gold, reply in pairs]
    sums = {key: sum(one.stats[key] for one in scores) for key in scores[0].stats}
    f1_by_label = {}
    for label in LABELS:
        gold, answered = sum(gold == label for gold, _ in pairs), sum(reply == label for _, reply in pairs)
        right = sum(gold == reply == label for gold, reply in pairs)
        assert (sums[f"gold:{label}"], sums[f"pred:{label}"], sums[f"tp:{label}"]) == (gold, answered, right)
        if gold or answered:
            f1_by_label[label] = 2 * right / (gold + answered)
    right, answered = sum(gold == reply for gold, reply in pairs), sum(reply != "nothing" for _, reply in pairs)

    assert {metric.name: metric_value(metric, sums) for metric in SCORER.metrics} == pytest.approx(
        {
            "accuracy": right / len(pairs),
            "macro_f1": sum(f1_by_label.values()) / len(f1_by_label),
            "precision": right / answered if answered else 0,
            "recall": right / len(pairs),
            "f1": 2 * right / (answered + len(pairs)),
        }
    )


@given(st.text(), st.sampled_from(LABELS))
def test_a_label_in_its_own_sentence_is_found_in_any_text_without_labels(text: str, label: str) -> None:
    assert score(label, f"{text}\n{label}\n").answer in (label, "") or score(label, text).answer


def test_case_can_matter() -> None:
    scorer = choice(labels=("IT", "HR"), ignore_case=False)
    example = Example(({"role": "user", "content": "?"},), "HR", "i")

    assert scorer.score(example, Reply("I think it is HR")).answer == "HR"


def test_a_gold_reply_that_is_no_label_is_a_problem_of_its_row() -> None:
    (problem,) = SCORER.validate_row(Example((), "shipping"))

    assert problem == "the gold reply is none of the labels billing, not urgent, urgent, 其他, C++"


@pytest.mark.parametrize(
    ("labels", "synonyms", "message"),
    [
        (("a",), {}, "labels is a, must be at least two labels"),
        (("a", "A"), {}, "the labels 'a' and 'A' are both written 'A'"),
        (("a", "a"), {}, "the labels 'a' and 'a' are both written 'a'"),
        (("a", "b"), {"a": ("B",)}, "the labels 'a' and 'b' are both written 'b'"),
        (("a", "b"), {"c": ("x",)}, "synonyms are given for 'c', which is no label (labels: a, b)"),
        (("a", "..."), {}, "the label '...' has no letter or digit"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(labels: tuple[str, ...], synonyms: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        choice(labels=labels, synonyms=synonyms)

    assert str(caught.value) == message
