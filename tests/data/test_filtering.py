"""A row is removed by the first rule that it breaks, and every removed row is reported."""

from __future__ import annotations

from sftchat import Example, Message
from sftchat.data.filter import FilterOptions, RemovedRow, find_removed

PASSAGE = "雪下了一夜，周远山背着药箱翻过山梁，赶到村口时，徒弟何小满已经在老槐树底下等了半个时辰。"


def rows(*texts: str) -> list[Example]:
    return [Example((Message(role="user", content=text),), "无", source=f"f:{number}") for number, text in enumerate(texts, 1)]


def test_every_removed_row_has_its_reason() -> None:
    rules = {
        "task": lambda example: "shouts" if "!" in example.messages[0]["content"] else "",
        "length": lambda example: "empty" if not example.gold else "",
    }
    examples = rows(PASSAGE, "a!", PASSAGE, PASSAGE.replace("何小满", "何小雨"), "b", "a!")
    assert find_removed(examples, FilterOptions(rules)) == (
        6,
        [
            RemovedRow("f:2", "task", "shouts"),
            RemovedRow("f:3", "duplicate", "the same row as line 1"),
            RemovedRow("f:6", "task", "shouts"),
            RemovedRow("f:4", "near-duplicate", "nearly the same row as line 1 (similarity about 0.81)"),
        ],
    )


def test_near_duplicates_stay_when_the_check_is_off() -> None:
    assert find_removed(rows(PASSAGE, PASSAGE.replace("何小满", "何小雨")), FilterOptions(near_threshold=0)) == (2, [])


def test_the_most_different_rows_are_chosen_from_the_remaining_ones() -> None:
    examples = rows("the dog barks", "the dog barks", "the dog barked", "量子力学", "die Katze schläft")
    count, gone = find_removed(examples, FilterOptions(keep=3))
    assert count == 5
    assert [(row.source, row.reason) for row in gone] == [("f:2", "duplicate"), (gone[1].source, "diversity")]
    assert gone[1].source in ("f:1", "f:3")
