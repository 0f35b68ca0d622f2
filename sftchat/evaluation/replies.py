"""Files of replies: reading, writing and matching; including the formats of other tools.

Of foreign formats only those are read in which every row has the id of its item; docs/replies.md has a few lines of Python for formats that rely
on row order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftchat._util.parsing import MAX_BYTES, iter_bounded_lines, load_json, not_utf8_message
from sftchat.errors import DataError, list_quoted
from sftchat.evaluation.scored import Failure, Item, Outcome
from sftchat.protocol import error_message, finish_reason, parse_content, unusable_reply_message
from sftchat.text import abbreviate
from sftchat.types import Reply

Row = Mapping[str, Any]
FILTER_KEY = "lm_eval_filter"
"""Key of the filter name in a converted row."""


def convert_row(row: dict[str, Any]) -> dict[str, Any]:
    """Convert a row to this program's keys: ``id``, ``reply``, and further known values.

    Args:
        row: A line of ``vllm run-batch`` or OpenAI's Batch API, of lm-evaluation-harness with ``--log_samples``, or of this program.
    """
    if "reply" in row:
        return row
    for keys, read in _CONVERTERS.items():
        if keys <= row.keys():
            try:
                return read(row)
            except (KeyError, IndexError, TypeError, AttributeError):
                return row  # another format after all: the check of this program's format reports what is missing
    return row


def _convert_openai_batch(row: Row) -> dict[str, Any]:
    """Convert one response of a batch of chat completions; https://platform.openai.com/docs/api-reference/batch."""
    item_id, response = row["custom_id"], row["response"] or {}
    body = response.get("body") or {}
    if row.get("error") or response.get("status_code") != 200:
        status = f"HTTP {response['status_code']}" if response.get("status_code") else ""
        words = ": ".join(filter(None, (status, error_message(row) or error_message(body))))
        return {"id": item_id, "reply": "", "finish_reason": "error", "error": words or "the request has neither a response nor an error"}
    choice, usage = body["choices"][0], body.get("usage") or {}
    content = parse_content(choice["message"])
    return {
        "id": item_id,
        "reply": content.text,
        "finish_reason": choice.get("finish_reason"),
        "prompt_tokens": usage.get("prompt_tokens", 0),
        "completion_tokens": usage.get("completion_tokens", 0),
        "thoughts": content.thoughts,
        "refused": content.refused,
    }


def _convert_lm_eval(row: Row) -> dict[str, Any]:
    """Convert one sample of ``generate_until``: the raw response, before the harness's filters; the harness writes it once per filter."""
    return {"id": row["doc"].get("id", row["doc_id"]), "reply": row["resps"][0][0], FILTER_KEY: row.get("filter")}


def is_other_filter(row: Row, other: Row) -> bool:
    """Return whether two rows with one id, from ``convert_row``, are the same sample of lm-evaluation-harness under two filters."""
    return bool(row.get(FILTER_KEY) and other.get(FILTER_KEY) and row[FILTER_KEY] != other[FILTER_KEY] and row["reply"] == other["reply"])


_CONVERTERS: dict[frozenset[str], Callable[[Row], dict[str, Any]]] = {
    frozenset({"custom_id", "response"}): _convert_openai_batch,
    frozenset({"doc_id", "doc", "resps"}): _convert_lm_eval,
}


BASELINE_KEY = "sftchat_baseline"
"""First key of a baseline's first line; its value is the schema version."""
JSON_WHITESPACE = " \t\r\n"
"""White space in JSON; Python's set is larger."""
ESCAPE_SURROGATES = "backslashreplace"
"""Error handler that writes an unpaired surrogate, which UTF-8 cannot encode, as its JSON escape."""


def stored_reply_row(item: Item) -> dict[str, Any]:
    """Return the reply and its counts as stored in a file of replies."""
    reply = item.reply
    return {
        "id": item.example.id,
        "reply": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "stats": dict(sorted(item.score.stats.items())),
    }


def outcome_line(outcome: Outcome) -> str:
    """Return one outcome as a line of JSON with a newline; a failure has an error instead of a score."""
    if isinstance(outcome, Failure):
        row: dict[str, Any] = {"id": outcome.example.id, "reply": "", "finish_reason": "error", "error": outcome.error}
    else:
        row = stored_reply_row(outcome)
        row |= thoughts_and_refusal(outcome.reply)
        row = row | {"answer": outcome.score.answer, "errors": list(outcome.score.errors), "stats": row.pop("stats")}
    return json.dumps(row, ensure_ascii=False) + "\n"


def thoughts_and_refusal(reply: Reply) -> dict[str, Any]:
    """Return the fields of a reply other than its text, if any: ``thoughts`` and ``refused``."""
    return {**({"thoughts": reply.thoughts} if reply.thoughts else {}), **({"refused": True} if reply.refused else {})}


def read_replies(path: Path) -> dict[str, Reply | str]:
    """Read replies by id; a failed item has an error message instead.

    Only ``id`` and ``reply`` are required, so the output of any program can be scored; unknown keys and the header of a baseline are
    ignored.

    Raises:
        DataError: When the file is missing or empty, a line is malformed, or an id occurs twice.
    """
    replies: dict[str, Reply | str] = {}
    filtered: dict[str, Mapping[str, Any]] = {}
    for number, line in numbered_lines(path, "replies"):
        if not line.strip(JSON_WHITESPACE):
            continue
        if number == 1 and line.startswith(f'{{"{BASELINE_KEY}"'):
            continue
        item_id, reply, row = parse_reply(line, f"{path}:{number}")
        if row.get(FILTER_KEY):
            first = filtered.setdefault(item_id, row)
            if is_other_filter(first, row):
                continue
        if item_id in replies:
            raise DataError(f"id '{item_id}' has two replies", f"{path}:{number}")
        replies[item_id] = reply
    if not replies:
        raise DataError("the file has no replies", str(path))
    return replies


def numbered_lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, from 1, one at a time in memory.

    Args:
        path: UTF-8 file, with or without a byte order mark.
        what: Expected content, for error messages.

    Raises:
        DataError: When it cannot be read, is not UTF-8, or a line exceeds the maximum length.
    """
    try:
        with path.open("rb") as file:
            for number, line, cut_off in iter_bounded_lines(file):
                if cut_off:
                    raise DataError(f"the line is longer than {MAX_BYTES >> 20} MiB, so these are no {what}", f"{path}:{number}")
                yield number, line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {what}: {not_utf8_message(error)}", str(path)) from error
    except OSError as error:
        raise DataError(f"cannot read {what}: {error.strerror or error}", str(path)) from error


def check_replies_match(
    replies: Mapping[str, Reply | str], requested_ids: Sequence[str], source: str, other_ids: Collection[str] = (), advice: str = ""
) -> None:
    """Check that there is exactly one reply to every example.

    Args:
        replies: Replies by id.
        requested_ids: Ids of the examples to score.
        source: Name of the file, for error messages.
        other_ids: Further ids that may have replies, such as the rows beyond ``--limit``.
        advice: Hint for the message about a missing reply.

    Raises:
        DataError: When an example has no reply or a reply has no example; names them.
    """
    requested = frozenset(requested_ids)
    missing = [item_id for item_id in requested_ids if item_id not in replies]
    unknown = [item_id for item_id in replies if item_id not in requested and item_id not in other_ids]
    problems = [f"no reply to {list_quoted(missing)} of the {len(requested)} items{advice}"] if missing else []
    problems += [f"{list_quoted(unknown)} not in the evalset"] if unknown else []
    if problems:
        raise DataError("; ".join(problems), source)


def parse_reply(line: str, source: str) -> tuple[str, Reply | str, dict[str, Any]]:
    """Parse a line of a file of replies into its id, the reply or an error message, and the whole row.

    Args:
        line: One JSON object.
        source: Position of the line, as ``file:line``.

    Raises:
        DataError: When it is malformed.
    """
    try:
        row = load_json(line)
    except ValueError as error:
        raise DataError(f"not a JSON object: {error}", source) from error
    if not isinstance(row, dict):
        raise DataError(f"not a JSON object but {type(row).__name__}", source)
    row = convert_row(row)
    item_id, text = row.get("id"), row.get("reply")
    if isinstance(item_id, int) and not isinstance(item_id, bool):
        item_id = str(item_id)  # other programs use numeric ids
    if not isinstance(item_id, str) or not item_id:
        raise DataError("'id' must be a text that is not empty", source)
    if "reply" not in row and isinstance(row.get("error"), str):
        return item_id, row["error"], row
    if "reply" not in row:
        raise DataError(f"item '{item_id}' has no 'reply'; it has the keys {', '.join(map(abbreviate, row))}", source)
    if not isinstance(text, str):
        raise DataError(f"'reply' of item '{item_id}' is {abbreviate(text)}, must be a text", source)
    reason = row.get("finish_reason")
    if reason is not None and not isinstance(reason, str):
        raise DataError(f"'finish_reason' of item '{item_id}' is {abbreviate(reason)}, must be a text such as stop or length", source)
    finish = finish_reason(reason)
    if finish in ("error", "cancelled"):
        ended = f"the request ended as '{reason}'" if reason in ("error", "cancelled") else unusable_reply_message(str(reason))
        return item_id, str(row.get("error") or ended), row
    counts = _parse_token_count(row, "prompt_tokens", source), _parse_token_count(row, "completion_tokens", source)
    thoughts = row.get("thoughts", "")
    return item_id, Reply(text, finish, *counts, thoughts if isinstance(thoughts, str) else "", row.get("refused") is True), row


def _parse_token_count(row: Mapping[str, Any], key: str, source: str) -> int:
    """Return a number of tokens; 0 when the file has none."""
    value = row.get(key, 0)
    if type(value) is not int or value < 0:
        raise DataError(f"'{key}' of item '{row['id']}' is {value!r}, must be a whole number from 0", source)
    return value
