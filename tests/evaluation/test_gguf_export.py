"""A GGUF file whose chat template or end tokens differ from the model's is refused before it is judged, with the first difference."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat.errors import ModelError
from sftchat.evaluation.gguf_export import check_conversations, export_gguf
from sftchat.models.gguf import load_gguf_tokenizer, read_header
from sftchat.models.gguf_types import FILE_TYPES
from sftchat.models.gguf_write import write_gguf
from sftchat.models.loading import load
from sftchat.models.reference import resolve
from sftchat.templates.named import TEMPLATES
from sftchat.templates.renderer import Renderer, choose_renderer
from tests.inference.test_llama_cpp import sentencepiece_tokenizer
from tests.models.test_gguf_write import tiny

END_OF_TEXT, IM_START, IM_END = 0, 1, 2
CHATML = TEMPLATES["chatml"].source
QUESTION = {"role": "user", "content": "?"}


def write(path: Path, renderer: Renderer) -> Path:
    """Write a tiny model with a renderer."""
    write_gguf(tiny("LlamaForCausalLM")[0], renderer, path, FILE_TYPES["f16"], name="test", pre_tokenizer="gpt-2")
    return path


@pytest.fixture
def renderer() -> Renderer:
    return tiny("LlamaForCausalLM")[1]


def with_source(renderer: Renderer, source: str) -> Renderer:
    return replace(renderer, name="other", source=source)


def difference(path: Path, renderer: Renderer) -> str:
    """What the check reports on a file of a model that has this renderer."""
    with pytest.raises(ModelError) as caught:
        check_conversations(read_header(path), renderer, (END_OF_TEXT, IM_END))
    return str(caught.value)


def test_a_file_with_the_template_and_the_end_tokens_of_the_model_is_accepted(renderer: Renderer, tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "m.gguf", renderer))

    check_conversations(header, renderer, (END_OF_TEXT, IM_END))
    assert header.end_tokens == (END_OF_TEXT, IM_END)


def test_a_file_with_a_sentencepiece_tokenizer_is_accepted(tmp_path: Path) -> None:
    renderer = choose_renderer(sentencepiece_tokenizer(), "chatml")
    header = read_header(write(tmp_path / "m.gguf", renderer))

    check_conversations(header, renderer, (renderer.tokenizer.eos_token_id, renderer.stop_token))
    assert header.metadata["tokenizer.ggml.model"] == "llama"


def test_a_template_that_writes_other_prompts_is_reported_with_the_first_difference(renderer: Renderer, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", with_source(renderer, CHATML.replace("'<|im_start|>assistant\\n'", "'<|im_start|>the assistant\\n'")))

    assert difference(path, renderer) == (
        f"the prompts of '{path}' differ from the model's, first in the conversation 'one turn': "
        "at token 17 the model's template gives 'as sistan t' and the file's 'the Ġassistant Ċ'"
    )


def test_a_template_that_refuses_what_the_models_accepts_is_reported(renderer: Renderer, tmp_path: Path) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    path = write(tmp_path / "m.gguf", with_source(renderer, refusing))

    assert difference(path, renderer).startswith(f"the chat template in '{path}' refuses the conversation 'a system turn': ")


def test_a_file_whose_end_tokens_lack_the_models_would_not_stop(renderer: Renderer, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", renderer)
    set_end_token(path, "eot", END_OF_TEXT)

    assert difference(path, renderer) == (
        f"'{path}' would not stop: the model ends a reply with '<|im_end|>', and the file's end tokens are '<|endoftext|>', '<|endoftext|>'"
    )


def test_a_file_with_an_end_token_that_the_model_writes_within_replies_would_stop_too_early(renderer: Renderer, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", renderer)
    the = renderer.tokenizer.convert_tokens_to_ids("the")
    set_end_token(path, "eos", the)

    assert difference(path, renderer) == f"'{path}' would stop too early: 'the' is one of its end tokens, and none of the model's"


def set_end_token(path: Path, name: str, token: int) -> None:
    """Change an end token in the metadata of a file."""
    from gguf import GGUFReader

    field = GGUFReader(path, "r+").fields[f"tokenizer.ggml.{name}_token_id"]
    field.parts[field.data[0]][0] = token
    field.parts[field.data[0]].flush()


def test_a_refused_file_is_not_judged_and_not_left(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = CHATML.replace("'<|im_start|>'", "'<|im_start|> '")
    monkeypatch.setattr("sftchat.models.gguf_tokenizer._template_metadata", lambda renderer: {"tokenizer.chat_template": wrong})

    def judge(path: Path, title: str) -> Any:
        raise AssertionError("judged")

    with pytest.raises(ModelError, match=r"the prompts of '.*' differ from the model's, first in the conversation 'one turn': at token 2 "):
        list(export_gguf(load(resolve(str(tiny_checkpoint))), tmp_path, "m", ["f16"], judge, lambda _: nullcontext()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [False, None, 3, 1.5, 'it\'s "a" \n 你好 😀 {{ x }}', ["a", {"b": True}]])
def test_arguments_of_the_template_are_part_of_the_file(value: Any, renderer: Renderer, tmp_path: Path) -> None:
    source = "{% if style is defined %}{{ style | tojson }}\n{% endif %}" + CHATML
    model = replace(with_source(renderer, source), arguments={"style": value})
    header = read_header(write(tmp_path / "m.gguf", model))

    check_conversations(header, model, (END_OF_TEXT, IM_END))
    of_file = choose_renderer(load_gguf_tokenizer(header))
    assert of_file.prompt_text([QUESTION]) == model.prompt_text([QUESTION])
    assert model.prompt_text([QUESTION]) != renderer.prompt_text([QUESTION])


def test_all_templates_of_a_model_are_written(renderer: Renderer, tmp_path: Path) -> None:
    renderer.tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ tools | tojson }}" + CHATML}
    model = choose_renderer(renderer.tokenizer)
    header = read_header(write(tmp_path / "m.gguf", model))

    check_conversations(header, model, (END_OF_TEXT, IM_END))
    assert load_gguf_tokenizer(header).chat_template == renderer.tokenizer.chat_template
    assert header.metadata["tokenizer.chat_templates"] == ["tool_use"]


def test_a_tokenizer_without_an_end_of_text_ends_with_the_stop_token_of_the_template(renderer: Renderer, tmp_path: Path) -> None:
    renderer.tokenizer.eos_token = None
    model = choose_renderer(renderer.tokenizer, "chatml")

    assert read_header(write(tmp_path / "m.gguf", model)).end_tokens == (IM_END,)
