"""Renders conversations as text, ids and labels; the only renderer, for training, scoring and chat.

A conversation is rendered as pieces that alternate between what the model reads and what it generates. Each piece is tokenized separately, so that
the ids of a prompt are a prefix of the ids of every row that continues it, regardless of token merges across the border.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from sftchat._util.parsing import read_text
from sftchat.errors import RewrittenHistoryError, TemplateError, UsageError, first_line, unknown_name_message
from sftchat.templates.chat_template import TextTemplate, Tools, Turn
from sftchat.templates.limits import TooMuchError, run_bounded
from sftchat.templates.named import (
    DEFAULT,
    TEMPLATES,
    TOOL_USE,
    check_template_name,
    own_templates,
    template_file,
    without_training_markers,
)
from sftchat.templates.special_tokens import encode_pieces, unmark
from sftchat.types import Message, is_learned

IGNORED = -100
"""Label of a position without loss, the default ``ignore_index`` of torch's cross entropy."""

TEMPLATE_VARIABLES = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now", "namespace", "range"}
)
"""Variables available in every chat template, which are not arguments of it."""


@dataclass(frozen=True)
class Rendered:
    """A tokenized conversation.

    Attributes:
        ids: Token ids.
        labels: The same ids at trained positions, ``IGNORED`` elsewhere; as long as ``ids``.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def trained(self) -> int:
        """Number of trained positions."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class RowText:
    """A training row as text, split where generated text begins and ends.

    Attributes:
        pieces: The text, with special tokens in messages marked; each piece is tokenized separately.
        learned: Indices of the trained pieces.
    """

    pieces: tuple[str, ...]
    learned: frozenset[int]


@dataclass(frozen=True)
class Renderer:
    """A tokenizer with its chat template.

    Attributes:
        tokenizer: A transformers tokenizer.
        name: Name of the template: one of ``TEMPLATES``, a file, or ``model's own``.
        source: Its Jinja source.
        arguments: Template arguments such as ``{"enable_thinking": False}``, the same in training and inference.
        lenient: Whether to create training rows even if the template fails the parity checks.
        named: Sources of the model's own templates by name, if it has several or a single one that is not named ``default``; otherwise empty.
        template_name: Name of the template used for every conversation; empty to choose by the presence of tools.
    """

    tokenizer: Any
    name: str
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    lenient: bool = False
    named: Mapping[str, str] = field(default_factory=dict)
    template_name: str = ""

    @cached_property
    def template(self) -> TextTemplate:
        """The text rendering of the template."""
        return TextTemplate(self.tokenizer, self.name, self.source, self.arguments, self.lenient)

    def for_tools(self, tools: Tools) -> Renderer:
        """Return the renderer for conversations with these tools, as transformers' ``get_chat_template``: ``tool_use`` if there are tools."""
        return self.variants[-1] if tools else self

    @cached_property
    def variants(self) -> tuple[Renderer, ...]:
        """The renderers for conversations without and with tools; one if they are the same."""
        tool_source = self.named.get(TOOL_USE)
        if self.template_name or not tool_source:
            return (self,)
        return self, replace(self, name=TOOL_USE, source=tool_source, template_name=TOOL_USE)

    @property
    def saved(self) -> str | dict[str, str]:
        """Value for a tokenizer's ``chat_template``: the source, or all sources by name."""
        return dict(self.named) or self.source

    @property
    def ending(self) -> tuple[str, str]:
        """The text after the content of an assistant turn: ``(up to and including the stop token, the rest)``."""
        return self.template.ending

    @cached_property
    def stop_token(self) -> int:
        """Id of the token that ends an assistant turn.

        Raises:
            TemplateError: When an assistant turn does not end with a single token.
        """
        return int(self.tokenizer.convert_tokens_to_ids(self.template.stop))

    @cached_property
    def stop_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end a reply or a tool call, in the template for conversations without tools or in the one with tools."""
        ids = {self.stop_token, int(self.tokenizer.convert_tokens_to_ids(self.template.call_stop))}
        for variant in self.variants[1:]:
            with suppress(TemplateError):  # a conversation with tools raises it later; others do not use this template
                ids |= {*variant.stop_tokens}
        return tuple(sorted(ids))

    @property
    def template_hash(self) -> str:
        """SHA-256 of the source, of the tool template if it differs, and of the arguments."""
        sources = "\0".join(variant.source for variant in self.variants)
        return hashlib.sha256(f"{sources}\0{sorted(self.arguments.items())}".encode()).hexdigest()

    def prompt_text(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """Return the text of the prompt, with its special tokens."""
        return unmark("".join(self._render_prompt(messages, tools)))

    def prompt_ids(self, messages: Sequence[Message], reply_prefix: str = "", tools: Tools = ()) -> list[int]:
        """Return the token ids of the prompt.

        Args:
            messages: The conversation; text in it that looks like a special token is encoded as text.
            reply_prefix: The beginning of the reply, if it is to be continued.
            tools: Functions that the model may call, as JSON schemas.

        Raises:
            TemplateError: When the template fails, or omits tools or tool calls, or when text in a message that looks like a special token cannot be
                encoded as plain text.
        """
        pieces = self._render_prompt(messages, tools)
        (ids,) = self._encode([[*pieces, reply_prefix] if reply_prefix else pieces])
        return list(chain.from_iterable(ids))

    def continuation_ids(
        self, messages: Sequence[Message], continuations: Sequence[str], reply_prefix: str = "", tools: Tools = ()
    ) -> tuple[list[int], list[list[int]]]:
        """Return the token ids of a prompt and of several replies to it, as they are tokenized in training.

        Args:
            messages: The conversation.
            continuations: Texts that continue ``reply_prefix``.
            reply_prefix: The beginning of the reply; white space at its end becomes part of the continuations, whose first token it usually is.
            tools: Functions that the model may call, as JSON schemas.

        Raises:
            TemplateError: See ``prompt_ids``.
        """
        pieces = self._render_prompt(messages, tools)
        texts = (reply_prefix.rstrip(), *(reply_prefix + text for text in continuations))
        prompt, *rows = (list(chain.from_iterable(ids)) for ids in self._encode([[*pieces, text] for text in texts]))
        return prompt, [ids[len(prompt) :] for ids in rows]

    def training_rows(self, messages: Sequence[Message], tools: Tools = ()) -> tuple[Rendered, ...]:
        """Return the rows that train every reply of a conversation: one, or one per reply if the template renders history differently.

        Raises:
            TemplateError: See ``training_ids``; history that is rendered differently is no error here.
        """
        return tuple(self.encode_rows(self.training_texts(messages, tools)))

    def training_ids(self, messages: Sequence[Message], tools: Tools = ()) -> Rendered:
        """Return the ids of a conversation, with labels on every trained assistant turn and its stop token.

        Raises:
            RewrittenHistoryError: When a later turn changes the rendering of an earlier one.
            TemplateError: When there is no assistant turn, or the template does not render it completely as a continuation of its prompt.
        """
        return next(self.encode_rows([self._render_row(messages, tools)]))

    def training_texts(self, messages: Sequence[Message], tools: Tools = ()) -> tuple[RowText, ...]:
        """Return the rows of a conversation as text, so that ``encode_rows`` can tokenize many at once.

        A template that strips thoughts from history renders a different past before each reply. Then there is one row per reply, with the past that
        inference will show, and labels on its last turn only.

        Raises:
            TemplateError: When there is no assistant turn, or the template does not render it completely as a continuation of its prompt.
        """
        try:
            return (self._render_row(messages, tools),)
        except RewrittenHistoryError:
            replies = [index for index, message in enumerate(messages) if is_learned(message)]
            return tuple(self._render_last_reply(messages[: index + 1], tools) for index in replies)

    def encode_rows(self, rows: Sequence[RowText]) -> Iterator[Rendered]:
        """Yield ids and labels of rows, in order.

        Raises:
            TemplateError: When the tokenizer encodes text in a message as a special token; the rows before it have been yielded.
        """
        for row, ids in zip(rows, self._encode([row.pieces for row in rows]), strict=True):
            labels = [piece if index in row.learned else [IGNORED] * len(piece) for index, piece in enumerate(ids)]
            yield Rendered(tuple(chain.from_iterable(ids)), tuple(chain.from_iterable(labels)))

    def text_ids(self, text: str) -> Rendered:
        """Return the ids of plain text, all trained; for rows that are not conversations.

        The BOS token, if the tokenizer adds one, and the end-of-text token occur once each, whether or not the text contains them.
        """
        bos, eos = getattr(self.tokenizer, "bos_token", None), getattr(self.tokenizer, "eos_token", None)
        if bos and self.tokenizer.encode("")[:1] == [self.tokenizer.bos_token_id]:
            text = text.removeprefix(bos)
        if eos and text.rstrip().endswith(eos):
            text = text.rstrip().removesuffix(eos)
        ids = self.tokenizer.encode(text)
        if eos and ids[-1:] != [self.tokenizer.eos_token_id]:
            ids = [*ids, self.tokenizer.eos_token_id]
        return Rendered(tuple(ids), tuple(ids))

    def _reply_spans(self, turns: Sequence[Turn], text: str, tools: Tools, *, is_prompt: bool = False) -> Iterator[tuple[Turn, int, int]]:
        """Yield each assistant turn with start and end of its generated text in the rendered conversation; raises ``TemplateError``."""
        template, last_end = self.for_tools(tools).template, 0
        for index, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            ends_with_turn = index == len(turns) - 1 and not is_prompt
            prompt, written = template.split_reply(
                turns, index, tools, longer_text=text if is_prompt else "", finished=text if ends_with_turn else ""
            )
            if len(prompt) < last_end or not text.startswith(prompt + written):
                raise RewrittenHistoryError(
                    f"chat template '{template.name}' writes turn {index} differently when it is history than when it is the reply; "
                    "it cannot be trained on as one row"
                )
            last_end = len(prompt) + len(written)
            yield turn, len(prompt), last_end

    def _render_row(self, messages: Sequence[Message], tools: Tools) -> RowText:
        """Return the row that trains every reply of a conversation; raises what ``training_ids`` raises."""
        turns, text = self.for_tools(tools).template.render_messages(messages, tools)
        pieces, learned, last_end = [], [], 0
        for turn, start, end in self._reply_spans(turns, text, tools):
            pieces += [text[last_end:start], text[start:end]]
            if is_learned(turn):
                learned.append(len(pieces) - 1)
            last_end = end
        if not learned:
            raise TemplateError("the conversation has no assistant turn to learn from")
        return RowText((*pieces, text[last_end:]), frozenset(learned))

    def _render_last_reply(self, messages: Sequence[Message], tools: Tools) -> RowText:
        """Return the row that trains the last turn after the inference prompt."""
        template = self.for_tools(tools).template
        turns, _ = template.render_messages(messages, tools)
        _, written = template.split_reply(turns, len(turns) - 1, tools)
        prompt = self._render_prompt(messages[:-1], tools)
        return RowText((*prompt, written), frozenset([len(prompt)]))

    def _render_prompt(self, messages: Sequence[Message], tools: Tools) -> list[str]:
        """Return a prompt in pieces, split where generated text begins and ends; one piece if the template rewrites history."""
        turns, text = self.for_tools(tools).template.render_messages(messages, tools, add_generation_prompt=True)
        try:
            spans = list(self._reply_spans(turns, text, tools, is_prompt=True))
        except TemplateError:
            return [text]
        borders = [0, *(border for _, start, end in spans for border in (start, end)), len(text)]
        return [text[start:end] for start, end in pairwise(borders)]

    def _encode(self, rows: Sequence[Sequence[str]]) -> Iterator[list[list[int]]]:
        """Yield the ids of each piece, row by row; see ``encode_pieces``.

        Raises:
            TemplateError: When text of a message that looks like a special token cannot be encoded as plain text.
        """
        try:
            yield from encode_pieces(self.tokenizer, rows)
        except ValueError as error:
            raise TemplateError(f"a special token in a message cannot be read as text: {error}") from error


def choose_renderer(
    tokenizer: Any, template: str = "", preferred: str = "chatml", arguments: Mapping[str, Any] | None = None, name: str = ""
) -> Renderer:
    """Choose the template of a tokenizer: the requested one, else the model's own, else the task's, else plain.

    Args:
        tokenizer: A transformers tokenizer.
        template: A name of ``TEMPLATES`` or a Jinja file; empty for the model's own.
        preferred: Template name for a model without a template.
        arguments: Template arguments.
        name: Name of the model's own template to use for every conversation; empty to choose by the presence of tools.

    Raises:
        UsageError: When ``template`` is neither a name nor a file, or contains tokens that the tokenizer lacks; when ``name`` is not one of the
            model's own templates, or is combined with ``template``.
        TemplateError: When the model's own template is not text, or it has several but none for conversations without tools.
    """
    arguments = dict(arguments or {})
    own = {} if template and not name else own_templates(tokenizer)
    check_template_name(name, template, own)
    if template in TEMPLATES:
        chosen = TEMPLATES[template]
        if not chosen.fits(tokenizer):
            fitting = ", ".join(sorted(built_in for built_in, other in TEMPLATES.items() if other.fits(tokenizer)))
            raise UsageError(
                f"chat template '{template}' writes {' and '.join(chosen.tokens)}, which are no tokens of this model's tokenizer; those that fit: {fitting}"
            )
        return Renderer(tokenizer, template, chosen.source_for(tokenizer), arguments)
    path = template_file(template)
    if path is not None:
        return Renderer(tokenizer, path.name, without_training_markers(_read_template(path)), arguments)
    if own:
        source = own[name or DEFAULT]
        same_built_in = (built_in for built_in, other in TEMPLATES.items() if source in (other.source, other.source_for(tokenizer)))
        title = name if name not in ("", DEFAULT) else next(same_built_in, "model's own")
        return Renderer(tokenizer, title, source, arguments, named=own if set(own) != {DEFAULT} else {}, template_name=name)
    fallback = preferred if preferred in TEMPLATES and TEMPLATES[preferred].fits(tokenizer) else "plain"
    return Renderer(tokenizer, fallback, TEMPLATES[fallback].source_for(tokenizer), arguments)


def argument_names(renderer: Renderer) -> tuple[str, ...]:
    """Return the names of a model's template arguments, sorted; the tokenizer's tokens are excluded.

    Raises:
        TemplateError: When a template is not valid Jinja.
    """
    return tuple(sorted(set().union(*map(_find_variables, renderer.variants))))


def _find_variables(renderer: Renderer) -> set[str]:
    from jinja2 import meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        # without the optimizer, which evaluates constants of any size
        environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"], optimized=False)
        variables = run_bounded(renderer.source, lambda: meta.find_undeclared_variables(environment.parse(renderer.source)))
    except TooMuchError as error:
        raise TemplateError(f"chat template '{renderer.name}' asks for too much: {error}; give another with --template") from error
    except Exception as error:  # invalid or too deeply nested Jinja
        raise TemplateError(f"chat template '{renderer.name}' is no Jinja: {error}") from error
    return {name for name in variables if name not in TEMPLATE_VARIABLES and not name.endswith("_token")}


def check_arguments(renderer: Renderer, arguments: Iterable[str]) -> None:
    """Check that the template uses the given arguments: a misspelt one would silently have no effect.

    Args:
        renderer: Tokenizer and template.
        arguments: Argument names from the user.

    Raises:
        UsageError: When one is unknown; lists the existing ones.
        TemplateError: When the template is not valid Jinja.
    """
    existing = argument_names(renderer)
    for name in arguments:
        if name not in existing:
            raise UsageError(unknown_name_message(f"argument of chat template '{renderer.name}':", name, existing))


def _read_template(path: Path) -> str:
    """Return the text of a Jinja file; raises ``UsageError``."""
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"chat template '{path}' cannot be read: {first_line(error)}") from error
