"""The parity check: training and inference use the same tokens; and changes that help where a template cannot render a conversation.

Every change is tested before it is suggested.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from sftchat.errors import TemplateError
from sftchat.templates.chat_template import Tools
from sftchat.templates.named import TEMPLATES
from sftchat.templates.renderer import IGNORED, Renderer, argument_names, choose_renderer
from sftchat.templates.turn_parts import THOUGHTS, thought_and_answer
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END
from sftchat.types import Message, is_learned

T = TypeVar("T")

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Its name."}}, "required": ["city"]},
    },
}
CALL = {"type": "function", "id": "call00001", "function": {"name": "get_weather", "arguments": {"city": "巴黎"}}}
ANSWERED: Any = {"role": "tool", "content": "22°", "name": "get_weather", "tool_call_id": "call00001"}


@dataclass(frozen=True)
class Sample:
    """A conversation that the checks render.

    Attributes:
        name: What it is an example of.
        messages: Its turns.
        tools: Available tools.
    """

    name: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


SAMPLES = (
    Sample("one turn", ({"role": "user", "content": "你好，world"}, {"role": "assistant", "content": "你好!"})),
    Sample(
        "a system turn",
        ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}),
    ),
    Sample(
        "several turns",
        (
            {"role": "user", "content": "问\n题"},
            {"role": "assistant", "content": "答"},
            {"role": "user", "content": "<|im_end|></s> again"},
            {"role": "assistant", "content": "甲-乙:师徒\n无"},
        ),
    ),
    Sample("thoughts", ({"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "<think>\nOne and one.\n</think>\n\n2"})),
    Sample(
        "calls of tools",
        (
            {"role": "user", "content": "巴黎?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            ANSWERED,
            {"role": "assistant", "content": "22°"},
        ),
        (TOOL,),
    ),
)
"""Conversations that the checks render; the third contains text that imitates special tokens."""


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: The claim.
        passed: Whether it is true.
        detail: Evidence, or the reason for a failure.
        required: Whether a failure prevents training.
    """

    name: str
    passed: bool
    detail: str = ""
    required: bool = True


def check_parity(renderer: Renderer, stop_ids: Iterable[int], saved_tokenizer: Any = None) -> list[Check]:
    """Check that prompts are prefixes of training rows, that the stop token is trained and stops generation, and that a saved template agrees.

    Training requires a template that supports plain replies, or replies with thoughts; the checks for system turns, several turns and tools only
    report what happens to such rows. A row that the template cannot render is reported as an error of that row.

    Args:
        renderer: Tokenizer and template.
        stop_ids: Token ids that stop generation.
        saved_tokenizer: A saved and reloaded transformers tokenizer that must render the same ids; None for no check.
    """
    trainable = {sample.name: _is_trainable(renderer, sample) for sample in SAMPLES}
    required = "one turn" if trainable["one turn"].passed or not trainable["thoughts"].passed else "thoughts"
    checks = [replace(check, required=name == required) for name, check in trainable.items()]
    usable = [sample for sample in SAMPLES if trainable[sample.name].passed]
    if not usable:
        return checks
    checks += [
        _check_all("prompt ids are a prefix of the training ids", usable, lambda sample: _prompt_is_prefix(renderer, sample)),
        _check_all("every reply's last trained id is a stop token", usable, lambda sample: _stop_is_trained(renderer, sample)),
        _stops(renderer, sorted(set(stop_ids))),
        _adds_nothing(renderer, usable[0]),
        _check_all(
            "transformers' apply_chat_template gives the same prompt ids",
            usable,
            lambda sample: _library_agrees(renderer, sample),
            required=False,
        ),
    ]
    checks += [
        Check(
            "a reply ends with a token that the template writes", False, f"it writes none; replies are trained to end with {stop!r}", False
        )
        for _, stop in implied_stops(renderer)
    ]
    if saved_tokenizer is not None:
        again = choose_renderer(saved_tokenizer, arguments=renderer.arguments, name=renderer.template_name)
        agrees = _check_all(
            "the saved template renders the same ids",
            usable,
            lambda sample: again.training_rows(sample.messages, sample.tools) == renderer.training_rows(sample.messages, sample.tools),
        )
        checks.append(agrees)
    return checks


def implied_stops(renderer: Renderer) -> list[tuple[str, str]]:
    """Return names and stop tokens of the usable templates that write no token at the end of a reply."""
    stops = []
    for variant in renderer.variants:
        with suppress(TemplateError):  # a tool template that is unusable is reported by its own check
            stops += [(variant.name, variant.template.stop)] if variant.template.stop_is_implied else []
    return stops


def _is_trainable(renderer: Renderer, sample: Sample) -> Check:
    """Return whether conversations of a kind can be trained on, with the number of rows or the reason."""
    name = f"can be trained on {sample.name}"
    try:
        rows = renderer.training_rows(sample.messages, sample.tools)
    except TemplateError as error:
        return Check(name, False, with_remedy(error, renderer, sample.messages, sample.tools))
    if len(rows) == 1:
        return Check(name, True, "one row")
    return Check(name, True, "one row for each reply, since the template writes a reply differently once it is history")


def _check_all(name: str, samples: Sequence[Sample], passes: Callable[[Sample], bool], required: bool = True) -> Check:
    failed = [sample.name for sample in samples if not _safely(passes, sample)]
    return Check(name, not failed, f"fails for: {', '.join(failed)}" if failed else f"{len(samples)} conversations", required)


def _safely(passes: Callable[[T], bool], value: T) -> bool:
    """Whether a check passes; False if the template fails."""
    try:
        return passes(value)
    except TemplateError:
        return False


def _replies(sample: Sample) -> list[int]:
    return [index for index, message in enumerate(sample.messages) if message["role"] == "assistant"]


def _prompt_is_prefix(renderer: Renderer, sample: Sample) -> bool:
    """Whether the prompt of every assistant turn is a prefix of its training row."""
    rows, replies = renderer.training_rows(sample.messages, sample.tools), _replies(sample)
    prompts = [tuple(renderer.prompt_ids(sample.messages[:index], tools=sample.tools)) for index in replies]
    return all(row.ids[: len(ids)] == ids for ids, row in zip(prompts, rows * (len(replies) if len(rows) == 1 else 1), strict=True))


def _stop_is_trained(renderer: Renderer, sample: Sample) -> bool:
    """Whether each run of labels ends with a stop token, with one run per assistant turn."""
    ends = [
        a
        for row in renderer.training_rows(sample.messages, sample.tools)
        for a, b in itertools.pairwise([*row.labels, IGNORED])
        if a != IGNORED and b == IGNORED
    ]
    return len(ends) == len(_replies(sample)) and set(ends) <= set(renderer.stop_tokens)


def _stops(renderer: Renderer, stop_ids: Sequence[int]) -> Check:
    """Whether generation stops at the trained stop token, in the template for conversations without tools and in the one with tools."""
    trained = {
        variant.name: variant.stop_token
        for variant in renderer.variants
        if variant is renderer or _safely(lambda variant: variant.stop_token >= 0, variant)
    }
    described = [
        f"stop token {renderer.tokenizer.convert_ids_to_tokens(stop)!r}" + (f" of '{name}'" if len(trained) > 1 else "") + f" is {stop}"
        for name, stop in trained.items()
    ]
    detail = f"{', '.join(described)}; generation stops on {list(stop_ids)}"
    return Check("generation stops on the stop token", set(trained.values()) <= set(stop_ids), detail)


def _adds_nothing(renderer: Renderer, sample: Sample) -> Check:
    content, learned = sample.messages[-1]["content"], _learned(renderer, sample)
    exact = _learns_exactly(renderer, sample)
    argument = "" if exact else thinking_argument(renderer, lambda changed: _safely(partial(_learns_exactly, changed), sample))
    return Check(
        "the trained text is what the assistant says and its stop",
        exact,
        f"{learned!r} for {content!r}" + (f"; exactly that with {argument}" if argument else ""),
        required=False,
    )


def _learned(renderer: Renderer, sample: Sample) -> str:
    row = renderer.training_rows(sample.messages, sample.tools)[-1]
    return str(renderer.tokenizer.decode([label for label in row.labels if label != IGNORED]))


def _learns_exactly(renderer: Renderer, sample: Sample) -> bool:
    """Whether the trained text of the last row is exactly the assistant's content and the stop token."""
    return _learned(renderer, sample) == sample.messages[-1]["content"] + renderer.for_tools(sample.tools).ending[0]


def _library_agrees(renderer: Renderer, sample: Sample) -> bool:
    """Whether a server that calls ``apply_chat_template`` computes the same prompt ids."""
    prompt, tools = sample.messages[:-1], sample.tools
    return renderer.for_tools(tools).template.library_ids(prompt, tools) == renderer.prompt_ids(prompt, tools=tools)


NONE_WRITES_IT = "no template of sftchat can write it either; give a Jinja file that does with --template FILE"
"""Advice when no tested change works, the built-in templates included."""

SYSTEM = "the system turn"


@dataclass(frozen=True)
class RefusedConversation:
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
        return _safely(lambda renderer: bool(renderer.training_texts(self.messages, self.tools)), self.renderer)


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
    refused = RefusedConversation(renderer, messages, tools)
    return next((words for words, changed in _changes(refused) if changed.trains()), "")


def thinking_argument(renderer: Renderer, passes: Callable[[Renderer], bool]) -> str:
    """Return the first argument that switches thinking with which a condition holds, as typed by the user; empty if none.

    Args:
        renderer: Tokenizer and template.
        passes: Condition, called with the changed renderer.
    """
    return next((name for name, switched in _arguments(renderer) if passes(switched)), "")


def _changes(refused: RefusedConversation) -> Iterator[tuple[str, RefusedConversation]]:
    """Yield the description of each change and the changed renderer and conversation."""
    smaller = {name: less for name, leave_out in _REDUCTIONS.items() if (less := leave_out(refused)) is not None}
    for pair in itertools.combinations(smaller, 2):
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


def _without_system(refused: RefusedConversation) -> RefusedConversation | None:
    left = [message for message in refused.messages if message["role"] != "system"]
    return replace(refused, messages=left) if len(left) < len(refused.messages) else None


def _without_thoughts(refused: RefusedConversation) -> RefusedConversation | None:
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


def _without_tools(refused: RefusedConversation) -> RefusedConversation | None:
    """Return the conversation without its available tools; None if it has none, or calls one."""
    called = any(message.get("tool_calls") or message["role"] == "tool" for message in refused.messages)
    return replace(refused, tools=()) if refused.tools and not called else None


_REDUCTIONS: dict[str, Callable[[RefusedConversation], RefusedConversation | None]] = {
    SYSTEM: _without_system,
    "the thoughts": _without_thoughts,
    "the tools": _without_tools,
}
"""Ways to reduce a conversation, by description."""
