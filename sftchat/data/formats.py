"""Row formats, detected for each row from its keys, and their conversion to ``Example`` and back.

==================  =========================================================================================
messages            ``{"messages": [{"role", "content"}…]}``, the last turn the assistant's
prompt-completion   ``{"prompt", "completion"}``, both text or both lists of turns
alpaca              ``{"instruction", "input"?, "output", "system"?, "history"?}``; also ``context`` and ``response``
sharegpt            ``{"conversations": [{"from", "value"}…]}``
text                ``{"text"}``: no turns; an example without messages whose gold is the text
preference          ``{"prompt", "chosen", "rejected"}``: read as ``chosen``
evalset             ``{"id"?, "messages": […ending in user], "gold", "metadata"?}``
==================  =========================================================================================

Other keys of a row become ``Example.metadata``; an object under ``metadata`` is merged into it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sftchat.data.read import read_rows
from sftchat.data.row_options import (
    DEFAULT_ROW_OPTIONS,
    LABEL_COLUMNS,
    OnChange,
    ReadingNotes,
    RowOptions,
    UnwantedReplyError,
    guess_columns,
    has_turns,
    map_columns,
    suggest_map,
)
from sftchat.data.serialize import FORMATS, RESERVED_KEYS, serialize
from sftchat.data.turns import check_order, normalize_tools, normalize_turns, read_turns, require_text
from sftchat.errors import DataError
from sftchat.text import abbreviate, keys_of
from sftchat.types import Example, Message

__all__ = ["FORMATS", "assign_ids", "format_of", "read_examples", "serialize", "to_example", "to_rows"]

EXPECTED_KEYS = "messages; messages, gold; prompt, completion; prompt, chosen, rejected; instruction, output; conversations; text"


def read_examples(
    path: str | os.PathLike[str], options: RowOptions = DEFAULT_ROW_OPTIONS, notes: ReadingNotes | None = None
) -> Iterator[Example]:
    """Read a file of rows of any format; stops at the first malformed row.

    Args:
        path: Input of ``read_rows``; ``-`` reads standard input.
        options: Options for reading rows.
        notes: Collects changes to rows and unused columns.

    Raises:
        DataError: With file and line, when the file or a row is invalid.
    """
    for source, row in read_rows(path):
        yield to_example(row, source, options, notes)


def format_of(row: Mapping[str, Any]) -> str:
    """Return the format name of a row, from its keys alone.

    Raises:
        DataError: When it matches no format, or two; the message has no source.
    """
    # in files of mixed formats `datasets` adds every key to every row, with null values
    keys = {key for key, value in row.items() if value is not None}
    formats = []
    if "messages" in keys:
        formats.append("evalset" if "gold" in row else "messages")
    if "conversations" in keys:
        formats.append("sharegpt")
    if keys >= {"prompt", "completion"}:
        formats.append("prompt-completion")
    if keys >= {"chosen", "rejected"}:
        formats.append("preference")
    if "instruction" in keys and keys & {"output", "response"}:
        formats.append("alpaca")
    if len(formats) > 1:
        raise DataError(f"the row has the shapes {' and '.join(formats)} at once; remove the keys of one")
    if formats:
        return formats[0]
    if "text" in keys:  # last, because rows of Alpaca and other formats may have their rendered text under this key
        return "text"
    map_option = suggest_map(row)
    hint = f"; read it with {map_option}" if map_option else ""
    raise DataError(f"unknown shape of row, with the keys {keys_of(row)}; it needs one of: {EXPECTED_KEYS}{hint}")


def to_example(
    row: Mapping[str, Any], source: str = "", options: RowOptions = DEFAULT_ROW_OPTIONS, notes: ReadingNotes | None = None
) -> Example:
    """Convert a row of any format to an example.

    A final assistant turn becomes ``gold``, unless it contains more than text (tool calls): then it stays a turn.

    Args:
        row: The row.
        source: Source of the row, ``file:line``.
        options: Options for reading rows.
        notes: Collects changes and unused columns.

    Raises:
        DataError: When the row is malformed; names key and value.
        UnwantedReplyError: When its reply is marked as undesirable.
    """
    changes: list[str] = []
    try:
        example, unused_columns = _convert_row(row, source, options, changes.append)
    except UnwantedReplyError as error:
        raise UnwantedReplyError(error.message, source) from None
    except DataError as error:
        raise DataError(error.message, source) from None
    if notes is not None:
        notes.add(list(dict.fromkeys(changes)), unused_columns)
    return example


def format_with_options(row: Mapping[str, Any], options: RowOptions = DEFAULT_ROW_OPTIONS) -> str:
    """Return the format name of a row after renaming its columns by ``options``.

    Raises:
        DataError: As for ``to_example``.
    """
    mapped = map_columns(row, options, lambda _: None)
    return "prompt-completion" if _is_rendered(row, options) else format_of(mapped)


def _is_rendered(row: Mapping[str, Any], options: RowOptions) -> bool:
    """Return whether the prompt of a row was rendered from its columns, which may look like those of another format."""
    return bool(options.prompt) and not (options.keep_turns and has_turns(row))


def with_guessed_columns(row: Mapping[str, Any], options: RowOptions) -> RowOptions:
    """Return options with the probable columns of prompt and gold reply, for rows of a table without a known format.

    Args:
        row: The first row of a file.
        options: Options of the user; returned unchanged when they name columns, or when the row has a format.
    """
    if options.columns or options.prompt or options.label_column:
        return options
    try:
        is_known = format_with_options(row, options) != "text"
    except DataError:
        is_known = False
    columns = {} if is_known else guess_columns(row)
    return replace(options, columns={name: column for name, column in columns.items() if name != column}) if columns else options


def read_solved_examples(path: str | os.PathLike[str], options: RowOptions = DEFAULT_ROW_OPTIONS) -> tuple[Example, ...]:
    """Read few-shot examples like an evalset: the columns of a table are guessed, see ``with_guessed_columns``.

    Raises:
        DataError: With file and line, when the file or a row is invalid.
    """
    _, row = next(read_rows(path), ("", None))
    return tuple(read_examples(path, options if row is None else with_guessed_columns(row, options)))


def _convert_row(original_row: Mapping[str, Any], source: str, options: RowOptions, on_change: OnChange) -> tuple[Example, list[str]]:
    """Return the example of a row, and the names of its unused columns; errors do not contain the source."""
    row = map_columns(original_row, options, on_change)
    row_format = "prompt-completion" if _is_rendered(original_row, options) else format_of(row)
    used_keys = {"id", "functions", *_KEYS[row_format]}
    first_key = _KEYS[row_format][0]
    turns: tuple[Message, ...] = ()
    gold: str | None = None
    if row_format == "text":
        gold = require_text(row["text"], "text")
    elif row_format == "alpaca":
        turns, gold = _read_alpaca(row)
    elif row_format == "prompt-completion":
        turns = _read_pair(row, options, on_change)
    elif row_format == "preference":  # without preference training, only the better reply of a pair is used
        turns = _read_preferred(row, options, on_change)
        on_change("of chosen and rejected only chosen is learned")
    else:
        turns = read_turns(row[first_key], first_key, options, on_change)
        if row_format == "evalset":
            gold = require_text(row["gold"], "gold")
    if row_format != "text":
        used_keys.add("system")
        turns = normalize_turns(_prepend_system(row.get("system"), turns), first_key, options, on_change)
        check_order(turns, first_key, has_gold=gold is not None)
    if gold is None and turns[-1]["role"] == "assistant" and turns[-1].keys() == {"role", "content"}:
        turns, gold = turns[:-1], turns[-1]["content"]
    metadata = _read_metadata(row, used_keys)
    unused_columns = [key for key in metadata if row.get(key) is not None and key not in _USED_METADATA]
    if tools := _read_tools(row.get("functions"), metadata.pop("tools", None), on_change):
        metadata["tools"] = tools
    return Example(turns, gold, _read_id(row.get("id")), metadata, source), unused_columns


_USED_METADATA = {"tools", "rejected", "finish_reason", *LABEL_COLUMNS}
"""Metadata keys that are read in this module or when rows are checked."""


def _read_tools(functions: Any, tools: Any, on_change: OnChange) -> list[dict[str, Any]]:
    """Return the tools of a row in normal form; they are under ``functions`` or under ``tools``."""
    if functions and tools:
        raise DataError("the row has both tools and functions; remove one")
    return normalize_tools(functions, "functions", on_change) if functions else normalize_tools(tools, "tools", on_change)


_KEYS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "evalset": ("messages", "gold"),
    "sharegpt": ("conversations",),
    "prompt-completion": ("prompt", "completion"),
    "preference": ("prompt", "chosen"),
    "alpaca": ("instruction", "input", "context", "output", "response", "history"),
    "text": ("text",),
}
"""Keys that a format uses; errors about the turns of a row name the first."""


def _prepend_system(value: Any, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    if value is None or not require_text(value, "system", empty=True).strip():
        return turns
    if turns[0]["role"] == "system":
        raise DataError("the row has a system prompt under 'system' and another as its first turn; remove one")
    return (Message(role="system", content=value), *turns)


def _read_alpaca(row: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    """Return turns and gold reply; the last turn is the instruction and, after a blank line, the input."""
    for key, synonym in (("input", "context"), ("output", "response")):
        if row.get(key) is not None and row.get(synonym) is not None:
            raise DataError(f"the row has both {key} and {synonym}; remove one")
    input_key = "input" if row.get("context") is None else "context"
    reply_key = "output" if row.get("response") is None else "response"
    parts = [
        require_text(row["instruction"], "instruction", empty=True),
        "" if row.get(input_key) is None else require_text(row[input_key], input_key, empty=True),
    ]
    prompt = "\n\n".join(part for part in parts if part.strip())
    if not prompt:
        raise DataError(f"instruction is empty and so is {input_key}; fill one or remove the row")
    turn = Message(role="user", content=prompt)
    if all(part.strip() for part in parts):
        turn["context"] = parts[1]
    return (*_read_history(row.get("history")), turn), require_text(row[reply_key], reply_key)


def _read_history(value: Any) -> Iterator[Message]:
    """Return the turns of earlier pairs of question and answer."""
    if value is None:
        return
    pairs = value if isinstance(value, list) else [value]
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"history[{index}] is {abbreviate(pair)}, must be a pair of what was asked and what was answered")
        question, answer = pair
        yield Message(role="user", content=require_text(question, f"history[{index}][0]"))
        yield Message(role="assistant", content=require_text(answer, f"history[{index}][1]"))


def _read_pair(row: Mapping[str, Any], options: RowOptions, on_change: OnChange) -> tuple[Message, ...]:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        turns = read_turns(completion, "completion", options, on_change)
        if turns[-1]["role"] != "assistant":
            raise DataError(f"completion ends with the role {abbreviate(turns[-1]['role'])}, must end with an assistant turn")
        return (*read_turns(prompt, "prompt", options, on_change), *turns)
    for key, value, other_value in (("prompt", prompt, completion), ("completion", completion, prompt)):
        if isinstance(value, list) and isinstance(other_value, str):
            raise DataError(f"{key} is a list of turns and the other half is text; write both as text or both as turns")
    return (
        Message(role="user", content=require_text(prompt, "prompt")),
        Message(role="assistant", content=require_text(completion, "completion")),
    )


def _read_preferred(row: Mapping[str, Any], options: RowOptions, on_change: OnChange) -> tuple[Message, ...]:
    """Read the prompt and the chosen reply of a preference pair; turns under ``chosen`` may include the prompt."""
    prompt, chosen = row.get("prompt"), row["chosen"]
    if isinstance(chosen, list):
        turns = read_turns(chosen, "chosen", options, on_change)
        if turns[0]["role"] != "assistant":
            return turns
        if isinstance(prompt, str):
            return (Message(role="user", content=require_text(prompt, "prompt")), *turns)
    if prompt is None:
        raise DataError("the row has chosen and rejected and no prompt; name its column with --map prompt=COLUMN")
    return _read_pair({"prompt": prompt, "completion": chosen}, options, on_change)


def _read_id(value: Any) -> str:
    """Return the id of a row as text; empty when it has none."""
    if value is None:
        return ""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"id is {abbreviate(value)}, must be text or a whole number")


def _read_metadata(row: Mapping[str, Any], used_keys: set[str]) -> dict[str, Any]:
    """Return the keys that the format does not use, except reserved keys that are null; an object under ``metadata`` is merged in."""
    metadata = {key: value for key, value in row.items() if key not in used_keys and (value is not None or key not in RESERVED_KEYS)}
    if not isinstance(metadata.get("metadata"), dict):
        return metadata
    nested = metadata.pop("metadata")
    duplicate_keys = sorted(nested.keys() & metadata.keys())
    if duplicate_keys:
        raise DataError(f"key {abbreviate(duplicate_keys[0])} is both in the row and in its metadata; remove one")
    return {**metadata, **nested}


def assign_ids(examples: Iterable[Example]) -> Iterator[Example]:
    """Give ids to examples without one, from ``row-000001``, and reject duplicate ids.

    Raises:
        DataError: When an id is duplicate; names both lines.
    """
    first_sources: dict[str, str] = {}
    for number, example in enumerate(examples, 1):
        example_id = example.id or f"row-{number:06d}"
        source = example.source or f"row {number}"
        if example_id in first_sources:
            raise DataError(f"id {abbreviate(example_id)} is taken by {first_sources[example_id]}; give every row its own", source)
        first_sources[example_id] = source
        yield example if example.id else replace(example, id=example_id)


def examples_hash(examples: Iterable[Example]) -> str:
    """Return the hex SHA-256 of prompts and gold replies, in order; identifies rows that are in no file."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.messages, example.gold], ensure_ascii=False, sort_keys=True).encode())
    return digest.hexdigest()


def to_rows(examples: Iterable[Example], row_format: str) -> Iterator[dict[str, Any]]:
    """Convert examples to rows of a format; rows of an evalset get ids, because baselines refer to items by id.

    Raises:
        DataError: When the format cannot represent an example, or ids are duplicate.
    """
    for example in assign_ids(examples) if row_format == "evalset" else examples:
        yield serialize(example, row_format)
