"""One renderer for training, scoring and chatting: messages become text, ids and labels here and nowhere else.

A conversation is rendered as pieces that alternate between what the model reads and what it writes. Each piece is tokenised on its own, so the ids of a
prompt are a prefix of the ids of every row that continues it, whatever the tokenizer would have merged across the border.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from sftchat._util.parsing import read_text
from sftchat.errors import UsageError, first_line, unknown
from sftchat.templates.builtin import TEMPLATES, template_file, without_training_markers
from sftchat.templates.chat_template import RewrittenHistoryError, TemplateError, TextTemplate, Tools
from sftchat.templates.limits import TooMuchError, bounded
from sftchat.templates.named import DEFAULT, TOOL_USE, check_name, own_templates
from sftchat.templates.special_tokens import encode, unmarked
from sftchat.types import Message, is_learned

__all__ = ["IGNORED", "Rendered", "Renderer", "RewrittenHistoryError", "RowText", "TemplateError", "check_arguments", "choose_renderer"]

IGNORED = -100
"""The label of a position without loss, as torch's cross entropy wants it."""

GIVEN = frozenset({"messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now", "namespace", "range"})
"""Variables of a chat template that are no arguments of it: what every template is told, or can call."""


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
class RowText:
    """A training row as text, cut where the model begins and ceases to write.

    Attributes:
        pieces: The text, special tokens in messages marked; each piece is tokenised on its own.
        learned: Indices of the pieces that the model is to learn.
    """

    pieces: tuple[str, ...]
    learned: frozenset[int]


@dataclass(frozen=True)
class Renderer:
    """A tokenizer with the chat template that goes with it.

    Attributes:
        tokenizer: A transformers tokenizer.
        name: Name of the template: one of ``TEMPLATES``, a file, or ``model's own``.
        source: Its Jinja source.
        arguments: Template arguments such as ``{"enable_thinking": False}``, the same in training and in use.
        forced: Training rows are made as well as can be where the template fails the proof, instead of being refused.
        named: The templates of a model that has several, by name; empty for one that has not.
        picked: The name of the one that writes every conversation, with tools or without; empty where tools decide.
    """

    tokenizer: Any
    name: str
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    forced: bool = False
    named: Mapping[str, str] = field(default_factory=dict)
    picked: str = ""

    @cached_property
    def template(self) -> TextTemplate:
        """The template as text."""
        return TextTemplate(self.tokenizer, self.name, self.source, self.arguments, self.forced)

    def for_tools(self, tools: Tools) -> Renderer:
        """The renderer of conversations with these tools, as transformers' ``get_chat_template`` chooses: ``tool_use`` where there are any."""
        return self.each[-1] if tools else self

    @cached_property
    def each(self) -> tuple[Renderer, ...]:
        """The renderers that may write a conversation: this one, and that of conversations with tools where it is another."""
        source = "" if self.picked else self.named.get(TOOL_USE, "")
        return (self, replace(self, name=TOOL_USE, source=source, picked=TOOL_USE)) if source else (self,)

    @property
    def saved(self) -> str | dict[str, str]:
        """What a tokenizer keeps as its chat template: the source, or every named one."""
        return dict(self.named) or self.source

    @property
    def ending(self) -> tuple[str, str]:
        """What follows the text of an assistant turn: ``(up to and with the stop token, the rest)``."""
        return self.template.ending

    @cached_property
    def stop_token(self) -> int:
        """Id of the token that ends an assistant turn.

        Raises:
            TemplateError: When an assistant turn does not end with a token of its own.
        """
        return int(self.tokenizer.convert_tokens_to_ids(self.template.stop))

    @cached_property
    def stop_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end a reply and a call of a tool, under every template that may write the conversation."""
        found = {self.stop_token, int(self.tokenizer.convert_tokens_to_ids(self.template.call_stop))}
        for other in self.each[1:]:
            with suppress(TemplateError):  # it is raised where a conversation has tools, and the others need none
                found |= {*other.stop_tokens}
        return tuple(sorted(found))

    @property
    def template_hash(self) -> str:
        """SHA-256 of the source, of that for tools where it is another, and of the arguments."""
        sources = "\0".join(one.source for one in self.each)
        return hashlib.sha256(f"{sources}\0{sorted(self.arguments.items())}".encode()).hexdigest()

    def prompt_text(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """The text a model is given to answer these messages, special tokens written out."""
        return unmarked("".join(self._prompt(messages, tools)))

    def prompt_ids(self, messages: Sequence[Message], reply_prefix: str = "", tools: Tools = ()) -> list[int]:
        """The ids a model is given to answer these messages.

        Args:
            messages: The conversation; text in it that looks like a special token is encoded as text.
            reply_prefix: The beginning of the reply, when it is to be continued.
            tools: Functions that the model may call, as JSON schemas.

        Raises:
            TemplateError: When the template refuses the turns, or leaves out tools or calls of tools.
        """
        pieces = self._prompt(messages, tools)
        (ids,) = self._encode([[*pieces, reply_prefix] if reply_prefix else pieces])
        return list(chain.from_iterable(ids))

    def training_rows(self, messages: Sequence[Message], tools: Tools = ()) -> tuple[Rendered, ...]:
        """The rows that teach every reply of a conversation: one, or one a reply where the template writes history differently.

        Raises:
            TemplateError: As of ``training_ids``, but for history.
        """
        return tuple(self.encode_rows(self.training_texts(messages, tools)))

    def training_ids(self, messages: Sequence[Message], tools: Tools = ()) -> Rendered:
        """The ids of a conversation, with labels on every assistant turn that is to be learned and on its stop token.

        Raises:
            RewrittenHistoryError: When a later turn changes how an earlier one is written.
            TemplateError: When there is no assistant turn, or the template cannot write it as a continuation of its prompt, or whole.
        """
        return next(self.encode_rows([self._whole_text(messages, tools)]))

    def training_texts(self, messages: Sequence[Message], tools: Tools = ()) -> tuple[RowText, ...]:
        """The rows of a conversation before they are tokenised, for ``encode_rows`` to tokenise many at once.

        A template that strips thoughts from history shows the model a different past before each of its replies; each row has the past that
        inference will show, and labels on its last turn alone.

        Raises:
            TemplateError: As of ``training_ids``, but for history and for text that cannot be read as text.
        """
        try:
            return (self._whole_text(messages, tools),)
        except RewrittenHistoryError:
            replies = [index for index, message in enumerate(messages) if is_learned(message)]
            return tuple(self._last_reply(messages[: index + 1], tools) for index in replies)

    def encode_rows(self, rows: Sequence[RowText]) -> Iterator[Rendered]:
        """Ids and labels of rows, in their order.

        Raises:
            TemplateError: When the tokenizer makes a special token of text in a message that looks like one; the rows before it have been yielded.
        """
        for row, ids in zip(rows, self._encode([row.pieces for row in rows]), strict=True):
            labels = [piece if index in row.learned else [IGNORED] * len(piece) for index, piece in enumerate(ids)]
            yield Rendered(tuple(chain.from_iterable(ids)), tuple(chain.from_iterable(labels)))

    def text_ids(self, text: str) -> Rendered:
        """The ids of plain text, all of them trained: for rows that are no conversation.

        The token that the tokenizer puts before any text, and its end of text, are there once each, whether the row has them written out or not.
        """
        begin, end = (getattr(self.tokenizer, f"{which}_token", None) for which in ("bos", "eos"))
        empty = self.tokenizer.encode("")
        if begin and empty[:1] == [self.tokenizer.bos_token_id]:
            text = text.removeprefix(begin)
        if end and text.rstrip().endswith(end):
            text = text.rstrip().removesuffix(end)
        ids = self.tokenizer.encode(text)
        if end and ids[-1:] != [self.tokenizer.eos_token_id]:
            ids = [*ids, self.tokenizer.eos_token_id]
        return Rendered(tuple(ids), tuple(ids))

    def _whole_text(self, messages: Sequence[Message], tools: Tools) -> RowText:
        """The row that teaches every reply of a conversation at once; raises what ``training_ids`` does."""
        template = self.for_tools(tools).template
        turns, whole = template.turns(messages, tools)
        pieces, learned, at = [], [], 0
        for index, message in enumerate(turns):
            if message["role"] != "assistant":
                continue
            before, written = template.reply(turns, index, tools, finished=whole if index == len(turns) - 1 else "")
            if len(before) < at or not whole.startswith(before + written):
                raise RewrittenHistoryError(
                    f"chat template '{template.name}' writes turn {index} differently when it is history than when it is the reply; "
                    "it cannot be trained on as one row"
                )
            pieces += [whole[at : len(before)], written]
            learned += [len(pieces) - 1] if is_learned(message) else []
            at = len(before) + len(written)
        if not learned:
            raise TemplateError("the conversation has no assistant turn to learn from")
        return RowText((*pieces, whole[at:]), frozenset(learned))

    def _last_reply(self, messages: Sequence[Message], tools: Tools) -> RowText:
        """The row that teaches the last turn after the prompt that inference would give."""
        template = self.for_tools(tools).template
        turns, _ = template.turns(messages, tools)
        written = template.reply(turns, len(turns) - 1, tools)[1]
        prompt = self._prompt(messages[:-1], tools)
        return RowText((*prompt, written), frozenset([len(prompt)]))

    def _prompt(self, messages: Sequence[Message], tools: Tools) -> list[str]:
        """A prompt in pieces, cut where the model began and ceased to write; one piece where the template rewrites its history."""
        template = self.for_tools(tools).template
        turns, whole = template.turns(messages, tools, prompt=True)
        pieces, at = [], 0
        for index, message in enumerate(turns):
            if message["role"] != "assistant":
                continue
            try:
                before, written = template.reply(turns, index, tools, whole)
            except TemplateError:
                return [whole]
            if len(before) < at or not whole.startswith(before + written):
                return [whole]
            pieces += [whole[at : len(before)], written]
            at = len(before) + len(written)
        return [*pieces, whole[at:]]

    def _encode(self, rows: Sequence[Sequence[str]]) -> Iterator[list[list[int]]]:
        """Tokenise every piece of every row on its own, marked tokens as text.

        Raises:
            TemplateError: When the tokenizer makes a special token of text that looks like one.
        """
        try:
            yield from encode(self.tokenizer, rows)
        except ValueError as error:
            raise TemplateError(f"a special token in a message cannot be read as text: {error}") from error


def choose_renderer(
    tokenizer: Any, template: str = "", preferred: str = "chatml", arguments: Mapping[str, Any] | None = None, name: str = ""
) -> Renderer:
    """The renderer of a tokenizer: the template asked for, else the model's own, else the task's, else plain.

    Args:
        tokenizer: A transformers tokenizer.
        template: A name of ``TEMPLATES`` or a Jinja file; empty for the model's own.
        preferred: The name to use for a model that has no template.
        arguments: Template arguments.
        name: Of the model's own templates, the one for every conversation; empty to let tools decide.

    Raises:
        UsageError: When ``template`` is neither a name nor a file, or writes tokens that the tokenizer does not have; a ``name`` that the model's
            templates do not have, or beside ``template``.
        TemplateError: When the model's own template is no text, or it has several and none for conversations without tools.
    """
    given = dict(arguments or {})
    own = {} if template and not name else own_templates(tokenizer)
    check_name(name, template, own)
    if template in TEMPLATES:
        chosen = TEMPLATES[template]
        if not chosen.fits(tokenizer):
            fitting = ", ".join(sorted(name for name, other in TEMPLATES.items() if other.fits(tokenizer)))
            raise UsageError(
                f"chat template '{template}' writes {' and '.join(chosen.tokens)}, which are no tokens of this model's tokenizer; those that fit: {fitting}"
            )
        return Renderer(tokenizer, template, chosen.source_for(tokenizer), given)
    path = template_file(template)
    if path is not None:
        return Renderer(tokenizer, path.name, without_training_markers(_read(path)), given)
    if own:
        source, named = own[name or DEFAULT], own if set(own) != {DEFAULT} else {}
        known = (title for title, known in TEMPLATES.items() if source in (known.source, known.source_for(tokenizer)))
        title = name if name not in ("", DEFAULT) else next(known, "model's own")
        return Renderer(tokenizer, title, source, given, named=named, picked=name)
    fallback = preferred if preferred in TEMPLATES and TEMPLATES[preferred].fits(tokenizer) else "plain"
    return Renderer(tokenizer, fallback, TEMPLATES[fallback].source_for(tokenizer), given)


def argument_names(renderer: Renderer) -> tuple[str, ...]:
    """What the templates of a model can be told beside the messages, sorted; the tokenizer's tokens are not among it.

    Raises:
        TemplateError: When a template is no Jinja.
    """
    return tuple(sorted(set().union(*map(_variables, renderer.each))))


def _variables(renderer: Renderer) -> set[str]:
    """The variables of one template that are arguments of it."""
    from jinja2 import meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        # without the optimiser, which computes what is constant, however large
        environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"], optimized=False)
        variables = bounded(renderer.source, lambda: meta.find_undeclared_variables(environment.parse(renderer.source)))
    except TooMuchError as error:
        raise TemplateError(f"chat template '{renderer.name}' asks for too much: {error}; give another with --template") from error
    except Exception as error:  # no Jinja, or Jinja too deep in itself
        raise TemplateError(f"chat template '{renderer.name}' is no Jinja: {error}") from error
    return {name for name in variables if name not in GIVEN and not name.endswith("_token")}


def check_arguments(renderer: Renderer, arguments: Iterable[str]) -> None:
    """Refuse a template argument that the template never looks at: a misspelt one would change nothing, without a word.

    Args:
        renderer: Tokenizer and template.
        arguments: Names of arguments that the user gave.

    Raises:
        UsageError: Naming those that there are.
        TemplateError: When the template is no Jinja.
    """
    known = argument_names(renderer)
    for name in arguments:
        if name not in known:
            raise UsageError(unknown(f"argument of chat template '{renderer.name}':", name, known))


def _read(path: Path) -> str:
    """The text of a Jinja file.

    Raises:
        UsageError: When it cannot be read as text.
    """
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"chat template '{path}' cannot be read: {first_line(error)}") from error
