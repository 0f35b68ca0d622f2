"""Items of an evalset that a model may have seen during training."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sftchat.data.leakage import MIN_SHINGLES, Leak, find_leaks
from sftchat.types import Example, Message

ASK = "从以下小说内容中提取人物关系:\n"
PASSAGE = "雪下了一夜，周远山背着药箱翻过山梁，赶到村口时，徒弟何小满已经在老槐树底下等了半个时辰。"


def item(text: str, number: int = 1, file: str = "gold.jsonl") -> Example:
    return Example((Message(role="user", content=text),), "无", id=f"item-{number}", source=f"{file}:{number}")


def row(text: str, number: int = 1) -> Example:
    return item(text, number, "train.jsonl")


def test_the_same_prompt_leaks_for_any_spaces_width_and_punctuation() -> None:
    seen = [row("别的话。", 1), row(f"  {ASK}{PASSAGE}".replace("，", ",").replace("。", " "), 2)]
    assert find_leaks([item(ASK + PASSAGE)], seen) == (Leak("item-1", "gold.jsonl:1", "train.jsonl:2", 1.0),)


def test_a_passage_with_one_name_replaced_leaks() -> None:
    (leak,) = find_leaks([item(PASSAGE)], [row(PASSAGE.replace("何小满", "何小雨"))])
    assert 0.8 <= leak.similarity < 1.0


def test_a_passage_with_every_name_and_half_of_the_words_replaced_does_not_leak() -> None:
    other = "雪下了一夜，郑启明提着灯笼翻过山梁，赶到渡口时，女儿郑秀英已经在小船上等了半个时辰。"
    assert find_leaks([item(PASSAGE)], [row(other)]) == ()


def test_a_common_instruction_is_not_similarity() -> None:
    ask = "请仔细阅读下面的小说内容，逐条写出其中每两个人物之间的关系，每行一条，没有就写无：\n"
    names = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许"
    items = [item(f"{ask}{name}{name}{name}在{name}{name}{name}里", number) for number, name in enumerate(names[:12])]
    assert find_leaks(items, [row(ask + "许某到过尤家庄")]) == ()


def test_a_common_instruction_is_ignored_on_both_sides() -> None:
    ask = "请仔细阅读下面的小说内容，逐条写出其中每两个人物之间的关系，每行一条，没有就写无：\n"
    scenes = (
        "雨停了，赵一背着药箱翻过山梁。 何五在渡口卖鱼。 吴六拉着车进城去了。 郑七昨夜没有睡好。 王八九在庙里求签。 冯十点了灯看书写字。 "
        "陈立在桥上等船来。 卫东把信烧了个干净。 蒋生在街口修鞋补伞。 沈大给马添了草料。 韩二说他不去县里。 杨三买了两斤棉花。"
    ).split()
    items = [item(ask + scene, number) for number, scene in enumerate(scenes)]
    near = row(ask + scenes[0].replace("山梁", "山岭"))
    # 13 runs of three characters in either scene, 12 of them in both, the instruction's not counted: 12 / (13 + 13 - 12)
    assert find_leaks(items, [near]) == (Leak("item-0", "gold.jsonl:0", "train.jsonl:1", round(12 / 14, 3)),)


def test_short_questions_that_resemble_each_other_do_not_leak() -> None:
    assert find_leaks([item("请问今天是几月几日")], [row("请问今天是几月几号")], threshold=0.5) == ()


def test_the_most_similar_row_is_named_and_the_first_of_equals() -> None:
    near = PASSAGE.replace("何小满", "何小雨")
    assert find_leaks([item(PASSAGE)], [row(near, 1), row(PASSAGE, 2), row(PASSAGE, 3)])[0].row == "train.jsonl:2"


def test_a_repeated_item_leaks_twice() -> None:
    assert [leak.id for leak in find_leaks([item(PASSAGE, 1), item(PASSAGE, 2)], [row(PASSAGE)])] == ["item-1", "item-2"]


def test_rows_are_read_once_and_lazily() -> None:
    read = []

    def rows() -> object:
        for number in range(3):
            read.append(number)
            yield row(PASSAGE, number)

    assert len(find_leaks([item(PASSAGE)], rows())) == 1  # type: ignore[arg-type]
    assert read == [0, 1, 2]


@given(st.lists(st.text(alphabet="山水云风雨雪花月ab ，", min_size=MIN_SHINGLES + 4, max_size=40), min_size=1, max_size=6))
def test_every_item_that_is_a_training_row_leaks_with_similarity_one(texts: list[str]) -> None:
    items = [item(text, number) for number, text in enumerate(texts)]
    rows = [replace(example, source=f"train.jsonl:{number}") for number, example in enumerate(items)]
    assert [(leak.id, leak.similarity) for leak in find_leaks(items, rows)] == [(example.id, 1.0) for example in items]


def test_prompts_of_other_scripts_are_distinguished_too() -> None:
    items = [item("Всю ночь шёл снег над деревней."), item("Старый врач перешёл хребет.", 2), item("？！…", 3)]
    assert [(leak.id, leak.row) for leak in find_leaks(items, [row("всю ночь шёл снег над деревней"), row("？！…", 2), row("…", 3)])] == [
        ("item-1", "train.jsonl:1"),
        ("item-3", "train.jsonl:2"),
    ]
