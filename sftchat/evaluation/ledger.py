"""Ledger: one SQLite file with the results of all finished evaluations, beside the reply cache, for ``sftchat history``.

Unlike the reply cache it holds no reply, only hashes of replies, and unlike the cache it cannot be computed again. A ledger that cannot be used never
stops an evaluation: the evaluation is then not recorded, and one line says so.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from sftchat._util.parsing import from_json, load_json
from sftchat.errors import SftchatError
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.ledger_file import WAIT_SECONDS, connect, ledger_failure, open_ledger
from sftchat.evaluation.results import MetricResult

MAX_BYTES = 256 << 20
"""Maximum size of the content. When it is exceeded, the items of the oldest results are deleted; the results themselves are kept."""
MAX_RESULTS = 20_000
"""Maximum number of results; the oldest are deleted."""
Role = Literal["model", "baseline"]


@dataclass(frozen=True)
class LedgerItem:
    """What the ledger holds of one item of a result.

    Attributes:
        id: Id of the item.
        content: ``content_hash`` of the example; equal for unchanged items.
        right: Whether the scorer found no error; None for an item without a reply.
        value: The primary metric of the item alone; None for an item without a reply, and when the metric needs several items.
        errors: Distinct error classes, in the scorer's order.
        reply: Hash of the text of the reply; empty without a reply.
        stats: Counts of the scorer; empty without a reply.
    """

    id: str
    content: str
    right: bool | None
    value: float | None
    errors: tuple[str, ...]
    reply: str
    stats: Mapping[str, float]


@dataclass(frozen=True)
class LedgerResult:
    """What the ledger holds of one model on one evalset; the names are those of ``ModelResult`` where it has them.

    Attributes:
        evaluation: Random name of the evaluation, which its results share.
        time: When it finished, in seconds since 1970.
        role: ``baseline`` for a model that others were compared with.
        model: Model name as typed by the user, or the file of stored replies.
        identity: Identity of the model in the reply cache; empty when its replies are not cached.
        weights: Hash of the model's files; empty when unknown.
        step: Optimiser step of a checkpoint; None when unknown.
        task: Name of the task.
        evalset: Identity of the evalset.
        settings: Everything else that the result depends on, as JSON; equal for comparable results.
        sampling: All sampling parameters, of which ``settings`` has those with an effect; None for stored replies.
        metrics: The metrics with intervals, the primary one first; empty when nothing was answered.
        requested: Number of items that were evaluated; less than the evalset's size for a partial evaluation.
        answered: Number of items with a reply.
        right: Number of items without an error.
        truncated: Number of replies that reached the token limit.
        failed: Number of items without a reply.
        replies: Absolute path of the file that the replies were written to; empty without one.
        commit: Git commit of the current folder; empty when there is none.
        verdict: Outcome of the verdict on this result alone, see ``Verdict``; empty for a baseline.
        higher_is_better: Whether a larger value of the primary metric is better.
        per_item_rate: Whether the primary metric is a share of items, see ``Metric``.
        number: Number of the result in the ledger; 0 before it is written.
    """

    evaluation: str
    time: float
    role: Role
    model: str
    identity: str
    weights: str
    step: int | None
    task: str
    evalset: EvalsetIdentity
    settings: Mapping[str, Any]
    sampling: Mapping[str, Any] | None
    metrics: tuple[MetricResult, ...]
    requested: int
    answered: int
    right: int
    truncated: int
    failed: int
    replies: str = ""
    commit: str = ""
    verdict: str = ""
    higher_is_better: bool = True
    per_item_rate: bool = False
    number: int = field(default=0, compare=False)

    @property
    def complete(self) -> bool:
        """Whether every item of the evalset has a reply; only complete results are compared with each other."""
        return self.failed == 0 and self.answered >= max(self.evalset.size, 1)

    @property
    def series(self) -> tuple[str, str, str]:
        """Task, content of the evalset and hash of the settings: equal for results that may be compared."""
        return self.task, self.evalset.sha256 or self.evalset.name, settings_hash(self.settings)


Entry = tuple[LedgerResult, Sequence[LedgerItem]]
"""A result with its items."""


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return a short hash of the settings of a result."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Ledger:
    """Writes results into the ledger; the file is opened for every evaluation.

    Args:
        path: SQLite file; created with its folder when missing.
        warn: Called with one line when an evaluation cannot be recorded.
        wait: Maximum time to wait for another process that is writing, in seconds.
        max_bytes: See ``MAX_BYTES``.
    """

    def __init__(self, path: Path, warn: Callable[[str], None], wait: float = WAIT_SECONDS, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.wait = wait
        self.max_bytes = max_bytes
        self._warn = warn

    def record(self, entries: Sequence[Entry]) -> bool:
        """Write the results of one evaluation, all or none, and return whether they were written."""
        try:
            with closing(connect(self.path, self.wait)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    for result, items in entries:
                        _insert(connection, result, items)
                    _delete_oldest(connection, self.max_bytes, keep=len(entries))
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
        except (OSError, sqlite3.Error, SftchatError) as error:
            self._warn(f"this evaluation is not recorded for 'sftchat history': {ledger_failure(self.path, error)}")
            return False
        return True


def read_results(path: Path) -> list[LedgerResult]:
    """Read all results, the oldest first; empty when there is no ledger.

    Raises:
        SftchatError: When the file cannot be used.
    """
    if not path.exists():
        return []
    with open_ledger(path) as connection:
        return [_parse_result(dict(zip(_RESULT_COLUMNS, row, strict=True))) for row in connection.execute(_SELECT_RESULTS)]


def read_items(path: Path, number: int) -> dict[str, LedgerItem]:
    """Read the items of a result, which is given by its number, by id; empty when they were deleted for their size.

    Raises:
        SftchatError: When the file cannot be used.
    """
    with open_ledger(path) as connection:
        rows = connection.execute(f"SELECT {', '.join(_ITEM_COLUMNS)} FROM items WHERE result = ?", (number,))
        items = map(_parse_item, rows)
        return {item.id: item for item in items}


def read_item(path: Path, item_id: str) -> dict[int, LedgerItem]:
    """Read one item of every result that has it, by the number of the result; empty when there is no ledger.

    Raises:
        SftchatError: When the file cannot be used.
    """
    if not path.exists():
        return {}
    with open_ledger(path) as connection:
        columns = ", ".join(f"items.{column}" for column in _ITEM_COLUMNS)
        query = f"SELECT results.number, {columns} FROM results JOIN items ON items.result = results.number AND items.id = ?"
        return {number: _parse_item(row) for number, *row in connection.execute(query, (_storable(item_id),))}


# column of each field that is not stored under its own name
_COLUMN_OF = {"right": "right_items", "commit": "git_commit"}
_JSON_FIELDS = ("settings", "sampling", "metrics")
_PLAIN_FIELDS = tuple(item.name for item in fields(LedgerResult) if item.name not in (*_JSON_FIELDS, "evalset"))
_RESULT_COLUMNS = (*_PLAIN_FIELDS, *_JSON_FIELDS, "evalset", "evalset_sha256", "evalset_size")
_SELECT_RESULTS = f"SELECT {', '.join(_COLUMN_OF.get(name, name) for name in _RESULT_COLUMNS)} FROM results ORDER BY time, number"
_ITEM_COLUMNS = ("id", "content", "is_right", "value", "errors", "reply", "stats")


def _insert(connection: sqlite3.Connection, result: LedgerResult, items: Sequence[LedgerItem]) -> None:
    row: dict[str, Any] = {_COLUMN_OF.get(name, name): getattr(result, name) for name in _PLAIN_FIELDS if name != "number"}
    row |= {"evalset": result.evalset.name, "evalset_sha256": result.evalset.sha256, "evalset_size": result.evalset.size}
    row |= {"settings_hash": settings_hash(result.settings), "settings": _json(result.settings), "sampling": _json(result.sampling)}
    row["metrics"] = _json([asdict(metric) for metric in result.metrics])
    values = [_storable(value) if isinstance(value, str) else value for value in row.values()]
    cursor = connection.execute(f"INSERT INTO results ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", values)
    connection.executemany(
        "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (cursor.lastrowid, _storable(item.id), item.content, item.right, item.value, _json(item.errors), item.reply, _json(item.stats))
            for item in items
        ),
    )


def _delete_oldest(connection: sqlite3.Connection, max_bytes: int, keep: int) -> None:
    """Delete the oldest results over ``MAX_RESULTS``, and then the oldest items until the content fits; those of the last ``keep`` results stay."""
    connection.execute("DELETE FROM items WHERE result <= (SELECT max(number) - ? FROM results)", (MAX_RESULTS,))
    connection.execute("DELETE FROM results WHERE number <= (SELECT max(number) - ? FROM results)", (MAX_RESULTS,))
    while _content_bytes(connection) > max_bytes:
        deleted = connection.execute(
            "DELETE FROM items WHERE result = (SELECT min(result) FROM items) AND result <= (SELECT max(number) - ? FROM results)", (keep,)
        ).rowcount
        if not deleted:
            return


def _content_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the pages in use, which later rows cannot reuse."""
    pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)


def _json(value: Any) -> str:
    return json.dumps(value, default=str)


def _storable(text: str) -> str:
    """Escape what SQLite cannot store: lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def _parse_result(row: dict[str, Any]) -> LedgerResult:
    """Convert a row to a result; raises ``ValueError`` when it is malformed."""
    row |= {name: bool(row[name]) for name in ("higher_is_better", "per_item_rate")}
    row["evalset"] = {"name": row["evalset"], "sha256": row.pop("evalset_sha256"), "size": row.pop("evalset_size")}
    return from_json(LedgerResult, row | {name: load_json(row[name]) for name in _JSON_FIELDS})


def _parse_item(row: Sequence[Any]) -> LedgerItem:
    """Convert a row to an item; raises ``ValueError`` when it is malformed."""
    item_id, content, right, value, errors, reply, stats = row
    texts = all(type(text) is str for text in (item_id, content, reply, errors, stats))
    if not texts or right not in (0, 1, None) or not (value is None or type(value) is float):
        raise ValueError("an item is malformed")
    return LedgerItem(item_id, content, None if right is None else bool(right), value, _parse_errors(errors), reply, _parse_stats(stats))


# items have few different error classes and counts, and parsing takes most of the time of reading
@lru_cache(maxsize=4096)
def _parse_errors(text: str) -> tuple[str, ...]:
    return from_json(tuple[str, ...], load_json(text))


@lru_cache(maxsize=4096)
def _parse_stats(text: str) -> Mapping[str, float]:
    return from_json(Mapping[str, float], load_json(text))
