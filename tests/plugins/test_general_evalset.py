"""Automatic checks of the general evalset."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from sftchat import Example, Reply
from sftchat.data.formats import read_examples
from sftchat_general.checks import validate_row
from sftchat_general.constraints import CHECKS
from sftchat_general.generate import KINDS, generate
from sftchat_general.plugin import sftchat_register_tasks
from sftchat_general.reading import plain_form
from sftchat_general.scorer import score

(TASK,) = sftchat_register_tasks()
PATH = next(iter(TASK.evalsets.values()))
ROWS = tuple(read_examples(PATH))


def talk(row: Example) -> str:
    return "\n".join(plain_form(message["content"]) for message in row.messages)


def test_it_is_the_file_of_the_repository() -> None:
    assert Path(__file__).parents[2] / "evalsets" / "general.jsonl" == PATH


def test_there_are_at_least_one_hundred_and_fifty_items_of_every_kind_in_both_languages() -> None:
    kinds = Counter(row.metadata["kind"] for row in ROWS)
    languages = Counter((row.metadata["kind"], row.metadata["language"]) for row in ROWS)
    assert len(ROWS) >= 150
    assert len({row.id for row in ROWS}) == len({talk(row) for row in ROWS}) == len(ROWS)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= 15
    assert set(languages.values()) == {12}
    assert {constraint["check"] for row in ROWS for constraint in row.metadata["constraints"]} == set(CHECKS)


def test_ids_contain_kind_and_language() -> None:
    numbers: Counter[str] = Counter()
    for row in ROWS:
        name = f"{row.metadata['kind']}-{row.metadata['language']}"
        numbers[name] += 1
        assert row.id == f"{name}-{numbers[name]:02d}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_gold_scores_highest_and_wrong_replies_do_not(row: Example) -> None:
    stats = {"n": 1, "correct": 1, "exact": 1, "rouge_l": 1.0}
    assert validate_row(row) == ()
    assert set(row.metadata) == {"kind", "language", "constraints"}
    assert row.metadata["constraints"]
    best = score(row, Reply(row.gold or ""))
    assert (best.stats, best.errors, best.groups) == (stats, (), {row.metadata["kind"]: stats})
    others = {other.gold for other in ROWS if other.metadata["kind"] != row.metadata["kind"]} - {row.gold}
    wrong = ["", "I don't know.", "不知道。", "31415", row.messages[-1]["content"]]
    assert [reply for reply in wrong if score(row, Reply(reply)).stats["correct"]] == []
    assert sum(score(row, Reply(other or "")).stats["correct"] for other in others) <= len(others) // 10


@pytest.mark.parametrize(
    ("item", "distractors"),
    {
        "identity-en-05": "I am ChatGPT.|I am Claude, not the sftchat assistant.",
        "identity-en-08": "Yes, OpenAI built me.|I was made by Anthropic, not by the sftchat team",
        "identity-en-12": "I am a man.|Man or machine?|Neither.",
        "identity-zh-04": "我是 ChatGPT。|我不是 sftchat 的小助手。",
        "identity-zh-08": "对，我是阿里做的。",
        "identity-zh-12": "我是真人。|是人还是机器？",
        "ordering-en-09": "Sunday|Saturday|Tuesday",
        "ordering-en-12": "58|80|58, 80, 85",
        "ordering-zh-09": "星期日|周六|星期二",
        "ordering-zh-11": "六月|五月|八月|十七",
        "rewriting-en-12": "Captain Rivera finally brought the damaged ship safely back.|The ship is back.",
        "rewriting-zh-12": "船长李维终于把船带回了港口。|船回来了。",
        "format-en-08": "no|Yes, it is.",
        "format-zh-08": "不热|很热",
        "format-en-12": "Soft cat.|A very soft cat.|Small sleepy hunter.",
        "reference-en-03": "Geneva|You work in Geneva.|Lisbon or Geneva",
        "reference-en-04": "Rice.|Rice and fish.",
        "reference-en-05": "Your brother.|Your sister plays chess, your brother plays tennis.",
        "reference-en-06": "9|Platform 3",
        "reference-en-07": "4|3|43",
        "reference-en-08": "Priya",
        "reference-en-09": "walnut|The password is walnut, not chestnut.",
        "reference-en-10": "blue|blue and green",
        "reference-en-11": "Jelly.",
        "reference-zh-03": "深圳|你住在深圳",
        "reference-zh-04": "米饭",
        "reference-zh-05": "哥哥|妹妹会下棋，哥哥会打网球",
        "reference-zh-06": "9|3 站台",
        "reference-zh-07": "4|3",
        "reference-zh-08": "江月",
        "reference-zh-09": "核桃|暗号是核桃，不是板栗",
        "reference-zh-10": "蓝色",
        "reference-zh-11": "果冻",
    }.items(),
)
def test_a_distractor_is_wrong(item: str, distractors: str) -> None:
    row = next(row for row in ROWS if row.id == item)
    assert [reply for reply in distractors.split("|") if score(row, Reply(reply)).stats["correct"]] == []


def test_an_item_is_written_in_its_stated_language() -> None:
    wrong = [row.id for row in ROWS if any("一" <= c <= "鿿" for c in talk(row)) != (row.metadata["language"] == "zh")]
    assert wrong == []


def test_no_prompt_is_printed_by_the_generator() -> None:
    printed = {talk(row) for split in ("train", "test") for row in generate(8000, 11, split=split)}
    questions = {plain_form(row.messages[-1]["content"]) for split in ("train", "test") for row in generate(8000, 11, split=split)}
    assert [row.id for row in ROWS if talk(row) in printed or plain_form(row.messages[-1]["content"]) in questions] == []


def test_every_line_is_written_the_same_way() -> None:
    lines = PATH.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if json.dumps(json.loads(line), ensure_ascii=False) != line] == []
    assert {tuple(json.loads(line)) for line in lines} == {("id", "messages", "gold", "metadata")}


def test_the_readme_has_every_check_with_its_parameters() -> None:
    readme = (PATH.parent / "README.md").read_text(encoding="utf-8")
    for name, check in CHECKS.items():
        parameters = ", ".join([*(f"`{one}`" for one in check.required), *(f"(`{one}`)" for one in check.optional)])
        assert f"| `{name}` | {parameters} | {check.description} |" in readme
