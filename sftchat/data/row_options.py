"""Options for reading rows, shared by all commands, their effect on the columns of a row, and notes of what was changed.

Columns are renamed to the names by which formats are detected; columns that change the meaning of a row are handled or rejected.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sftchat._util.parsing import from_json, load_json
from sftchat.errors import DataError, UsageError, unknown_name_message
from sftchat.task import Task
from sftchat.text import abbreviate, keys_of, pluralize

COLUMN_NAMES = (
    "messages", "conversations", "prompt", "completion", "chosen", "rejected", "instruction", "input", "output", "system", "history", "text", "gold",
    "tools", "id", "label",
)  # fmt: skip
"""Column names by which formats are detected; valid names of ``--map NAME=COLUMN``."""

OnChange = Callable[[str], None]
"""Called with one line that describes a change made while reading a row."""


def ignore_change(_: str) -> None:
    """Do nothing; for callers that do not report changes."""


@dataclass(frozen=True)
class RowOptions:
    """Options for reading rows; the defaults read rows unchanged.

    Attributes:
        roles: Additional role names, such as ``{"narrator": "user"}``.
        columns: The column to read for a name of ``COLUMN_NAMES``, such as ``{"prompt": "question"}``.
        label_column: Column whose value becomes the reply, for rows of text and label; empty for none.
        label_instruction: Instruction before the text of such rows; empty for none.
        merge_turns: Join consecutive turns of the same role.
        leading_assistant: ``refuse`` rows that start with an assistant turn, or ``drop`` those turns.
        prompt: Template of the prompt over the columns of a row, such as ``Summarise: {text}``, see ``render_prompt``; empty for rows with a prompt.
            The reply is then in the column under the name ``gold`` or ``completion``, or else in the first of ``GOLD_NAMES``.
        keep_turns: Whether rows that have turns are read as they are, and ``columns`` and ``prompt`` are for the other rows.
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    label_column: str = ""
    label_instruction: str = ""
    merge_turns: bool = False
    leading_assistant: str = "refuse"
    prompt: str = ""
    keep_turns: bool = False

    def __post_init__(self) -> None:
        """Check that an instruction comes with a label column.

        Raises:
            UsageError: When an option is missing; names it.
        """
        if self.label_instruction and not self.label_column:
            raise UsageError("--label-instruction is put before the text of labelled rows; give --label-column as well")

    @property
    def non_default(self) -> dict[str, Any]:
        """Return the non-default options for a manifest; ``RowOptions(**non_default)`` restores them."""
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in vars(self).items()
            if value != getattr(DEFAULT_ROW_OPTIONS, name)
        }


def options_for_task(task: Task | None, given: RowOptions) -> RowOptions:
    """Return the options for reading a task's files: the given ones, and the task's own where none is given.

    Args:
        task: The task; None for the given options alone.
        given: Options of the user.
    """
    own = dict(task.row_options) if task is not None else {}
    if given.columns or given.prompt:  # what the user names must be there, also in rows with turns
        own.pop("keep_turns", None)
    return RowOptions(**{**own, **given.non_default, "columns": {**own.get("columns", {}), **given.columns}})


DEFAULT_ROW_OPTIONS = RowOptions()
"""Default options: read rows unchanged."""


def recorded_options(source: Mapping[str, Any]) -> RowOptions:
    """Return the options with which a training file was read, from the training manifest.

    Args:
        source: Entry of the file in the manifest.

    Raises:
        DataError: When the manifest is damaged.
    """
    try:
        return from_json(RowOptions, source.get("rows_read", {}))
    except ValueError as error:
        raise DataError(f"the manifest does not state how its rows were read: {error}", str(source.get("file", ""))) from error


def parse_column_map(pairs: Iterable[str]) -> dict[str, str]:
    """Parse ``--map NAME=COLUMN``.

    Raises:
        UsageError: When a pair has no ``=``, a name is unknown, or a name or column is given twice.
    """
    columns: dict[str, str] = {}
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not equals or not name or not column:
            raise UsageError(f"map '{pair}' must be NAME=COLUMN, such as prompt=question")
        if name not in COLUMN_NAMES:
            raise UsageError(unknown_name_message("name of a column", name, COLUMN_NAMES))
        if name in columns or column in columns.values():
            raise UsageError(f"map '{pair}' gives {'a name' if name in columns else 'a column'} twice; give each once")
        columns[name] = column
    return columns


@dataclass
class ReadingNotes:
    """Changes and unused columns of one file.

    Attributes:
        changes: Number of rows by change.
        columns: Number of rows by unknown column; such columns are kept as metadata.
    """

    changes: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)

    def add(self, changes: Iterable[str], columns: Iterable[str]) -> None:
        """Count the changes and unused columns of one row.

        Args:
            changes: Without duplicates.
            columns: Without duplicates.
        """
        self.changes.update(changes)
        self.columns.update(columns)

    def change_lines(self) -> list[str]:
        """Return one line for each change."""
        return [f"{pluralize(count, 'row')}: {change}" for change, count in self.changes.items()]

    def lines(self) -> list[str]:
        """Return one line for each change, and one for all unused columns."""
        lines = self.change_lines()
        if self.columns:
            columns = ", ".join(f"{abbreviate(name)} ({count:,})" for name, count in self.columns.most_common())
            lines.append(f"columns kept as metadata and not used: {columns}")
        return lines


LABEL_COLUMNS = ("label", "labels", "kto_tag")
"""Column names of a text's class, or of whether a reply is desirable."""

GOLD_NAMES = ("gold", "label", "labels", "answer", "completion", "response", "reply", "output", "target", "expected")
"""Common names of the column with the gold reply, most common first."""

_REPLY_COLUMNS = frozenset({"messages", "conversations", "completion", "chosen", "instruction"})
"""Rows with replies have at least one of these keys."""

SIMILAR_NAMES = {
    "prompt": ("question", "query", "user", "human", "problem", "input", "request", "source"),
    "completion": ("answer", "response", "reply", "output", "assistant", "solution", "target"),
    "messages": ("chat", "conversation", "dialog", "dialogue", "turns"),
    "text": ("content", "document", "body", "sentence"),
}
"""Other common names of the keys by which formats are detected, most common first."""


class UnwantedReplyError(DataError):
    """The row's label marks its reply as undesirable."""


def map_columns(row: Mapping[str, Any], options: RowOptions, on_change: OnChange) -> dict[str, Any]:
    """Rename the columns of a row by ``--map`` and ``--label-column``, and parse turns stored as JSON text.

    Args:
        row: The row as in the file.
        options: Options for reading rows.
        on_change: Called with a description of each change.

    Raises:
        DataError: When a column is missing or exists under both names, or a label cannot be a reply.
        UnwantedReplyError: When the label of a reply is false.
    """
    mapped = dict(row)
    if options.keep_turns and has_turns(row):
        options = replace(options, columns={}, prompt="")
    for name, column in options.columns.items():
        if column not in row:
            raise DataError(
                f"there is no column {abbreviate(column)}, which --map {name}={column} names; the row has the keys {keys_of(row)}"
            )
        column_is_renamed = name in options.columns.values()
        if mapped.get(name) is not None and not column_is_renamed:
            raise DataError(f"the row has a column {abbreviate(name)} of its own; leave --map {name}={column} out, or remove one")
    for column in options.columns.values():
        mapped.pop(column)
    mapped |= {name: row[column] for name, column in options.columns.items()}
    if options.prompt:
        mapped = _render_row(row, mapped, options.prompt)
    elif options.label_column:
        mapped = _label_to_reply(mapped, options)
    else:
        _check_label(mapped)
    has_pair = isinstance(mapped.get("prompt"), str) and mapped.get("gold") is not None
    if has_pair and not any(mapped.get(name) is not None for name in ("messages", "completion")):
        mapped["completion"] = _reply_text(mapped.pop("gold"), "gold")
    for name in ("messages", "conversations"):
        if isinstance(mapped.get(name), str):
            mapped[name] = _parse_turns(mapped[name], name, on_change)
    return mapped


_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def render_prompt(template: str, row: Mapping[str, Any]) -> str:
    """Fill the placeholders of a prompt template with the values of a row.

    Args:
        template: Text with ``{column}``; a brace is written ``{{`` or ``}}``.
        row: Values by column; values other than text become JSON.

    Raises:
        DataError: When the row lacks a column, or a brace is alone.
    """

    def fill(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        name = match[1]
        if name is None:
            raise DataError(f"the prompt template has a single '{match[0]}'; write '{match[0] * 2}' for a brace")
        if row.get(name) is None:
            raise DataError(f"there is no column {abbreviate(name)}, which the prompt template names; the row has the keys {keys_of(row)}")
        value = row[name]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _PLACEHOLDER.sub(fill, template)


def _render_row(row: Mapping[str, Any], mapped: dict[str, Any], template: str) -> dict[str, Any]:
    """Return the row with the rendered prompt, its reply as ``completion``, and all other columns."""
    name = next((name for name in ("completion", *GOLD_NAMES) if mapped.get(name) is not None), None)
    reply = {} if name is None else {"completion": _reply_text(mapped[name], name)}
    other_columns = {key: value for key, value in mapped.items() if key not in ("prompt", name)}
    return {**other_columns, "prompt": render_prompt(template, {**mapped, **row}), **reply}


def _reply_text(value: Any, name: str) -> str:
    """Return a gold reply as text: numbers as they are written in JSON."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else json.dumps(value)


def guess_columns(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns that are probably prompt and gold reply of a row of an evalset; empty unless both are found.

    Args:
        row: A row without turns, such as one of a CSV file with the columns ``text`` and ``label``.
    """
    columns = {key.strip().lower(): key for key, value in row.items() if value not in (None, "")}
    prompt = next((columns[name] for name in ("prompt", *SIMILAR_NAMES["prompt"], "text", *SIMILAR_NAMES["text"]) if name in columns), None)
    gold = next((columns[name] for name in GOLD_NAMES if name in columns and columns[name] != prompt), None)
    return {"prompt": prompt, "gold": gold} if prompt is not None and gold is not None else {}


def _label_to_reply(row: dict[str, Any], options: RowOptions) -> dict[str, Any]:
    column = options.label_column
    if row.keys() & _REPLY_COLUMNS:
        raise DataError(f"the row has a reply already, so --label-column {column} cannot give it one; it has the keys {keys_of(row)}")
    if row.get(column) is None:
        raise DataError(f"there is no column {abbreviate(column)}, which --label-column names; the row has the keys {keys_of(row)}")
    if isinstance(row[column], (dict, list)):
        raise DataError(f"{column} is {abbreviate(row[column])}, must be text or a number to become a reply")
    text_column = next((name for name in ("text", "prompt") if isinstance(row.get(name), str)), None)
    if text_column is None:
        raise DataError(
            f"there is no column 'text' to be labelled; the row has the keys {keys_of(row)}; say which it is with --map text=COLUMN"
        )
    label = row[column] if isinstance(row[column], str) else json.dumps(row[column])
    prompt = "\n\n".join(part for part in (options.label_instruction, row[text_column]) if part)
    other_columns = {key: value for key, value in row.items() if key not in (text_column, column)}
    return {**other_columns, "prompt": prompt, "completion": label}


def _check_label(row: Mapping[str, Any]) -> None:
    """Reject labels that training would ignore."""
    for name in LABEL_COLUMNS:
        label = row.get(name)
        if label is None or label == "" or row.get("gold") is not None:
            continue
        if row.keys() & _REPLY_COLUMNS:
            if label is False or (isinstance(label, str) and label.strip().lower() == "false"):
                raise UnwantedReplyError(
                    f"{name} is false: the reply is one to avoid, and training would learn it; leave such rows out with "
                    "'sftchat data check FILE --policy unwanted=drop -o OUT'"
                )
        elif "text" in row and name != "kto_tag":
            raise DataError(
                f"the row has a text and a column {abbreviate(name)}; --label-column {name} makes the label the reply; to learn the text, remove the column"
            )


def _parse_turns(text: str, name: str, on_change: OnChange) -> Any:
    """Parse turns in a JSON text; any other text is returned unchanged and rejected later."""
    try:
        turns = load_json(text)
    except ValueError:
        return text
    if isinstance(turns, list):
        on_change(f"{name} is JSON text and is read as JSON")
        return turns
    return text


def has_turns(row: Mapping[str, Any]) -> bool:
    """Return whether a row has a conversation, and not only columns of a table."""
    return any(row.get(name) is not None for name in ("messages", "conversations"))


def suggest_map(row: Mapping[str, Any]) -> str:
    """Return a ``--map`` option that would give the row a known format; empty when no column name is similar."""
    columns = {key.strip().lower(): key for key, value in row.items() if value is not None}
    similar_columns = {}
    for name, other_names in SIMILAR_NAMES.items():
        matching = [columns[similar_name] for similar_name in (name, *other_names) if similar_name in columns]
        if matching:
            similar_columns[name] = matching[0]
    names = ["prompt", "completion"]
    if not similar_columns.keys() >= set(names):
        names = [name for name in similar_columns if name in ("messages", "text")][:1]
    return " ".join(f"--map {name}={shlex.quote(similar_columns[name])}" for name in names if name != similar_columns[name])
