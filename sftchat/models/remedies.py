"""What to type when a chat template cannot write a conversation for training: each way is tried before it is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sftchat.models.registry import TEMPLATES
from sftchat.models.rendering import TemplateError, Tools
from sftchat.models.templates import Renderer, argument_names
from sftchat.types import Message


def with_remedy(error: TemplateError, renderer: Renderer, messages: Sequence[Message], tools: Tools = ()) -> str:
    """The message of a refusal, followed by a remedy where one works.

    Args:
        error: Why the template cannot write the conversation.
        renderer: Tokenizer and template.
        messages: The conversation.
        tools: Functions that the model may call in it.
    """
    found = remedy(renderer, messages, tools)
    return f"{error}; {found}" if found else str(error)


def remedy(renderer: Renderer, messages: Sequence[Message], tools: Tools = ()) -> str:
    """The first change under which every reply of a conversation can be trained on: a template argument, no system turn, another template.

    Args:
        renderer: Tokenizer and template that refuse it.
        messages: The conversation.
        tools: Functions that the model may call in it.

    Returns:
        What to do, in words; empty when nothing that was tried works.
    """
    if argument := thinking_argument(renderer, lambda changed: _trains(changed, messages, tools)):
        return f"try {argument}"
    without_system = [message for message in messages if message["role"] != "system"]
    if len(without_system) < len(messages) and _trains(renderer, without_system, tools):
        return "it can be trained on without the system turn"
    for name, template in TEMPLATES.items():
        if name != renderer.name and template.fits(renderer.tokenizer):
            other = Renderer(renderer.tokenizer, name, template.source_for(renderer.tokenizer))
            if _trains(other, messages, tools):
                return f"try --template {name}"
    return ""


def thinking_argument(renderer: Renderer, holds: Callable[[Renderer], bool]) -> str:
    """The first argument that switches thinking under which something holds, as it is typed; empty where there is none.

    Args:
        renderer: Tokenizer and template.
        holds: What is tried with the changed renderer.
    """
    for name in _thinking_arguments(renderer):
        for value in (False, True):
            if holds(replace(renderer, arguments={**renderer.arguments, name: value})):
                return f"--template-argument {name}={str(value).lower()}"
    return ""


def _thinking_arguments(renderer: Renderer) -> list[str]:
    """The arguments of a template that switch thinking, by their names, unless they are set."""
    try:
        names = argument_names(renderer)
    except TemplateError:
        return []
    return [name for name in names if "think" in name and name not in renderer.arguments]


def _trains(renderer: Renderer, messages: Sequence[Message], tools: Tools) -> bool:
    """Whether each reply of the conversation can be trained on, with all that it says."""
    try:
        renderer.training_texts(messages, tools)
    except TemplateError:
        return False
    return True
