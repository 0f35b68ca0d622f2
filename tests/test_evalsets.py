"""Automatic checks of the relation evalset."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [json.loads(line) for line in (ROOT / "evalsets" / "relation.jsonl").read_text(encoding="utf-8").splitlines()]
PROMPT = "从以下小说内容中提取人物关系:\n"
RELATIONS = set("师徒 父子 父女 母子 母女 兄妹 姐弟 祖孙 主仆 夫妻 恋人 好友 敌对 情敌 战友 同门 兄弟 姐妹".split())


def passage(row: dict[str, object]) -> str:
    (message,) = row["messages"]  # type: ignore[misc]
    assert message["role"] == "user"
    return str(message["content"]).removeprefix(PROMPT)


def triples(row: dict[str, object]) -> list[tuple[str, str, str]]:
    if row["gold"] == "无":
        return []
    found = [re.fullmatch(r"([^-:\s]+)-([^-:\s]+):([^-:\s]+)", line) for line in str(row["gold"]).split("\n")]
    return [match.groups() for match in found if match]  # type: ignore[misc]


def test_there_are_at_least_two_hundred_passages_with_unique_ids() -> None:
    assert len(ROWS) >= 200
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert len({passage(row) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_every_gold_line_names_two_people_of_the_passage_and_a_relation_of_the_table(row: dict[str, object]) -> None:
    text = passage(row)
    assert row["messages"][0]["content"].startswith(PROMPT)  # type: ignore[index]
    assert len(triples(row)) == (0 if row["gold"] == "无" else str(row["gold"]).count("\n") + 1)
    for head, tail, relation in triples(row):
        assert head in text
        assert tail in text
        assert head != tail
        assert relation in RELATIONS
    pairs = [frozenset(triple[:2]) for triple in triples(row)]
    assert len(set(pairs)) == len(pairs)


def test_no_name_is_part_of_another_in_the_same_passage() -> None:
    broken = []
    for row in ROWS:
        names = {name for head, tail, _ in triples(row) for name in (head, tail)}
        broken += [(row["id"], one, other) for one in names for other in names if one != other and one in other]

    assert broken == []


def test_every_relation_genre_and_passage_without_a_relation_is_covered() -> None:
    relations = Counter(relation for row in ROWS for _, _, relation in triples(row))
    genres = Counter(row["metadata"]["genre"] for row in ROWS)

    assert set(relations) == RELATIONS
    assert min(relations.values()) >= 10
    assert set(genres) == {"wuxia", "xianxia", "republican", "modern", "saga"}
    assert min(genres.values()) >= 40
    assert sum(row["gold"] == "无" for row in ROWS) >= 20


def test_no_passage_shares_a_sentence_with_the_generator() -> None:
    from sftchat_relation.generate import generate

    def sentences(text: str) -> set[str]:
        return {sentence for sentence in re.split(r"[。！？]", text) if len(sentence) > 6}

    printed = set()
    for forms in ("train", "test"):
        for example in generate(4000, 11, names=forms, forms=forms):
            printed |= sentences(example.messages[0]["content"].removeprefix(PROMPT))

    assert [row["id"] for row in ROWS if sentences(passage(row)) & printed] == []
