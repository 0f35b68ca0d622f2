"""Near duplicates of earlier rows are found in one pass, in any language."""

from __future__ import annotations

import pytest

from sftchat.data.duplicates import WARM_UP_ROWS, NearDuplicate, NearDuplicateFinder

CHINESE = "雪下了一夜，周远山背着药箱翻过山梁，赶到村口时，徒弟何小满已经在老槐树底下等了半个时辰。"
ENGLISH = (
    "It snowed all night; the old doctor crossed the ridge with his chest of medicine and found his pupil waiting under the locust tree, "
    "where he had stood for half an hour with a lantern in his hand and no hope of seeing anyone before the morning."
)
RUSSIAN = (
    "Всю ночь шёл снег; старый врач перешёл хребет с сундуком лекарств и нашёл своего ученика под старой акацией у самых ворот деревни, "
    "где тот полчаса стоял с фонарём в руке и уже не надеялся увидеть кого-нибудь до самого утра, потому что дорогу замело."
)


def found(*texts: str, threshold: float = 0.8) -> list[NearDuplicate]:
    neighbours = NearDuplicateFinder(threshold)
    early = [near for number, text in enumerate(texts, 1) for near in neighbours.add(f"f:{number}", text)]
    return [*early, *neighbours.flush()]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (CHINESE, CHINESE.replace("何小满", "何小雨")),
        (CHINESE, CHINESE.replace("，", ",")),
        (ENGLISH, ENGLISH.replace("doctor", "surgeon")),
        (RUSSIAN, RUSSIAN.replace("врач", "лекарь")),
    ],
    ids=["one name replaced", "other punctuation", "one English word replaced", "one Russian word replaced"],
)
def test_a_row_that_differs_in_one_word_is_near(text: str, other: str) -> None:
    (near,) = found("别的话，与此无关，说的是另一个村子里的另一个人和他的一条老狗。", text, other)
    assert (near.source, near.earlier) == ("f:3", "f:2")
    assert 0.8 <= near.similarity <= 1


def test_rows_that_share_a_sentence_pattern_are_not_near() -> None:
    other = "雪下了一夜，郑启明提着灯笼翻过山梁，赶到渡口时，女儿郑秀英已经在小船上等了半个时辰。"
    assert found(CHINESE, other) == []
    assert found(ENGLISH, RUSSIAN, CHINESE) == []


def test_a_common_instruction_is_not_similarity() -> None:
    ask = "Read the following passage with great care and then list every relation between the people in it, one on each line of your answer. "
    people = [f"{chr(0x4E00 + 40 * n)}{chr(0x4E01 + 40 * n)}" for n in range(30)]
    rows = [ask + "".join(chr(0x5000 + 31 * n + i) for i in range(12)) + person for n, person in enumerate(people)]
    assert found(*rows) == []
    assert [near.source for near in found(*rows, rows[3])] == ["f:31"]


def test_short_rows_are_near_only_when_equal_which_is_another_problem() -> None:
    assert found("what is 2 + 2? four", "what is 2 + 3? four", "what is 2 + 2? four") == []


def test_of_a_chain_of_small_changes_the_first_row_stays() -> None:
    second = CHINESE.replace("何小满", "何小雨")
    assert [(near.source, near.earlier) for near in found(CHINESE, second, second.replace("何小雨", "何小风"))] == [
        ("f:2", "f:1"),
        ("f:3", "f:1"),
    ]


def test_rows_before_the_instruction_is_known_are_checked_in_order() -> None:
    neighbours = NearDuplicateFinder()
    rows = [CHINESE, CHINESE, *("".join(chr(0x4E00 + (97 * n + 13 * i) % 20000) for i in range(15)) for n in range(WARM_UP_ROWS - 3))]
    assert [near for number, row in enumerate(rows, 1) for near in neighbours.add(f"f:{number}", row)] == []
    assert list(neighbours.add(f"f:{WARM_UP_ROWS}", CHINESE)) == [
        NearDuplicate("f:2", "f:1", 1.0),
        NearDuplicate(f"f:{WARM_UP_ROWS}", "f:1", 1.0),
    ]
    assert list(neighbours.add(f"f:{WARM_UP_ROWS + 1}", CHINESE)) == [NearDuplicate(f"f:{WARM_UP_ROWS + 1}", "f:1", 1.0)]
    assert list(neighbours.flush()) == []


def test_the_threshold_decides() -> None:
    other = CHINESE.replace("何小满", "何小雨").replace("老槐树", "大柳树")
    assert found(CHINESE, other, threshold=0.95) == []
    assert len(found(CHINESE, other, threshold=0.5)) == 1
