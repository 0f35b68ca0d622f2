"""Few-shot examples: which are chosen for an item, and their turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sftchat import Example
from sftchat.data.few_shot import FewShot


def example(text: str, gold: str = "yes", id: str = "") -> Example:
    return Example(({"role": "system", "content": "own"}, {"role": "user", "content": text}), gold, id or text)


POOL = tuple(map(example, ("the red apple", "a blue sky", "the red car", "一只红苹果", "红苹果很甜")))


def questions(few_shot: FewShot, item: Example) -> list[str]:
    return [message["content"] for message in few_shot(item) if message["role"] == "user"]


def test_the_first_examples_of_the_pool_are_the_same_for_every_item() -> None:
    few_shot = FewShot(2).with_pool(POOL)

    assert few_shot(example("anything")) == (
        {"role": "user", "content": "the red apple"}, {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "a blue sky"}, {"role": "assistant", "content": "yes"},
    )  # fmt: skip


def test_the_nearest_example_stands_last() -> None:
    few_shot = FewShot(2, "nearest").with_pool(POOL)

    assert questions(few_shot, example("my red apple pie")) == ["the red car", "the red apple"]
    assert questions(few_shot, example("苹果很红")) == ["一只红苹果", "红苹果很甜"]


@given(
    texts=st.lists(st.text("ab 甲乙", min_size=1, max_size=8), min_size=1, max_size=12),
    k=st.integers(1, 5),
    choose=st.sampled_from(["first", "nearest"]),
)
def test_an_item_is_never_its_own_example(texts: list[str], k: int, choose: str) -> None:
    pool = tuple(example(text, id=str(number)) for number, text in enumerate(texts))
    few_shot = FewShot(k, choose).with_pool(pool, from_evalset=True)  # type: ignore[arg-type]

    for item in pool:
        chosen = questions(few_shot, item)
        others = [text for text in texts if f"own\n{text}" != f"own\n{item.messages[-1]['content']}"]
        assert item.messages[-1]["content"] not in chosen
        assert len(chosen) == min(k, len(others))


def test_an_example_without_a_gold_reply_is_no_example() -> None:
    assert FewShot(3).with_pool((Example(POOL[0].messages),)).pool == ()


def test_the_settings_identify_the_pool_unless_it_is_the_evalset() -> None:
    assert FewShot(1).with_pool(POOL, from_evalset=True).settings == {"k": 1, "choose": "first", "pool": "evalset"}
    assert FewShot(1).with_pool(POOL).settings != FewShot(1).with_pool(POOL[1:]).settings
