"""What to type when a chat template cannot write a conversation for training: each way is tried before it is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from sftchat.templates.builtin import TEMPLATES
from sftchat.templates.chat_template import TemplateError, Tools
from sftchat.templates.coverage import THOUGHTS
from sftchat.templates.renderer import Renderer, argument_names
from sftchat.types import Message, is_learned

NONE_WRITES_IT = "no template of sftchat can write it either; give a Jinja file that does with --template FILE"
"""What is advised where nothing that was tried works, the templates that come with sftchat included."""

SYSTEM = "the system turn"


@dataclass(frozen=True)
class Refused:
    """What a template cannot write.

    Attributes:
        renderer: Tokenizer and template.
        messages: The conversation.
        tools: Functions that the model may call in it.
    """

    renderer: Renderer
    messages: Sequence[Message]
    tools: Tools

    def trains(self) -> bool:
        """Whether each reply of the conversation can be trained on, with all that it says."""
        try:
            self.renderer.training_texts(self.messages, self.tools)
        except TemplateError:
            return False
        return True


def with_remedy(error: TemplateError, renderer: Renderer, messages: Sequence[Message], tools: Tools = ()) -> str:
    """The message of a refusal, followed by a remedy.

    Args:
        error: Why the template cannot write the conversation.
        renderer: Tokenizer and template.
        messages: The conversation.
        tools: Functions that the model may call in it.
    """
    if not any(map(is_learned, messages)):
        return str(error)
    return f"{error}; {remedy(renderer, messages, tools) or NONE_WRITES_IT}"


def remedy(renderer: Renderer, messages: Sequence[Message], tools: Tools = ()) -> str:
    """The first change under which every reply of a conversation can be trained on.

    Changes are tried in this order: an argument that switches thinking, another of the model's own templates, no system turn, another template,
    less of the conversation (no thoughts, no tools, or two parts less), and another argument or template with less of the conversation.

    Args:
        renderer: Tokenizer and template that refuse it.
        messages: The conversation.
        tools: Functions that the model may call in it.

    Returns:
        What to do, in words; empty when nothing that was tried works.
    """
    refused = Refused(renderer, messages, tools)
    return next((words for words, changed in _changes(refused) if changed.trains()), "")


def thinking_argument(renderer: Renderer, holds: Callable[[Renderer], bool]) -> str:
    """The first argument that switches thinking under which something holds, as it is typed; empty where there is none.

    Args:
        renderer: Tokenizer and template.
        holds: What is tried with the changed renderer.
    """
    return next((name for name, switched in _arguments(renderer) if holds(switched)), "")


def _changes(refused: Refused) -> Iterator[tuple[str, Refused]]:
    """Every change in words, and what is then to be written."""
    smaller = {name: less for name, leave_out in _REDUCTIONS.items() if (less := leave_out(refused)) is not None}
    for pair in combinations(smaller, 2):
        if (less := _REDUCTIONS[pair[1]](smaller[pair[0]])) is not None:
            smaller[" and ".join(pair)] = less
    switched = [*_arguments(refused.renderer), *_own_templates(refused.renderer)]
    for name, other in switched:
        yield f"try {name}", replace(refused, renderer=other)
    if SYSTEM in smaller:
        yield f"it can be trained on without {SYSTEM}", smaller[SYSTEM]
    others = list(_other_templates(refused.renderer))
    for name, other in others:
        yield f"try {name}", replace(refused, renderer=other)
    for left_out, less in smaller.items():
        yield f"it can be trained on without {left_out}", less
    for left_out, less in smaller.items():
        for name, other in (*switched, *others):
            yield f"try {name}, without {left_out}", replace(less, renderer=other)


def _arguments(renderer: Renderer) -> Iterator[tuple[str, Renderer]]:
    """The renderer with each of the arguments that switch thinking, by their names, unless they are set."""
    try:
        names = argument_names(renderer)
    except TemplateError:
        return
    for name in names:
        if "think" in name and name not in renderer.arguments:
            for value in (False, True):
                switched = replace(renderer, arguments={**renderer.arguments, name: value})
                yield f"--template-argument {name}={str(value).lower()}", switched


def _own_templates(renderer: Renderer) -> Iterator[tuple[str, Renderer]]:
    """The renderer with each of the model's own templates for every conversation."""
    for name, source in renderer.named.items():
        if name != renderer.picked:
            yield f"--template-name {name}", replace(renderer, name=name, source=source, picked=name)


def _other_templates(renderer: Renderer) -> Iterator[tuple[str, Renderer]]:
    """The templates that come with sftchat and that the tokenizer can write."""
    for name, template in TEMPLATES.items():
        if name != renderer.name and template.fits(renderer.tokenizer):
            yield f"--template {name}", Renderer(renderer.tokenizer, name, template.source_for(renderer.tokenizer))


def _without_system(refused: Refused) -> Refused | None:
    """The conversation without its system turn; None where it has none."""
    left = [message for message in refused.messages if message["role"] != "system"]
    return replace(refused, messages=left) if len(left) < len(refused.messages) else None


def _without_thoughts(refused: Refused) -> Refused | None:
    """The conversation without what was thought before its replies; None where nothing was."""
    left = [_reply_alone(message) if message["role"] == "assistant" else message for message in refused.messages]
    return replace(refused, messages=left) if left != list(refused.messages) else None


def _reply_alone(message: Message) -> Message:
    """An assistant turn without its thoughts, whether they have a key of their own or stand in the content."""
    kept: Message = {**message}
    for key in THOUGHTS:
        kept.pop(key, None)  # type: ignore[misc]
    content = message["content"]
    if content.lstrip().startswith("<think>") and "</think>" in content:
        kept["content"] = content.partition("</think>")[2].lstrip("\n")
    return kept


def _without_tools(refused: Refused) -> Refused | None:
    """The conversation without the tools that it offers; None where it offers none, or calls one."""
    called = any(message.get("tool_calls") or message["role"] == "tool" for message in refused.messages)
    return replace(refused, tools=()) if refused.tools and not called else None


_REDUCTIONS: dict[str, Callable[[Refused], Refused | None]] = {
    SYSTEM: _without_system,
    "the thoughts": _without_thoughts,
    "the tools": _without_tools,
}
"""What may be left out of a conversation, and how."""
