"""Kinds of public chat templates, each as a small one: what is trained, and why others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sftchat
from sftchat.errors import TemplateError
from sftchat.templates.named import TEMPLATES
from sftchat.templates.parity import SAMPLES, check_parity, find_remedy
from sftchat.templates.renderer import IGNORED, Rendered, Renderer
from sftchat.types import Message
from tests.conftest import make_tokenizer

CHATML = TEMPLATES["chatml"].source
TOKENS = ["<|u|>", "<|a|>", "<|o|>", "<|s|>", "<|e|>", "<|turn|>", "<|close|>", "<|chan|>", "<|/chan|>"]
LOOK: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}
CALL: Any = {"type": "function", "id": "call00001", "function": {"name": "look", "arguments": {"at": "sky"}}}
CALLED: list[Any] = [
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "blue", "name": "look", "tool_call_id": "call00001"},
    {"role": "assistant", "content": "It is blue."},
]

TEXT_ARGUMENTS = (
    "{% for t in tools or [] %}<|s|>{{ t['function']['name'] }}{% endfor %}{% for m in messages %}<|{{ {'user': 'u', 'tool': 'o'}.get(m['role'], 'a') }}|>"
    "{% for c in m.get('tool_calls') or [] %}{{ c['function']['name'] + ' ' + c['function']['arguments'] }}{% endfor %}{{ m['content'] }}<|e|>"
    "{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}"
)
SYSTEM_IN_LAST = (
    "{% set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% set said = messages[1:] if messages[0]['role'] == 'system' else messages %}{{ '<|s|>' }}"
    "{% for m in said %}{% if m['role'] == 'user' %}<|u|>{{ system ~ '/' if loop.last and system else '' }}{{ m['content'] }}<|/chan|>"
    "{% else %}{{ m['content'] }}<|e|>{% endif %}{% endfor %}"
)
OPENS_NEXT = (
    "{% for m in messages %}<|turn|><|{{ m['role'][0] }}|>{% if m['role'] == 'assistant' %}{{ m['content'] }}<|close|><|e|>"
    "{% else %}{{ m['content'] }}<|e|>{% endif %}{% endfor %}{% if messages[-1]['role'] == 'assistant' or add_generation_prompt %}<|turn|><|a|>{% endif %}"
)
ENDS_TEXT = "{% for m in messages %}<|{{ m['role'][0] }}|>{{ m['content'] }}<|close|>{% endfor %}{% if add_generation_prompt %}<|a|>{% else %}<|e|>{% endif %}"
NO_END = (
    "{% for t in tools or [] %}<|s|>{{ t['function']['name'] }}{% endfor %}{% for m in messages %}<|{{ {'tool': 'o'}.get(m['role'], m['role'][0]) }}|>\n"
    "{% for c in m.get('tool_calls') or [] %}{{ c['function']['name'] }}{{ c['function']['arguments'] | tojson }}{% endfor %}{{ m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}<|a|>\n{% endif %}"
)
CLOSED_THOUGHT = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{% if m.get('reasoning') %}<|chan|>thought\n{{ m['reasoning'] }}\n<|/chan|>{% endif %}{{ m['content'] }}"
    "<|e|>\n{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% if not thinking %}<|chan|>thought\n<|/chan|>{% endif %}{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
SHAPES = {
    "arguments as text": TEXT_ARGUMENTS,
    "the system prompt in the last user turn": SYSTEM_IN_LAST,
    "the next turn is opened": OPENS_NEXT,
    "an end of text after the last turn": ENDS_TEXT,
    "no end of a turn": NO_END,
    "an empty thought in the prompt": CLOSED_THOUGHT,
    "no system turn": NO_SYSTEM,
}


def renderer_of(source: str, **arguments: Any) -> Renderer:
    from tokenizers import AddedToken

    tokenizer: Any = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(token, special=True, normalized=False) for token in TOKENS]})
    tokenizer.add_special_tokens({"eos_token": "<|e|>"})
    return Renderer(tokenizer, "foreign", source, arguments)


def chat(*said: str, system: str = "") -> list[Message]:
    first = [Message(role="system", content=system)] if system else []
    return [*first, *(Message(role="assistant" if index % 2 else "user", content=text) for index, text in enumerate(said))]


def learned(renderer: Renderer, row: Rendered) -> str:
    return str(renderer.tokenizer.decode([label for label in row.labels if label != IGNORED]))


def test_chat_templates_run_in_one_place() -> None:
    root = Path(sftchat.__file__).parent
    found = [
        path.relative_to(root).as_posix() for path in root.rglob("*.py") if ".apply_chat_template(" in path.read_text(encoding="utf-8")
    ]

    assert found == ["templates/chat_template.py"]


def test_the_proof_gives_arguments_as_text_to_a_template_that_joins_them() -> None:
    renderer = renderer_of(TEXT_ARGUMENTS)

    checks = check_parity(renderer, renderer.stop_tokens)

    assert [check.name for check in checks if not check.passed] == []
    assert learned(renderer, renderer.training_ids(CALLED, [LOOK])) == 'look {"at": "sky"}<|e|>It is blue.<|e|>'


def test_a_tool_that_only_its_call_names_is_refused() -> None:
    silent = TEXT_ARGUMENTS.replace("<|s|>{{ t['function']['name'] }}", "")

    with pytest.raises(TemplateError, match="leaves out tool 'look'"):
        renderer_of(silent).training_texts(CALLED, [LOOK])


def test_a_reply_is_trained_after_the_prompt_of_inference_where_the_template_drops_the_system_prompt_later() -> None:
    renderer = renderer_of(SYSTEM_IN_LAST)

    rows = renderer.training_rows(chat("q", "a", "r", "b", system="be brief"))

    assert [(renderer.tokenizer.decode(list(row.ids)), learned(renderer, row)) for row in rows] == [
        ("<|s|><|u|>be brief/q<|/chan|>a<|e|>", "a<|e|>"),
        ("<|s|><|u|>q<|/chan|>a<|e|><|u|>be brief/r<|/chan|>b<|e|>", "b<|e|>"),
    ]
    assert all(check.passed for check in check_parity(renderer, renderer.stop_tokens) if check.required)


def test_force_loses_no_system_prompt() -> None:
    renderer = renderer_of(SYSTEM_IN_LAST)
    forced = Renderer(renderer.tokenizer, "foreign", SYSTEM_IN_LAST, lenient=True)

    assert forced.training_rows(chat("q", "a", system="be brief")) == renderer.training_rows(chat("q", "a", system="be brief"))


def test_texts_that_differ_before_the_reply_are_shown_where_they_differ() -> None:
    source = "{{ messages | length % 2 }}: {% for m in messages %}<|turn|>{{ m['content'] if loop.last else 'x' }}<|e|>{% endfor %}"

    with pytest.raises(TemplateError) as refused:
        renderer_of(source).training_texts(chat("q", "a"))

    assert str(refused.value) == (
        "chat template 'foreign' writes '1: <|turn|>q<|e|>' before turn 1 in its prompt and '0: <|turn|>x<|e|><|turn|' once the turn is finished: "
        "what is trained would not begin with what inference sees"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [(OPENS_NEXT, "a<|close|><|e|>"), (ENDS_TEXT, "a<|close|>")],
    ids=["the next turn is opened", "the text is ended"],
)
def test_the_stop_is_the_token_that_ends_the_turn_and_not_one_after_it(source: str, expected: str) -> None:
    renderer = renderer_of(source)

    assert renderer.ending[0] == expected[1:]
    (row,) = renderer.training_rows(chat("q", "a", "r", "a"))
    assert learned(renderer, row) == expected * 2


def test_a_template_without_an_end_of_turn_is_trained_to_write_the_token_of_the_next_one() -> None:
    renderer = renderer_of(NO_END)

    assert sorted(map(renderer.tokenizer.convert_ids_to_tokens, renderer.stop_tokens)) == ["<|o|>", "<|u|>"]
    (row,) = renderer.training_rows(chat("q", "a", "r", "b"))
    assert renderer.tokenizer.decode(list(row.ids)) == "<|u|>\nq<|a|>\na<|u|>\nr<|a|>\nb<|u|>"
    assert learned(renderer, row) == "a<|u|>b<|u|>"
    (called,) = renderer.training_rows(CALLED, [LOOK])
    assert learned(renderer, called) == 'look{"at": "sky"}<|o|>It is blue.<|u|>'
    checks = check_parity(renderer, renderer.stop_tokens)
    assert [(check.detail, check.required) for check in checks if not check.passed] == [
        ("it writes none; replies are trained to end with '<|u|>'", False)
    ]


def test_a_template_of_plain_text_is_trained_to_write_the_end_of_text_one_row_per_reply() -> None:
    renderer = renderer_of(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )

    rows = renderer.training_rows(chat("q", "a", "r", "b"))

    assert [renderer.tokenizer.decode(list(row.ids)) for row in rows] == [
        "user: q\nassistant: a\n<|e|>",
        "user: q\nassistant: a\nuser: r\nassistant: b\n<|e|>",
    ]


def test_a_reply_without_thoughts_follows_the_empty_thought_that_the_prompt_has_closed() -> None:
    renderer = renderer_of(CLOSED_THOUGHT)

    assert renderer.template.thought_end == "<|/chan|>"
    rows = renderer.training_rows(chat("q", "a", "r", "b"))
    assert [renderer.tokenizer.decode(list(row.ids)) for row in rows] == [
        "<|turn|>user\nq<|e|>\n<|turn|>assistant\n<|chan|>thought\n<|/chan|>a<|e|>",
        "<|turn|>user\nq<|e|>\n<|turn|>assistant\na<|e|>\n<|turn|>user\nr<|e|>\n<|turn|>assistant\n<|chan|>thought\n<|/chan|>b<|e|>",
    ]
    assert [learned(renderer, row) for row in rows] == ["a<|e|>", "b<|e|>"]


def test_a_refusal_names_an_argument_that_was_tried() -> None:
    renderer = renderer_of(CLOSED_THOUGHT)
    thought: list[Any] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning": "hm"}]

    with pytest.raises(TemplateError, match=r"opens turn 1 with '<\|turn\|>assistant\\n<\|chan\|>thought\\n<\|/chan\|>' in its prompt"):
        renderer.training_texts(thought)
    assert find_remedy(renderer, thought) == "try --template-argument thinking=true"
    assert learned(renderer, renderer_of(CLOSED_THOUGHT, thinking=True).training_ids(thought)) == "<|chan|>thought\nhm\n<|/chan|>a<|e|>"


def test_a_refusal_names_another_template_or_the_system_turn_where_that_works() -> None:
    assert find_remedy(renderer_of(NO_SYSTEM), chat("q", "a", system="s")) == "it can be trained on without the system turn"
    assert find_remedy(renderer_of(CHATML.replace("message['content']", "''")), chat("q", "a")) == "try --template chatml"
    assert find_remedy(renderer_of(NO_SYSTEM), [*CALLED]) == ""


SAID = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["", " ", "<|e|>", "<|u|>", "<think>", "a\nb", "你好"]
)


@settings(max_examples=200, deadline=None)
@given(shape=st.sampled_from(sorted(SHAPES)), said=st.lists(SAID, min_size=2, max_size=6), system=SAID)
def test_under_every_shape_a_row_begins_with_its_prompt_and_trains_the_reply_and_one_stop_or_is_refused(
    shape: str, said: list[str], system: str
) -> None:
    renderer = renderer_of(SHAPES[shape])
    messages = chat(*said[: len(said) // 2 * 2], system=system)
    replies = [index for index, message in enumerate(messages) if message["role"] == "assistant"]

    try:
        rows = renderer.training_rows(messages)
    except TemplateError:
        assert shape == "no system turn"
        assert system
        assert find_remedy(renderer, messages) == "it can be trained on without the system turn"
        return

    spans = [[label for label in row.labels if label != IGNORED] for row in rows]
    for index, row in zip(replies, rows if len(rows) > 1 else rows * len(replies), strict=True):
        prompt = tuple(renderer.prompt_ids(messages[:index]))
        assert row.ids[: len(prompt)] == prompt
    assert sum(ids.count(renderer.stop_token) for ids in spans) == len(replies)
    wanted = "".join(messages[index]["content"] + renderer.ending[0] for index in replies)
    written = "".join(renderer.tokenizer.decode(ids) for ids in spans)
    assert "".join(written.split()) == "".join(wanted.split())


def test_every_shape_passes_the_proof() -> None:
    for source in SHAPES.values():
        renderer = renderer_of(source)
        assert [check for check in check_parity(renderer, renderer.stop_tokens) if check.required and not check.passed] == []
    assert len(SAMPLES) == 5
