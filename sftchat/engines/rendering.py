"""A request becomes token ids: template, its arguments, and the beginning of the reply."""

from __future__ import annotations

from dataclasses import replace

from sftchat.engines.base import Request
from sftchat.models.templates import Renderer


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
