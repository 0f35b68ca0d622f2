"""The mechanical half of reviewing the general gold set: what a program can check."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from sftchat import Example, Reply
from sftchat.data.formats import read_examples
from sftchat_general.checks import problems
from sftchat_general.constraints import CHECKS
from sftchat_general.generate import KINDS, generate
from sftchat_general.plugin import sftchat_register_tasks
from sftchat_general.reading import plain
from sftchat_general.scorer import score

(TASK,) = sftchat_register_tasks()
PATH = next(iter(TASK.evalsets.values()))
ROWS = tuple(read_examples(PATH))


def talk(row: Example) -> str:
    return "\n".join(plain(message["content"]) for message in row.messages)


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


def test_ids_say_kind_and_language() -> None:
    numbers: Counter[str] = Counter()
    for row in ROWS:
        name = f"{row.metadata['kind']}-{row.metadata['language']}"
        numbers[name] += 1
        assert row.id == f"{name}-{numbers[name]:02d}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_gold_scores_top_and_wrong_replies_do_not(row: Example) -> None:
    stats = {"n": 1, "correct": 1, "exact": 1, "rouge_l": 1.0}
    assert problems(row) == ()
    assert set(row.metadata) == {"kind", "language", "constraints"}
    assert row.metadata["constraints"]
    best = score(row, Reply(row.gold or ""))
    assert (best.stats, best.errors, best.groups) == (stats, (), {row.metadata["kind"]: stats})
    others = {other.gold for other in ROWS if other.metadata["kind"] != row.metadata["kind"]} - {row.gold}
    wrong = ["", "I don't know.", "不知道。", "31415", row.messages[-1]["content"]]
    assert [reply for reply in wrong if score(row, Reply(reply)).stats["correct"]] == []
    assert sum(score(row, Reply(other or "")).stats["correct"] for other in others) <= len(others) // 10


def test_an_item_is_written_in_the_language_it_says() -> None:
    wrong = [row.id for row in ROWS if any("一" <= c <= "鿿" for c in talk(row)) != (row.metadata["language"] == "zh")]
    assert wrong == []


def test_no_prompt_is_printed_by_the_generator() -> None:
    printed = {talk(row) for split in ("train", "test") for row in generate(8000, 11, split=split)}
    questions = {plain(row.messages[-1]["content"]) for split in ("train", "test") for row in generate(8000, 11, split=split)}
    assert [row.id for row in ROWS if talk(row) in printed or plain(row.messages[-1]["content"]) in questions] == []


def test_every_line_is_written_the_same_way() -> None:
    lines = PATH.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if json.dumps(json.loads(line), ensure_ascii=False) != line] == []
    assert {tuple(json.loads(line)) for line in lines} == {("id", "messages", "gold", "metadata")}
