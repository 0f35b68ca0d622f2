"""Examples become rows of ids and labels; nothing is cut, and what does not fit is counted and named."""

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
"""Examples that are tokenised in one call."""


@dataclass(frozen=True)
class RenderedRows:
    """Rows ready for the trainer.

    Attributes:
        ids: Token ids of each row.
        labels: Labels of each row, ``IGNORED`` where there is no loss.
        too_long: Where the rows came from that were over the length and are left out.
        without_reply: Where the rows came from that have nothing to learn.
    """

    ids: tuple[tuple[int, ...], ...]
    labels: tuple[tuple[int, ...], ...]
    too_long: tuple[str, ...] = ()
    without_reply: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(map(len, self.ids))

    @property
    def trained_tokens(self) -> int:
        """Tokens with a label."""
        return sum(label >= 0 for row in self.labels for label in row)

    @property
    def hash(self) -> str:
        """SHA-256 of the ids and labels in order: equal only if the model sees the same."""
        digest = hashlib.sha256()
        for ids, labels in zip(self.ids, self.labels, strict=True):
            digest.update(struct.pack(f"<i{2 * len(ids)}i", len(ids), *ids, *labels))
        return digest.hexdigest()


def _texts(example: Example, renderer: Renderer) -> tuple[RowText | Rendered, ...]:
    """The rows of an example, none when it holds nothing to learn. An example without messages is plain text."""
    if not example.messages:
        return (renderer.text_ids(example.gold),) if example.gold else ()
    conversation = example.conversation
    if not any(map(is_learned, conversation)):
        return ()
    return renderer.training_texts(conversation, tools_of(example))


def _render(examples: Iterable[Example], renderer: Renderer) -> Iterator[tuple[str, list[Rendered]]]:
    """Yield where each example came from and its rows, tokenised many at a time."""
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
    """Render every example, the gold reply as the last assistant turn; where the template rewrites history, a row for each reply.

    Args:
        examples: Conversations to learn from.
        renderer: Tokenizer and template.
        max_length: Rows of more tokens are left out: a row without its stop token would teach the model never to stop.
        everything: Learn every token, not only what the assistant says.
        most: Tokens of the model's context, which no advice exceeds; None where it has no limit.

    Raises:
        DataError: When no row is left.
        TemplateError: When the template cannot write a conversation.
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
