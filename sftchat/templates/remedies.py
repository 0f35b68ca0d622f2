"""Suggests what to do when a chat template cannot render a conversation for training; each suggestion is tested first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from sftchat.templates.chat_template import TemplateError, Tools
from sftchat.templates.named import TEMPLATES
from sftchat.templates.renderer import Renderer, argument_names
from sftchat.templates.turn_parts import THOUGHTS, thought_and_answer
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END
from sftchat.types import Message, is_learned

NONE_WRITES_IT = "no template of sftchat can write it either; give a Jinja file that does with --template FILE"
"""Advice when no tested change works, the built-in templates included."""

SYSTEM = "the system turn"


@dataclass(frozen=True)
class Refused:
    """A conversation that a template cannot render.

    Attributes:
        renderer: Tokenizer and template.
        messages: The conversation.
        tools: Available tools.
    """

    renderer: Renderer
    messages: Sequence[Message]
    tools: Tools

    def trains(self) -> bool:
        """Whether each reply of the conversation can be trained on completely."""
        try:
            self.renderer.training_texts(self.messages, self.tools)
        except TemplateError:
            return False
        return True


def with_remedy(error: TemplateError, renderer: Renderer, messages: Sequence[Message], tools: Tools = ()) -> str:
    """Return an error message followed by a remedy.

    Args:
        error: Why the template cannot render the conversation.
        renderer: Tokenizer and template.
        messages: The conversation.
        tools: Available tools.
    """
    if not any(map(is_learned, messages)):
        return str(error)
    return f"{error}; {remedy(renderer, messages, tools) or NONE_WRITES_IT}"


def remedy(renderer: Renderer, messages: Sequence[Message], tools: Tools = ()) -> str:
    """Find the first change with which every reply of a conversation can be trained on.

    Order of the changes: an argument that switches thinking, another of the model's own templates, no system turn, another template, a reduced
    conversation (no thoughts, no tools, or both), and another argument or template with a reduced conversation.

    Args:
        renderer: Tokenizer and template that fail.
        messages: The conversation.
        tools: Available tools.

    Returns:
        The advice; empty if no tested change works.
    """
    refused = Refused(renderer, messages, tools)
    return next((words for words, changed in _changes(refused) if changed.trains()), "")


def thinking_argument(renderer: Renderer, passes: Callable[[Renderer], bool]) -> str:
    """Return the first argument that switches thinking with which a condition holds, as typed by the user; empty if none.

    Args:
        renderer: Tokenizer and template.
        passes: Condition, called with the changed renderer.
    """
    return next((name for name, switched in _arguments(renderer) if passes(switched)), "")


def _changes(refused: Refused) -> Iterator[tuple[str, Refused]]:
    """Yield the description of each change and the changed renderer and conversation."""
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
    """Yield the renderer with each argument that switches thinking and is not set, by name."""
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
    for name, source in renderer.named.items():
        if name != renderer.template_name:
            yield f"--template-name {name}", replace(renderer, name=name, source=source, template_name=name)


def _other_templates(renderer: Renderer) -> Iterator[tuple[str, Renderer]]:
    for name, template in TEMPLATES.items():
        if name != renderer.name and template.fits(renderer.tokenizer):
            yield f"--template {name}", Renderer(renderer.tokenizer, name, template.source_for(renderer.tokenizer))


def _without_system(refused: Refused) -> Refused | None:
    left = [message for message in refused.messages if message["role"] != "system"]
    return replace(refused, messages=left) if len(left) < len(refused.messages) else None


def _without_thoughts(refused: Refused) -> Refused | None:
    left = [_reply_alone(message) if message["role"] == "assistant" else message for message in refused.messages]
    return replace(refused, messages=left) if left != list(refused.messages) else None


def _reply_alone(message: Message) -> Message:
    """Return an assistant turn without its thoughts, whether under a key or within the content."""
    reply: Message = {**message}
    for key in THOUGHTS:
        reply.pop(key, None)  # type: ignore[misc]
    content = message["content"]
    if content.lstrip().startswith(THOUGHTS_BEGIN) and THOUGHTS_END in content:
        reply["content"] = thought_and_answer(content)[1]
    return reply


def _without_tools(refused: Refused) -> Refused | None:
    """Return the conversation without its available tools; None if it has none, or calls one."""
    called = any(message.get("tool_calls") or message["role"] == "tool" for message in refused.messages)
    return replace(refused, tools=()) if refused.tools and not called else None


_REDUCTIONS: dict[str, Callable[[Refused], Refused | None]] = {
    SYSTEM: _without_system,
    "the thoughts": _without_thoughts,
    "the tools": _without_tools,
}
"""Ways to reduce a conversation, by description."""
