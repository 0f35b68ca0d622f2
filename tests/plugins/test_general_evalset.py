"""Automatic checks of the evalsets of the general task."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from sftchat import Example, Reply
from sftchat.data.formats import read_examples
from sftchat_general.checks import EVALSET_KINDS, validate_row
from sftchat_general.constraints import CHECKS
from sftchat_general.generate import KINDS, generate
from sftchat_general.plugin import sftchat_register_tasks
from sftchat_general.reading import plain_form
from sftchat_general.scorer import score

(TASK,) = sftchat_register_tasks()
PATHS = dict(TASK.evalsets)
PATH = PATHS["general"]
ROWS = tuple(read_examples(PATH))
ENGLISH = tuple(read_examples(PATHS["general-en"]))
EVERY = ROWS + ENGLISH


def talk(row: Example) -> str:
    return "\n".join(plain_form(message["content"]) for message in row.messages)


def test_they_are_the_files_of_the_repository() -> None:
    folder = Path(__file__).parents[2] / "evalsets"
    assert {"general": folder / "general.jsonl", "general-en": folder / "general-en.jsonl"} == PATHS


def test_there_are_at_least_one_hundred_and_fifty_items_of_every_kind_in_both_languages() -> None:
    kinds = Counter(row.metadata["kind"] for row in ROWS)
    languages = Counter((row.metadata["kind"], row.metadata["language"]) for row in ROWS)
    assert len(ROWS) >= 150
    assert len({row.id for row in ROWS}) == len({talk(row) for row in ROWS}) == len(ROWS)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= 15
    assert set(languages.values()) == {12}
    assert {constraint["check"] for row in ROWS for constraint in row.metadata["constraints"]} == set(CHECKS)


def test_the_english_evalset_has_at_least_two_hundred_items_and_fifty_of_every_kind() -> None:
    kinds = Counter(row.metadata["kind"] for row in ENGLISH)
    assert len(ENGLISH) >= 200
    assert len({row.id for row in EVERY}) == len({talk(row) for row in EVERY}) == len(EVERY)
    assert set(kinds) == set(EVALSET_KINDS)
    assert min(kinds.values()) >= 50
    assert {len(row.messages) > 1 for row in ENGLISH if row.metadata["kind"] == "conversation"} == {True}


def test_ids_contain_kind_and_language() -> None:
    numbers: Counter[str] = Counter()
    for row in EVERY:
        name = f"{row.metadata['kind']}-{row.metadata['language']}"
        numbers[name] += 1
        assert row.id == f"{name}-{numbers[name]:02d}"


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row.id)
def test_the_gold_scores_highest_and_wrong_replies_do_not(row: Example) -> None:
    stats = {"n": 1, "correct": 1, "exact": 1, "rouge_l": 1.0}
    assert validate_row(row) == ()
    assert set(row.metadata) == {"kind", "language", "constraints"}
    assert row.metadata["constraints"]
    best = score(row, Reply(row.gold or ""))
    assert (best.stats, best.errors, best.groups) == (stats, (), {row.metadata["kind"]: stats})
    others = {other.gold for other in (ROWS if row in ROWS else ENGLISH) if other.metadata["kind"] != row.metadata["kind"]} - {row.gold}
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
        "facts-en-15": "Saturn|Jupiter or Saturn",
        "facts-en-29": "The blue whale.|An elephant, or a blue whale.",
        "facts-en-30": "It has six legs.|12",
        "facts-en-35": "Purple.|A shade of red.",
        "facts-en-43": "Sunday.|Wednesday, not Tuesday",
        "facts-en-51": "Abraham Lincoln.|John Adams, before Washington.",
        "reading-en-02": "It closes at nine.|nine",
        "reading-en-03": "Boston|Emma lives in Boston.",
        "reading-en-04": "Apples|Apples and pears",
        "reading-en-11": "Green|The green box is heavy.",
        "reading-en-18": "On Friday|She can come on Friday and on Sunday.",
        "reading-en-26": "Yes, it was good.|It was good.",
        "reading-en-53": "Red|The red team won.",
        "instructions-en-18": "cat|Cat",
        "instructions-en-20": "A B C D E F G|A, B, C, D, E",
        "instructions-en-23": "Yes.|Yes, not a house.",
        "instructions-en-25": "Apple.|The apple is not a fruit, the hammer is.",
        "instructions-en-28": "A feather.|A feather is heavier than a stone.",
        "instructions-en-36": "I has two brothers.|I had no brothers.",
        "instructions-en-57": "Sweet.|sweet or sour",
        "conversation-en-07": "Berlin.|Paris.",
        "conversation-en-13": "Clara.|Clara - Henry: elder sister and brother",
        "conversation-en-14": "From Poland.|Poland and Greece",
        "conversation-en-26": "15|20",
        "conversation-en-34": "White.|Red and white.",
        "conversation-en-59": "Three.|3",
    }.items(),
)
def test_a_distractor_is_wrong(item: str, distractors: str) -> None:
    row = next(row for row in EVERY if row.id == item)
    assert [reply for reply in distractors.split("|") if score(row, Reply(reply)).stats["correct"]] == []


def test_an_item_is_written_in_its_stated_language() -> None:
    wrong = [row.id for row in EVERY if any("一" <= c <= "鿿" for c in talk(row)) != (row.metadata["language"] == "zh")]
    assert wrong == []


def test_no_prompt_is_printed_by_the_generator() -> None:
    printed = {talk(row) for split in ("train", "test") for row in generate(8000, 11, split=split)}
    questions = {plain_form(row.messages[-1]["content"]) for split in ("train", "test") for row in generate(8000, 11, split=split)}
    assert [row.id for row in EVERY if talk(row) in printed or plain_form(row.messages[-1]["content"]) in questions] == []


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_every_line_is_written_the_same_way(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if json.dumps(json.loads(line), ensure_ascii=False) != line] == []
    assert {tuple(json.loads(line)) for line in lines} == {("id", "messages", "gold", "metadata")}


def test_the_readme_has_every_check_with_its_parameters() -> None:
    readme = (PATH.parent / "README.md").read_text(encoding="utf-8")
    for name, check in CHECKS.items():
        parameters = ", ".join([*(f"`{one}`" for one in check.required), *(f"(`{one}`)" for one in check.optional)])
        assert f"| `{name}` | {parameters} | {check.description} |" in readme


def test_the_figures_of_the_readme_are_about_these_kinds() -> None:
    readme = (PATH.parent / "README.md").read_text(encoding="utf-8")
    kinds = Counter(row.metadata["kind"] for row in ENGLISH)
    assert [kind for kind, count in kinds.items() if f"| `{kind}` | {count} |" not in readme] == []
    assert f"| all | {len(ENGLISH)} |" in readme
