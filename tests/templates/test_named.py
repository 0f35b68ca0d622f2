"""Models with several named chat templates: which one renders a conversation, and that all are kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat.engine import Request
from sftchat.errors import TemplateError, UsageError
from sftchat.inference.rendering import prompt_ids, reply_ids
from sftchat.models.export import write_templates
from sftchat.models.manifest import Manifest, resolve_template_options
from sftchat.templates.named import TEMPLATES
from sftchat.templates.parity import SAMPLES, check_parity, find_remedy
from sftchat.templates.renderer import check_arguments, choose_renderer
from tests.templates.test_foreign_templates import CALLED, LOOK, chat, learned, renderer_of

DEFAULT = TEMPLATES["chatml"].source
TOOL_USE = (
    "<|im_start|>system\nTools:{% for tool in tools %} {{ tool['function']['name'] }}{% endfor %}<|im_end|>\n"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m.get('tool_calls') or [] %}{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }}{% endfor %}"
    "{% if m['role'] == 'tool' and not loop.last %}{{ '\n' }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Template that loops over tools, which may be undefined, and writes a line feed after a tool result when a turn follows."""
RAG = "{% for d in documents or [] %}{{ d['text'] }}{% endfor %}" + DEFAULT
NAMED = {"default": DEFAULT, "rag": RAG, "tool_use": TOOL_USE}


def tokenizer_with(templates: Any) -> Any:
    tokenizer = renderer_of("").tokenizer
    tokenizer.chat_template = templates
    return tokenizer


def test_a_conversation_with_tools_is_written_by_tool_use_and_any_other_by_default_as_transformers_does() -> None:
    renderer = choose_renderer(tokenizer_with(NAMED))

    for sample in SAMPLES:
        prompt = list(sample.messages[:1])
        theirs = renderer.tokenizer.apply_chat_template(
            prompt, tools=list(sample.tools) or None, tokenize=False, add_generation_prompt=True
        )
        assert renderer.prompt_text(prompt, sample.tools) == theirs
        assert theirs.startswith("<|im_start|>system\nTools: get_weather") == bool(sample.tools)
        assert renderer.training_rows(sample.messages, sample.tools)
    assert [check.name for check in check_parity(renderer, renderer.stop_tokens) if not check.passed] == []


def test_a_name_selects_the_template_of_every_conversation() -> None:
    tokenizer = tokenizer_with(NAMED)

    picked = choose_renderer(tokenizer, name="tool_use")
    plain = choose_renderer(tokenizer, name="default")

    assert picked.prompt_text(chat("q")) == "<|im_start|>system\nTools:<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert (picked.name, plain.name) == ("tool_use", "chatml")
    assert find_remedy(plain, CALLED, [LOOK]) == "try --template-name tool_use"
    assert (picked.saved, plain.saved) == (NAMED, NAMED)


def test_calls_without_tools_are_written_by_default_and_a_refusal_names_the_template_that_writes_them() -> None:
    renderer = choose_renderer(tokenizer_with(NAMED))

    with pytest.raises(TemplateError, match="chat template 'chatml' leaves out the call of tool 'look'"):
        renderer.training_texts(CALLED)
    assert find_remedy(renderer, CALLED) == "try --template-name tool_use"
    choose_renderer(renderer.tokenizer, name="tool_use").training_texts(CALLED)


@pytest.mark.parametrize(
    ("templates", "options", "message"),
    [
        (
            NAMED,
            {"name": "tool-use"},
            "unknown chat template name 'tool-use'; did you mean 'tool_use'? (available: default, rag, tool_use)",
        ),
        (DEFAULT, {"name": "rag"}, "unknown chat template name 'rag' (available: default)"),
        (None, {"name": "rag"}, "--template-name is 'rag' and the model has no chat template of its own; leave it out"),
        (
            NAMED,
            {"name": "rag", "template": "chatml"},
            "--template-name picks one of the model's own chat templates and --template replaces them; leave one of them out",
        ),
    ],
)
def test_a_name_that_the_model_does_not_have_is_wrong_usage(templates: Any, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        choose_renderer(tokenizer_with(templates), **options)

    assert str(refused.value) == message


def test_templates_without_default_need_a_choice() -> None:
    tokenizer = tokenizer_with({"tool_use": TOOL_USE})

    with pytest.raises(TemplateError) as refused:
        choose_renderer(tokenizer)

    assert str(refused.value) == (
        "the model has no chat template named 'default', only tool_use; pick one for all conversations with --template-name tool_use, "
        "or give another with --template"
    )
    assert choose_renderer(tokenizer, name="tool_use").saved == {"tool_use": TOOL_USE}
    assert choose_renderer(tokenizer, "chatml").name == "chatml"


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ({"default": DEFAULT, "../x": RAG}, "has a chat template named '../x'"),
        ({"default": DEFAULT, "rag": 3}, "chat template 'rag' is 3, must be text"),
    ],
)
def test_templates_that_could_not_be_saved_are_refused_at_once(templates: Any, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        choose_renderer(tokenizer_with(templates))


def test_a_list_in_the_config_and_a_folder_of_files_are_the_same_templates(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = tokenizer_with(NAMED)
    tokenizer.save_pretrained(tmp_path / "files")
    tokenizer.save_pretrained(tmp_path / "list", save_jinja_files=False)

    found = [choose_renderer(AutoTokenizer.from_pretrained(tmp_path / name)) for name in ("files", "list")]

    assert isinstance(json.loads((tmp_path / "list" / "tokenizer_config.json").read_text())["chat_template"], list)
    assert [renderer.saved for renderer in found] == [NAMED, NAMED]
    assert found[0].template_hash == found[1].template_hash
    shutil.copytree(tmp_path / "list", tmp_path / "exported")
    write_templates(tmp_path / "exported", found[1].saved)
    assert choose_renderer(AutoTokenizer.from_pretrained(tmp_path / "exported")).saved == NAMED
    write_templates(tmp_path / "exported", DEFAULT)
    assert AutoTokenizer.from_pretrained(tmp_path / "exported").chat_template == DEFAULT


def test_the_hash_and_the_arguments_are_those_of_every_template_that_may_write_a_conversation() -> None:
    renderer = choose_renderer(tokenizer_with(NAMED))
    short = TOOL_USE + "{% if short is defined and short %}Short: {% endif %}"
    other = choose_renderer(tokenizer_with({**NAMED, "tool_use": short}))

    assert renderer.template_hash != other.template_hash
    assert renderer.template_hash == choose_renderer(tokenizer_with({**NAMED, "rag": short})).template_hash
    check_arguments(other, ["short"])
    with pytest.raises(UsageError, match="unknown argument of chat template 'chatml': 'short'"):
        check_arguments(renderer, ["short"])


def test_each_template_has_its_own_stop_and_generation_stops_on_all() -> None:
    renderer = choose_renderer(tokenizer_with({"default": DEFAULT, "tool_use": TOOL_USE.replace("<|im_end|>\n", "<|e|>\n")}))
    token = renderer.tokenizer.convert_tokens_to_ids
    request = Request("r", tuple(CALLED[:3]), tools=(LOOK,))

    assert renderer.stop_token == token("<|im_end|>")
    assert set(renderer.stop_tokens) == {token("<|im_end|>"), token("<|e|>")}
    assert reply_ids(renderer, request, "a", True)[-1] == token("<|e|>")
    assert [check.name for check in check_parity(renderer, renderer.stop_tokens) if not check.passed] == []
    (stops,) = (check for check in check_parity(renderer, [renderer.stop_token]) if check.name == "generation stops on the stop token")
    assert (stops.passed, "stop token '<|e|>' of 'tool_use'" in stops.detail) == (False, True)


def test_an_engine_renders_a_request_with_tools_by_tool_use() -> None:
    renderer = choose_renderer(tokenizer_with(NAMED))

    texts = [
        renderer.tokenizer.decode(prompt_ids(renderer, Request("r", ({"role": "user", "content": "q"},), tools=tools)))
        for tools in ((), (LOOK,))
    ]

    assert texts == [
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nTools: look<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n",
    ]


def test_a_broken_tool_template_does_not_affect_conversations_without_tools() -> None:
    renderer = choose_renderer(tokenizer_with({"default": DEFAULT, "tool_use": "{{ raise_exception('broken') }}"}))

    assert learned(renderer, renderer.training_ids(chat("q", "a"))) == "a<|im_end|>"
    assert renderer.stop_tokens == (renderer.stop_token,)
    checks = check_parity(renderer, renderer.stop_tokens)
    assert [check.name for check in checks if not check.passed] == ["can be trained on calls of tools"]
    with pytest.raises(TemplateError, match="chat template 'tool_use' refuses the turns"):
        renderer.prompt_ids(chat("q"), tools=[LOOK])


def test_a_new_line_that_only_history_has_makes_a_row_for_each_reply() -> None:
    renderer = choose_renderer(tokenizer_with(NAMED))

    rows = renderer.training_rows(CALLED, [LOOK])

    assert [learned(renderer, row) for row in rows] == ['look {"at": "sky"}<|im_end|>', "It is blue.<|im_end|>"]
    assert renderer.tokenizer.decode(list(rows[1].ids)).endswith(
        "<|im_start|>tool\nblue<|im_end|>\n<|im_start|>assistant\nIt is blue.<|im_end|>"
    )


def test_inference_uses_the_name_of_the_training_unless_given_another() -> None:
    made = Manifest("t", "b", "h", "full", {}, (), 0, "", "tool_use", "", {"a": 1}, template_name="tool_use")

    assert resolve_template_options(made) == {"template": "", "name": "tool_use", "arguments": {"a": 1}}
    assert resolve_template_options(made, template_name="rag", template_arguments={"a": 2}) == {
        "template": "",
        "name": "rag",
        "arguments": {"a": 2},
    }
    assert resolve_template_options(made, template="chatml")["name"] == ""
    assert resolve_template_options(replace(made, template_name=""))["name"] == ""
    assert resolve_template_options(None) == {"template": "", "name": "", "arguments": {}}
