"""Samples of a model for prompts, several per prompt, saved as they arrive; an interrupted run is resumed.

The file has a header with the generation settings, then one reply per line. Prompts are identified by a hash of their turns, so samples
stay valid when other prompts are added, removed or reordered.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from sftchat._util.files import try_lock, write_error
from sftchat._util.parsing import from_json, iter_bounded_lines, load_json
from sftchat.data.duplicates import hash_json
from sftchat.engine import Engine, Request, collect
from sftchat.errors import DataError, EngineError, SftchatError, UsageError, os_reason
from sftchat.text import abbreviate
from sftchat.types import Example, Message, Reply, SamplingParams

HEADER = "sftchat_samples"
VERSION = 1


class SampleKey(NamedTuple):
    """Hash of a prompt, from ``prompt_key``, and number of one of its samples, from 0."""

    prompt: str
    number: int


def prompt_key(messages: Sequence[Message]) -> str:
    """Return the hash of a prompt's turns."""
    return hash_json(messages).hex()


class SampleFile:
    """The samples in a file, which may be extended; a context manager.

    Args:
        path: The file; created with the first reply.
        settings: Generation settings as JSON values; None to read the file only.
        fresh: Discard existing samples.

    Raises:
        UsageError: When the file was written with other settings; names them.
        DataError: When the file has another format, or a line is malformed.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any] | None = None, *, fresh: bool = False) -> None:
        self.path = path
        self.settings = settings
        self._replies: dict[str, dict[int, Reply]] = {}
        self._file: BinaryIO | None = None
        self._end_of_last_line = 0  # in bytes; after it may be the partial line of a killed process
        self._size = path.stat().st_size if path.exists() else 0
        if self._size and not fresh:
            self._read()

    def __enter__(self) -> SampleFile:
        """Return self; the file is opened when the first reply is added."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def add(self, key: SampleKey, reply: Reply) -> None:
        """Save a reply; flushed to the operating system at once, so that a killed process loses none.

        Raises:
            SftchatError: When writing fails, or another process writes to the file.
        """
        row = {
            "prompt": key.prompt,
            "sample": key.number,
            "reply": reply.text,
            "finish_reason": reply.finish_reason,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            **({"thoughts": reply.thoughts} if reply.thoughts else {}),
        }
        try:
            if self._file is None:
                self._file = self._open_to_append()
            self._file.write(_to_line(row))
            self._file.flush()
        except OSError as error:
            raise write_error(self.path, error) from error
        self._replies.setdefault(key.prompt, {})[key.number] = reply

    def replies_to(self, messages: Sequence[Message]) -> list[Reply]:
        """Return the replies to a prompt, in the order of sample numbers."""
        return [reply for _, reply in sorted(self._replies.get(prompt_key(messages), {}).items())]

    def __contains__(self, key: SampleKey) -> bool:
        """Whether the file has this sample."""
        return key.number in self._replies.get(key.prompt, {})

    def __len__(self) -> int:
        """Number of replies."""
        return sum(map(len, self._replies.values()))

    def _open_to_append(self) -> BinaryIO:
        """Open the file, and cut off a partial line at its end."""
        stream = self.path.open("a+b")
        if not try_lock(stream) or stream.seek(0, os.SEEK_END) != self._size:
            stream.close()
            raise SftchatError(
                f"another run has added to {self.path}, or still does; run again when it is done, or give --samples another file"
            )
        stream.truncate(self._end_of_last_line)
        if not self._end_of_last_line:
            stream.write(_to_line({HEADER: VERSION, **(self.settings or {})}))
        return stream

    def _read(self) -> None:
        try:
            with self.path.open("rb") as file:
                for number, line, cut_off in iter_bounded_lines(file):
                    source = f"{self.path}:{number}"
                    if not cut_off and not line.endswith(b"\n"):
                        return  # the partial line of a killed process
                    row = _parse_line(line, source)
                    if number == 1:
                        self._check_header(row)
                    else:
                        self._read_reply(row, source)
                    self._end_of_last_line += len(line)
        except OSError as error:
            raise DataError(f"cannot be read: {os_reason(error)}", str(self.path)) from None

    def _check_header(self, header: dict[str, Any]) -> None:
        """Reject other files, and replies made with other settings."""
        if header.pop(HEADER, None) != VERSION:
            raise DataError("the file holds no samples; give --samples another name", str(self.path))
        if self.settings is None:
            return
        settings = json.loads(json.dumps(self.settings))  # as in a file: tuples become lists
        for name in sorted({*settings, *header}):
            recorded, current = header.get(name), settings.get(name)
            if recorded != current:
                raise UsageError(
                    f"{self.path} holds replies made with {name} {abbreviate(recorded)}, not {abbreviate(current)}; give --fresh to make them again, or --samples another file"
                )

    def _read_reply(self, row: dict[str, Any], source: str) -> None:
        try:
            prompt, number = from_json(str, row["prompt"]), from_json(int, row["sample"])
            other_fields = {name: row[name] for name in ("finish_reason", "prompt_tokens", "completion_tokens")}
            reply = from_json(Reply, {"text": row["reply"], **other_fields, "thoughts": row.get("thoughts", "")})
        except (KeyError, ValueError):
            raise DataError("the line is no sample; restore the file, or give --fresh to make all replies again", source) from None
        self._replies.setdefault(prompt, {})[number] = reply


def settings_of(model: str, identity: str, sampling: SamplingParams) -> dict[str, Any]:
    """Return the generation settings as a flat dict for the file header."""
    return {"model": model, "identity": identity, **asdict(sampling)}


def missing_requests(examples: Iterable[Example], k: int, sampling: SamplingParams, samples: SampleFile) -> list[tuple[SampleKey, Request]]:
    """Return the requests for samples that the file lacks, with their keys; equal prompts are requested once.

    Args:
        examples: Examples with a prompt.
        k: Samples per prompt, at least 1.
        sampling: Sampling parameters; the seed of a sample is the seed plus the sample number.
        samples: The existing samples.
    """
    missing: dict[SampleKey, Request] = {}
    for example in examples:
        prompt = prompt_key(example.messages)
        for number in range(k):
            key = SampleKey(prompt, number)
            if key not in samples and key not in missing:
                params = replace(sampling, seed=sampling.seed + number)
                missing[key] = Request(f"{prompt}-{number}", example.messages, sampling=params)
    return list(missing.items())


def generate_samples(engine: Engine, missing: Sequence[tuple[SampleKey, Request]], samples: SampleFile) -> Iterator[EngineError | None]:
    """Generate replies and save each as it arrives; yields the error of each request, or None for a saved reply.

    Raises:
        EngineError: When the engine fails as a whole; earlier replies are saved.
        SftchatError: When writing fails.
    """
    keys = {request.id: key for key, request in missing}
    with closing(collect(engine, (request for _, request in missing))) as replies:
        for request_id, reply in replies:
            if isinstance(reply, EngineError):
                yield reply
                continue
            samples.add(keys[request_id], reply)
            yield None


def _to_line(row: Mapping[str, Any]) -> bytes:
    """Serialize a row to one line; lone surrogates are written as JSON escapes."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _parse_line(line: bytes, source: str) -> dict[str, Any]:
    try:
        row = load_json(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise DataError("the line is no sample; restore the file, or give --fresh to make all replies again", source)
    return row
