"""Renders rows as the tokens that a model would be trained on, and checks their number."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sftchat.types import Example

if TYPE_CHECKING:
    from sftchat.data.check import TokenCheck
    from sftchat.task import Task
    from sftchat.templates.renderer import Rendered, Renderer


def open_renderer(model: str, task: Task | None, *, trust_remote_code: bool = False, **template: Any) -> Renderer:
    """Return the renderer of a model, i.e. its tokenizer and chat template; no weights are loaded.

    Args:
        model: MODEL as typed.
        task: Task whose template is used for a model without one.
        trust_remote_code: Whether code that comes with the model may run.
        template: ``template``, ``template_name`` and ``template_arguments``, as of ``sftchat.models.manifest.resolve_template_options``.

    Raises:
        UsageError: When MODEL is invalid or served by an engine, or the model does not have the template or an argument.
        ModelError: When it cannot be found.
    """
    from sftchat.errors import UsageError
    from sftchat.models.loading import load_tokenizer
    from sftchat.models.manifest import find_manifest, resolve_template_options
    from sftchat.models.reference import resolve
    from sftchat.templates.renderer import check_arguments, choose_renderer

    reference = resolve(model)
    if reference.scheme and not reference.is_gguf:
        raise UsageError(
            f"model '{model}' is behind a server, which does not show its tokenizer; give the Hub id or the folder of the model"
        )
    tokenizer = load_tokenizer(reference, trust_remote_code=trust_remote_code)
    manifest = find_manifest(str(reference.folder)) if reference.folder else None
    renderer = choose_renderer(tokenizer, preferred=task.template if task else "chatml", **resolve_template_options(manifest, **template))
    check_arguments(renderer, template.get("template_arguments") or {})
    return renderer


def first_flag_with_value(options: Mapping[str, Any]) -> str:
    """Return the flag of the first option that has a value; empty if none has one."""
    name = next((name for name, value in options.items() if value), "").replace("template_arguments", "template_argument")
    return f"--{name.replace('_', '-')}" if name else ""


def max_row_length(model: str, task: Task | None, max_length: int | None) -> int:
    """Return the maximum row length in training, in tokens; warn if the requested one exceeds the model's context.

    Args:
        model: MODEL as typed.
        task: Task whose default is used if ``max_length`` is None.
        max_length: Maximum length that the user requests.
    """
    from sftchat.models.reference import context_length, resolve
    from sftchat.task import training_defaults
    from sftchat.training.config import TrainingConfig, limit_to_context

    of_task = training_defaults(task, "full", 0).max_length if task is not None else None
    requested = max_length or of_task or TrainingConfig.max_length
    return limit_to_context(requested, context_length(resolve(model)), max_length)


def render_example(renderer: Renderer, example: Example) -> tuple[Rendered, ...]:
    """Return the training rows of an example: several if the template renders history differently, none without a reply to learn.

    Raises:
        TemplateError: When the template cannot render the row.
    """
    from sftchat.errors import DataError
    from sftchat.templates.renderer import Rendered
    from sftchat.training.rows import render_rows

    try:
        rows = render_rows([example], renderer, sys.maxsize)
    except DataError:
        return ()
    return tuple(map(Rendered, rows.ids, rows.labels))


def split_by_trained(renderer: Renderer, ids: Sequence[int], labels: Sequence[int]) -> Iterator[tuple[str, bool]]:
    """Yield ``(text, is trained)`` for each run of trained or untrained tokens of a row; special tokens are included."""
    from sftchat.templates.renderer import IGNORED

    for trained, group in groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED):
        yield renderer.tokenizer.decode([token for token, _ in group], clean_up_tokenization_spaces=False), trained


def make_token_check(renderer: Renderer, max_length: int) -> TokenCheck:
    """Return a check that a row can be rendered and is not too long for training.

    Args:
        renderer: Tokenizer and template.
        max_length: Maximum length of a row in tokens.
    """
    from sftchat.errors import TemplateError
    from sftchat.templates.renderer import IGNORED

    def problems(example: Example) -> Iterator[tuple[str, str]]:
        try:
            rows = render_example(renderer, example)
        except TemplateError as error:
            yield "template", str(error).removeprefix(f"{example.source}: ")  # the source is printed before every problem
            return
        longest = max(rows, key=lambda row: len(row.ids), default=None)
        if longest is None or len(longest.ids) <= max_length:
            return
        ids, labels = longest.ids, longest.labels
        trained = [position for position, label in enumerate(labels, 1) if label != IGNORED]
        if trained[0] > max_length:
            consequence = "cut there, nothing of its reply would be left"
        elif trained[-1] > max_length:
            consequence = "cut there, it would lose the stop token of its reply, and teach never to stop"
        else:
            consequence = "training leaves it out"
        yield "length", f"the row has {len(ids)} tokens, {len(ids) - max_length} over --max-length {max_length}; {consequence}"

    return problems
