"""Append replies as rows to training and evaluation files; reject rows that would contaminate them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from sftchat._util.files import create_folder, write_error
from sftchat.data.formats import read_examples, to_example
from sftchat.data.leakage import find_leaks
from sftchat.data.serialize import serialize
from sftchat.errors import DataError, UsageError
from sftchat.types import Example, Message

RowKind = Literal["messages", "preferences", "evalset"]
TRAINING_KINDS: tuple[RowKind, ...] = ("messages", "preferences")


@dataclass(frozen=True)
class Rows:
    """The row files of a chat.

    Attributes:
        folder: Folder of the files, created with the first row; None when rows are refused.
        evalsets: Evalsets outside the folder, whose items must not become training rows.
    """

    folder: Path | None = None
    evalsets: tuple[Path, ...] = ()

    def path(self, kind: RowKind) -> Path:
        """Return the file for a kind of rows.

        Raises:
            UsageError: When ``folder`` is None.
        """
        if self.folder is None:
            raise UsageError("this chat writes no rows; give it a folder for them")
        return self.folder / f"{kind}.jsonl"

    def add_training_row(self, messages: Sequence[Message], reply: str, provenance: Mapping[str, Any]) -> str:
        """Append a reply as a training row.

        Args:
            messages: The conversation; ends with the user's message. Earlier replies are context only and not trained on, because they were
                not rated.
            reply: The reply to train on.
            provenance: Provenance fields.

        Returns:
            Location of the row, ``file:line``.

        Raises:
            DataError: When the row exists, its prompt has another reply, or its prompt is in an evalset. The message names file and line.
        """
        return self._append("messages", serialize(Example(_mark_untrained(messages), reply, metadata={"sftchat": provenance}), "messages"))

    def add_preference_pair(self, messages: Sequence[Message], chosen: str, rejected: str, provenance: Mapping[str, Any]) -> str:
        """Append a better and a worse reply to the same prompt as a preference pair; the rest as for ``add_training_row``."""
        row = {
            "prompt": [dict(message) for message in _mark_untrained(messages)],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "sftchat": provenance,
        }
        return self._append("preferences", row)

    def add_evalset_item(self, messages: Sequence[Message], reply: str, provenance: Mapping[str, Any]) -> str:
        """Append an evalset item; the rest as for ``add_training_row``, but a prompt is refused that is in the training rows."""
        id = "chat-" + sha256(json.dumps([list(messages)], sort_keys=True).encode()).hexdigest()[:12]
        return self._append("evalset", serialize(Example(tuple(messages), reply, id, {"sftchat": provenance}), "evalset"))

    def _append(self, kind: RowKind, row: dict[str, Any]) -> str:
        example = to_example(row)
        path = self.path(kind)
        new_line = 1
        for existing in _read_rows(path):
            line = int(existing.source.rpartition(":")[2])  # the source of a row is FILE:LINE
            new_line = max(new_line, line + 1)
            if _mark_untrained(existing.messages) == _mark_untrained(example.messages):
                conflict = "the same row is there already" if existing.gold == example.gold else "its prompt has another reply there"
                raise DataError(f"{conflict}; nothing is written", existing.source)
        if kind in TRAINING_KINDS:
            forbidden_files = [self.path("evalset"), *self.evalsets]
        else:
            forbidden_files = [self.path(training_kind) for training_kind in TRAINING_KINDS]
        for leak in find_leaks([example], (forbidden for file in forbidden_files for forbidden in _read_rows(file))):
            same = "the same prompt is" if leak.similarity == 1 else f"nearly the same prompt (similarity {leak.similarity:.2f}) is"
            raise DataError(f"{same} there; a row is for training or for evaluation, never for both: nothing is written", leak.row)
        _append_line(path, json.dumps(row, ensure_ascii=False))
        return f"{path}:{new_line}"


def _mark_untrained(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Mark the replies among the messages as not trained on."""
    return tuple({**message, "weight": 0} if message["role"] == "assistant" else message for message in messages)


def _read_rows(path: Path) -> Iterator[Example]:
    """Read the rows of a file; none when it does not exist."""
    if path.is_file() and path.stat().st_size:
        yield from read_examples(path)


def _append_line(path: Path, line: str) -> None:
    """Append a line; a file that cannot take the whole line is left as it was.

    Raises:
        DataError: When the line contains a lone surrogate, which UTF-8 cannot encode.
        SftchatError: When writing fails.
    """
    try:
        data = line.encode() + b"\n"
    except UnicodeEncodeError as error:
        raise DataError(f"the reply cannot be written as UTF-8: {error.reason}", str(path)) from None
    try:
        with create_folder(path.parent), path.open("ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the last line was written without a newline
                    data = b"\n" + data
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                    if not size:
                        path.unlink()
                raise
    except OSError as error:
        raise write_error(path, error) from error
