"""The scorer of the general task: right replies, error classes, and that no reply makes it fail."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import DataError, Example, Message, Reply, Score, TrainingDefaults
from sftchat_general.checks import validate_row
from sftchat_general.constraints import CHECKS
from sftchat_general.generate import generate
from sftchat_general.metrics import METRICS
from sftchat_general.plugin import sftchat_register_tasks
from sftchat_general.scorer import ERRORS, STATS, score


def item(gold: str | None, *constraints: object, question: str = "?", **metadata: Any) -> Example:
    return Example(
        (Message(role="user", content=question),), gold, "item-1", {"constraints": list(constraints), **metadata}, "gold.jsonl:7"
    )


def errors(reply: str, *constraints: object, gold: str = "gold", question: str = "?") -> tuple[str, ...]:
    judged = score(item(gold, *constraints, question=question), Reply(reply))
    assert judged.stats["correct"] == (not judged.errors)
    return judged.errors


def test_a_right_reply_has_every_count_and_no_error_class() -> None:
    stats = {"n": 1, "correct": 1, "exact": 1, "rouge_l": 1.0}
    judged = score(item("12", {"check": "number", "value": 12}, kind="arithmetic"), Reply("12"))
    assert judged == Score(stats, "12", (), {"arithmetic": stats})


def test_a_right_reply_in_another_wording_is_correct_and_not_exact() -> None:
    judged = score(item("你叫小明。", {"check": "mentions", "any": ["小明"]}), Reply("你的名字是小明"))
    assert judged == Score({"n": 1, "correct": 1, "exact": 0, "rouge_l": pytest.approx(6 / 11)}, "你的名字是小明")


def test_without_constraints_the_gold_is_required_ignoring_case_and_punctuation() -> None:
    assert score(item("It is Red."), Reply("“it is  RED”!")).stats == {"n": 1, "correct": 1, "exact": 1, "rouge_l": 1.0}
    assert score(item("你好，世界。"), Reply("你好, 世界！")).stats == {"n": 1, "correct": 1, "exact": 1, "rouge_l": 1.0}
    assert errors("It is blue.", gold="It is red.") == ("wrong_answer",)


SUM = {"check": "number", "value": 12}
ONLY = {"check": "number", "value": 12, "only": True}
WORD = {"check": "text", "accept": ["eagle", "the eagle"]}
CAPITALS = {"check": "text", "accept": ["SEA AND SKY."], "case": True}
NAME = {"check": "mentions", "any": ["sftchat 的小助手"], "none": ["ChatGPT", "不是 sftchat 的小助手"]}
COLOUR = {"check": "mentions", "any": ["red"], "none": ["blue"]}
MONTH = {"check": "mentions", "any": ["二月"]}
ORDER = {"check": "sequence", "items": ["3", "8", "12"]}
TITLES = {"check": "sequence", "items": ["香蕉", "苹果"]}
BULLETS = {"check": "list", "marker": "-", "count": 2, "items": ["sea", "sky"]}
FREE = {"check": "list", "marker": "*", "count": 2}
NUMBERED = {"check": "list", "marker": "1.", "count": 2, "items": ["sea", "sky"]}
JSON = {"check": "json", "keys": ["name", "age"], "values": {"name": ["Tom", "Thomas"], "age": 12}}
TAGS = {"check": "tags", "tag": "answer", "accept": ["down"]}
WORDS = {"check": "length", "unit": "words", "least": 2, "most": 3}
CHARACTERS = {"check": "length", "unit": "characters", "most": 4}


@pytest.mark.parametrize(
    ("constraint", "reply", "fault"),
    [
        (SUM, "12", ""),
        (SUM, "１２。", ""),
        (SUM, "12.0", ""),
        (SUM, "7 + 5 = 12", ""),
        (SUM, "7+5=12，所以 7 加 5 等于 12", ""),
        (SUM, "12 is 7 plus 5", ""),
        (SUM, "7 + 3 = 10, and 10 + 2 = 12.", ""),
        (SUM, "The answer is **12**", ""),
        (SUM, "一共有12个苹果", ""),
        (SUM, "十二", ""),
        (SUM, "Twelve.", ""),
        (SUM, "<think>maybe 13</think>12", ""),
        (SUM, "13", "wrong_answer"),
        (SUM, "-12", "wrong_answer"),
        (SUM, "−12", "wrong_answer"),
        (SUM, "120", "wrong_answer"),
        (SUM, "1,200", "wrong_answer"),
        (SUM, "7 + 5", "wrong_answer"),
        (SUM, "12 or 13", "wrong_answer"),
        (SUM, "I think so", "wrong_answer"),
        (ONLY, "12", ""),
        (ONLY, "“12”。", ""),
        (ONLY, "十二", ""),
        (ONLY, "7 + 5 = 12", "extra_text"),
        (ONLY, "The answer is 12", "extra_text"),
        (ONLY, "The answer is 13", "wrong_answer"),
        (WORD, "Eagle.", ""),
        (WORD, '"the eagle"', ""),
        (WORD, "It is the eagle", "extra_text"),
        (WORD, "spoon", "wrong_answer"),
        (WORD, "the beagle", "wrong_answer"),
        (CAPITALS, "SEA AND SKY", ""),
        (CAPITALS, "Sea and sky.", "wrong_answer"),
        (CAPITALS, "SEA AND SKY. THERE YOU ARE", "extra_text"),
        (CAPITALS, "HERE: SEA AND SKY.", "extra_text"),
        (NAME, "我是 sftchat 的小助手。", ""),
        (NAME, "你好，我叫sftchat的小助手，很高兴认识你", ""),
        (NAME, "我不是 sftchat 的小助手", "wrong_answer"),
        (NAME, "我是 ChatGPT，不过也叫 sftchat 的小助手", "wrong_answer"),
        (NAME, "我是小助手", "wrong_answer"),
        (COLOUR, "It is RED, I think.", ""),
        (COLOUR, "It is bored", "wrong_answer"),
        (COLOUR, "red or blue", "wrong_answer"),
        (MONTH, "是二月", ""),
        (MONTH, "是十二月", "wrong_answer"),
        (ORDER, "3, 8, 12", ""),
        (ORDER, "3 < 8 < 12", ""),
        (ORDER, "3、8 和 12", "wrong_answer"),
        (ORDER, "3, 8 and 12", ""),
        (ORDER, "从小到大：3，8，12", ""),
        (ORDER, "Sorted:\n1. 3\n2. 8\n3. 12", ""),
        (ORDER, "- 3\n- 8\n- 12", ""),
        (ORDER, "3\n8\n12", ""),
        (ORDER, "12, 8, 3", "wrong_order"),
        (ORDER, "3, 8", "wrong_answer"),
        (ORDER, "3, 8, 12, 15", "wrong_answer"),
        (TITLES, "香蕉、苹果", ""),
        (TITLES, "香蕉，苹果。", ""),
        (TITLES, "苹果、香蕉", "wrong_order"),
        (BULLETS, "- sea\n- sky", ""),
        (BULLETS, "```\n- Sea\n- Sky\n```", ""),
        (BULLETS, "- sky\n- sea", "wrong_order"),
        (BULLETS, "- sea\n- sun", "wrong_answer"),
        (BULLETS, "- sea", "wrong_answer"),
        (BULLETS, "- sea sky", "wrong_format"),
        (BULLETS, "* sea\n* sky", "wrong_format"),
        (BULLETS, "sea, sky", "wrong_format"),
        (BULLETS, "Here they are:\n- sea\n- sky", "extra_text"),
        (FREE, "* one\n* two", ""),
        (FREE, "* one\n* two\n* three", "wrong_format"),
        (NUMBERED, "1. sea\n2. sky", ""),
        (NUMBERED, "1. sea\n1. sky", "wrong_format"),
        (NUMBERED, "1) sea\n2) sky", "wrong_format"),
        (JSON, '{"name": "Tom", "age": 12}', ""),
        (JSON, '```json\n{"age": "12", "name": "thomas"}\n```', ""),
        (JSON, '{"name": "Tom", "age": 13}', "wrong_answer"),
        (JSON, '{"name": "Tom"}', "wrong_format"),
        (JSON, '{"name": "Tom", "age": 12, "city": "Rome"}', "wrong_format"),
        (JSON, "{'name': 'Tom', 'age': 12}", "wrong_format"),
        (JSON, '[{"name": "Tom", "age": 12}, {}]', "extra_text"),
        (JSON, '["name", "age"]', "wrong_format"),
        (JSON, "Tom, 12", "wrong_format"),
        (JSON, 'Sure: {"name": "Tom", "age": 12}', "extra_text"),
        (JSON, '{"name": "Tom", "age": 12} – done', "extra_text"),
        (TAGS, "<answer>down</answer>", ""),
        (TAGS, "<answer> Down. </answer>\n", ""),
        (TAGS, "<answer>up</answer>", "wrong_answer"),
        (TAGS, "<answer>down", "wrong_format"),
        (TAGS, "down", "wrong_format"),
        (TAGS, "It is <answer>down</answer>", "extra_text"),
        (WORDS, "soft cat", ""),
        (WORDS, "cat", "wrong_format"),
        (WORDS, "a very soft cat", "wrong_format"),
        (CHARACTERS, "小猫可爱。", ""),
        (CHARACTERS, "小猫很可爱。", "wrong_format"),
    ],
)
def test_every_check_distinguishes_right_from_wrong(constraint: dict[str, Any], reply: str, fault: str) -> None:
    assert errors(reply, constraint, question="How much is 7 + 5?") == ((fault,) if fault else ())


def test_every_check_is_in_the_table_above() -> None:
    used = {one["check"] for one in (SUM, WORD, NAME, ORDER, BULLETS, JSON, TAGS, WORDS)}
    assert used == set(CHECKS)


@pytest.mark.parametrize(
    ("reply", "finish_reason", "expected"),
    [
        ("", "stop", ("empty",)),
        (" \n", "stop", ("empty",)),
        ("<think>hm", "length", ("empty", "truncated")),
        ("抱歉，我无法回答这个问题。", "stop", ("refused",)),
        ("I'm sorry, but I can't do that.", "stop", ("refused",)),
        ("Sorry for the wait! It is 12.", "stop", ()),
        ("13 13 13", "length", ("wrong_answer", "truncated")),
        ("12", "length", ("truncated",)),
    ],
)
def test_whole_replies_have_error_classes_of_their_own(reply: str, finish_reason: Any, expected: tuple[str, ...]) -> None:
    judged = score(item("12", SUM), Reply(reply, finish_reason))
    assert judged.errors == expected
    assert judged.stats["correct"] == (not set(expected) - {"truncated"})


def test_every_constraint_must_hold() -> None:
    assert errors("soft cat", WORDS, {"check": "mentions", "any": ["cat"]}) == ()
    assert errors("a very soft dog", WORDS, {"check": "mentions", "any": ["cat"]}) == ("wrong_format", "wrong_answer")


def test_a_repeated_prompt_is_not_right() -> None:
    assert errors("10 - 5 = ?", {"check": "number", "value": 5}, question="10 - 5 = ？") == ("wrong_answer",)
    assert errors("10 - 5 = 5", {"check": "number", "value": 5}, question="10 - 5 = ？") == ()


@pytest.mark.parametrize(
    ("constraint", "complaint"),
    [
        ("number", "constraint 'number' is no object"),
        ({}, f"unknown check None, must be one of {', '.join(CHECKS)}"),
        ({"check": "colour"}, f"unknown check 'colour', must be one of {', '.join(CHECKS)}"),
        ({"check": ["number"]}, f"unknown check ['number'], must be one of {', '.join(CHECKS)}"),
        ({"check": "number"}, "check number needs the parameter value"),
        ({"check": "number", "value": "12"}, "parameter value of check number cannot be '12'"),
        ({"check": "number", "value": True}, "parameter value of check number cannot be True"),
        ({"check": "number", "value": 1, "unit": "m"}, "check number has no parameter 'unit', only value, only"),
        ({"check": "list", "marker": "+", "count": 1}, "parameter marker of check list cannot be '+'"),
        ({"check": "text", "accept": []}, "parameter accept of check text cannot be []"),
        ({"check": "text", "accept": [""]}, "parameter accept of check text cannot be ['']"),
    ],
)
def test_a_malformed_constraint_is_named_with_its_row(constraint: object, complaint: str) -> None:
    with pytest.raises(DataError) as caught:
        score(item("12", constraint), Reply("12"))
    assert str(caught.value) == f"gold.jsonl:7: {complaint}"
    assert validate_row(item("12", constraint)) == (complaint,)


def test_a_row_without_gold_or_with_constraints_of_another_shape_cannot_be_scored() -> None:
    with pytest.raises(DataError, match="row has no gold to score against"):
        score(item(None), Reply("12"))
    with pytest.raises(DataError, match="constraints must be a list of objects"):
        score(Example((Message(role="user", content="?"),), "12", metadata={"constraints": "number"}), Reply("12"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (item("12", SUM), ()),
        (item("12", SUM, kind="arithmetic"), ()),
        (item("13", SUM), ("the gold breaks a constraint of its row: wrong_answer",)),
        (item("It is 12", ONLY), ("the gold breaks a constraint of its row: extra_text",)),
        (item(None, SUM), ("no gold",)),
        (item(" "), ("empty gold",)),
    ],
)
def test_the_row_check_compares_the_gold_with_its_constraints(row: Example, expected: tuple[str, ...]) -> None:
    assert validate_row(row) == expected


def test_an_unknown_kind_is_a_problem() -> None:
    (problem,) = validate_row(item("12", kind="poem"))
    assert problem.startswith("unknown kind 'poem', must be one of identity, ")


ROWS = [*generate(150, 5), *generate(150, 5, split="test", language="both")]
GARBAGE = st.one_of(
    st.text(),
    st.text(alphabet=st.characters(min_codepoint=0xD700, max_codepoint=0xE000)),
    st.lists(
        st.sampled_from([*'-—:：,、;\n{}[]<>"*0159. 十月=', "answer", "</answer>", "1. ", "- ", "```", "<think>", "name"]), max_size=40
    ).map("".join),
)


@settings(deadline=None)
@given(st.sampled_from(ROWS), GARBAGE)
def test_garbage_never_raises_and_never_beats_the_gold(row: Example, garbage: str) -> None:
    judged, best = score(row, Reply(garbage)), score(row, Reply(row.gold or ""))
    assert best.errors == ()
    assert set(judged.stats) == set(STATS)
    assert set(judged.errors) <= set(ERRORS)
    assert bool(judged.errors) != bool(judged.stats["correct"])
    assert all(0 <= judged.stats[key] <= best.stats[key] == 1 for key in STATS)
    assert judged.groups == {row.metadata["kind"]: judged.stats}


@pytest.mark.parametrize(
    "garbage", ["9" * 50_000, "a:" * 20_000, "{" * 20_000, "<answer>" * 5_000, "- " * 20_000, "1. x\n" * 5_000, "= 1 " * 20_000]
)
def test_long_garbage_is_scored_fast(garbage: str) -> None:
    rows = {row.metadata["constraints"][0]["check"]: row for row in ROWS}
    assert {score(row, Reply(garbage)).stats["exact"] for row in rows.values()} == {0}


def test_metrics_are_rates_of_items_and_a_mean() -> None:
    scores = [score(item("12", SUM), Reply(reply)) for reply in ("12", "It is 12", "13", "")]
    sums = Counter[str]()
    for judged in scores:
        sums.update(judged.stats)
    assert {metric.name: metric.function(sums) for metric in METRICS} == {
        "accuracy": 0.5,
        "rouge_l": pytest.approx((1 + 0.5) / 4),
        "exact": 0.25,
    }
    assert [metric.per_item_rate for metric in METRICS] == [True, False, True]
    assert {key for metric in METRICS for key in metric.stats} == set(STATS)


def test_the_plugin_registers_the_task_with_its_defaults() -> None:
    (task,) = sftchat_register_tasks()
    assert (task.name, task.metric.name, task.template, task.row_format) == ("general", "accuracy", "chatml", "messages")
    assert (task.sampling.temperature, task.sampling.max_new_tokens, task.sampling.stop) == (0.0, 96, ())
    assert [path.name for path in task.evalsets.values()] == ["general.jsonl", "general-en.jsonl"]
    assert task.demonstration is None
    assert [task.training_defaults("full", size) for size in (2_000_000, 500_000_000)] == [
        TrainingDefaults(epochs=1.0, batch_size=8, max_length=256, lora_rank=32, rows=rows) for rows in (20_000, 5_000)
    ]
