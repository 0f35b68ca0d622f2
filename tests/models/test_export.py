"""Modelfiles: Ollama's prompts equal those of the training for every template, or a message says why not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sftchat.errors import TemplateError
from sftchat.models.export import ollama_data, write_modelfile
from sftchat.models.gotemplate import evaluate
from sftchat.templates.named import TEMPLATES, without_training_markers
from sftchat.templates.renderer import Renderer, choose_renderer
from sftchat.types import Message
from tests.conftest import make_tokenizer
from tests.templates.shipped import SHIPPED, tokenizer_for

ORIGINALS = [name for name in SHIPPED if not name.endswith("_training")]


def renderer_of(name: str) -> Renderer:
    source = TEMPLATES[name].source if name in TEMPLATES else without_training_markers(SHIPPED[name])
    return Renderer(tokenizer_for(source), name, source)


def template_in(text: str) -> str:
    found = re.search(r'TEMPLATE """(.*)"""\n', text, flags=re.DOTALL)
    assert found is not None
    return found.group(1)


def test_a_modelfile_holds_the_template_in_gos_language_and_every_stop() -> None:
    renderer = choose_renderer(make_tokenizer(), "chatml")

    modelfile = write_modelfile(renderer, [0, 2], "runs/full, template chatml")

    assert modelfile.text == (
        "# runs/full, template chatml: the template is that of the model, proved by sftchat\n"
        "FROM .\n"
        'TEMPLATE """{{ if .System }}<|im_start|>system\n'
        "{{ .System }}<|im_end|>\n"
        '{{ end }}{{ range $i, $m := .Messages }}{{ if eq .Role "user" }}<|im_start|>user\n'
        "{{ .Content }}<|im_end|>\n"
        '<|im_start|>assistant\n{{ else if eq .Role "assistant" }}{{ .Content }}<|im_end|>\n{{ end }}{{ end }}"""\n'
        'PARAMETER stop "<|endoftext|>"\n'
        'PARAMETER stop "<|im_end|>"\n'
    )


@pytest.mark.parametrize("name", sorted({*TEMPLATES, *ORIGINALS}))
def test_ollama_renders_the_prompts_of_every_template(name: str) -> None:
    renderer = renderer_of(name)

    modelfile = write_modelfile(renderer, [0], name)

    talk = [("system", "简短。"), ("user", "你好"), ("assistant", "好"), ("user", "{{ .System }}?")]
    messages = [Message(role=role, content=content) for role, content in talk[1 if name == "gemma" else 0 :]]
    assert evaluate(template_in(modelfile.text), ollama_data(messages)) == renderer.prompt_text(messages)
    assert [name for name in modelfile.verified if name in ("one turn", "several turns")] == ["one turn", "several turns"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("<|im_start|>' + ", "<|im_start|>' + loop.index|string + "),
            "with several turns, the model was trained on '<.im_start.>4assist.* where Ollama would write '<.im_start.>2assist.*",
        ),
        (("message['content'] + ", "message['content'] | upper + "), "it leaves a turn out"),
        (("{%- if add", "{{- messages | length }}{%- if add"), "it opens or ends a conversation differently by its length"),
        (("<|im_end|>' + ", '<|im_end|>"""\' + '), "it has three quotes in a row"),
    ],
)
def test_a_template_that_gos_language_cannot_express_is_refused_with_the_place(change: tuple[str, str], words: str) -> None:
    source = TEMPLATES["chatml"].source.replace(*change)

    with pytest.raises(TemplateError, match=words):
        write_modelfile(Renderer(make_tokenizer(), "odd", source), [2], "m")


def test_the_beginning_of_text_that_ollama_writes_itself_is_not_written_twice() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    renderer = choose_renderer(tokenizer, "plain")

    assert renderer.prompt_text([Message(role="user", content="q")]).startswith("<s>User")
    assert template_in(write_modelfile(renderer, renderer.stop_tokens, "m").text).count("<s>") == 0


def test_differences_of_some_conversations_are_noted() -> None:
    notes = write_modelfile(renderer_of("llama3"), [0], "m").notes

    assert [note for note in notes if "white space" in note] == [
        "with white space around what is said, the model was trained on 'eader_id|>\\n\\na<|eot_id|><|start_heade' "
        "where Ollama would write 'eader_id|>\\n\\n a \\n<|eot_id|><|start_he'"
    ]
    assert (
        "the template has no place for a system prompt; Ollama would leave one out without a word"
        in write_modelfile(renderer_of("gemma"), [0], "m").notes
    )


def test_a_token_before_the_text_that_equals_a_turn_ending_is_not_part_of_the_turn() -> None:
    from tokenizers.processors import TemplateProcessing

    source = TEMPLATES["llama3"].source
    tokenizer: Any = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<|begin|>", "additional_special_tokens": list(TEMPLATES["llama3"].tokens)})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.bos_token_id)]
    )
    renderer = Renderer(tokenizer, "llama3", source if "bos_token" in source else "{{- bos_token }}\n" + source)

    template = template_in(write_modelfile(renderer, renderer.stop_tokens, "m").text)

    written = evaluate(template, ollama_data([Message(role="user", content="q")]))
    assert f"<|begin|>{written}" == renderer.prompt_text([Message(role="user", content="q")])
