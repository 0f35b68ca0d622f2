"""Append replies as rows to training and evaluation files; reject rows that would contaminate them."""

from __future__ import annotations

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

Kind = Literal["messages", "preferences", "evalset"]
TRAINING: tuple[Kind, ...] = ("messages", "preferences")


@dataclass(frozen=True)
class Rows:
    """The row files of a chat.

    Attributes:
        folder: Folder of the files, created with the first row; None when no rows are written.
        golds: Other evalsets, whose items must not become training rows.
    """

    folder: Path | None = None
    golds: tuple[Path, ...] = ()

    def path(self, kind: Kind) -> Path:
        """Return the file for a kind of rows.

        Raises:
            UsageError: When there is no folder for rows.
        """
        if self.folder is None:
            raise UsageError("this chat writes no rows; give it a folder for them")
        return self.folder / f"{kind}.jsonl"

    def good(self, messages: Sequence[Message], reply: str, about: Mapping[str, Any]) -> str:
        """Append a reply as a training row.

        Args:
            messages: The conversation; ends with the user's message. Earlier replies are context only and not trained on, because they were
                not rated.
            reply: The reply to train on.
            about: Provenance fields.

        Returns:
            Location of the row, ``file:line``.

        Raises:
            DataError: When the row exists already, its prompt has another reply, or it is in an evalset. The message names the place.
        """
        return self._append("messages", serialize(Example(_untrained(messages), reply, metadata={"sftchat": about}), "messages"))

    def pair(self, messages: Sequence[Message], chosen: str, rejected: str, about: Mapping[str, Any]) -> str:
        """Append a preference pair: a better and a worse reply to the same prompt; arguments and errors as for ``good``."""
        row = {
            "prompt": [dict(message) for message in _untrained(messages)],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "sftchat": about,
        }
        return self._append("preferences", row)

    def gold(self, messages: Sequence[Message], reply: str, about: Mapping[str, Any]) -> str:
        """Append an evalset item; arguments and errors as for ``good``, except that it must not be in the training rows."""
        id = "chat-" + sha256(json.dumps([list(messages)], sort_keys=True).encode()).hexdigest()[:12]
        return self._append("evalset", serialize(Example(tuple(messages), reply, id, {"sftchat": about}), "evalset"))

    def _append(self, kind: Kind, row: dict[str, Any]) -> str:
        example = to_example(row)
        path = self.path(kind)
        line = 1
        for other in _examples(path):
            line = max(line, int(other.source.rpartition(":")[2]) + 1)
            if _untrained(other.messages) == _untrained(example.messages):
                what = "the same row is there already" if other.gold == example.gold else "its prompt has another reply there"
                raise DataError(f"{what}; nothing is written", other.source)
        others = [self.path("evalset"), *self.golds] if kind in TRAINING else [self.path(training) for training in TRAINING]
        for leak in find_leaks([example], (other for file in others for other in _examples(file))):
            same = "the same prompt is" if leak.similarity == 1 else f"nearly the same prompt (similarity {leak.similarity:.2f}) is"
            raise DataError(f"{same} there; a row is for training or for evaluation, never for both: nothing is written", leak.row)
        _append_line(path, json.dumps(row, ensure_ascii=False))
        return f"{path}:{line}"


def _untrained(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Mark the replies among the messages as not trained on."""
    return tuple({**message, "weight": 0} if message["role"] == "assistant" else message for message in messages)


def _examples(path: Path) -> Iterator[Example]:
    """Read the rows of a file; none when it does not exist."""
    if path.is_file() and path.stat().st_size:
        yield from read_examples(path)


def _append_line(path: Path, line: str) -> None:
    """Append a line atomically.

    Raises:
        DataError: When it contains a lone surrogate, which UTF-8 cannot encode.
        SftchatError: When writing fails.
    """
    try:
        data = line.encode() + b"\n"
    except UnicodeEncodeError as error:
        raise DataError(f"the reply holds what no file can: {error.reason}", str(path)) from None
    try:
        with create_folder(path.parent), path.open("ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and file.seek(-1, os.SEEK_END) is not None and file.read(1) != b"\n":
                data = b"\n" + data
            try:
                written = file.write(data)
                if written != len(data):
                    raise OSError(28, os.strerror(28))
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                    if not size:
                        path.unlink()
                raise
    except OSError as error:
        raise write_error(path, error) from error
