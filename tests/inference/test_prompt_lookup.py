"""Prompt lookup: right guesses save forward passes, wrong ones change nothing and are soon paused."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.inference.local import TransformersEngine
from sftchat.inference.sequence import MAX_WRONG_GUESSES, MIN_GUESSED_TOKENS, NGRAM_SIZES, PAUSE_TOKENS, PromptLookupDecoder
from tests.inference.test_identity import loaded, replies, request


def test_the_guess_is_what_followed_the_same_tokens_last() -> None:
    lookup = PromptLookupDecoder()

    assert lookup.guess([1, 2, 3, 4, 5, 6, 1, 2, 3], 10) == [4, 5, 6]
    assert lookup.guess([1, 2, 3, 4, 5, 6, 1, 2, 3], 2) == [4, 5]
    assert lookup.guess([1, 2, 3, 4, 5, 6, 1, 2, 3, 9, 1, 2, 3], 10) == [9, 1, 2]
    assert lookup.guess([1, 2, 3, 4, 5, 6, 1, 2, 3, 9, 1, 2, 3, 7], 10) == []
    assert PromptLookupDecoder().guess([1, 2], 10) == []


def test_the_longest_match_decides_and_one_token_is_enough() -> None:
    assert PromptLookupDecoder().guess([1, 2, 3, 8, 2, 3, 9, 0, 1, 2, 3], 1) == [8]
    assert PromptLookupDecoder().guess([2, 3, 8, 1, 3, 9, 0, 2, 3], 1) == [8]
    assert PromptLookupDecoder().guess([5, 6, 7, 0, 5], 2) == [6, 7]


def test_guesses_grow_while_they_are_right_and_pause_when_they_are_not() -> None:
    tokens = [1, 2, 3] * 20
    lookup = PromptLookupDecoder()
    sizes = []
    for _ in range(4):
        sizes.append(len(lookup.guess(tokens, 50)))
        lookup.learn(sizes[-1], sizes[-1])
    assert sizes == [4, 8, 16, 16] or sizes == [3, 3, 3, 3]

    for _ in NGRAM_SIZES:
        for _ in range(MAX_WRONG_GUESSES):
            lookup.learn(len(lookup.guess(tokens, 50)), 0)
    silent = next(count for count in range(1000) if lookup.guess(tokens, 50))
    assert 0 < silent <= PAUSE_TOKENS


def test_a_guess_is_one_token_longer_than_the_last_right_one_and_never_below_the_minimum() -> None:
    tokens = [*range(100), 0, 1, 2]
    lookup = PromptLookupDecoder()
    sizes = []
    for right in (MIN_GUESSED_TOKENS, 2 * MIN_GUESSED_TOKENS, 5, 1, 0, MIN_GUESSED_TOKENS):
        sizes.append(len(lookup.guess(tokens, 50)))
        lookup.learn(sizes[-1], right)

    assert sizes == [MIN_GUESSED_TOKENS, 2 * MIN_GUESSED_TOKENS, 4 * MIN_GUESSED_TOKENS, 6, MIN_GUESSED_TOKENS, MIN_GUESSED_TOKENS]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 9))
def test_a_guess_is_always_text_that_followed_the_same_tokens(tokens: list[int], room: int) -> None:
    guess = PromptLookupDecoder().guess(tokens, room)

    assert len(guess) <= room
    if guess:
        wanted = [tokens[-1], *guess]
        assert any(tokens[at : at + len(wanted)] == wanted for at in range(len(tokens) - 1))


def test_a_reply_that_repeats_itself_takes_fewer_passes_and_stays_the_same() -> None:
    here = loaded("gemma2")  # it repeats itself
    passes: list[int] = []

    def count(_model: Any, _args: Any, given: dict[str, Any]) -> None:
        passes.append(given["input_ids"].shape[1])

    handle = here.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        guessed = replies(TransformersEngine("tiny", here), [request("r", "hi", max_new_tokens=60)])
        alone = len(passes)
        together = replies(TransformersEngine("tiny", here), [request(id, "hi", max_new_tokens=60) for id in "rs"])
    finally:
        handle.remove()

    assert guessed["r"] == together["r"]  # with two sequences there is no prompt lookup
    assert alone < 40 < guessed["r"].completion_tokens
