"""Thoughts are separated from the reply for any chunks."""

from __future__ import annotations

import random

import pytest

from sftchat.thinking import ThoughtSplitter


def split(text: str, seed: int, begun: bool = False) -> tuple[str, str]:
    chance = random.Random(seed)
    thoughts = ThoughtSplitter(begun)
    cuts = sorted(chance.sample(range(len(text) + 1), min(len(text), chance.randint(0, 9))))
    parts = [part for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) for part in thoughts.feed(text[a:b])] + thoughts.end()
    thought = "".join(part.text for part in parts if part.is_thought)
    assert thoughts.thought_text == thought
    return thought, "".join(part.text for part in parts if not part.is_thought)


@pytest.mark.parametrize(
    ("text", "begun", "thought", "reply"),
    [
        ("<think>\n想一想\n</think>\n\n答：<think>x</think>", False, "\n想一想\n", "答：<think>x</think>"),
        ("  \n<think>a</think>b", False, "a", "b"),
        ("no thoughts <think>here</think>", False, "", "no thoughts <think>here</think>"),
        ("<thin", False, "", "<thin"),
        ("  ", False, "", "  "),
        ("<think>never ended </thi", False, "never ended </thi", ""),
        ("a < b</think>c", True, "a < b", "c"),
        ("<think></think>c", False, "", "c"),
        ("", False, "", ""),
    ],
)
def test_the_thought_at_the_beginning_of_a_reply_is_separated(text: str, begun: bool, thought: str, reply: str) -> None:
    for seed in range(40):
        assert split(text, seed, begun) == (thought, reply)


def test_a_possible_tag_is_held_back() -> None:
    thoughts = ThoughtSplitter()

    assert thoughts.feed("<thi") == []
    assert [part.text for part in thoughts.feed("nk>ab</th")] == ["ab"]
    assert thoughts.in_thoughts
    assert [part.text for part in thoughts.feed("ink>\nc")] == ["c"]
    assert not thoughts.in_thoughts
