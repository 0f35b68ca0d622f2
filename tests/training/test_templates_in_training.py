"""Templates in training: refusals by the proof, --force, rows with tools and rewritten history, arguments that inference keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftchat import Example, Message, ModelError, UsageError
from sftchat.data.turns import tools_of
from sftchat.engine import Request
from sftchat.errors import DataError, TemplateError
from sftchat.inference.open import load_engine
from sftchat.models.manifest import read_manifest
from sftchat.templates.named import TEMPLATES
from sftchat.templates.renderer import IGNORED, Renderer
from sftchat.training.rows import TOKENIZE_BATCH, render_rows
from tests.conftest import make_tokenizer
from tests.templates.shipped import SHIPPED, tokenizer_for
from tests.training.test_training import run

ENDING = TEMPLATES["chatml"].source.replace(
    "message['content']", "message['content'] ~ (ending if loop.last and add_generation_prompt else '')"
)
"""ChatML whose prompt ends with a text that is absent once the reply is there."""
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}


def turns(*said: str) -> tuple[Message, ...]:
    return tuple(Message(role="assistant" if index % 2 else "user", content=text) for index, text in enumerate(said))


def test_training_is_refused_where_the_proof_fails_and_can_be_forced(tiny_checkpoint: Path, tmp_path: Path) -> None:
    template = tmp_path / "ending.jinja"
    template.write_text(ENDING, encoding="utf-8")
    options: dict[str, Any] = {"template": str(template), "template_arguments": {"ending": " Well?"}}

    with pytest.raises(
        ModelError, match=r"can be trained on one turn: .*opens turn 1 with ' Well\?<.* in its prompt .*; --force trains anyway"
    ):
        run(tiny_checkpoint, tmp_path / "refused", **options)
    with pytest.raises(UsageError, match="unknown argument of chat template 'ending.jinja': 'endin'; did you mean 'ending'"):
        run(tiny_checkpoint, tmp_path / "refused", template=str(template), template_arguments={"endin": ""})
    assert not (tmp_path / "refused").exists()
    manifest = run(tiny_checkpoint, tmp_path / "forced", force=True, max_steps=1, **options)

    assert manifest.template_arguments == {"ending": " Well?"}
    assert read_manifest(tmp_path / "forced") == manifest
    engine: Any = load_engine(str(tmp_path / "forced"), {})
    assert engine.render(turns("q")).endswith("q Well?<|im_end|>\n<|im_start|>assistant\n")
    other: Any = load_engine(str(tmp_path / "forced"), {}, template_arguments={"ending": " Now?"})
    assert other.render(turns("q")).endswith("q Now?<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_that_rewrites_history_gives_one_row_per_reply() -> None:
    source = SHIPPED["qwen3"]
    renderer = Renderer(tokenizer_for(source), "qwen3", source)

    rows = render_rows([Example(turns("a", "b", "c"), "d", source="f:1"), Example(turns("e"), "f", source="f:2")], renderer, 200)

    learned = [renderer.tokenizer.decode([label for label in labels if label != IGNORED]) for labels in rows.labels]
    assert learned == [f"<think>\n\n</think>\n\n{said}<|im_end|>" for said in "bdf"]
    assert "think" not in renderer.tokenizer.decode(rows.ids[1][: -len("xxxx")]).partition("c<|im_end|>")[0]


def test_tool_calls_are_trained_and_tool_results_are_read() -> None:
    source = SHIPPED["qwen2_5"]
    renderer = Renderer(tokenizer_for(source), "qwen2_5", source)
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": "天"}'}}
    called: Any = {"role": "assistant", "content": "", "tool_calls": [call]}
    answered: Any = {"role": "tool", "content": "blue"}
    example = Example((*turns("look"), called, answered), "It is blue.", metadata={"tools": json.dumps([LOOK])}, source="f:1")

    rows = render_rows([example], renderer, 1000)

    learned = renderer.tokenizer.decode([label for label in rows.labels[0] if label != IGNORED])
    assert learned == '<tool_call>\n{"name": "look", "arguments": {"at": "天"}}\n</tool_call><|im_end|>It is blue.<|im_end|>'
    text = renderer.tokenizer.decode(rows.ids[0])
    assert '"name": "look", "parameters"' in text
    assert "blue\n</tool_response>" in text
    prompt = renderer.prompt_ids(example.messages, tools=tools_of(example))
    assert rows.ids[0][: len(prompt)] == tuple(prompt)


def test_rows_tokenised_together_equal_rows_tokenised_alone_in_their_order() -> None:
    source = SHIPPED["qwen3"]
    renderer = Renderer(tokenizer_for(source), "qwen3", source)
    examples = [
        example
        for number in range(TOKENIZE_BATCH // 2)
        for example in (
            Example(turns(f"a{number}<|im_end|>", "b", "c"), f"<|im_start|>{number}"),
            Example((), f"plain {number}<|im_end|>"),
            Example(turns("\n"), "\n\n"),
        )
    ]

    together = render_rows(examples, renderer, 400)

    alone = [render_rows([example], renderer, 400) for example in examples]
    assert together.ids == tuple(ids for rows in alone for ids in rows.ids)
    assert together.labels == tuple(labels for rows in alone for labels in rows.labels)


def test_a_row_with_text_that_the_tokenizer_takes_for_a_special_token_is_named() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["the"])  # type: ignore[attr-defined]  # also a token of the vocabulary, which text becomes
    renderer = Renderer(tokenizer, "chatml", TEMPLATES["chatml"].source)
    rows = [Example(turns("a"), "b", source="f:1"), Example(turns("the"), "b", source="f:2"), Example(turns("a"), "b", source="f:3")]

    with pytest.raises(TemplateError, match="^f:2: a special token in a message cannot be read as text: the tokenizer produces 'the' from"):
        render_rows(rows, renderer, 100)


def test_a_row_that_the_template_cannot_render_is_named() -> None:
    renderer = Renderer(tokenizer_for(TEMPLATES["chatml"].source), "chatml", TEMPLATES["chatml"].source)
    rows = [Example(turns("a"), "b", source="f:1"), Example(turns("a"), "b", metadata={"tools": [LOOK]}, source="f:2")]

    with pytest.raises(TemplateError, match="^f:2: chat template 'chatml' leaves out tool 'look'"):
        render_rows(rows, renderer, 100)


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ("[", r"f:1: tools is \"\[\", which is no JSON"),
        ({"a": 1}, r"f:1: tools is \{\"a\": 1\}, must be a list of JSON schemas"),
        ([{"function": {}}], r"f:1: tools\[0\] is \{\"function\": \{\}\}, which names no function"),
    ],
)
def test_invalid_tools_are_named(tools: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        tools_of(Example(turns("q"), "a", metadata={"tools": tools}, source="f:1"))


def test_the_local_engine_shows_tools_to_the_model(tmp_path: Path) -> None:
    from tests.test_recipes import with_template

    engine: Any = load_engine(str(with_template(SHIPPED["qwen2_5"])(tmp_path / "model")), {})

    without, given = (engine._prepare(Request("r", turns("q"), tools=tools)).tokens for tools in ((), (LOOK,)))

    assert len(given) > len(without)
    assert "look" in engine.loaded.renderer.tokenizer.decode(given)
