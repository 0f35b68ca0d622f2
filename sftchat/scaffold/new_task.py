"""Writes a task file with every key explained, and a small evalset beside it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftchat._util.files import check_output_file, write_atomically, write_error
from sftchat.data.row_options import RowOptions, guess_columns
from sftchat.errors import UsageError
from sftchat.evaluation.evalset import read_evalset
from sftchat.scorers import NAMES
from sftchat.task import NAME

TEMPLATE_FOLDER = Path(__file__).parent / "task"
MAX_LABELS = 12
"""Maximum number of different gold replies that are taken for labels."""
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
"""Matches a key that TOML reads without quotes."""
LONGEST_LABEL = 40
"""Maximum length of a gold reply, in characters, that is taken for a label."""


@dataclass(frozen=True)
class EvalsetFacts:
    """What an evalset tells about its task.

    Attributes:
        prompt_column: Column with the text of the prompt; empty for rows in a format with its own prompt.
        labels: The distinct gold replies, sorted, when they are few; else empty.
        columns: The columns to read under other names, as given by the user.
    """

    prompt_column: str = ""
    labels: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


def read_facts(path: Path, columns: Mapping[str, str]) -> EvalsetFacts:
    """Read an evalset for its columns and labels.

    Args:
        path: The evalset.
        columns: The columns to read under other names, see ``RowOptions``.

    Raises:
        DataError: When it cannot be read as an evalset.
    """
    from sftchat.data.read import read_rows

    examples = read_evalset(path, row_options=RowOptions(columns=columns)).examples
    golds = sorted({(example.gold or "").strip() for example in examples})
    are_labels = 2 <= len(golds) <= MAX_LABELS and len(golds) < len(examples) and all(0 < len(gold) <= LONGEST_LABEL for gold in golds)
    _, row = next(read_rows(path))
    column = "" if columns or "messages" in row or "conversations" in row else guess_columns(row).get("prompt", "")
    is_usable = isinstance(row.get(column), str) and not set("{}") & set(column)
    return EvalsetFacts(column if is_usable else "", tuple(golds) if are_labels else (), columns)


def write_task(
    name: str, path: Path, *, evalset: Path | None = None, columns: Mapping[str, str] | None = None, overwrite: bool = False
) -> list[Path]:
    """Write a task file, and an evalset beside it unless one is given or the file is there.

    Args:
        name: Name of the task.
        path: The task file; its name ends with ``.toml``.
        evalset: Evalset of the task; by default the file with the name of ``path`` and the suffix ``.csv``.
        columns: The columns of the evalset to read under other names, see ``RowOptions``.
        overwrite: Whether to replace an existing task file; an evalset is never replaced.

    Returns:
        The written files.

    Raises:
        UsageError: When the name is invalid or the file exists.
        DataError: When the evalset cannot be read.
        SftchatError: When a file cannot be written.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"task name '{name[:60]}' must be lower-case letters, digits, '-' and '_', starting with a letter, such as tickets"
        )
    if path.suffix.lower() != ".toml":
        raise UsageError(f"output '{path}' must end with .toml, so that --task reads it as a file; such as {path}.toml")
    check_output_file(path, overwrite=overwrite)
    source = evalset or path.with_suffix(".csv")
    is_new = evalset is None and not source.exists()
    if is_new:
        check_output_file(source)
    facts = read_facts(TEMPLATE_FOLDER / "evalset.csv" if is_new else source, columns or {})
    text = render_task_file(name, path, facts, source)
    texts = {source: (TEMPLATE_FOLDER / "evalset.csv").read_text(encoding="utf-8")} if is_new else {}
    for file, content in {**texts, path: text}.items():
        try:
            write_atomically(file, content)
        except OSError as error:
            raise write_error(file, error) from error
    return [path, source] if is_new else [path]


def render_task_file(name: str, path: Path, facts: EvalsetFacts, evalset: Path) -> str:
    """Return the text of a task file.

    Args:
        name: Name of the task.
        path: The task file, to which paths in it are relative.
        facts: What the evalset tells.
        evalset: The evalset.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        variable_start_string="<<", variable_end_string=">>", comment_start_string="<#", comment_end_string="#>",
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters["toml"] = toml_value
    labels = facts.labels
    row_keys = (facts.prompt_column or facts.columns.get("prompt") or "prompt", facts.columns.get("gold") or "gold")
    rows = [
        dict(zip(row_keys, row, strict=True))
        for row in zip(("A prompt.", "Another prompt."), labels or ("its reply", "its reply"), strict=False)
    ]
    system = (
        f"Answer with one of these labels and nothing else: {', '.join(labels)}." if labels else "Answer with the result and nothing else."
    )
    scorer: dict[str, Any] = {"name": "choice", "labels": [*labels]} if labels else {"name": "exact"}
    return environment.from_string((TEMPLATE_FOLDER / "task.toml.jinja").read_text(encoding="utf-8")).render(
        name=name,
        file=path.name,
        description=f"{evalset.name}: {'one of ' + str(len(labels)) + ' labels' if labels else 'short answers'}",
        system=f"system = {toml_value(system)}",
        prompt=f"prompt = {toml_value(f'{{{facts.prompt_column}}}')}" if facts.prompt_column else '# prompt = "Summarise: {text}"',
        columns=f"columns = {toml_value(facts.columns)}" if facts.columns else '# columns = { prompt = "question", gold = "expected" }',
        scorer=f"scorer = {toml_value(scorer)}",
        scorers=", ".join(NAMES),
        rows=toml_value(rows),
        evalset=os.path.relpath(evalset.absolute(), path.absolute().parent).replace(os.sep, "/"),
        max_new_tokens=32 if labels else 256,
    )


def toml_value(value: Any) -> str:
    """Return text, or a list or mapping of such values, as TOML on one line."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's basic strings have JSON's escapes
    if isinstance(value, Mapping):
        members = (f"{key if BARE_KEY.fullmatch(key) else toml_value(key)} = {toml_value(member)}" for key, member in value.items())
        return "{ " + ", ".join(members) + " }"
    return "[" + ", ".join(map(toml_value, value)) + "]"
