"""Contract clause on the template: it renders every row, and the last trained token is the stop token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from sftchat.data.turns import tools_of
from sftchat.errors import SftchatError, TemplateError, unknown_name_message
from sftchat.task import Task, training_defaults
from sftchat.templates.named import TEMPLATES
from sftchat.templates.renderer import IGNORED, Renderer, choose_renderer
from sftchat.types import Example


def rendering_faults(task: Task, examples: Sequence[Example], model: str) -> Iterator[str]:
    """Yield the first row that cannot be trained on, rows that are too long, or an unknown template.

    Args:
        task: The task.
        examples: Rows with gold replies.
        model: Model whose tokenizer renders them.
    """
    if task.template not in TEMPLATES:
        yield unknown_name_message("template", task.template, TEMPLATES)
        return
    if find_spec("transformers") is None or find_spec("torch") is None:
        return
    from sftchat.models.loading import load_tokenizer
    from sftchat.models.reference import resolve

    try:
        renderer = choose_renderer(load_tokenizer(resolve(model)), preferred=task.template)
    except SftchatError as error:
        yield str(error)
        return
    try:
        max_length = training_defaults(task, "full", 0).max_length
    except SftchatError as error:
        yield str(error)
        return
    lengths = []
    for index, example in enumerate(examples):
        try:
            fault, length = _find_fault(renderer, example)
        except TemplateError as error:
            fault, length = str(error), 0
        if fault:
            yield f"row {index} {fault}"
            return
        lengths.append(length)
    too_long = sum(length > max_length for length in lengths) if max_length is not None else 0
    if 10 * too_long > len(lengths):
        yield f"{too_long} of {len(lengths)} rows are longer than max_length={max_length} of training_defaults and would be left out; the longest has {max(lengths)} tokens"


def _find_fault(renderer: Renderer, example: Example) -> tuple[str, int]:
    """Return the problem of a rendered row, empty if there is none, and its length in tokens."""
    tools = tools_of(example)
    row = renderer.training_ids(example.conversation, tools)
    prompt = renderer.prompt_ids(example.messages, tools=tools)
    trained = [label for label in row.labels if label != IGNORED]
    if list(row.ids[: len(prompt)]) != prompt:
        return "has a prompt that is not where its training row begins", len(row.ids)
    if trained[-1:] != [renderer.for_tools(tools).stop_token]:
        return "does not train the token that stops a reply", len(row.ids)
    reply = renderer.tokenizer.decode(row.ids[len(prompt) :][:-1]).strip()
    gold = renderer.tokenizer.decode(renderer.tokenizer.encode(example.gold or "", add_special_tokens=False)).strip()
    if not reply.startswith(gold):
        return f"trains {reply[:40]!r} where the gold reply is {gold[:40]!r}", len(row.ids)
    return "", len(row.ids)
