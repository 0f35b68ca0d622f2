"""The parity check, i.e. that training and inference use the same tokens; and the remedy where a template cannot render a conversation.

A remedy is a change, such as another template; it is tested before it is suggested.
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
from sftchat.templates.turn_parts import THOUGHT_KEYS, split_content
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
TOOL_RESULT: Any = {"role": "tool", "content": "22°", "name": "get_weather", "tool_call_id": "call00001"}


@dataclass(frozen=True)
class Sample:
    """A conversation that the checks render.

    Attributes:
        name: The feature of conversations that it has.
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
            TOOL_RESULT,
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
        passed: Whether the claim is true.
        detail: Evidence, or the reason for a failure.
        required: Whether a failure prevents training.
    """

    name: str
    passed: bool
    detail: str = ""
    required: bool = True


def check_parity(renderer: Renderer, stop_ids: Iterable[int], saved_tokenizer: Any = None) -> list[Check]:
    """Check that prompts are prefixes of training rows, that the stop token is trained and stops generation, and that a saved template agrees.

    Training requires a template that renders plain replies, or replies with thoughts. The checks for system turns, several turns and tools are not
    required: a row that the template cannot render is an error of that row.

    Args:
        renderer: Tokenizer and template.
        stop_ids: Token ids that stop generation.
        saved_tokenizer: A saved and reloaded transformers tokenizer that must render the same ids; None for no check.
    """
    trainable = {sample.name: _check_trainable(renderer, sample) for sample in SAMPLES}
    needs_thoughts = trainable["thoughts"].passed and not trainable["one turn"].passed
    required_name = "thoughts" if needs_thoughts else "one turn"
    checks = [replace(check, required=name == required_name) for name, check in trainable.items()]
    usable = [sample for sample in SAMPLES if trainable[sample.name].passed]
    if not usable:
        return checks
    checks += [
        _check_all("prompt ids are a prefix of the training ids", usable, lambda sample: _prompt_is_prefix(renderer, sample)),
        _check_all("every reply's last trained id is a stop token", usable, lambda sample: _stop_is_trained(renderer, sample)),
        _check_stops(renderer, sorted(set(stop_ids))),
        _check_trained_text(renderer, usable[0]),
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
        saved = choose_renderer(saved_tokenizer, arguments=renderer.arguments, name=renderer.template_name)
        check = _check_all(
            "the saved template renders the same ids",
            usable,
            lambda sample: saved.training_rows(sample.messages, sample.tools) == renderer.training_rows(sample.messages, sample.tools),
        )
        checks.append(check)
    return checks


def implied_stops(renderer: Renderer) -> list[tuple[str, str]]:
    """Return names and stop tokens of the usable templates that write no token at the end of a reply."""
    stops = []
    for variant in renderer.variants:
        with suppress(TemplateError):  # a tool template that is unusable is reported by its own check
            if variant.template.stop_is_implied:
                stops.append((variant.name, variant.template.stop))
    return stops


def _check_trainable(renderer: Renderer, sample: Sample) -> Check:
    """Check that conversations like a sample can be trained on; the detail is the number of rows, or the reason and a remedy."""
    name = f"can be trained on {sample.name}"
    try:
        rows = renderer.training_rows(sample.messages, sample.tools)
    except TemplateError as error:
        return Check(name, False, add_remedy(error, renderer, sample.messages, sample.tools))
    if len(rows) == 1:
        return Check(name, True, "one row")
    return Check(name, True, "one row for each reply, since the template writes a reply differently once it is history")


def _check_all(name: str, samples: Sequence[Sample], is_true: Callable[[Sample], bool], required: bool = True) -> Check:
    failed = [sample.name for sample in samples if not _passes(is_true, sample)]
    return Check(name, not failed, f"fails for: {', '.join(failed)}" if failed else f"{len(samples)} conversations", required)


def _passes(is_true: Callable[[T], bool], value: T) -> bool:
    """Whether a condition is true for a value; False if the template fails."""
    try:
        return is_true(value)
    except TemplateError:
        return False


def _reply_indices(sample: Sample) -> list[int]:
    return [index for index, message in enumerate(sample.messages) if message["role"] == "assistant"]


def _prompt_is_prefix(renderer: Renderer, sample: Sample) -> bool:
    """Whether the prompt of every assistant turn is a prefix of its training row."""
    rows, replies = renderer.training_rows(sample.messages, sample.tools), _reply_indices(sample)
    if len(rows) == 1:
        rows *= len(replies)  # one row for all replies
    prompts = [tuple(renderer.prompt_ids(sample.messages[:index], tools=sample.tools)) for index in replies]
    return all(row.ids[: len(prompt)] == prompt for prompt, row in zip(prompts, rows, strict=True))


def _stop_is_trained(renderer: Renderer, sample: Sample) -> bool:
    """Whether each run of labels ends with a stop token, with one run per assistant turn."""
    last_labels = []
    for row in renderer.training_rows(sample.messages, sample.tools):
        for label, next_label in itertools.pairwise([*row.labels, IGNORED]):
            if label != IGNORED and next_label == IGNORED:
                last_labels.append(label)
    return len(last_labels) == len(_reply_indices(sample)) and set(last_labels) <= set(renderer.stop_tokens)


def _check_stops(renderer: Renderer, stop_ids: Sequence[int]) -> Check:
    """Check that generation stops at the trained stop token, in the template for conversations without tools and in the one with tools."""
    trained = {
        variant.name: variant.stop_token
        for variant in renderer.variants
        if variant is renderer or _passes(lambda variant: variant.stop_token >= 0, variant)
    }
    descriptions = []
    for name, stop in trained.items():
        of_template = f" of '{name}'" if len(trained) > 1 else ""
        descriptions.append(f"stop token {renderer.tokenizer.convert_ids_to_tokens(stop)!r}{of_template} is {stop}")
    detail = f"{', '.join(descriptions)}; generation stops on {list(stop_ids)}"
    return Check("generation stops on the stop token", set(trained.values()) <= set(stop_ids), detail)


def _check_trained_text(renderer: Renderer, sample: Sample) -> Check:
    detail = f"{_trained_text(renderer, sample)!r} for {sample.messages[-1]['content']!r}"
    is_exact = _learns_exactly(renderer, sample)
    if not is_exact:
        argument = thinking_argument(renderer, lambda changed: _passes(partial(_learns_exactly, changed), sample))
        detail += f"; exactly that with {argument}" if argument else ""
    return Check("the trained text is what the assistant says and its stop", is_exact, detail, required=False)


def _trained_text(renderer: Renderer, sample: Sample) -> str:
    row = renderer.training_rows(sample.messages, sample.tools)[-1]
    return str(renderer.tokenizer.decode([label for label in row.labels if label != IGNORED]))


def _learns_exactly(renderer: Renderer, sample: Sample) -> bool:
    """Whether the trained text of the last row is exactly the assistant's content and the stop token."""
    return _trained_text(renderer, sample) == sample.messages[-1]["content"] + renderer.for_tools(sample.tools).ending[0]


def _library_agrees(renderer: Renderer, sample: Sample) -> bool:
    """Whether a server that calls ``apply_chat_template`` computes the same prompt ids."""
    prompt, tools = sample.messages[:-1], sample.tools
    return renderer.for_tools(tools).template.library_prompt_ids(prompt, tools) == renderer.prompt_ids(prompt, tools=tools)


NO_REMEDY = "no template of sftchat can write it either; give a Jinja file that does with --template FILE"
"""Advice when no tested change works."""

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
        """Whether every reply of the conversation can be trained on."""
        return _passes(lambda renderer: bool(renderer.training_texts(self.messages, self.tools)), self.renderer)


def add_remedy(error: TemplateError, renderer: Renderer, messages: Sequence[Message], tools: Tools = ()) -> str:
    """Return an error message with a remedy after it; without one if the conversation has no reply to learn.

    Args:
        error: Why the template cannot render the conversation.
        renderer: Tokenizer and template.
        messages: The conversation.
        tools: Available tools.
    """
    if not any(map(is_learned, messages)):
        return str(error)
    return f"{error}; {find_remedy(renderer, messages, tools) or NO_REMEDY}"


def find_remedy(renderer: Renderer, messages: Sequence[Message], tools: Tools = ()) -> str:
    """Find the first change with which every reply of a conversation can be trained on.

    Order of the changes: an argument that switches thinking, another of the model's own templates, no system turn, a built-in template, a reduced
    conversation (without thoughts, tools, or two such parts), and an argument or another template with a reduced conversation.

    Args:
        renderer: Tokenizer and template that fail.
        messages: The conversation.
        tools: Available tools.

    Returns:
        The advice; empty if no tested change works.
    """
    refused = RefusedConversation(renderer, messages, tools)
    return next((advice for advice, changed in _list_changes(refused) if changed.trains()), "")


def thinking_argument(renderer: Renderer, condition: Callable[[Renderer], bool]) -> str:
    """Return the first option that switches thinking and makes a condition true, as typed by the user; empty if there is none.

    Args:
        renderer: Tokenizer and template.
        condition: Called with the changed renderer.
    """
    return next((option for option, switched in _switch_thinking(renderer) if condition(switched)), "")


def _list_changes(refused: RefusedConversation) -> Iterator[tuple[str, RefusedConversation]]:
    """Yield the advice of each change, and the changed renderer and conversation."""
    results = {part: leave_out(refused) for part, leave_out in _REDUCTIONS.items()}
    reduced = {part: conversation for part, conversation in results.items() if conversation is not None}
    for first, second in itertools.combinations(list(reduced), 2):
        conversation = _REDUCTIONS[second](reduced[first])
        if conversation is not None:
            reduced[f"{first} and {second}"] = conversation
    switched = [*_switch_thinking(refused.renderer), *_use_own_templates(refused.renderer)]
    for option, renderer in switched:
        yield f"try {option}", replace(refused, renderer=renderer)
    if SYSTEM in reduced:
        yield f"it can be trained on without {SYSTEM}", reduced[SYSTEM]
    built_in = list(_use_built_in_templates(refused.renderer))
    for option, renderer in built_in:
        yield f"try {option}", replace(refused, renderer=renderer)
    for parts, conversation in reduced.items():
        yield f"it can be trained on without {parts}", conversation
    for parts, conversation in reduced.items():
        for option, renderer in (*switched, *built_in):
            yield f"try {option}, without {parts}", replace(conversation, renderer=renderer)


def _switch_thinking(renderer: Renderer) -> Iterator[tuple[str, Renderer]]:
    """Yield each option that sets an unset argument about thinking, and the renderer with this argument."""
    try:
        names = argument_names(renderer)
    except TemplateError:
        return
    for name in names:
        if "think" in name and name not in renderer.arguments:
            for value in (False, True):
                switched = replace(renderer, arguments={**renderer.arguments, name: value})
                yield f"--template-argument {name}={str(value).lower()}", switched


def _use_own_templates(renderer: Renderer) -> Iterator[tuple[str, Renderer]]:
    for name, source in renderer.named.items():
        if name != renderer.template_name:
            yield f"--template-name {name}", replace(renderer, name=name, source=source, template_name=name)


def _use_built_in_templates(renderer: Renderer) -> Iterator[tuple[str, Renderer]]:
    for name, template in TEMPLATES.items():
        if name != renderer.name and template.fits(renderer.tokenizer):
            yield f"--template {name}", Renderer(renderer.tokenizer, name, template.source_for(renderer.tokenizer))


def _without_system(refused: RefusedConversation) -> RefusedConversation | None:
    messages = [message for message in refused.messages if message["role"] != "system"]
    return replace(refused, messages=messages) if len(messages) < len(refused.messages) else None


def _without_thoughts(refused: RefusedConversation) -> RefusedConversation | None:
    messages = [_strip_thought(message) if message["role"] == "assistant" else message for message in refused.messages]
    return replace(refused, messages=messages) if messages != list(refused.messages) else None


def _strip_thought(message: Message) -> Message:
    """Return an assistant turn without its thoughts, whether under a key or within the content."""
    reply: Message = {**message}
    for key in THOUGHT_KEYS:
        reply.pop(key, None)  # type: ignore[misc]
    content = message["content"]
    if content.lstrip().startswith(THOUGHTS_BEGIN) and THOUGHTS_END in content:
        reply["content"] = split_content(content)[1]
    return reply


def _without_tools(refused: RefusedConversation) -> RefusedConversation | None:
    """Return the conversation without its available tools; None if it has none, or calls one."""
    has_calls = any(message.get("tool_calls") or message["role"] == "tool" for message in refused.messages)
    return replace(refused, tools=()) if refused.tools and not has_calls else None


_REDUCTIONS: dict[str, Callable[[RefusedConversation], RefusedConversation | None]] = {
    SYSTEM: _without_system,
    "the thoughts": _without_thoughts,
    "the tools": _without_tools,
}
"""Functions that leave a part of a conversation out, by the name of the part; they return None if there is nothing to leave out."""
