"""From requests to token ids and back: what every engine does that renders prompts itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sftchat.engine import Request
from sftchat.errors import EngineError, UsageError
from sftchat.templates.renderer import Renderer, argument_names
from sftchat.thinking import opens_thoughts
from sftchat.types import Message, Token

TAG_TOKENS = 8
"""Number of prompt tokens decoded to look for ``<think>`` and a line break, for any tokenization."""


class RendersPrompts(ABC):
    """Base class of engines that render prompts: the methods of ``Renders``, ``Counts``, ``Templated`` and ``Inspects`` that need no weights."""

    @abstractmethod
    def renderer(self, adapter: str) -> Renderer:
        """Return tokenizer and chat template of an adapter; ``""`` for the model as it was loaded."""

    @property
    @abstractmethod
    def context_length(self) -> int:
        """Maximum number of tokens, prompt and reply together."""

    def fit_prompt(self, request: Request) -> tuple[list[int], int]:
        """Render a prompt that leaves room for a reply; returns its token ids and the maximum number of tokens of the reply.

        Raises:
            EngineError: When the prompt is empty, or fills the context.
            TemplateError: When the template refuses the messages.
        """
        ids = prompt_ids(self.renderer(request.adapter), request)
        if not ids:
            raise EngineError("the prompt is empty")
        tokens_left = self.context_length - len(ids)
        if tokens_left < 1:
            raise EngineError(
                f"the prompt has {len(ids)} tokens; the model's context holds {self.context_length}, prompt and reply together"
            )
        return ids, min(request.sampling.max_new_tokens, tokens_left)

    def fit_reply(self, request: Request, reply: str | Sequence[int], ended: bool) -> tuple[list[int], list[int]]:
        """Return the token ids of a prompt and of a given reply; ``ended`` appends the end-of-reply token.

        Raises:
            UsageError: When one of them is empty.
            EngineError: When they exceed the context together.
        """
        renderer = self.renderer(request.adapter)
        scored_ids, prompt = reply_ids(renderer, request, reply, ended), prompt_ids(renderer, request)
        if not prompt or not scored_ids:
            raise UsageError("there is nothing to score: the prompt or the reply is empty")
        count = len(prompt) + len(scored_ids)
        if count > self.context_length:
            raise EngineError(f"prompt and reply have {count} tokens; the model's context holds {self.context_length}")
        return prompt, scored_ids

    @property
    def template_hash(self) -> str:
        """SHA-256 of the chat template's source and arguments."""
        return self.renderer("").template_hash

    @property
    def template_arguments(self) -> Mapping[str, Any]:
        """Default template arguments, as they were used in training; those of a request override them."""
        return self.renderer("").arguments

    @property
    def template_variables(self) -> tuple[str, ...]:
        """Names allowed in ``Request.template_arguments``, sorted."""
        return argument_names(self.renderer(""))

    def render(self, messages: Sequence[Message]) -> str:
        """Return the templated text of a conversation, ready for the reply."""
        return self.renderer("").prompt_text(messages)

    def count_tokens(self, request: Request) -> int:
        """Count the tokens of the rendered prompt, ``reply_prefix`` included."""
        return len(prompt_ids(self.renderer(request.adapter), request))

    def prompt_tokens(self, request: Request) -> tuple[Token, ...]:
        """Return the tokens of the prompt."""
        renderer = self.renderer(request.adapter)
        return make_tokens(renderer, prompt_ids(renderer, request))

    def trained_tokens(self, messages: Sequence[Message], adapter: str = "") -> tuple[Token, ...]:
        """Return the tokens of a conversation as in training; ``trained`` marks those that contribute to the loss."""
        renderer = self.renderer(adapter)
        rendered = renderer.training_ids(messages)
        return make_tokens(renderer, rendered.ids, [label >= 0 for label in rendered.labels])

    def decode(self, token_ids: Sequence[int], adapter: str = "") -> str:
        """Decode token ids without special tokens."""
        return decode(self.renderer(adapter).tokenizer, token_ids)


def with_arguments(renderer: Renderer, request: Request) -> Renderer:
    """Return the renderer with the template arguments of a request."""
    return replace(renderer, arguments={**renderer.arguments, **request.template_arguments}) if request.template_arguments else renderer


def opens_thoughts_at_end(tokenizer: Any, ids: Sequence[int]) -> bool:
    """Whether a prompt ends within ``<think>``."""
    return opens_thoughts(tokenizer.decode(list(ids[-TAG_TOKENS:])))


def prompt_ids(renderer: Renderer, request: Request) -> list[int]:
    """Return the token ids of the prompt, the beginning of the reply included.

    Args:
        renderer: Renderer of the adapter.

    Raises:
        TemplateError: When the template refuses the messages.
    """
    if request.prompt is not None:
        ids = list(renderer.tokenizer.encode(request.prompt + request.reply_prefix))
    else:
        ids = with_arguments(renderer, request).prompt_ids(request.messages, request.reply_prefix, request.tools)
    return [*ids, *request.reply_ids]


def reply_ids(renderer: Renderer, request: Request, reply: str | Sequence[int], ended: bool) -> list[int]:
    """Return a reply as token ids, as in training.

    Args:
        renderer: Renderer of the adapter.
        request: The prompt.
        reply: Text, or token ids.
        ended: Whether to append the end-of-reply token.
    """
    if not isinstance(reply, str):
        ids = list(reply)
    elif request.prompt is not None:
        ids = list(renderer.tokenizer.encode(reply, add_special_tokens=False))
    else:
        prompt_renderer = with_arguments(renderer, request)
        without_reply = prompt_renderer.prompt_ids(request.messages, request.reply_prefix, request.tools)
        with_reply = prompt_renderer.prompt_ids(request.messages, request.reply_prefix + reply, request.tools)
        ids = with_reply[len(without_reply) :]
    if not ended:
        return ids
    stop = renderer.for_tools(request.tools).stop_token if request.prompt is None else renderer.tokenizer.eos_token_id
    return ids if stop is None or ids[-1:] == [stop] else [*ids, stop]


def make_tokens(renderer: Renderer, ids: Sequence[int], trained: Sequence[bool] = ()) -> tuple[Token, ...]:
    """Return token ids as ``Token``; ``trained`` marks those that contribute to the training loss, by default none."""
    tokenizer = renderer.tokenizer
    special = frozenset(tokenizer.added_tokens_decoder)
    texts = {id: tokenizer.convert_ids_to_tokens(id) if id in special else tokenizer.decode([id]) for id in set(ids)}
    trained = trained or [False] * len(ids)
    return tuple(Token(id, texts[id], id in special, is_trained) for id, is_trained in zip(ids, trained, strict=True))


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Decode token ids without special tokens; an incomplete character becomes U+FFFD."""
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
