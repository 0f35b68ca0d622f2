"""The scorer ``sql_result``, which runs the query of a reply and the gold query and compares what they return."""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from sftchat._util.parsing import expand_user, read_text
from sftchat.errors import UsageError, os_reason
from sftchat.scorers.base import ACCURACY, Answers, Scorer, gold_required, with_reply_errors
from sftchat.task import rate
from sftchat.types import Example, Reply, Score

MAX_VALUE_BYTES = 1_000_000
"""Maximum size of one value and of a query in bytes."""
MAX_RESULT_BYTES = 16 * MAX_VALUE_BYTES
"""Maximum size of a result."""
INSTRUCTIONS_PER_CHECK = 10_000
"""Number of SQLite's instructions between two checks of the time."""
SIGNIFICANT_DIGITS = 10
"""Digits to which floating-point numbers are compared: sums of the same numbers in another order differ in the last ones."""
SQLITE_HEADER = b"SQLite format 3\0"
_READ_ACTIONS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN_FUNCTIONS = ("load_extension", "fts3_tokenizer", "readfile", "writefile", "edit")
_SQL_TOKEN = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|[()]|\w+", re.DOTALL)

VALID = rate("valid", "valid", "share of replies that are a query that runs")

Row = tuple[Any, ...]
SqlError = Literal["sql_error", "forbidden", "timeout"]


@dataclass(frozen=True)
class Result:
    """What a query returned, or why it did not.

    Attributes:
        rows: The rows, with comparable values; empty when it failed.
        error: Error class of a query that failed.
        message: SQLite's message.
        too_large: Whether the result exceeded the maximum; it then equals no other.
    """

    rows: tuple[Row, ...] = ()
    error: SqlError | None = None
    message: str = ""
    too_large: bool = False


@dataclass(frozen=True)
class Database:
    """A database for queries that only read.

    Attributes:
        content: The database in SQLite's file format, in memory.
        path: Path of a database file, instead of ``content``.
    """

    content: bytes = b""
    path: str = ""

    def run(self, query: str, *, seconds: float, max_rows: int) -> Result:
        """Run a query in a connection of its own; it can neither write, attach files nor change settings.

        Args:
            query: One statement.
            seconds: Maximum CPU time.
            max_rows: Maximum number of rows.
        """
        denied = False
        deadline = time.thread_time() + seconds

        def authorize(action: int, first: str | None, second: str | None, *_: Any) -> int:
            nonlocal denied
            allowed = action in _READ_ACTIONS and not (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS)
            denied = denied or not allowed
            return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

        with closing(self._connect()) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_VALUE_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.set_authorizer(authorize)
            connection.set_progress_handler(lambda: int(time.thread_time() > deadline), INSTRUCTIONS_PER_CHECK)
            try:
                return _fetch(connection.execute(query), max_rows)
            # Warning: two statements; ValueError: a NUL or half a surrogate; MemoryError: SQLite's own
            except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
                message = str(error) or type(error).__name__
                if denied:
                    return Result(error="forbidden", message=message)
                return Result(error="timeout" if message == "interrupted" else "sql_error", message=message)

    def _connect(self) -> sqlite3.Connection:
        if self.path:
            return sqlite3.connect(f"{Path(self.path).absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        connection = sqlite3.connect(":memory:")
        if self.content:
            connection.deserialize(self.content)
        return connection


def _fetch(cursor: sqlite3.Cursor, max_rows: int) -> Result:
    if cursor.description is None:
        return Result(error="sql_error", message="the query returns nothing")
    rows: list[Row] = []
    size = 0
    for row in cursor:
        size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
        if len(rows) == max_rows or size > MAX_RESULT_BYTES:
            return Result(too_large=True)
        rows.append(tuple(map(_comparable, row)))
    return Result(tuple(rows))


def _comparable(value: Any) -> Any:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


@lru_cache(maxsize=64)
def build_database(script: str, seconds: float) -> Database:
    """Run a script that creates and fills tables, in memory; it cannot attach files.

    Args:
        script: SQL statements.
        seconds: Maximum CPU time.

    Raises:
        ValueError: When the script fails.
    """
    deadline = time.thread_time() + seconds
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK)
        connection.set_progress_handler(lambda: int(time.thread_time() > deadline), INSTRUCTIONS_PER_CHECK)
        try:
            connection.executescript(script)
            connection.commit()
            return Database(connection.serialize() if script.strip() else b"")
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            raise ValueError(f"the database cannot be built: {error}") from error


def is_ordered(query: str) -> bool:
    """Return whether a query has an ORDER BY outside all brackets, so that the order of its rows is part of the result."""
    depth, previous = 0, ""
    for match in _SQL_TOKEN.finditer(query):
        token = match[0].lower()
        if token.startswith(("--", "/*")):
            continue
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth == 0 and (previous, token) == ("order", "by"):
            return True
        previous = token
    return False


def sql_result(
    database: str = "", *, ordered: str = "auto", extract: str = "fence", seconds: float = 5.0, max_rows: int = 10_000
) -> Scorer:
    """Score whether the query of a reply returns what the gold query returns, in an SQLite database.

    With ``CREATE TABLE staff (name TEXT, pay INTEGER); INSERT INTO staff VALUES ('Anna', 3), ('Ben', 2)`` in the row's metadata ``database`` and the
    gold reply ``SELECT name FROM staff WHERE pay > 2``, the reply ``SELECT name FROM staff WHERE pay >= 3`` is right.

    Args:
        database: Path of an SQLite file, or of a file of SQL statements; empty for the statements in each row's metadata ``database``.
        ordered: Whether the order of rows counts: ``yes``, ``no``, or ``auto`` for queries with an ORDER BY at the top.
        extract: Where the query stands, see ``EXTRACTIONS``.
        seconds: Maximum CPU time of one query.
        max_rows: Maximum number of rows of a result; a larger one is wrong.

    Raises:
        UsageError: When the file cannot be read, or an argument is invalid.
    """
    if ordered not in ("auto", "yes", "no"):
        raise UsageError(f"ordered is '{ordered}', must be auto, yes or no")
    if seconds <= 0 or max_rows < 1:
        raise UsageError(f"seconds is {seconds:g} and max_rows is {max_rows}, must be above 0")
    answers = Answers(extract)
    shared = _open_database(expand_user(database), seconds) if database else None

    def database_of(example: Example) -> Database:
        return shared or build_database(str(example.metadata.get("database", "")), seconds)

    def run_gold(example: Example) -> Result:
        try:
            return database_of(example).run(_query(answers.gold(example)), seconds=seconds, max_rows=max_rows)
        except ValueError as error:
            return Result(error="sql_error", message=str(error))

    def score(example: Example, reply: Reply) -> Score:
        answer, marked = answers.of(reply.text)
        query, gold = _query(answer), run_gold(example)
        try:
            found = database_of(example).run(query, seconds=seconds, max_rows=max_rows)
        except ValueError as error:
            found = Result(error="sql_error", message=str(error))
        right = gold.error is None and found.error is None and not (gold.too_large or found.too_large)
        if right and (ordered == "yes" or (ordered == "auto" and is_ordered(_query(answers.gold(example))))):
            right = found.rows == gold.rows
        elif right:
            right = Counter(found.rows) == Counter(gold.rows)
        counts = {"n": 1, "correct": int(right), "valid": int(found.error is None)}
        errors = () if right else (found.error or "wrong_result",)
        return with_reply_errors(Score(counts, query, errors), reply, marked=marked or extract == "fence")

    def validate_row(example: Example) -> Iterable[str]:
        if not example.gold:
            return gold_required(example)
        if shared is None and not isinstance(example.metadata.get("database"), str):
            return ("the row has no metadata 'database' with SQL statements, and the scorer no argument 'database'",)
        gold = run_gold(example)
        if gold.error is not None:
            return (f"the gold query fails: {gold.message}",)
        return (f"the gold query returns more than {max_rows} rows, or too much text",) if gold.too_large else ()

    settings = {"database": database, "ordered": ordered, "extract": extract, "seconds": seconds, "max_rows": max_rows}
    return Scorer("sql_result", score, (ACCURACY, VALID), validate_row, settings)


def _query(answer: str) -> str:
    return re.sub(r"\A\s*sql\s*:", "", answer, flags=re.IGNORECASE).strip()


def _open_database(path: Path, seconds: float) -> Database:
    try:
        with path.open("rb") as file:
            is_database = file.read(len(SQLITE_HEADER)) == SQLITE_HEADER
        return Database(path=str(path)) if is_database else build_database(read_text(path), seconds)
    except OSError as error:
        raise UsageError(f"cannot read the database '{path}': {os_reason(error)}") from error
    except ValueError as error:
        raise UsageError(f"'{path}' is neither an SQLite file nor SQL statements: {error}") from error
