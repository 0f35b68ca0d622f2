"""One renderer for training, scoring and chatting: messages become text, ids and labels here and nowhere else.

A conversation is rendered as pieces that alternate between what the model reads and what it writes. Each piece is tokenised on its own, so the ids of a
prompt are a prefix of the ids of every row that continues it, whatever the tokenizer would have merged across the border.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sftchat.errors import ModelError, UsageError, unknown
from sftchat.types import Message

IGNORED = -100
"""The label of a position without loss, as torch's cross entropy wants it."""

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

PLAIN = """\
{%- for message in messages %}
{{- message['role'][0] | upper + message['role'][1:] + ': ' + message['content'] }}
{%- if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- 'Assistant: ' }}
{%- endif %}"""

TEMPLATES: Mapping[str, str] = {"chatml": CHATML, "plain": PLAIN}
"""Templates by name, for models that have none: ChatML where the tokenizer has its tokens, ``Role: text`` where it does not."""


class TemplateError(ModelError):
    """A chat template that cannot be trained on or cannot render a conversation."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it.

    Attributes:
        ids: Token ids.
        labels: The same ids where the model is to learn, ``IGNORED`` elsewhere; as long as ``ids``.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def trained(self) -> int:
        """How many positions have a label."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class Renderer:
    """A tokenizer with the chat template that goes with it.

    Attributes:
        tokenizer: A transformers tokenizer.
        name: Name of the template: ``chatml``, ``plain``, a file, or ``model's own``.
        source: Its Jinja source.
        arguments: Template arguments such as ``{"enable_thinking": False}``, the same in training and in use.
    """

    tokenizer: Any
    name: str
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def ending(self) -> tuple[str, str]:
        """What follows the text of an assistant turn: ``(up to and with the stop token, the rest)``.

        Raises:
            TemplateError: When an assistant turn does not end with a token of its own, so that a model could not learn to stop.
        """
        mark = "\u2063reply\u2063"
        text = self._text([{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}])
        _, found, after = text.rpartition(mark)
        if not found:
            raise TemplateError(f"chat template '{self.name}' does not write what the assistant says")
        places = [(after.find(token), token) for token in self.tokenizer.added_tokens_encoder if token in after]
        if not places:
            raise TemplateError(
                f"chat template '{self.name}' ends an assistant turn with no token of its own: a model could not learn to stop"
            )
        at, token = min(places, key=lambda place: (place[0], -len(place[1])))
        return after[: at + len(token)], after[at + len(token) :]

    @cached_property
    def stop_token(self) -> int:
        """Id of the token that ends an assistant turn."""
        return int(self._encode([self.ending[0]])[-1])

    @property
    def template_hash(self) -> str:
        """SHA-256 of the source and the arguments."""
        return hashlib.sha256(f"{self.source}\0{sorted(self.arguments.items())}".encode()).hexdigest()

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The text a model is given to answer these messages, special tokens written out."""
        return _unmarked("".join(self._pieces(messages)))

    def prompt_ids(self, messages: Sequence[Message], reply_prefix: str = "") -> list[int]:
        """The ids a model is given to answer these messages.

        Args:
            messages: The conversation; text in it that looks like a special token is encoded as text.
            reply_prefix: The beginning of the reply, when it is to be continued.
        """
        pieces = self._pieces(messages)
        return self._encode([*pieces, reply_prefix] if reply_prefix else pieces)

    def training_ids(self, messages: Sequence[Message]) -> Rendered:
        """The ids of a conversation, with labels on every assistant turn and its stop token.

        Raises:
            TemplateError: When there is no assistant turn, or a later turn changes how an earlier one is written.
        """
        pieces = self._pieces(messages, prompt=False)
        if len(pieces) == 1:
            raise TemplateError("the conversation has no assistant turn to learn from")
        ids: list[int] = []
        labels: list[int] = []
        for index in range(len(pieces)):
            added = self._encode(pieces[: index + 1])[len(ids) :]
            ids += added
            labels += added if index % 2 else [IGNORED] * len(added)
        return Rendered(tuple(ids), tuple(labels))

    def text_ids(self, text: str) -> Rendered:
        """The ids of plain text with its end, all of them trained: for rows that are no conversation."""
        ids = [*self.tokenizer.encode(text), *([self.tokenizer.eos_token_id] if self.tokenizer.eos_token_id is not None else [])]
        return Rendered(tuple(ids), tuple(ids))

    def _pieces(self, messages: Sequence[Message], prompt: bool = True) -> list[str]:
        """The rendered text, cut where the model begins and ceases to write: read, written, read, ….

        What is written ends with the stop token. With ``prompt`` the last piece ends where the next reply begins, and a template that
        rewrites its history (Qwen3 drops old thoughts) gives one piece.
        """
        marked = self._marked(messages)
        whole = self._text(marked, add_generation_prompt=prompt)
        stop, _ = self.ending
        pieces, at = [], 0
        for index, message in enumerate(marked):
            if message["role"] != "assistant":
                continue
            before = self._text(marked[:index], add_generation_prompt=True) if index else ""
            # Llama 3's template and others trim what a turn says
            written = next(
                (text + stop for text in (message["content"], message["content"].strip()) if whole.startswith(text + stop, len(before))), ""
            )
            if not whole.startswith(before) or len(before) < at or not written:
                if prompt:
                    return [whole]
                raise TemplateError(
                    f"chat template '{self.name}' writes turn {index} differently when it is history than when it is the reply; it cannot be trained on as one row"
                )
            pieces += [whole[at : len(before)], written]
            at = len(before) + len(written)
        return pieces if not prompt and at == len(whole) else [*pieces, whole[at:]]

    def _text(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False) -> str:
        """Run the template."""
        from jinja2 import TemplateError as JinjaError

        try:
            text: str = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self.arguments,
            )
        except JinjaError as error:
            roles = ", ".join(str(message["role"]) for message in messages)
            raise TemplateError(f"chat template '{self.name}' refuses the turns ({roles}): {error}") from error
        return text

    def _marked(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Mark what looks like a special token in the messages, so that nobody can forge one."""
        from transformers.utils.chat_template_utils import _get_control_token_patterns, mark_control_tokens

        pattern, _ = _get_control_token_patterns(tuple(self.tokenizer.added_tokens_encoder))
        marked: list[dict[str, Any]] = mark_control_tokens([dict(message) for message in messages], pattern)
        return marked

    def _encode(self, pieces: Sequence[str]) -> list[int]:
        """Tokenise pieces one by one, marked tokens as text."""
        from transformers.utils import chat_template_utils

        # a lone marker is dropped by the encoder, yet keeps the text on its two sides apart
        ids: list[int] = chat_template_utils.encode_marked_chat(self.tokenizer, chat_template_utils._CONTROL_TOKEN_START.join(pieces))
        return ids


def _unmarked(text: str) -> str:
    """The text without the markers around forged special tokens."""
    from transformers.utils.chat_template_utils import _CONTROL_TOKEN_END, _CONTROL_TOKEN_START

    return text.replace(_CONTROL_TOKEN_START, "").replace(_CONTROL_TOKEN_END, "")


def choose_renderer(tokenizer: Any, template: str = "", preferred: str = "chatml", arguments: Mapping[str, Any] | None = None) -> Renderer:
    """The renderer of a tokenizer: the template asked for, else the model's own, else the task's, else plain.

    Args:
        tokenizer: A transformers tokenizer.
        template: A name of ``TEMPLATES`` or a Jinja file; empty for the model's own.
        preferred: The name to use for a model that has no template.
        arguments: Template arguments.

    Raises:
        UsageError: When ``template`` is neither a name nor a file.
    """
    given = dict(arguments or {})
    if template in TEMPLATES:
        return Renderer(tokenizer, template, TEMPLATES[template], given)
    if template:
        path = Path(template)
        if not path.is_file():
            raise UsageError(unknown("chat template", template, TEMPLATES) + ", or the path of a Jinja file")
        return Renderer(tokenizer, path.name, path.read_text(encoding="utf-8"), given)
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if own:
        return Renderer(tokenizer, next((name for name, source in TEMPLATES.items() if source == own), "model's own"), own, given)
    if preferred in TEMPLATES and _has_tokens(tokenizer, TEMPLATES[preferred]):
        return Renderer(tokenizer, preferred, TEMPLATES[preferred], given)
    return Renderer(tokenizer, "plain", PLAIN, given)


def _has_tokens(tokenizer: Any, source: str) -> bool:
    """Whether the markers that a template writes are single tokens of this tokenizer."""
    if "<|im_start|>" in source:
        return {"<|im_start|>", "<|im_end|>"} <= set(tokenizer.added_tokens_encoder)
    return True
