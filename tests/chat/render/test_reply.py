"""A reply on its way to the screen, and several one below the other."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.chat.context import Display
from sftchat.chat.render.columns import difference_note
from sftchat.chat.render.reply import ReplyText
from sftchat.chat.render.stacked import Stacked
from sftchat.chat.render.width import Line, text_of
from sftchat.chat.safe_text import escape_controls

RAW = Display(markdown=False)


def shown(lines: list[Line]) -> str:
    return "\n".join(map(text_of, lines))


def stream(text: str, seed: int, display: Display) -> str:
    chance = random.Random(seed)
    reply, lines = ReplyText(display), []
    while text:
        size = chance.randint(1, 9)
        lines += reply.feed(text[:size], 40)
        text = text[size:]
    return shown(lines + reply.end(40))


@given(st.text(max_size=80), st.integers(0, 9))
def test_without_markdown_every_character_is_shown(text: str, seed: int) -> None:
    if not text.lstrip().startswith("<think>"):
        assert stream(text, seed, RAW) == escape_controls(text.replace("\r\n", "\n")).removesuffix("\n")


@given(st.text(st.sampled_from("a中|-`*#> \n"), max_size=80), st.integers(0, 9))
def test_rendered_markdown_does_not_depend_on_the_chunks(text: str, seed: int) -> None:
    assert stream(text, seed, Display()) == shown([*(reply := ReplyText(Display())).feed(text, 40), *reply.end(40)])


def test_thoughts_are_folded_and_remain_available() -> None:
    display = Display()
    reply = ReplyText(display)

    assert reply.feed("<think>\n\n先想\n再", 40) == []
    assert reply.tail() == [[("class:thought", "thinking, 6 characters; f2 shows them")]]
    assert shown(reply.feed("想</think>\n\n答", 40)) == "thought 7 characters; f2 shows them"
    assert reply.tail() == [[("", "答")]]
    assert reply.unseen() == [[("class:thought", "先想")], [("class:thought", "再想")]]
    assert reply.unseen() == []
    assert shown(reply.end(40)) == "答"


def test_thoughts_that_are_shown_stream_in_their_own_style() -> None:
    reply = ReplyText(Display(thoughts=True), thinking=True)

    assert reply.feed("one\ntw", 40) == [[("class:thought", "one")]]
    assert reply.tail() == [[("class:thought", "tw")]]
    assert reply.feed("o</think>done\n", 40) == [[("class:thought", "two")], [("", "done")]]


def test_thoughts_can_be_unfolded_while_they_stream_and_are_shown_once() -> None:
    display = Display()
    reply = ReplyText(display)
    reply.feed("<think>one\ntwo\nth", 40)
    display.thoughts = True

    assert shown(reply.unseen()) == "one\ntwo"
    assert shown(reply.feed("ree\n</think>end", 40)) == "three"
    assert shown(reply.end(40)) == "end"


def test_empty_thoughts_are_not_shown() -> None:
    reply = ReplyText(Display())

    assert shown(reply.feed("<think>\n\n</think>\n\nhi\n", 40)) == "hi"


def test_stacked_replies_show_the_latest_words_of_those_that_wait() -> None:
    stacked = Stacked(["base", "tuned\x1b"], [ReplyText(RAW), ReplyText(RAW)])
    stacked.feed(1, "第一\n第二")
    stacked.feed(0, "one\ntwo")

    assert shown(stacked.lines(40)) == "base\none"
    assert shown(stacked.tail(40)) == "two\ntuned␛: 第一 第二"
    assert shown(stacked.tail(15)) == "two\ntune…: …一 第二"
    stacked.end(0)
    assert shown(stacked.lines(40)) == "two\ntuned␛\n第一"
    stacked.end(1)
    assert shown(stacked.lines(40)) == "第二"
    assert stacked.tail(40) == []


def test_the_first_difference_in_words() -> None:
    assert difference_note(["a", "b"], ["same", "same"]) == "all say the same"
    assert difference_note(["a", "b"], ["甲乙丙", "甲乙"]) == "they differ from character 3 on: a 丙 · b (nothing)"


def test_a_reply_that_never_closes_the_thoughts_of_its_prompt_is_shown() -> None:
    reply = ReplyText(Display(), thinking=True)

    assert reply.feed("the answer\nafter all", 40) == []
    assert shown(reply.end(40)) == "the answer\nafter all"


def test_an_empty_line_within_shown_thoughts_is_kept_for_any_chunks() -> None:
    for size in (1, 4, 99):
        said, text = ReplyText(Display(thoughts=True)), "<think>\n\na\n\nb\n</think>c"
        lines = [line for start in range(0, len(text), size) for line in said.feed(text[start : start + size], 40)]
        assert [*lines, *said.end(40)] == [[("class:thought", "a")], [], [("class:thought", "b")], [("", "c")]]


@pytest.mark.parametrize("shows", [False, True])
def test_text_that_becomes_thoughts_is_removed_unless_it_was_already_written(shows: bool) -> None:
    reply = ReplyText(Display(thoughts=shows))

    assert shown(reply.feed("let me\nse", 40)) == "let me"
    reply.retract("e")
    found = reply.feed("Par", 40)
    assert found == [
        *([[("class:thought", "see")]] if shows else [[("class:thought", "thought 3 characters; f2 shows them")]]),
        [("class:thought", "(thoughts up to here)")],
    ]
    assert shown(reply.end(40)) == "Par"


def test_text_that_was_not_written_yet_leaves_only_the_line_of_folded_thoughts() -> None:
    reply = ReplyText(Display())

    assert reply.feed("| a | b |\n|---|", 40) == []
    reply.retract()
    assert reply.tail() == [[("class:thought", "thinking, 15 characters; f2 shows them")]]
    assert shown(reply.feed("yes\n", 40)) == "thought 15 characters; f2 shows them\nyes"
    assert shown(reply.unseen()) == "| a | b |\n|---|"
    assert reply.end(40) == []
