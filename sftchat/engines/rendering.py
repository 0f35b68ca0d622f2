"""A request becomes token ids: template, its arguments, and the beginning of the reply."""

from __future__ import annotations

from dataclasses import replace

from sftchat.engines.base import Request
from sftchat.models.templates import Renderer

GIVEN = frozenset({"messages", "add_generation_prompt", "tools", "documents", "raise_exception", "strftime_now", "namespace", "range"})
"""What every template is told, or can call."""


def with_arguments(renderer: Renderer, request: Request) -> Renderer:
    """The renderer of a request, with its template arguments."""
    given = dict(request.template_arguments)
    return replace(renderer, arguments={**renderer.arguments, **given}) if given else renderer


def prompt_ids(renderer: Renderer, request: Request) -> list[int]:
    """What a model is given to continue.

    Args:
        renderer: Of what answers.
        request: What is asked.

    Raises:
        TemplateError: When the template refuses the messages.
    """
    if request.prompt is not None:
        ids = list(renderer.tokenizer.encode(request.prompt + request.reply_prefix))
    else:
        ids = with_arguments(renderer, request).prompt_ids(request.messages, request.reply_prefix, request.tools)
    return [*ids, *request.reply_ids]


def variables(renderer: Renderer) -> tuple[str, ...]:
    """What a template can be told beside the messages: names it reads and nobody sets, the tokenizer's tokens not among them."""
    from jinja2 import Environment, meta

    # the tags of transformers' own extensions, which the parser of plain Jinja does not know
    environment = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False)
    source = renderer.source.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    found = meta.find_undeclared_variables(environment.parse(source))
    return tuple(sorted(name for name in found - GIVEN if not name.endswith("_token")))
