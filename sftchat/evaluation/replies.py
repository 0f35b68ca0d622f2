"""Rows that other tools write and that say by their keys what they are, read as if they were ours.

Only formats in which every row names its item are read here; for those that go by position, docs/replies.md has a few lines of Python each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftchat._util.parsing import MAX_BYTES, bounded_lines, load_json, not_utf_8
from sftchat.data.values import abbreviate
from sftchat.data.write import replacing
from sftchat.errors import DataError, listed
from sftchat.evaluation.run import Failure, Item, Outcome
from sftchat.protocol import content_of, error_message, finish_reason, unfinished
from sftchat.types import Reply

Row = Mapping[str, Any]
FILTER = "lm_eval_filter"
"""The key under which a translated row has the name of the filter."""


def translated(row: dict[str, Any]) -> dict[str, Any]:
    """A row in our form: ``id``, ``reply``, and what else is known.

    Args:
        row: A line of ``vllm run-batch`` or OpenAI's Batch API, of lm-evaluation-harness with ``--log_samples``, or of ours.
    """
    if "reply" in row:
        return row
    for keys, read in _READERS.items():
        if keys <= row.keys():
            try:
                return read(row)
            except (KeyError, IndexError, TypeError, AttributeError):
                return row  # not what it looked like: whoever checks our form names what is missing
    return row


def _openai_batch(row: Row) -> dict[str, Any]:
    """One response of a batch of chat completions; https://platform.openai.com/docs/api-reference/batch."""
    identity, response = row["custom_id"], row["response"] or {}
    body = response.get("body") or {}
    if row.get("error") or response.get("status_code") != 200:
        status = f"HTTP {response['status_code']}" if response.get("status_code") else ""
        words = ": ".join(filter(None, (status, error_message(row) or error_message(body))))
        return {"id": identity, "reply": "", "finish_reason": "error", "error": words or "the request has neither a response nor an error"}
    choice, usage = body["choices"][0], body.get("usage") or {}
    said = content_of(choice["message"])
    return {
        "id": identity,
        "reply": said.text,
        "finish_reason": choice.get("finish_reason"),
        "prompt_tokens": usage.get("prompt_tokens", 0),
        "completion_tokens": usage.get("completion_tokens", 0),
        "thoughts": said.thoughts,
        "refused": said.refused,
    }


def _lm_eval(row: Row) -> dict[str, Any]:
    """One sample of ``generate_until``: the raw response, before the harness's filters cut it; the harness writes it once for each filter."""
    return {"id": row["doc"].get("id", row["doc_id"]), "reply": row["resps"][0][0], FILTER: row.get("filter")}


def another_filter(row: Row, other: Row) -> bool:
    """Whether two rows of one id, as ``translated`` gives them, are one sample of lm-evaluation-harness under two filters."""
    return bool(row.get(FILTER) and other.get(FILTER) and row[FILTER] != other[FILTER] and row["reply"] == other["reply"])


_READERS: dict[frozenset[str], Callable[[Row], dict[str, Any]]] = {
    frozenset({"custom_id", "response"}): _openai_batch,
    frozenset({"doc_id", "doc", "resps"}): _lm_eval,
}


HEADER = "sftchat_baseline"
"""The key that the first line of a baseline begins with; its value is the version of the schema."""
BLANK = " \t\r\n"
"""What JSON takes for white space; Python takes more."""
UNPAIRED = "backslashreplace"
"""How half a surrogate pair, which is no UTF-8, is written: as the very escape that JSON has for it."""


def reply_rows(item: Item) -> dict[str, Any]:
    """What is kept of a reply and its counts, wherever replies are stored."""
    reply = item.reply
    return {
        "id": item.example.id,
        "reply": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "stats": dict(sorted(item.score.stats.items())),
    }


def reply_line(outcome: Outcome) -> str:
    """One outcome as a line of JSON, the newline included; a failed one keeps its error instead of a score."""
    if isinstance(outcome, Failure):
        row: dict[str, Any] = {"id": outcome.example.id, "reply": "", "finish_reason": "error", "error": outcome.error}
    else:
        row = reply_rows(outcome)
        row |= kept_apart(outcome.reply)
        row = row | {"answer": outcome.score.answer, "errors": list(outcome.score.errors), "stats": row.pop("stats")}
    return json.dumps(row, ensure_ascii=False) + "\n"


def kept_apart(reply: Reply) -> dict[str, Any]:
    """What a row says of a reply beside its text, where there is any of it: ``thoughts``, and ``refused``."""
    return {**({"thoughts": reply.thoughts} if reply.thoughts else {}), **({"refused": True} if reply.refused else {})}


def read_replies(path: Path) -> dict[str, Reply | str]:
    """Read replies by id; a failed item has the words of its error instead.

    Only ``id`` and ``reply`` are needed, so that the output of any other program can be scored; unknown keys and the header of a
    baseline are ignored.

    Raises:
        DataError: When the file is missing or empty, a line is malformed, or an id occurs twice.
    """
    found: dict[str, Reply | str] = {}
    filtered: dict[str, Mapping[str, Any]] = {}
    for number, line in numbered_lines(path, "replies"):
        if not line.strip(BLANK):
            continue
        if number == 1 and line.startswith(f'{{"{HEADER}"'):
            continue
        identity, reply, row = parse_reply(line, f"{path}:{number}")
        if row.get(FILTER):
            first = filtered.setdefault(identity, row)
            if another_filter(first, row):
                continue
        if identity in found:
            raise DataError(f"id '{identity}' has two replies", f"{path}:{number}")
        found[identity] = reply
    if not found:
        raise DataError("the file has no replies", str(path))
    return found


def numbered_lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, from 1; never more than one of them is in memory.

    Args:
        path: UTF-8, with or without a byte order mark.
        what: It should hold, for messages.

    Raises:
        DataError: When it cannot be read, is not UTF-8, or a line is longer than any can be.
    """
    try:
        with path.open("rb") as file:
            for number, line, cut_off in bounded_lines(file):
                if cut_off:
                    raise DataError(f"the line is longer than {MAX_BYTES >> 20} MiB, so these are no {what}", f"{path}:{number}")
                yield number, line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {what}: {not_utf_8(error)}", str(path)) from error
    except OSError as error:
        raise DataError(f"cannot read {what}: {error.strerror or error}", str(path)) from error


def match(replies: Mapping[str, Reply | str], asked: Sequence[str], source: str, known: Collection[str] = (), advice: str = "") -> None:
    """Check that there is exactly one reply to every example.

    Args:
        replies: By id.
        asked: Ids of the examples to be scored.
        source: Name of the file, for the message.
        known: Further ids that may have replies, such as the rows that ``--limit`` cut off.
        advice: What to do where a reply is missing, for the message.

    Raises:
        DataError: When an example has no reply or a reply has no example; names them.
    """
    wanted = frozenset(asked)
    missing = [identity for identity in asked if identity not in replies]
    strangers = [identity for identity in replies if identity not in wanted and identity not in known]
    complaints = []
    if missing:
        complaints.append(f"no reply to {listed(missing)} of the {len(wanted)} items{advice}")
    if strangers:
        complaints.append(f"{listed(strangers)} not in the evalset")
    if complaints:
        raise DataError("; ".join(complaints), source)


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write text so that nobody ever reads half a file, and none is left on a full disk.

    Args:
        path: The file.
        text: What it will hold, whole or in pieces.
    """
    with replacing(path) as file:  # bytes: the same file on every platform
        file.writelines(piece.encode("utf-8", UNPAIRED) for piece in ((text,) if isinstance(text, str) else text))


def parse_reply(line: str, source: str) -> tuple[str, Reply | str, dict[str, Any]]:
    """One line of a file of replies: its id, the reply or the words of its error, and the whole row.

    Args:
        line: One JSON object.
        source: Where it stands, as ``file:line``.

    Raises:
        DataError: When it is malformed.
    """
    try:
        row = load_json(line)
    except ValueError as error:
        raise DataError(f"not a JSON object: {error}", source) from error
    if not isinstance(row, dict):
        raise DataError(f"not a JSON object but {type(row).__name__}", source)
    row = translated(row)
    identity, text = row.get("id"), row.get("reply")
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)  # other programs number their rows
    if not isinstance(identity, str) or not identity:
        raise DataError("'id' must be a text that is not empty", source)
    if "reply" not in row and isinstance(row.get("error"), str):
        return identity, row["error"], row
    if "reply" not in row:
        raise DataError(f"item '{identity}' has no 'reply'; it has the keys {', '.join(map(abbreviate, row))}", source)
    if not isinstance(text, str):
        raise DataError(f"'reply' of item '{identity}' is {abbreviate(text)}, must be a text", source)
    said = row.get("finish_reason")
    if said is not None and not isinstance(said, str):
        raise DataError(f"'finish_reason' of item '{identity}' is {abbreviate(said)}, must be a text such as stop or length", source)
    finish = finish_reason(said)
    if finish in ("error", "cancelled"):
        ended = f"the request ended as '{said}'" if said in ("error", "cancelled") else unfinished(str(said))
        return identity, str(row.get("error") or ended), row
    counts = _count(row, "prompt_tokens", source), _count(row, "completion_tokens", source)
    thoughts = row.get("thoughts", "")
    return identity, Reply(text, finish, *counts, thoughts if isinstance(thoughts, str) else "", row.get("refused") is True), row


def _count(row: Mapping[str, Any], key: str, source: str) -> int:
    """A number of tokens, 0 where the program that wrote the file did not count."""
    value = row.get(key, 0)
    if type(value) is not int or value < 0:
        raise DataError(f"'{key}' of item '{row['id']}' is {value!r}, must be a whole number from 0", source)
    return value
