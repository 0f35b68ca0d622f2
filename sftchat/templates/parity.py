"""Checks that training and inference use the same tokens, reported as a readable list."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sftchat.templates.remedies import thinking_argument, with_remedy
from sftchat.templates.renderer import IGNORED, Renderer, TemplateError, choose_renderer
from sftchat.types import Message

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
    Sample(
        "thoughts",
        ({"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "<think>\nOne and one.\n</think>\n\n2"}),
    ),
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


def _safely(passes: Callable[[Sample], bool], sample: Sample) -> bool:
    """Whether a check holds; False if the template fails to render the sample."""
    try:
        return passes(sample)
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
    """Whether generation stops at the trained stop token, under every template for the conversation."""
    trained = {variant.name: variant.stop_token for variant in renderer.variants if variant is renderer or _has_stop(variant)}
    described = [
        f"stop token {renderer.tokenizer.convert_ids_to_tokens(stop)!r}" + (f" of '{name}'" if len(trained) > 1 else "") + f" is {stop}"
        for name, stop in trained.items()
    ]
    detail = f"{', '.join(described)}; generation stops on {list(stop_ids)}"
    return Check("generation stops on the stop token", set(trained.values()) <= set(stop_ids), detail)


def _has_stop(renderer: Renderer) -> bool:
    try:
        return renderer.stop_token >= 0
    except TemplateError:
        return False


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
