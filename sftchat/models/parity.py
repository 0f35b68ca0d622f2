"""The proof that training and inference see the same tokens, as a list of checks that a person can read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sftchat.models.templates import IGNORED, Renderer, TemplateError
from sftchat.types import Message

SAMPLES: tuple[tuple[str, tuple[Message, ...]], ...] = (
    ("one turn", ({"role": "user", "content": "你好，world"}, {"role": "assistant", "content": "你好!"})),
    (
        "with a system turn",
        ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}),
    ),
    (
        "several turns",
        (
            {"role": "user", "content": "问\n题"},
            {"role": "assistant", "content": "答"},
            {"role": "user", "content": "<|im_end|></s> again"},
            {"role": "assistant", "content": "甲-乙:师徒\n无"},
        ),
    ),
)
"""Conversations the proof renders: one turn, a system turn, a history, and text that imitates special tokens."""


@dataclass(frozen=True)
class Check:
    """One line of the proof.

    Attributes:
        name: What is claimed.
        holds: Whether it is so.
        detail: The evidence, or why not.
        required: Whether training is refused when it does not hold.
    """

    name: str
    holds: bool
    detail: str = ""
    required: bool = True


def prove(renderer: Renderer, stop_ids: Iterable[int], saved: Path | None = None) -> list[Check]:
    """Check that a prompt is a prefix of its training row, that the stop token is learned and obeyed, and that what was saved agrees.

    Args:
        renderer: Tokenizer and template.
        stop_ids: The ids on which generation stops.
        saved: A checkpoint folder whose own tokenizer and template must render the same ids.
    """
    checks: list[Check] = []
    usable: list[tuple[str, Sequence[Message]]] = []
    for name, messages in SAMPLES:
        try:
            renderer.training_ids(messages)
            usable.append((name, messages))
        except TemplateError as error:
            checks.append(Check(f"renders {name}", False, str(error), required=name == "one turn"))
    if not usable:
        return checks
    checks.append(_every("prompt ids are a prefix of the training ids", usable, lambda m: _prompt_is_prefix(renderer, m)))
    checks.append(_every("every reply's last trained id is the stop token", usable, lambda m: _stop_is_trained(renderer, m)))
    stop, known = renderer.stop_token, sorted(set(stop_ids))
    token = renderer.tokenizer.convert_ids_to_tokens(stop)
    checks.append(
        Check("generation stops on the stop token", stop in known, f"stop token {token!r} is {stop}; generation stops on {known}")
    )
    checks.append(
        _every(
            "transformers' apply_chat_template gives the same prompt ids", usable, lambda m: _library_agrees(renderer, m), required=False
        )
    )
    if saved is not None:
        checks.append(_saved_agrees(renderer, saved, usable))
    return checks


def _every(
    name: str, samples: Sequence[tuple[str, Sequence[Message]]], holds: Callable[[Sequence[Message]], bool], required: bool = True
) -> Check:
    """One check over all samples."""
    failed = [label for label, messages in samples if not _safely(holds, messages)]
    return Check(name, not failed, f"fails for: {', '.join(failed)}" if failed else f"{len(samples)} conversations", required)


def _safely(holds: Callable[[Sequence[Message]], bool], messages: Sequence[Message]) -> bool:
    """Whether it holds; a template that cannot even render the sample does not."""
    try:
        return holds(messages)
    except TemplateError:
        return False


def _prompt_is_prefix(renderer: Renderer, messages: Sequence[Message]) -> bool:
    """Whether every assistant turn's prompt is where its training row begins."""
    row = renderer.training_ids(messages).ids
    prompts = [renderer.prompt_ids(messages[:i]) for i, message in enumerate(messages) if message["role"] == "assistant"]
    return all(tuple(ids) == row[: len(ids)] for ids in prompts)


def _stop_is_trained(renderer: Renderer, messages: Sequence[Message]) -> bool:
    """Whether each run of labels ends with the stop token, one run an assistant turn."""
    labels = [*renderer.training_ids(messages).labels, IGNORED]
    last = [a for a, b in itertools.pairwise(labels) if a != IGNORED and b == IGNORED]
    return last == [renderer.stop_token] * sum(message["role"] == "assistant" for message in messages)


def _library_agrees(renderer: Renderer, messages: Sequence[Message]) -> bool:
    """Whether a server that calls ``apply_chat_template`` feeds what we feed."""
    given = [dict(message) for message in messages[:-1]]
    theirs = renderer.tokenizer.apply_chat_template(
        given,
        chat_template=renderer.source,
        tokenize=True,
        return_dict=False,
        add_generation_prompt=True,
        sanitize_control_tokens=True,
        **renderer.arguments,
    )
    return list(theirs) == renderer.prompt_ids(messages[:-1])


def _saved_agrees(renderer: Renderer, saved: Path, samples: Sequence[tuple[str, Sequence[Message]]]) -> Check:
    """Whether the tokenizer and template in a folder render the same ids again."""
    from transformers import AutoTokenizer

    from sftchat.models.templates import choose_renderer

    again = choose_renderer(AutoTokenizer.from_pretrained(saved), arguments=renderer.arguments)
    return _every("the saved template renders the same ids", samples, lambda m: again.training_ids(m) == renderer.training_ids(m))
