"""Rows to train on: read from files or generated, then rendered to token ids and labels.

Rows that are too long are dropped, counted and named; none is truncated.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sftchat.data.formats import examples_hash, read_examples
from sftchat.data.generate import generate_examples, parse_options
from sftchat.data.row_options import DEFAULT_ROW_OPTIONS, ReadingNotes, RowOptions
from sftchat.data.turns import tools_of
from sftchat.errors import DataError, TemplateError, UsageError
from sftchat.models.fingerprint import file_hash
from sftchat.task import Task, training_defaults
from sftchat.templates.parity import add_remedy
from sftchat.templates.renderer import Rendered, Renderer, RowText
from sftchat.types import Example, is_learned

TOKENIZE_BATCH = 512
"""Number of examples tokenised in one call."""


def collect_rows(
    task: Task,
    files: Sequence[str],
    *,
    rows: int | None = None,
    options: Sequence[str] = (),
    seed: int = 0,
    row_options: RowOptions = DEFAULT_ROW_OPTIONS,
    notes: ReadingNotes | None = None,
) -> tuple[list[Example], tuple[dict[str, Any], ...]]:
    """Read the examples to train on, or generate them when no file is given.

    Args:
        task: Task with the generator.
        files: Files, ``-`` for standard input, or data sets of the Hub.
        rows: Number of rows to generate; the task's default by default.
        options: Options of the generator as ``NAME=VALUE``.
        seed: Seed of the generator.
        row_options: Options for reading the rows.
        notes: Records changes to the rows that the user should know of.

    Returns:
        The examples, and the sources as stored in the manifest: one entry for each file, with a hash of its content, or one for the generator.

    Raises:
        UsageError: When options of the generator are given together with files, or are unknown.
        DataError: When a file cannot be used.
    """
    if not files:
        if row_options.non_default:
            raise UsageError(
                "--map, --label-column, --role-map, --merge-turns and --leading-assistant say how rows are read; give rows with --data"
            )
        generator_options = parse_options(task, options)
        count = rows or training_defaults(task, "full", 0).rows or 2000
        generator_call = {"generator": task.name, "n": count, "seed": seed, "options": generator_options}
        generated = generate_examples(task, count, seed, generator_options)
        return [example.with_system(task.system) for example in generated], (generator_call,)
    if rows is not None or options:
        raise UsageError("--rows and --option are for the generator; with --data give neither")
    examples: list[Example] = []
    sources = []
    for name in files:
        from_file = [example.with_system(task.system) for example in read_examples(name, row_options, notes)]
        examples += from_file
        if notes is not None:
            unanswered = (row for row in from_file if row.messages and row.conversation[-1]["role"] != "assistant")
            notes.changes.update("the last turn has no reply; the row is learned up to the reply before it" for _ in unanswered)
        file = Path(name)
        entry = {"file": "stdin" if name == "-" else name, "sha256": file_hash(file) if file.is_file() else examples_hash(from_file)}
        sources.append({**entry, "rows_read": row_options.non_default} if row_options.non_default else entry)
    return examples, tuple(sources)


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


def _render_example(example: Example, renderer: Renderer) -> tuple[RowText | Rendered, ...]:
    """Return the rows of an example: none if there is no turn to learn, a tokenised one if it is plain text without messages."""
    if not example.messages:
        return (renderer.text_ids(example.gold),) if example.gold else ()
    conversation = example.conversation
    if not any(map(is_learned, conversation)):
        return ()
    return renderer.training_texts(conversation, tools_of(example))


def _render_in_batches(examples: Iterable[Example], renderer: Renderer) -> Iterator[tuple[str, list[Rendered]]]:
    """Yield the source of each example and its rows, tokenised in batches."""
    numbered = enumerate(examples, 1)
    while batch := list(islice(numbered, TOKENIZE_BATCH)):
        rows_by_example: list[tuple[str, tuple[RowText | Rendered, ...]]] = []
        for number, example in batch:
            source = example.source or example.id or f"row {number}"
            try:
                rows_by_example.append((source, _render_example(example, renderer)))
            except TemplateError as error:
                message = add_remedy(error, renderer, example.conversation, tools_of(example))
                raise TemplateError(f"{source}: {message}") from error
        tokenised = renderer.encode_rows([row for _, rows in rows_by_example for row in rows if isinstance(row, RowText)])
        for source, rows in rows_by_example:
            try:
                yield source, [next(tokenised) if isinstance(row, RowText) else row for row in rows]
            except TemplateError as error:
                raise TemplateError(f"{source}: {error}") from error


def render_rows(
    examples: Iterable[Example], renderer: Renderer, max_length: int, *, train_on_all: bool = False, context_length: int | None = None
) -> RenderedRows:
    """Render every example, with the gold reply as the last assistant turn; if the template rewrites history, each reply becomes a row.

    Args:
        examples: Conversations to train on.
        renderer: Tokenizer and template.
        max_length: Maximum row length in tokens. Longer rows are dropped: a row without its stop token would teach the model never to stop.
        train_on_all: Whether every token has a loss, not only assistant turns.
        context_length: Context length of the model in tokens, so that no error message recommends a larger ``max_length``; None without a limit.

    Raises:
        DataError: When no row is left.
        TemplateError: When the template cannot render a conversation.
    """
    ids, labels, too_long, without_reply, dropped_lengths = [], [], [], [], []
    for source, rows in _render_in_batches(examples, renderer):
        if not rows:
            without_reply.append(source)
        for row in rows:
            if len(row.ids) > max_length:
                too_long.append(source)
                dropped_lengths.append(len(row.ids))
                continue
            ids.append(row.ids)
            labels.append(row.ids if train_on_all else row.labels)
    if not ids:
        if too_long:
            advice = f"raise --max-length to {min(dropped_lengths)} or more"
            if context_length is not None and min(dropped_lengths) > context_length:
                advice = f"shorten them, for the model's context holds {context_length}"
            raise DataError(f"all {len(too_long)} rows are longer than {max_length} tokens; {advice}", too_long[0])
        raise DataError(
            "no row has a reply to learn from; training rows need an assistant turn or a gold reply",
            without_reply[0] if without_reply else "",
        )
    return RenderedRows(tuple(ids), tuple(labels), tuple(too_long), tuple(without_reply))
