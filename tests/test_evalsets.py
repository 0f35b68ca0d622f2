"""Automatic checks of the relation evalsets, Chinese and English."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class RelationEvalset:
    """One evalset of the relation task and the form of its gold."""

    rows: tuple[dict[str, Any], ...]
    prompt: str
    nothing: str
    line: str
    relations: frozenset[str]
    genres: frozenset[str]
    least_passages: int
    least_per_genre: int
    least_per_relation: int

    def passage(self, row: dict[str, Any]) -> str:
        (message,) = row["messages"]
        assert message["role"] == "user"
        return str(message["content"]).removeprefix(self.prompt)

    def triples(self, row: dict[str, Any]) -> list[tuple[str, str, str]]:
        if row["gold"] == self.nothing:
            return []
        found = [re.fullmatch(self.line, line) for line in row["gold"].split("\n")]
        return [(match[1], match[2], match[3]) for match in found if match]


def rows_of(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in (ROOT / "evalsets" / name).read_text(encoding="utf-8").splitlines())


CHINESE = RelationEvalset(
    rows=rows_of("relation.jsonl"),
    prompt="从以下小说内容中提取人物关系:\n",
    nothing="无",
    line=r"([^-:\s]+)-([^-:\s]+):([^-:\s]+)",
    relations=frozenset("师徒 父子 父女 母子 母女 兄妹 姐弟 祖孙 主仆 夫妻 恋人 好友 敌对 情敌 战友 同门 兄弟 姐妹".split()),
    genres=frozenset({"wuxia", "xianxia", "republican", "modern", "saga"}),
    least_passages=200,
    least_per_genre=40,
    least_per_relation=10,
)
ENGLISH = RelationEvalset(
    rows=rows_of("relation-en.jsonl"),
    prompt="Extract the relations between the characters from this passage:\n",
    nothing="none",
    line=r"([^:]+?) - ([^:]+?): ([a-z ]+)",
    relations=frozenset(
        {
            "teacher and pupil", "father and son", "father and daughter", "mother and son", "mother and daughter",
            "elder brother and sister", "elder sister and brother", "grandparent and grandchild", "master and servant",
            "spouses", "lovers", "friends", "enemies", "rivals in love", "comrades in arms", "fellow pupils", "brothers", "sisters",
        }
    ),
    genres=frozenset("historical crime memoir letters saga workplace school fantasy sea village".split()),
    least_passages=150,
    least_per_genre=15,
    least_per_relation=7,
)  # fmt: skip
SYMMETRIC = frozenset(
    {"spouses", "lovers", "friends", "enemies", "rivals in love", "comrades in arms", "fellow pupils", "brothers", "sisters"}
)
BOTH = pytest.mark.parametrize("evalset", [CHINESE, ENGLISH], ids=["zh", "en"])
EVERY_ROW = pytest.mark.parametrize(
    ("evalset", "row"), [pytest.param(evalset, row, id=row["id"]) for evalset in (CHINESE, ENGLISH) for row in evalset.rows]
)


@BOTH
def test_there_are_enough_passages_with_unique_ids(evalset: RelationEvalset) -> None:
    assert len(evalset.rows) >= evalset.least_passages
    assert len({row["id"] for row in evalset.rows}) == len(evalset.rows)
    assert len({evalset.passage(row) for row in evalset.rows}) == len(evalset.rows)


def test_the_evalsets_can_be_scored_together_because_no_id_is_in_both() -> None:
    assert {row["id"] for row in CHINESE.rows} & {row["id"] for row in ENGLISH.rows} == set()


@EVERY_ROW
def test_every_gold_line_names_two_people_of_the_passage_and_a_relation_of_the_table(evalset: RelationEvalset, row: dict[str, Any]) -> None:
    text, triples = evalset.passage(row), evalset.triples(row)
    assert row["messages"][0]["content"].startswith(evalset.prompt)
    assert len(triples) == (0 if row["gold"] == evalset.nothing else row["gold"].count("\n") + 1)
    for head, tail, relation in triples:
        assert head in text
        assert tail in text
        assert head != tail
        assert relation in evalset.relations
    pairs = [frozenset(triple[:2]) for triple in triples]
    assert len(set(pairs)) == len(pairs)


@BOTH
def test_no_name_is_part_of_another_in_the_same_passage(evalset: RelationEvalset) -> None:
    broken = []
    for row in evalset.rows:
        names = {name for head, tail, _ in evalset.triples(row) for name in (head, tail)}
        broken += [(row["id"], one, other) for one in names for other in names if one != other and one in other]

    assert broken == []


@BOTH
def test_every_relation_genre_and_passage_without_a_relation_is_covered(evalset: RelationEvalset) -> None:
    relations = Counter(relation for row in evalset.rows for _, _, relation in evalset.triples(row))
    genres = Counter(row["metadata"]["genre"] for row in evalset.rows)

    assert set(relations) == evalset.relations
    assert min(relations.values()) >= evalset.least_per_relation
    assert set(genres) == evalset.genres
    assert min(genres.values()) >= evalset.least_per_genre
    assert sum(row["gold"] == evalset.nothing for row in evalset.rows) >= 20


def test_an_english_name_is_written_in_its_fullest_form() -> None:
    titles = "Mr. Mrs. Miss Dr. Sir Lady Captain Colonel Inspector Detective Sergeant Constable Professor Admiral Commander Monsieur Signor"
    broken = []
    for row in ENGLISH.rows:
        text = ENGLISH.passage(row)
        for name in {name for head, tail, _ in ENGLISH.triples(row) for name in (head, tail)}:
            fuller = (
                rf"(?:{'|'.join(re.escape(title) for title in titles.split())}) {re.escape(name)}|\b{re.escape(name)} (?!I\b)[A-Z][a-z]+"
            )
            broken += [(row["id"], found) for found in re.findall(fuller, text)]

    assert broken == []


def test_symmetric_english_relations_list_first_whom_the_passage_names_first() -> None:
    wrong = [
        (row["id"], head, tail)
        for row in ENGLISH.rows
        for head, tail, relation in ENGLISH.triples(row)
        if relation in SYMMETRIC and ENGLISH.passage(row).index(head) > ENGLISH.passage(row).index(tail)
    ]
    assert wrong == []


def test_every_english_passage_has_the_phenomena_of_the_table_and_is_written_the_same_way() -> None:
    readme = (ROOT / "evalsets" / "README.md").read_text(encoding="utf-8")
    phenomena = {name for row in ENGLISH.rows for name in row["metadata"]["phenomena"]}
    lines = (ROOT / "evalsets" / "relation-en.jsonl").read_text(encoding="utf-8").splitlines()

    assert [name for name in phenomena if f"`{name}`" not in readme] == []
    assert [row["id"] for row in ENGLISH.rows if not row["metadata"]["phenomena"]] == []
    assert [line for line in lines if json.dumps(json.loads(line), ensure_ascii=False) != line] == []
    assert [row["id"] for row in ENGLISH.rows if not 30 <= len(ENGLISH.passage(row).split()) <= 110] == []


def test_no_passage_shares_a_sentence_with_the_generator() -> None:
    from sftchat_relation.generate import generate

    def sentences(text: str) -> set[str]:
        return {sentence for sentence in re.split(r"[。！？]", text) if len(sentence) > 6}

    printed = set()
    for forms in ("train", "test"):
        for example in generate(4000, 11, names=forms, forms=forms):
            printed |= sentences(example.messages[0]["content"].removeprefix(CHINESE.prompt))

    assert [row["id"] for row in CHINESE.rows if sentences(CHINESE.passage(row)) & printed] == []
