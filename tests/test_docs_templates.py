"""The page on templates agrees with the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sftchat.cli import program
from sftchat.templates.named import TEMPLATES
from sftchat.templates.renderer import choose_renderer
from tests.conftest import make_tokenizer

PAGE = (Path(__file__).parent.parent / "docs" / "templates.md").read_text(encoding="utf-8")


def test_the_table_lists_every_template_with_its_tokens() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", PAGE, flags=re.MULTILINE)

    assert [(name, about.replace("\\", ""), tuple(re.findall(r"`([^`]+)`", tokens.replace("\\", "")))) for name, about, tokens in rows] == [
        (template.name, template.about, template.tokens) for template in TEMPLATES.values()
    ]


def test_the_text_shown_is_the_output_of_the_template() -> None:
    found = re.search(r'```text title="(\w+)"\n(.*?)\n```', PAGE, flags=re.DOTALL)
    assert found is not None
    renderer = choose_renderer(make_tokenizer(), found.group(1))
    talk: Any = [
        {"role": "user", "content": "When did it begin?\n\nIt began in 2000.", "context": "It began in 2000."},
        {"role": "assistant", "content": "In 2000."},
    ]

    assert renderer.tokenizer.decode(renderer.training_ids(talk).ids).rstrip("\n").replace("<|endoftext|>", "<eos>") == found.group(2)


@pytest.mark.parametrize("verb", ["train", "eval", "chat", "ask", "inspect", "merge", "export"])
def test_every_verb_that_opens_a_model_takes_template_and_arguments(verb: str) -> None:
    import click

    command = program.get_command(click.Context(program), verb)

    assert command is not None
    assert {"--template", "--template-argument"} <= {name for parameter in command.params for name in parameter.opts}
