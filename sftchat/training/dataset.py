"""Render examples to rows of token ids and labels; rows that do not fit are dropped, counted and named, never truncated."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from sftchat.data.tool_calls import tools_of
from sftchat.errors import DataError
from sftchat.templates.remedies import with_remedy
from sftchat.templates.renderer import Rendered, Renderer, RowText, TemplateError
from sftchat.types import Example, is_learned

AT_ONCE = 512
"""Number of examples tokenised in one call."""


@dataclass(frozen=True)
class RenderedRows:
    """Rows ready for the trainer.

    Attributes:
        ids: Token ids of each row.
        labels: Labels of each row; ``IGNORED`` for tokens without a loss.
        too_long: Sources of the rows that were dropped because of their length.
        without_reply: Sources of the rows without a token to train on.
    """

    ids: tuple[tuple[int, ...], ...]
    labels: tuple[tuple[int, ...], ...]
    too_long: tuple[str, ...] = ()
    without_reply: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Total number of tokens."""
        return sum(map(len, self.ids))

    @property
    def trained_tokens(self) -> int:
        """Number of tokens with a label."""
        return sum(label >= 0 for row in self.labels for label in row)

    @property
    def hash(self) -> str:
        """SHA-256 of the ids and labels in order; equal for equal model input."""
        digest = hashlib.sha256()
        for ids, labels in zip(self.ids, self.labels, strict=True):
            digest.update(struct.pack(f"<i{2 * len(ids)}i", len(ids), *ids, *labels))
        return digest.hexdigest()


def _texts(example: Example, renderer: Renderer) -> tuple[RowText | Rendered, ...]:
    """Return the rows of an example, none without a turn to train on; an example without messages is plain text."""
    if not example.messages:
        return (renderer.text_ids(example.gold),) if example.gold else ()
    conversation = example.conversation
    if not any(map(is_learned, conversation)):
        return ()
    return renderer.training_texts(conversation, tools_of(example))


def _render(examples: Iterable[Example], renderer: Renderer) -> Iterator[tuple[str, list[Rendered]]]:
    """Yield the source of each example and its rows, tokenised in batches."""
    numbered = enumerate(examples, 1)
    while some := list(islice(numbered, AT_ONCE)):
        texts: list[tuple[str, tuple[RowText | Rendered, ...]]] = []
        for index, example in some:
            where = example.source or example.id or f"row {index}"
            try:
                texts.append((where, _texts(example, renderer)))
            except TemplateError as error:
                advised = with_remedy(error, renderer, example.conversation, tools_of(example))
                raise TemplateError(f"{where}: {advised}") from error
        encoded = renderer.encode_rows([row for _, rows in texts for row in rows if isinstance(row, RowText)])
        for where, rows in texts:
            try:
                yield where, [next(encoded) if isinstance(row, RowText) else row for row in rows]
            except TemplateError as error:
                raise TemplateError(f"{where}: {error}") from error


def render_rows(
    examples: Iterable[Example], renderer: Renderer, max_length: int, *, everything: bool = False, most: int | None = None
) -> RenderedRows:
    """Render every example, with the gold reply as the last assistant turn; if the template rewrites history, one row per reply.

    Args:
        examples: Conversations to train on.
        renderer: Tokenizer and template.
        max_length: Maximum row length in tokens. Longer rows are dropped: a row without its stop token would teach the model never to stop.
        everything: Whether every token has a loss, not only assistant turns.
        most: Context length of the model in tokens, the maximum that an error message recommends; None without a limit.

    Raises:
        DataError: When no row is left.
        TemplateError: When the template cannot render a conversation.
    """
    ids, labels, too_long, without_reply, shortest = [], [], [], [], 0
    for where, rows in _render(examples, renderer):
        if not rows:
            without_reply.append(where)
        for row in rows:
            if len(row.ids) > max_length:
                too_long.append(where)
                shortest = min(shortest or len(row.ids), len(row.ids))
                continue
            ids.append(row.ids)
            labels.append(row.ids if everything else row.labels)
    if not ids:
        if too_long:
            beyond = most is not None and shortest > most
            advice = f"shorten them, for the model's context holds {most}" if beyond else f"raise --max-length to {shortest} or more"
            raise DataError(f"all {len(too_long)} rows are longer than {max_length} tokens; {advice}", too_long[0])
        raise DataError(
            "no row has a reply to learn from; training rows need an assistant turn or a gold reply",
            without_reply[0] if without_reply else "",
        )
    return RenderedRows(tuple(ids), tuple(labels), tuple(too_long), tuple(without_reply))
