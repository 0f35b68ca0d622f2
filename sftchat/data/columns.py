"""Column mapping: rename columns to the names by which formats are detected, and handle columns that change the meaning of a row."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from sftchat._util.parsing import load_json
from sftchat.data.row_options import Change, RowOptions
from sftchat.data.values import abbreviate, keys_of
from sftchat.errors import DataError

LABELS = ("label", "labels", "kto_tag")
"""Column names of a text's class, or of whether a reply is desirable."""

_OF_REPLIES = frozenset({"messages", "conversations", "completion", "chosen", "instruction"})
"""Rows with replies have at least one of these keys."""

LOOKS_LIKE = {
    "prompt": ("question", "query", "user", "human", "problem", "input", "request", "source"),
    "completion": ("answer", "response", "reply", "output", "assistant", "solution", "target"),
    "messages": ("chat", "conversation", "dialog", "dialogue", "turns"),
    "text": ("content", "document", "body", "sentence"),
}
"""Other common names of the keys by which formats are detected, most common first."""


class UnwantedReplyError(DataError):
    """The row's label marks its reply as undesirable."""


def named_columns(row: Mapping[str, Any], options: RowOptions, change: Change) -> dict[str, Any]:
    """Rename the columns of a row by ``--map`` and ``--label-column``, and parse turns stored as JSON text.

    Args:
        row: The row as in the file.
        options: Options for reading rows.
        change: Called with a description of each change.

    Raises:
        DataError: When a column is missing or exists under both names, or a label cannot be a reply.
        UnwantedReplyError: When the label of a reply is false.
    """
    found = dict(row)
    for name, column in options.columns.items():
        if column not in row:
            raise DataError(
                f"there is no column {abbreviate(column)}, which --map {name}={column} names; the row has the keys {keys_of(row)}"
            )
        if name not in options.columns.values() and found.get(name) is not None:
            raise DataError(f"the row has a column {abbreviate(name)} of its own; leave --map {name}={column} out, or remove one")
    for column in options.columns.values():
        found.pop(column)
    found |= {name: row[column] for name, column in options.columns.items()}
    if options.label_column:
        found = _labelled(found, options)
    else:
        _check_label(found)
    for name in ("messages", "conversations"):
        if isinstance(found.get(name), str):
            found[name] = _turns_of(found[name], name, change)
    return found


def _labelled(row: dict[str, Any], options: RowOptions) -> dict[str, Any]:
    """Convert a row of text and label to prompt and completion."""
    column = options.label_column
    if row.keys() & _OF_REPLIES:
        raise DataError(f"the row has a reply already, so --label-column {column} cannot give it one; it has the keys {keys_of(row)}")
    if row.get(column) is None:
        raise DataError(f"there is no column {abbreviate(column)}, which --label-column names; the row has the keys {keys_of(row)}")
    if isinstance(row[column], (dict, list)):
        raise DataError(f"{column} is {abbreviate(row[column])}, must be text or a number to become a reply")
    for name in ("text", "prompt"):
        if isinstance(row.get(name), str):
            break
    else:
        raise DataError(
            f"there is no column 'text' to be labelled; the row has the keys {keys_of(row)}; say which it is with --map text=COLUMN"
        )
    label = row[column] if isinstance(row[column], str) else json.dumps(row[column])
    asked = "\n\n".join(part for part in (options.label_instruction, row[name]) if part)
    return {**{key: value for key, value in row.items() if key not in (name, column)}, "prompt": asked, "completion": label}


def _check_label(row: Mapping[str, Any]) -> None:
    """Reject labels that training would ignore."""
    for name in LABELS:
        label = row.get(name)
        if label is None or label == "" or row.get("gold") is not None:
            continue
        if row.keys() & _OF_REPLIES:
            if label is False or (isinstance(label, str) and label.strip().lower() == "false"):
                raise UnwantedReplyError(
                    f"{name} is false: the reply is one to avoid, and training would learn it; leave such rows out with "
                    "'sftchat data check FILE --policy unwanted=drop -o OUT'"
                )
        elif "text" in row and name != "kto_tag":
            raise DataError(
                f"the row has a text and a column {abbreviate(name)}; --label-column {name} makes the label the reply; to learn the text, remove the column"
            )


def _turns_of(text: str, name: str, change: Change) -> Any:
    """Parse turns in a JSON text; any other text is returned unchanged and rejected later."""
    try:
        turns = load_json(text)
    except ValueError:
        return text
    if isinstance(turns, list):
        change(f"{name} is JSON text and is read as JSON")
        return turns
    return text


def suggestion(row: Mapping[str, Any]) -> str:
    """Return a ``--map`` option that would give the row a known format; empty when no column name is similar."""
    columns = {key.strip().lower(): key for key, value in row.items() if value is not None}

    def like(name: str) -> str | None:
        """Return the column with a similar name."""
        return next((columns[other] for other in (name, *LOOKS_LIKE[name]) if other in columns), None)

    prompt, completion = like("prompt"), like("completion")
    if prompt is not None and completion is not None:
        pairs = {"prompt": prompt, "completion": completion}
    else:
        pairs = next(({name: column} for name in ("messages", "text") if (column := like(name)) is not None), {})
    return " ".join(f"--map {name}={shlex.quote(column)}" for name, column in pairs.items() if name != column)
