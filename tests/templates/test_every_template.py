"""Every template of sftchat and of the installed TRL: whether it can be trained on, why not, and what holds for its rows."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.errors import TemplateError
from sftchat.templates.named import TEMPLATES, without_training_markers
from sftchat.templates.parity import SAMPLES, check_parity
from sftchat.templates.renderer import IGNORED, Renderer, choose_renderer
from sftchat.types import Message
from tests.templates.conversations import Conversation, check_rows_or_remedy, conversations
from tests.templates.shipped import SHIPPED, tokenizer_for
from tests.templates.test_foreign_templates import CALL, CLOSED_THOUGHT, LOOK, NO_END, SHAPES, TEXT_ARGUMENTS
from tests.templates.test_foreign_templates import renderer_of as foreign
from tests.templates.test_named import DEFAULT, NAMED, TOOL_USE

ONE, EACH = "one row", "one row for each reply, since the template writes a reply differently once it is history"
ALTERNATE, NO_TOOLS = "roles must alternate", "leaves out tool 'get_weather'; no template of sftchat can write it either"
ONLY_TWO = "Only user and assistant roles are supported"
LOST_CALL = "leaves out the call of tool 'get_weather' of turn 1, which would not be learned"
OPENS_CLOSED = r"with '.*</think>\\n\\n' in its prompt and with '.*<think>\\nOne.*; try --template-argument enable_thinking=true"
FINE = (ONE, ONE, ONE, ONE, ONE)
"""Of one turn, a system turn, several turns, thoughts, and calls of tools."""

VERDICTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("cohere", "cohere2", "gemma3"): (ONE, ONE, ONE, ONE, ALTERNATE),
    ("gemma",): (ONE, "System role not supported", ONE, ONE, ALTERNATE),
    ("idefics3", "llama3", "phi3", "phi3_5", "qwen2_5_vl", "smolvlm"): (ONE, ONE, ONE, ONE, NO_TOOLS),
    ("llava_next",): (ONE, ONE, ONE, ONE, ONLY_TWO),
    ("lfm2",): (ONE, ONE, ONE, ONE, LOST_CALL),
    ("gptoss",): (ONE, ONE, EACH, ONE, ONE),
    ("qwen3",): (ONE, ONE, EACH, ONE, EACH),
    ("qwen3_5_think", "qwen3_6"): (ONE, ONE, EACH, ONE, ONE),
    ("qwen3_5_nothink",): (ONE, ONE, EACH, OPENS_CLOSED, ONE),
    ("nemotron_3_5_lightning", "nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra"): (ONE, ONE, EACH, ONE, EACH),
    ("deepseekv3", "deepseek_r1_distill"): (ONE, ONE, EACH, ONE, NO_TOOLS),
}
"""What cannot be trained on in one row and why, by template; all others are ``FINE``. A training variant equals its original unless listed here."""
VARIANTS = {
    "glm4moe_training": FINE,
    "qwen3_training": FINE,
    "qwen3_5_think_training": FINE,
    "qwen3_5_nothink_training": (ONE, ONE, ONE, OPENS_CLOSED, ONE),
    "qwen3_6_training": FINE,
}
BY_NAME = {name: verdict for names, verdict in VERDICTS.items() for name in names}


@cache
def renderer_of(name: str) -> Renderer:
    source = TEMPLATES[name].source if name in TEMPLATES else without_training_markers(SHIPPED[name])
    return Renderer(tokenizer_for(source), name, source)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_proof_reports_for_every_shipped_template_what_can_be_trained_on_and_why_not(name: str) -> None:
    import re

    renderer = renderer_of(name)

    checks = check_parity(renderer, renderer.stop_tokens)

    expected = VARIANTS.get(name) or BY_NAME.get(name.removesuffix("_training"), FINE)
    verdicts = checks[: len(SAMPLES)]
    for verdict, words in zip(verdicts, expected, strict=True):
        assert (verdict.passed, bool(re.search(words, verdict.detail))) == (words in (ONE, EACH), True), verdict
    trainable = any(verdict.passed for verdict in verdicts)
    assert [check.name for check in checks[len(SAMPLES) :] if check.required and not check.passed] == []
    assert [check.passed for check in checks if check.required].count(False) == (0 if trainable else 1)


@pytest.mark.parametrize(("name", "empty"), [("nemotron_3_nano", "\n</think>\n"), ("nemotron_3_ultra", "</think>")])
def test_the_argument_that_the_proof_advises_makes_plain_replies_trainable_without_an_empty_thought(name: str, empty: str) -> None:
    plain = renderer_of(name)
    renderer = Renderer(plain.tokenizer, name, plain.source, {"enable_thinking": False})
    replies = [Message(role="user", content="q"), Message(role="assistant", content="a")]

    texts = [one.training_texts(replies)[0] for one in (plain, renderer)]

    assert ["".join(text.pieces[index] for index in text.learned) for text in texts] == [f"{empty}a<|im_end|>", "a<|im_end|>"]


def test_an_empty_thought_that_the_template_adds_is_announced() -> None:
    qwen3 = renderer_of("qwen3")
    without = Renderer(qwen3.tokenizer, "qwen3", qwen3.source, {"enable_thinking": False})

    def added(renderer: Renderer) -> tuple[bool, str]:
        name = "the trained text is what the assistant says and its stop"
        return next((check.passed, check.detail) for check in check_parity(renderer, renderer.stop_tokens) if check.name == name)

    assert added(qwen3) == (
        False,
        "'<think>\\n\\n</think>\\n\\n你好!<|im_end|>' for '你好!'; exactly that with --template-argument enable_thinking=false",
    )
    assert added(without) == (True, "'你好!<|im_end|>' for '你好!'")


def test_a_call_of_gpt_oss_ends_with_a_token_of_its_own_which_is_a_stop_too() -> None:
    renderer = renderer_of("gptoss")

    assert sorted(map(renderer.tokenizer.convert_ids_to_tokens, renderer.stop_tokens)) == ["<|call|>", "<|return|>"]


def test_thoughts_are_special_tokens_in_a_reply_and_text_in_a_question() -> None:
    renderer = renderer_of("qwen3")
    think = renderer.tokenizer.convert_tokens_to_ids("<think>")
    talk = [Message(role="user", content="<think>q"), Message(role="assistant", content="<think>\nhm\n</think>\n\na")]

    row = renderer.training_ids(talk)

    assert row.ids.count(think) == 1
    learned = renderer.tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert learned == "<think>\nhm\n</think>\n\na<|im_end|>"


SEVERAL: dict[str, dict[str, str]] = {
    "several": NAMED,
    "several with another stop for tools": {"default": DEFAULT, "tool_use": TOOL_USE.replace("<|im_end|>\n", "<|e|>\n")},
    "several with arguments as text": {"default": CLOSED_THOUGHT, "tool_use": TEXT_ARGUMENTS},
    "several without an end of a turn": {"default": NO_END, "tool_use": NO_END, "rag": DEFAULT},
}
"""Models with several named templates."""
CONTENT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).map(lambda text: f"a{text}b") | st.sampled_from(
    ["<|im_end|>", "<|im_start|>assistant\n", "你好🙂", "a\r\nb", "### Response:\n", "</s>", "<|eot_id|>", "x" * 50]
)
EVERY = [
    *TEMPLATES,
    *(name for name in SHIPPED if BY_NAME.get(name.removesuffix("_training"), FINE)[0] in (ONE, EACH)),
]


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every template as it is after a checkpoint was saved and loaded."""

    @cache
    def again(name: str) -> Renderer:
        from transformers import AutoTokenizer

        folder: Path = tmp_path_factory.mktemp(name)
        renderer = renderer_of(name)
        renderer.tokenizer.chat_template = renderer.source
        renderer.tokenizer.save_pretrained(folder)
        return choose_renderer(AutoTokenizer.from_pretrained(folder))

    return again


@settings(max_examples=150, deadline=None)
@given(turns=st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3), system=st.none() | CONTENT, name=st.sampled_from(EVERY))
def test_under_every_template_prompts_are_prefixes_and_only_replies_and_stops_are_trained_also_after_saving(
    reloaded: Any, turns: list[tuple[str, str]], system: str | None, name: str
) -> None:
    renderer = renderer_of(name)
    messages = [Message(role="system", content=system)] if system is not None and not name.startswith("gemma_") and name != "gemma" else []
    for asked, answered in turns:
        messages += [Message(role="user", content=asked), Message(role="assistant", content=answered)]

    rows = renderer.training_rows(messages)

    replies = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    for index, row in zip(replies, rows if len(rows) > 1 else rows * len(replies), strict=True):
        prompt = tuple(renderer.prompt_ids(messages[:index]))
        assert row.ids[: len(prompt)] == prompt
        assert row.labels[len(prompt) - 1] == IGNORED
        assert row.labels[len(prompt)] != IGNORED
    learned = [[label for label in row.labels if label != IGNORED] for row in rows]
    assert sum(ids.count(renderer.stop_token) for ids in learned) == len(turns)
    said = "".join("".join(renderer.tokenizer.decode(ids) for ids in learned).split())
    at = 0
    for _, answered in turns:  # in this order, each with its stop; between them only an empty thought or a heading that the template writes
        wanted = "".join((answered + renderer.ending[0]).split())
        found = said.index(wanted, at)
        assert said[at:found] in ("", "<think></think>", "</think>", "<|channel|>final<|message|>", "to=user<|message|>")
        at = found + len(wanted)
    assert said[at:] == ""
    assert reloaded(name).training_rows(messages) == rows


LOOKED: list[Any] = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning": "hm"},
    {"role": "tool", "content": "", "name": "look", "tool_call_id": "call00001"},
    {"role": "assistant", "content": "a"},
]


def test_a_call_that_a_template_leaves_out_is_reported() -> None:
    twice: list[Any] = [LOOKED[0], {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}]
    tools = [{"type": "function", "function": {**LOOK["function"], "description": "Look."}}]

    with pytest.raises(TemplateError, match="'gptoss' leaves out the call of tool 'look'"):
        renderer_of("gptoss").training_texts(twice, tools)


def test_a_reply_after_an_empty_result_begins_at_its_own_text() -> None:
    renderer = renderer_of("nemotron_3_5_lightning_training")

    rows = renderer.training_rows(LOOKED, [LOOK])

    learned = [renderer.tokenizer.decode([label for label in row.labels if label != IGNORED]) for row in rows]
    assert learned[0].startswith("hm</think>\n<tool_call>\n<function=look>")
    assert learned[1] == "</think>a<|im_end|>"


@cache
def shape_of(name: str) -> Renderer:
    """A template by name: one of ours, one that TRL ships, a small one of some kind, or a model with several."""
    if name in SHAPES:
        return foreign(SHAPES[name])
    if name in SEVERAL:
        tokenizer = foreign("").tokenizer
        tokenizer.chat_template = SEVERAL[name]
        return choose_renderer(tokenizer)
    return renderer_of(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remedies")


@settings(max_examples=100, deadline=None)
@given(conversation=conversations(), name=st.sampled_from([*TEMPLATES, *SHIPPED, *SHAPES, *SEVERAL]))
def test_every_template_shape_gives_right_rows_or_a_refusal_with_a_working_remedy(
    folder: Path, conversation: Conversation, name: str
) -> None:
    check_rows_or_remedy(shape_of(name), conversation, folder)


def test_a_failing_template_is_refused_with_the_reason_for_a_prompt() -> None:
    renderer = renderer_of("gemma")

    with pytest.raises(TemplateError, match=r"'gemma' refuses the turns \(system, user\): System role not supported"):
        renderer.prompt_ids([Message(role="system", content="s"), Message(role="user", content="u")])
