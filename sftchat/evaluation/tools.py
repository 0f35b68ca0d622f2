"""Rows that other tools write and that say by their keys what they are, read as if they were ours.

Only formats in which every row names its item are read here; for those that go by position, docs/replies.md has a few lines of Python each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sftchat.protocol import content_of, error_message

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
