"""Prompts that contain more than a finished reply begins with, especially thoughts: what is trained after them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.errors import TemplateError
from sftchat.templates.parity import check_parity, find_remedy
from sftchat.templates.renderer import Renderer
from sftchat.templates.turn_parts import (
    avoid_cut_tag,
    ends_with_thought,
    extract_thought,
    fill_empty_thought,
    leading_thought,
    missing_thought_end,
)
from tests.templates.test_foreign_templates import CALLED, LOOK, chat, learned, renderer_of

TOOLS = "{% for t in tools or [] %}<|s|>{{ t['function']['name'] }}{% endfor %}"
ASKED = (
    TOOLS
    + "{% for m in messages %}{% if m['role'] != 'assistant' %}<|{{ 'o' if m['role'] == 'tool' else 'u' }}|>{{ m['content'] }}<|e|>{% else %}"
)
CALLS = "{% for c in m.get('tool_calls') or [] %}{{ c['function']['name'] }}{{ c['function']['arguments'] | tojson }}{% endfor %}"
END = "{% endif %}{% endfor %}{% if add_generation_prompt %}"
REASONING = "{% if m.get('reasoning') and loop.last %}"

OPENED = (
    ASKED
    + "<|a|>\n"
    + REASONING
    + "<|chan|>\n{{ m['reasoning'] }}\n<|/chan|>\n{% endif %}{{ m['content'] }}"
    + CALLS
    + "<|e|>"
    + END
    + "<|a|>\n"
    "<|chan|>\n{% if thinking is defined and not thinking %}<|/chan|>\n{% endif %}{% endif %}"
)
OPENED_AND_STRIPPED = ASKED + "<|a|>{{ m['content'].split('</think>')[-1] }}" + CALLS + "<|e|>" + END + "<|a|><think>\n{% endif %}"
CLOSED_BEFORE = ASKED + "<|a|></think>{{ m['content'] }}" + CALLS + "<|e|>" + END + "<|a|><think></think>{% endif %}"
HEADED = (
    ASKED
    + "<|a|>\n"
    + REASONING
    + "{{ m['reasoning'] }}\nAnswer:\n{% endif %}{{ m['content'] }}"
    + CALLS
    + "<|e|>"
    + END
    + "<|a|>\nMy steps:\n{% endif %}"
)
CONTINUED = (
    ASKED
    + "{% if loop.first or messages[loop.index0 - 1]['role'] != 'tool' %}<|a|>{% endif %}"
    + CALLS
    + "{{ m['content'] }}<|e|>"
    + END
    + "<|a|>{% endif %}"
)
UNASKED = ASKED + "<|a|><|turn|>{{ m['content'] }}" + CALLS + "<|e|>{% endif %}{% endfor %}<|a|><|chan|><|/chan|>"
SPACED = ASKED + "A: {{ m['content'] }}" + CALLS + "<|e|>" + END + "A:\n{% endif %}"
STRIPPED = ASKED + "<|a|>{{ m['content'].split('</think>')[-1] }}" + CALLS + "<|e|>" + END + "<|a|>{% endif %}"

EMPTY = ASKED + "<|a|><think></think>{{ m['content'] }}" + CALLS + "<|e|>" + END + "<|a|>{% endif %}"

CALLS_FIRST = OPENED.replace("{{ m['content'] }}" + CALLS, CALLS + "{{ m['content'] }}")

KINDS = {
    "a thought is opened": (OPENED, "<|a|>\n<|chan|>\n", "\n<|/chan|>\n"),
    "a thought is opened, and calls stand before the content": (CALLS_FIRST, "<|a|>\n<|chan|>\n", "\n<|/chan|>\n"),
    "a thought is opened that the template never writes": (OPENED_AND_STRIPPED, "<|a|><think>\n", "\n</think>\n\n"),
    "a thought is closed, and its end written again": (CLOSED_BEFORE, "<|a|><think></think>", ""),
    "a thought is opened with words": (HEADED, "<|a|>\nMy steps:\n", "\nAnswer:\n"),
    "the reply after a tool goes on with the turn": (CONTINUED, "<|a|>", ""),
    "a reply is begun unasked, after a closed thought": (UNASKED, "<|a|><|chan|><|/chan|>", "<|turn|>"),
    "other white space": (SPACED, "A:\n", ""),
    "thoughts are stripped": (STRIPPED, "<|a|>", ""),
    "every thought is written empty": (EMPTY, "<|a|>", "<think></think>"),
}
"""Source, end of a prompt, and the trained beginning of a reply without thoughts."""
WORDS = st.text(st.characters(exclude_categories=["Cs", "Co"], exclude_characters="<>"), max_size=12).map(str.strip).filter(bool)


def rows_of(renderer: Renderer, messages: list[Any], tools: Any = ()) -> list[tuple[str, str]]:
    """Return the prompt and the trained text of each row."""
    decode = renderer.tokenizer.decode
    rows = renderer.training_rows(messages, tools)
    return [(decode(list(row.ids)).removesuffix(learned(renderer, row)), learned(renderer, row)) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_reply_is_trained_after_the_inference_prompt_and_first_closes_an_open_thought(kind: str) -> None:
    source, opening, first = KINDS[kind]

    renderer = renderer_of(source)

    assert rows_of(renderer, chat("q", "a")) == [(f"<|u|>q<|e|>{opening}", f"{first}a<|e|>")]
    assert [check.name for check in check_parity(renderer, renderer.stop_tokens) if check.required and not check.passed] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_and_the_reply_to_its_result_are_trained_after_the_inference_prompt(kind: str) -> None:
    source, opening, first = KINDS[kind]
    renderer = renderer_of(source)

    rows = rows_of(renderer, CALLED, [LOOK])

    if len(rows) == 1:  # nothing differs
        assert kind in ("thoughts are stripped", "every thought is written empty")
        assert rows[0][1] == f'{first}look{{"at": "sky"}}<|e|>{first}It is blue.<|e|>'
        return
    asked, said = zip(*rows, strict=True)
    assert asked[0] == f"<|s|>look<|u|>u<|e|>{opening}"
    assert asked[1].endswith(f"<|o|>blue<|e|>{opening}")
    assert said == (f'{first}look{{"at": "sky"}}<|e|>', f"{first}It is blue.<|e|>")


@pytest.mark.parametrize("source", [OPENED, CALLS_FIRST], ids=["content first", "calls first"])
def test_a_thought_a_text_and_a_call_of_one_turn_are_each_trained_once(source: str) -> None:
    turn = {**CALLED[1], "content": "Wait.", "reasoning": "hm"}
    call = 'look{"at": "sky"}'

    rows = rows_of(renderer_of(source), [CALLED[0], turn], [LOOK])

    said = f"Wait.{call}" if source == OPENED else f"{call}Wait."
    assert rows == [("<|s|>look<|u|>u<|e|><|a|>\n<|chan|>\n", f"hm\n<|/chan|>\n{said}<|e|>")]
    (plain,) = rows_of(renderer_of(source), [CALLED[0], {**turn, "reasoning": ""}], [LOOK])
    assert plain[1] == f"\n<|/chan|>\n{said}<|e|>"


@pytest.mark.parametrize(
    ("kind", "key", "expected"),
    [
        ("a thought is opened", "reasoning", "hm\n<|/chan|>\na<|e|>"),
        ("a thought is opened that the template never writes", "reasoning", "hm\n</think>\n\na<|e|>"),
        ("a thought is opened that the template never writes", "content", "hm\n</think>\n\na<|e|>"),
        ("a thought is opened with words", "reasoning", "hm\nAnswer:\na<|e|>"),
        ("a thought is opened with words", "content", "hm\nAnswer:\na<|e|>"),
        ("thoughts are stripped", "content", "<think>\nhm\n</think>\n\na<|e|>"),
        ("every thought is written empty", "content", "<think>hm</think>a<|e|>"),
        ("every thought is written empty", "reasoning", "<think>hm</think>a<|e|>"),
    ],
)
def test_a_thought_follows_the_prompt_that_opens_it_for_any_place_in_the_row(kind: str, key: str, expected: str) -> None:
    source, opening, _ = KINDS[kind]
    reply = {"content": "<think>\nhm\n</think>\n\na"} if key == "content" else {"content": "a", key: "hm"}

    rows = rows_of(renderer_of(source), [{"role": "user", "content": "q"}, {"role": "assistant", **reply}])

    assert rows == [(f"<|u|>q<|e|>{opening}", expected)]


def test_a_thought_in_the_content_or_under_another_key_gets_the_tags_of_the_template() -> None:
    marked = (
        ASKED + "<|a|>" + REASONING + "<|chan|>{{ m['reasoning'] }}<|/chan|>{% endif %}{{ m['content'] }}<|e|>" + END + "<|a|>{% endif %}"
    )
    within: Any = {"role": "assistant", "content": "<think>\nhm\n</think>\n\na"}
    beside: Any = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    renderer = renderer_of(marked)

    assert rows_of(renderer, [*chat("q"), within, *chat("r", "b")]) == rows_of(renderer, [*chat("q"), beside, *chat("r", "b")])
    assert rows_of(renderer, [*chat("q"), within, *chat("r", "b")]) == [
        ("<|u|>q<|e|><|a|>", "<|chan|>hm<|/chan|>a<|e|>"),
        ("<|u|>q<|e|><|a|>a<|e|><|u|>r<|e|><|a|>", "b<|e|>"),
    ]


def test_a_thought_that_repeats_the_opening_text_has_it_once() -> None:
    thought = {"role": "assistant", "content": "a", "reasoning": "My steps:\nhm"}

    assert rows_of(renderer_of(HEADED), [{"role": "user", "content": "q"}, thought]) == [
        ("<|u|>q<|e|><|a|>\nMy steps:\n", "hm\nAnswer:\na<|e|>")
    ]


@pytest.mark.parametrize("kind", ["a thought is closed, and its end written again", "a reply is begun unasked, after a closed thought"])
def test_a_thought_after_a_prompt_that_has_closed_it_is_refused(kind: str) -> None:
    thought: list[Any] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "hm"}]

    with pytest.raises(TemplateError, match="turn 1"):
        renderer_of(KINDS[kind][0]).training_texts(thought)


def test_a_template_that_recognises_calls_by_their_key_is_tested_without_it() -> None:
    told = "{% if 'tool_calls' in m %}{{ m['tool_calls'][0]['function'] | tojson }}{% else %}{{ m['content'] }}{% endif %}"
    source = ASKED + "<|a|>" + told + "<|e|>" + END + "<|a|><think>\n{% endif %}"

    rows = rows_of(renderer_of(source), CALLED[:2], [LOOK])

    assert rows == [("<|s|>look<|u|>u<|e|><|a|><think>\n", "\n</think>\n\n" + '{"name": "look", "arguments": {"at": "sky"}}<|e|>')]


def test_a_call_with_another_ending_than_a_reply_follows_a_thought() -> None:
    said = REASONING.replace(" and loop.last", "") + "<|chan|>{{ m['reasoning'] }}<|e|><|a|>{% endif %}{{ m['content'] }}" + CALLS
    source = ASKED + "<|a|>" + said + "{{ '<|close|>' if m.get('tool_calls') else '<|e|>' }}" + END + "<|a|>{% endif %}"
    turn: Any = {**CALLED[1], "reasoning": "hm"}

    rows = rows_of(renderer_of(source), [CALLED[0], turn, *CALLED[2:]], [LOOK])

    assert [trained for _, trained in rows] == ['<|chan|>hm<|e|><|a|>look{"at": "sky"}<|close|>It is blue.<|e|>']


def test_a_template_that_ignores_a_thought_beside_the_content_is_refused() -> None:
    thought: list[Any] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "hm"}]

    with pytest.raises(TemplateError, match="leaves out the thoughts of turn 1"):
        renderer_of(STRIPPED).training_texts(thought)


def test_the_proof_names_the_argument_without_which_an_open_thought_is_closed_first() -> None:
    renderer = renderer_of(OPENED)

    (check,) = [check for check in check_parity(renderer, renderer.stop_tokens) if not check.passed]

    assert (check.name, check.required) == ("the trained text is what the assistant says and its stop", False)
    assert check.detail == "'\\n<|/chan|>\\n你好!<|e|>' for '你好!'; exactly that with --template-argument thinking=false"
    thoughtless = renderer_of(OPENED, thinking=False)
    assert rows_of(thoughtless, chat("q", "a")) == [("<|u|>q<|e|><|a|>\n<|chan|>\n<|/chan|>\n", "a<|e|>")]
    thought: list[Any] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "hm"}]
    with pytest.raises(TemplateError, match="opens turn 1"):
        thoughtless.training_texts(thought)
    assert find_remedy(thoughtless, thought) == "it can be trained on without the thoughts"  # an explicit value is not changed
    assert rows_of(renderer, thought) == [("<|u|>q<|e|><|a|>\n<|chan|>\n", "hm\n<|/chan|>\na<|e|>")]


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), said=st.lists(WORDS, min_size=2, max_size=6), asked=WORDS | st.just(""))
def test_every_reply_of_a_conversation_follows_its_prompt_and_is_trained_with_one_stop(kind: str, said: list[str], asked: str) -> None:
    source, opening, first = KINDS[kind]
    renderer, messages = renderer_of(source), chat(*said[: len(said) // 2 * 2])
    replies = [index for index, message in enumerate(messages) if message["role"] == "assistant"]

    messages[0] = {**messages[0], "content": asked}
    rows = renderer.training_rows(messages)

    for index, row in zip(replies, rows if len(rows) > 1 else rows * len(replies), strict=True):
        prompt = renderer.prompt_ids(messages[:index])
        assert row.ids[: len(prompt)] == tuple(prompt)
        assert renderer.prompt_text(messages[:index]).endswith(opening)
    spans = [first + messages[index]["content"] + "<|e|>" for index in replies]
    assert [learned(renderer, row) for row in rows] == (spans if len(rows) > 1 else ["".join(spans)])


def test_texts_are_split_at_tags() -> None:
    assert extract_thought({"role": "assistant", "content": "<think>\nb\n</think>\n\na", "reasoning": "c"}) == (
        "c\nb",
        {"role": "assistant", "content": "a"},
    )
    assert extract_thought({"content": "b</think>a"}) == ("b", {"content": "a"})
    assert leading_thought("<think>b</think>\n\na") == "<think>b</think>\n\n"
    assert leading_thought("say </think> a") == ""
    assert [
        ends_with_thought(text, "</think>") for text in ("<think>\n\n</think>\n\n", "<|START_THINKING|><|END_THINKING|>", "[THINK][/THINK]")
    ] == [
        True,
        True,
        True,
    ]
    assert [
        ends_with_thought(text, "</think>") for text in ("<think>\n", "<|a|>", "<|start_header_id|>assistant<|end_header_id|>\n\n", "")
    ] == [False] * 4
    assert fill_empty_thought("<think>\n\n</think>\n\na", "b", "</think>") == "<think>\nb\n</think>\n\na"
    assert fill_empty_thought("<think>b</think>a", "c", "</think>") == fill_empty_thought("a", "b", "</think>") == ""
    assert avoid_cut_tag("<|a|><think>", 6) == 5
    assert avoid_cut_tag("<|a|><think>", 5) == 5
    assert [missing_thought_end(*given) for given in (("<think>\n", ""), ("<think>", ""), ("<think>", "</think>"), ("<|a|>", ""))] == [
        "\n</think>\n\n",
        "</think>",
        "</think>",
        "",
    ]
