"""Files of replies: reading, writing, and matching with the evalset; also in the formats of other tools.

Every row of a foreign format must have the id of its item; docs/replies.md has a few lines of Python for formats that rely on row order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftchat._util.parsing import MAX_BYTES, iter_bounded_lines, load_json, not_utf8_message
from sftchat.errors import DataError, list_quoted
from sftchat.evaluation.scored import Failure, Item, Outcome
from sftchat.protocol import ToolCalls, error_message, finish_reason, parse_content, unusable_reply_message, with_calls
from sftchat.text import abbreviate
from sftchat.types import Reply, Score

Row = Mapping[str, Any]
FILTER_KEY = "lm_eval_filter"
"""Key, in a converted row of lm-evaluation-harness, of the filter that the harness applied."""


def convert_row(row: dict[str, Any]) -> dict[str, Any]:
    """Convert a row to the keys of this program's files of replies; a row of an unknown format is returned unchanged.

    Args:
        row: A line of ``vllm run-batch`` or OpenAI's Batch API, of lm-evaluation-harness with ``--log_samples``, or of this program.
    """
    if "reply" in row:
        return row
    for keys, convert in _CONVERTERS.items():
        if keys <= row.keys():
            try:
                return convert(row)
            except (KeyError, IndexError, TypeError, AttributeError):
                return row
    return row


def _convert_openai_batch(row: Row) -> dict[str, Any]:
    """Convert one response of a batch of chat completions; https://platform.openai.com/docs/api-reference/batch."""
    item_id, response = row["custom_id"], row["response"] or {}
    body = response.get("body") or {}
    if row.get("error") or response.get("status_code") != 200:
        status = f"HTTP {response['status_code']}" if response.get("status_code") else ""
        error = ": ".join(filter(None, (status, error_message(row) or error_message(body))))
        return {"id": item_id, "reply": "", "finish_reason": "error", "error": error or "the request has neither a response nor an error"}
    choice, usage = body["choices"][0], body.get("usage") or {}
    content = parse_content(choice["message"])
    calls, reason = ToolCalls(), choice.get("finish_reason")
    calls.add(content.calls)
    return {
        "id": item_id,
        "reply": with_calls(content.text, calls.text),
        "finish_reason": "stop" if calls and finish_reason(reason, has_calls=True) == "stop" else reason,
        "prompt_tokens": usage.get("prompt_tokens", 0),
        "completion_tokens": usage.get("completion_tokens", 0),
        "thoughts": content.thoughts,
        "refused": content.refused,
    }


def _convert_lm_eval(row: Row) -> dict[str, Any]:
    """Convert one sample of ``generate_until``. The reply is the raw response, which the harness writes once per filter."""
    return {"id": row["doc"].get("id", row["doc_id"]), "reply": row["resps"][0][0], FILTER_KEY: row.get("filter")}


def is_other_filter(row: Row, other: Row) -> bool:
    """Return whether two converted rows with one id are the same sample of lm-evaluation-harness under two filters."""
    first, second = row.get(FILTER_KEY), other.get(FILTER_KEY)
    return bool(first and second and first != second and row["reply"] == other["reply"])


_CONVERTERS: dict[frozenset[str], Callable[[Row], dict[str, Any]]] = {
    frozenset({"custom_id", "response"}): _convert_openai_batch,
    frozenset({"doc_id", "doc", "resps"}): _convert_lm_eval,
}


BASELINE_KEY = "sftchat_baseline"
"""First key in the first line of a baseline; its value is the schema version."""
JSON_WHITESPACE = " \t\r\n"
"""The white space of JSON; ``str.strip`` without an argument removes more."""
ESCAPE_SURROGATES = "backslashreplace"
"""Error handler that writes an unpaired surrogate, which UTF-8 cannot encode, as a JSON escape."""


def stored_reply_row(item: Item) -> dict[str, Any]:
    """Return the reply and its counts as a row of a file of replies."""
    reply = item.reply
    return {
        "id": item.example.id,
        **_reply_members(reply),
        **(
            {"samples": [_reply_members(sample) | thoughts_and_refusal(sample) for sample in reply.other_samples]}
            if reply.other_samples
            else {}
        ),
        "stats": dict(sorted(item.score.stats.items())),
    }


def _reply_members(reply: Reply) -> dict[str, Any]:
    return {
        "reply": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }


def outcome_line(outcome: Outcome) -> str:
    """Return one outcome as a line of a file of replies; a failure has an error instead of a score, and ``not_judged`` if it has a reply."""
    if isinstance(outcome, Failure) and outcome.reply is not None:
        item = Item(outcome.example, outcome.reply, Score({}))
        row: dict[str, Any] = stored_reply_row(item) | thoughts_and_refusal(outcome.reply) | {"not_judged": outcome.error}
        del row["stats"]
    elif isinstance(outcome, Failure):
        row = {"id": outcome.example.id, "reply": "", "finish_reason": "error", "error": outcome.error}
    else:
        row = stored_reply_row(outcome) | thoughts_and_refusal(outcome.reply)
        stats = row.pop("stats")
        row |= {"answer": outcome.score.answer, "errors": list(outcome.score.errors), "stats": stats}  # the counts stand last
    return json.dumps(row, ensure_ascii=False) + "\n"


def thoughts_and_refusal(reply: Reply) -> dict[str, Any]:
    """Return ``thoughts`` and ``refused`` of a reply as a row stores them; empty values are left out."""
    return {name: value for name, value in (("thoughts", reply.thoughts), ("refused", reply.refused)) if value}


def read_replies(path: Path) -> dict[str, Reply | str]:
    """Read replies by id; a failed request has an error message instead.

    Only ``id`` and ``reply`` are required, so the output of any program can be scored. Unknown keys and the header of a baseline are ignored.

    Raises:
        DataError: When the file is missing or empty, a line is malformed, or an id occurs twice.
    """
    replies: dict[str, Reply | str] = {}
    first_row_by_id: dict[str, Row] = {}  # of samples from lm-evaluation-harness
    for number, line in numbered_lines(path, "replies"):
        if not line.strip(JSON_WHITESPACE):
            continue
        if number == 1 and line.startswith(f'{{"{BASELINE_KEY}"'):
            continue
        item_id, reply, row = parse_reply(line, f"{path}:{number}")
        if row.get(FILTER_KEY):
            first_row = first_row_by_id.setdefault(item_id, row)
            if is_other_filter(first_row, row):
                continue
        earlier = replies.get(item_id)
        if isinstance(earlier, Reply) and isinstance(reply, Reply) and _is_next_sample(row, earlier):
            replies[item_id] = replace(earlier, other_samples=(*earlier.other_samples, reply))
            continue
        if item_id in replies:
            raise DataError(f"id '{item_id}' has two replies", f"{path}:{number}")
        replies[item_id] = reply
    if not replies:
        raise DataError("the file has no replies", str(path))
    return replies


def numbered_lines(path: Path, content: str) -> Iterator[tuple[int, str]]:
    """Yield the numbers, from 1, and the lines of a file, one at a time in memory.

    Args:
        path: UTF-8 file, with or without a byte order mark.
        content: Expected content, such as ``replies``, for error messages.

    Raises:
        DataError: When it cannot be read, is not UTF-8, or a line exceeds the maximum length.
    """
    try:
        with path.open("rb") as file:
            for number, line, cut_off in iter_bounded_lines(file):
                if cut_off:
                    raise DataError(f"the line is longer than {MAX_BYTES >> 20} MiB, so these are no {content}", f"{path}:{number}")
                yield number, line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {content}: {not_utf8_message(error)}", str(path)) from error
    except OSError as error:
        raise DataError(f"cannot read {content}: {error.strerror or error}", str(path)) from error


def check_replies_match(
    replies: Mapping[str, Reply | str], requested_ids: Sequence[str], source: str, other_ids: Collection[str] = (), advice: str = ""
) -> None:
    """Check that there is exactly one reply to every example.

    Args:
        replies: Replies by id.
        requested_ids: Ids of the examples to score.
        source: Name of the file, for error messages.
        other_ids: Further ids that may have replies, such as those of the rows beyond ``--limit``.
        advice: Appended to the message about missing replies.

    Raises:
        DataError: When an example has no reply or a reply has no example; names them.
    """
    valid_ids = {*requested_ids, *other_ids}
    missing = [item_id for item_id in requested_ids if item_id not in replies]
    unknown = [item_id for item_id in replies if item_id not in valid_ids]
    problems = []
    if missing:
        problems.append(f"no reply to {list_quoted(missing)} of the {len(requested_ids)} items{advice}")
    if unknown:
        problems.append(f"{list_quoted(unknown)} not in the evalset")
    if problems:
        raise DataError("; ".join(problems), source)


def parse_reply(line: str, source: str) -> tuple[str, Reply | str, dict[str, Any]]:
    """Parse a line of a file of replies into the item's id, the reply or the error message of a failed request, and the converted row.

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
    item_id = row.get("id")
    if isinstance(item_id, int) and not isinstance(item_id, bool):
        item_id = str(item_id)  # other programs use numeric ids
    if not isinstance(item_id, str) or not item_id:
        raise DataError("'id' must be a text that is not empty", source)
    return item_id, _parse_members(row, item_id, source), row


def _parse_members(row: Mapping[str, Any], item_id: str, source: str) -> Reply | str:
    """Return the reply of a row with its further samples, or the error message of a failed request, also of a failed sample."""
    if "reply" not in row and isinstance(row.get("error"), str):
        return str(row["error"])
    if "reply" not in row:
        raise DataError(f"item '{item_id}' has no 'reply'; it has the keys {', '.join(map(abbreviate, row))}", source)
    text = row["reply"]
    if not isinstance(text, str):
        raise DataError(f"'reply' of item '{item_id}' is {abbreviate(text)}, must be a text", source)
    reason = row.get("finish_reason")
    if reason is not None and not isinstance(reason, str):
        raise DataError(f"'finish_reason' of item '{item_id}' is {abbreviate(reason)}, must be a text such as stop or length", source)
    finish = finish_reason(reason)
    if finish in ("error", "cancelled"):
        default_message = f"the request ended as '{reason}'" if reason in ("error", "cancelled") else unusable_reply_message(str(reason))
        return str(row.get("error") or default_message)
    samples = row.get("samples") or []
    if not isinstance(samples, list) or not all(isinstance(sample, dict) and "samples" not in sample for sample in samples):
        raise DataError(f"'samples' of item '{item_id}' is {abbreviate(samples)}, must be a list of objects with 'reply'", source)
    other_samples: list[Reply] = []
    for sample in samples:
        other = _parse_members(sample, item_id, source)
        if isinstance(other, str):
            return other
        other_samples.append(other)
    thoughts = row.get("thoughts", "")
    return Reply(
        text,
        finish,
        _parse_token_count(row, "prompt_tokens", item_id, source),
        _parse_token_count(row, "completion_tokens", item_id, source),
        thoughts if isinstance(thoughts, str) else "",
        row.get("refused") is True,
        tuple(other_samples),
    )


def _parse_token_count(row: Mapping[str, Any], key: str, item_id: str, source: str) -> int:
    """Return a number of tokens; 0 when the row has none."""
    value = row.get(key, 0)
    if type(value) is not int or value < 0:
        raise DataError(f"'{key}' of item '{item_id}' is {value!r}, must be a whole number from 0", source)
    return value


def _is_next_sample(row: Row, earlier: Reply) -> bool:
    """Return whether a row is the next sample of an item; ``sftchat ask -k`` numbers them from 0."""
    number = row.get("sample")
    return type(number) is int and number == len(earlier.samples)
