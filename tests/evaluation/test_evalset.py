"""Reading evalsets."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sftchat import DataError, Example, Message, Score, Task, UsageError, rate
from sftchat.evaluation.evalset import Evalset, check_examples, concatenate_examples, evalset_path, read_evalset

ROWS = (
    '{"id": "a", "messages": [{"role": "user", "content": "一"}], "gold": "无"}\n'
    '{"id": "b", "messages": [{"role": "user", "content": "二"}], "gold": "甲-乙:夫妻"}\n'
)


def row(identity: str, prompt: str, gold: str, source: str) -> Example:
    return Example((Message(role="user", content=prompt),), gold, identity, source=source)


def test_an_evalset_has_its_hash_and_the_number_of_rows_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(ROWS, encoding="utf-8")

    assert read_evalset(path, limit=1) == Evalset(
        "gold.jsonl", hashlib.sha256(ROWS.encode()).hexdigest(), (row("a", "一", "无", f"{path}:1"),), 2, frozenset({"a", "b"})
    )


def test_rows_without_an_id_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(ROWS.replace('"id": "a", ', ""), encoding="utf-8")

    assert [example.id for example in read_evalset(path).examples] == ["row-000001", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ROWS.replace('"b"', '"a"'), ":2: id "),
        (ROWS.replace(', "gold": "甲-乙:夫妻"', ""), ":2: row 'b' has no gold reply to be scored against; "),
        ('{"text": "从前"}\n', ":1: row 'row-000001' has no messages to be answered"),
        ("{\n", ":1: "),
        ("", ": "),
    ],
)
def test_an_evalset_that_cannot_be_scored_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(DataError) as caught:
        read_evalset(path)

    assert str(caught.value).startswith(f"{path}{message}")


def test_a_missing_evalset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gold.jsonl: no such evalset$"):
        read_evalset(tmp_path / "gold.jsonl")


def test_ids_are_unique_among_all_evalsets() -> None:
    one = Evalset("a.jsonl", "", (row("a", "一", "无", "a.jsonl:1"),), 1, frozenset("a"))
    other = Evalset("b.jsonl", "", (row("a", "一", "无", "b.jsonl:4"),), 1, frozenset("a"))

    with pytest.raises(DataError, match=r"^b.jsonl:4: id 'a' already stands at a.jsonl:1; ids must be unique among all evalsets$"):
        concatenate_examples([one, other])


def test_an_example_from_no_file_is_named_by_its_position() -> None:
    with pytest.raises(DataError, match=r"^example 1: the row has no id; "):
        check_examples([row("", "一", "无", "")])


def test_an_evalset_is_given_by_name_and_a_file_of_that_name_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"quiz": tmp_path / "packaged" / "quiz.jsonl", "quiz-en": tmp_path / "packaged" / "quiz-en.jsonl"}
    task = Task("quiz", "", lambda n, seed: (), lambda example, reply: Score({"right": 1}), (rate("accuracy", "right"),), evalsets=names)

    assert evalset_path(task, "quiz-en") == names["quiz-en"]
    assert evalset_path(task, "missing.jsonl") == Path("missing.jsonl")
    assert evalset_path(task, "folder/quiz-en") == Path("folder/quiz-en")
    with pytest.raises(UsageError) as caught:
        evalset_path(task, "quiz-fr")
    assert str(caught.value) == "--evalset quiz-fr: no such file, and task 'quiz' has no evalset of that name (it has: quiz, quiz-en)"

    Path("quiz-en").write_text(ROWS, encoding="utf-8")
    assert evalset_path(task, "quiz-en") == Path("quiz-en")
