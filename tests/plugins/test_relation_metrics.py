"""The metrics of the relation task, and properties of the scorer for any reply, on generated rows and garbage."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import Example, Message, Reply, Score, TrainingDefaults
from sftchat_relation.error_classes import ERROR_CLASSES, REPLY_ERRORS
from sftchat_relation.generate import generate
from sftchat_relation.metrics import METRICS
from sftchat_relation.plugin import sftchat_register_tasks
from sftchat_relation.scorer import STATS, score
from sftchat_relation.vocabulary import VOCABULARY

COUPLE = "王小明-李小红:夫妻"
PASSAGE = "张三是李四的师父。王小明与李小红是夫妻，赵六、钱七在旁。"
TOP = {
    "f1": 1.0,
    "precision": 1.0,
    "recall": 1.0,
    "strict_f1": 1.0,
    "pair_f1": 1.0,
    "relation_accuracy": 1.0,
    "exact": 1.0,
    "parse_rate": 1.0,
}


def judge(gold: str, reply: str, passage: str = PASSAGE) -> Score:
    return score(Example((Message(role="user", content=passage),), gold), Reply(reply))


def metrics(scores: Iterable[Score]) -> dict[str, float]:
    sums = Counter(dict.fromkeys(STATS, 0.0))
    for judged in scores:
        sums.update(judged.stats)
    return {metric.name: metric.function(sums) for metric in METRICS}


def test_micro_f1_is_a_ratio_of_sums_and_no_mean_of_items() -> None:
    single = judge("张三-李四:师徒", "张三-李四:师徒")
    people = "ABCDEFGHIJKLMNOPQRST"
    gold = "\n".join(f"{a}-{b}:好友" for a, b in zip(people[::2], people[1::2], strict=True))
    wrong = "\n".join(f"{a}-{b}:敌对" for a, b in zip(people[::2], people[1::2], strict=True))
    tens = judge(gold, wrong, passage=people)
    scores = [single] * 9 + [tens]
    assert round(metrics(scores)["f1"], 3) == 0.474
    assert sum(metrics([judged])["f1"] for judged in scores) / 10 == 0.9


def test_metrics_without_any_triples_are_the_share_of_readable_replies() -> None:
    silent, garbage = judge("无", "无"), judge("无", "嗯嗯嗯")
    assert metrics([silent, silent]) == TOP | {"relation_accuracy": 0.0}
    half = {
        "f1": 0.5,
        "precision": 0.5,
        "recall": 0.5,
        "strict_f1": 0.5,
        "pair_f1": 0.5,
        "relation_accuracy": 0.0,
        "exact": 0.5,
        "parse_rate": 0.5,
    }
    assert metrics([silent, garbage]) == half
    assert metrics([]) == dict.fromkeys(TOP, 0.0)


def test_metrics_where_one_side_is_empty_are_zero() -> None:
    missed, invented = metrics([judge(COUPLE, "无")]), metrics([judge("无", COUPLE)])
    assert [missed[name] for name in ("f1", "precision", "recall")] == [0.0, 0.0, 0.0]
    assert [invented[name] for name in ("f1", "precision", "recall")] == [0.0, 0.0, 0.0]


def test_metrics_of_arrays_are_the_metrics_of_each_column() -> None:
    scores = [
        judge(COUPLE, COUPLE),
        judge("无", "无"),
        judge("无", "嗯"),
        judge("无", COUPLE),
        judge(COUPLE, "无"),
        judge(COUPLE, COUPLE + "\n赵六-钱七:好友"),
    ]
    columns = {stat: np.array([judged.stats[stat] for judged in scores]) for stat in STATS}
    for metric in METRICS:
        assert metric.function(columns).tolist() == [metrics([judged])[metric.name] for judged in scores]
        assert set(metric.stats) <= set(STATS)


def test_f1_is_the_primary_metric() -> None:
    assert [metric.name for metric in METRICS] == list(TOP)


@pytest.mark.parametrize("preset", ["novel", "article"])
def test_gold_against_itself_scores_highest(preset: str) -> None:
    rows = list(generate(200, 3, preset=preset))
    scores = [score(row, Reply(row.gold or "")) for row in rows]
    assert metrics(scores) == TOP
    assert [judged.errors for judged in scores] == [()] * len(rows)


ROWS = [*generate(60, 5, preset="novel"), *generate(60, 5, preset="article")]
GARBAGE = st.one_of(
    st.text(), st.lists(st.sampled_from([*"甲乙-—:：,、;\n（）[]{}无和1. ", "张三", "师徒", "夫妻"]), max_size=40).map("".join)
)


@given(st.sampled_from(ROWS), GARBAGE)
def test_garbage_never_raises_and_never_beats_the_gold(row: Example, garbage: str) -> None:
    best, judged = score(row, Reply(row.gold or "")), score(row, Reply(garbage))
    assert set(judged.stats) == set(STATS)
    assert set(judged.errors) <= {*ERROR_CLASSES, *REPLY_ERRORS}
    assert judged.stats["tp"] <= min(judged.stats["pred"], judged.stats["gold"])
    assert all(metrics([judged])[name] <= value for name, value in metrics([best]).items())
    for key in ("tp", "pred", "gold"):
        assert sum(group[key] for group in judged.groups.values()) == judged.stats[key]


PEOPLE = ("张三", "李四", "王小明", "李小红", "赵六", "钱七")
LINES = st.lists(
    st.tuples(st.permutations(PEOPLE), st.sampled_from([*VOCABULARY.relations, *VOCABULARY.aliases])).map(
        lambda row: f"{row[0][0]}-{row[0][1]}:{row[1]}"
    ),
    min_size=1,
    max_size=8,
)


@given(LINES, LINES, st.randoms(use_true_random=False))
def test_the_order_of_lines_does_not_matter(gold: list[str], reply: list[str], rng: random.Random) -> None:
    judged = judge("\n".join(gold), "\n".join(reply))
    again = judge("\n".join(rng.sample(gold, len(gold))), "\n".join(rng.sample(reply, len(reply))))
    assert (again.stats, again.groups) == (judged.stats, judged.groups)


@given(LINES)
def test_any_gold_against_itself_is_right(gold: list[str]) -> None:
    judged = judge("\n".join(gold), "\n".join(gold))
    assert metrics([judged]) == TOP
    assert set(judged.errors) <= {"duplicate"}


DRIFTS: dict[str, Callable[[str], str]] = {
    "full-width colons": lambda gold: gold.replace(":", "："),
    "dashes": lambda gold: gold.replace("-", "—"),
    "arrows": lambda gold: gold.replace("-", " -> "),
    "bullets": lambda gold: "\n".join("- " + line for line in gold.split("\n")),
    "numbers": lambda gold: "\n".join(f"{i}. {line}" for i, line in enumerate(gold.split("\n"), 1)),
    "one line": lambda gold: gold.replace("\n", "；") + "。",
    "enumeration": lambda gold: gold.replace("\n", "、") + "。",
    "fence": lambda gold: f"```\n{gold}\n```",
    "和": lambda gold: gold.replace("-", "和") + "。",
}


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("preset", ["novel", "article"])
def test_right_triples_in_another_format_keep_f1_and_lose_strict_f1(preset: str, drift: str) -> None:
    rows = [row for row in generate(60, 8, preset=preset) if row.gold != "无"]
    scores = [score(row, Reply(DRIFTS[drift](row.gold or ""))) for row in rows]
    assert metrics(scores) == TOP | {"strict_f1": 0.0}
    assert [judged.errors for judged in scores] == [("format_drift",)] * len(rows)


@settings(max_examples=20)
@given(st.sampled_from(ROWS), st.integers(0, 2**16))
def test_scoring_is_deterministic(row: Example, seed: int) -> None:
    lines = (row.gold or "").split("\n")
    reply = Reply("\n".join(random.Random(seed).choices(lines, k=3)))
    assert score(row, reply) == score(row, reply)


def test_the_plugin_registers_the_task_with_its_defaults() -> None:
    (task,) = sftchat_register_tasks()
    assert (task.name, task.metric.name, task.template, task.row_format) == ("relation", "f1", "chatml", "alpaca")
    assert (task.sampling.temperature, task.sampling.max_new_tokens) == (0.0, 128)
    assert task.sampling.stop == ()  # lm-eval stops at a blank line unless told otherwise, and loses the rest of the triples
    assert [path.name for path in task.evalsets.values()] == ["relation.jsonl", "relation-en.jsonl"]
    assert [task.training_defaults("lora", size) for size in (2_000_000, 500_000_000)] == [
        TrainingDefaults(epochs=epochs, batch_size=8, max_length=512, lora_rank=32, rows=12_000) for epochs in (1.0, 3.0)
    ]
