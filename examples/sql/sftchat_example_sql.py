"""The task ``sql``: a question in English becomes a query, which is right when it returns the rows of the gold query.

A row: ``CREATE TABLE staff (name TEXT, city TEXT, pay INTEGER);\\nWho lives in Paris?`` → ``SELECT name FROM staff WHERE city = 'Paris'``
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator

from sftchat import Example, Message, Reply, SamplingParams, Score, Task, TrainingDefaults, hookimpl, rate
from sftchat.text import strip_thinking

TABLES = {  # by table: its columns WHO, WHERE and amount, and two verbs of questions
    "staff": ("name", "city", "pay", "earns", "lives in"),
    "shops": ("title", "street", "sales", "sells", "is in"),
    "teams": ("team", "country", "points", "scores", "comes from"),
}
WHO = ["Anna", "Ben", "Chen", "Dora", "Emil", "Fay", "Gao", "Hugo"]
WHERE = ["Paris", "Rome", "Beijing", "Oslo"]
MAX_INSTRUCTIONS, MAX_ROWS = 200_000, 1_000
ALLOWED_ACTIONS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


def generate(n: int, seed: int) -> Iterator[Example]:
    """Yield ``n`` questions about a schema; ``metadata["setup"]`` has the rows for running the query."""
    for index in range(n):
        rng = random.Random(f"sql-{seed}-{index}")
        table = rng.choice(sorted(TABLES))
        who, where, amount, earns, lives_in = TABLES[table]
        schema = f"CREATE TABLE {table} ({who} TEXT, {where} TEXT, {amount} INTEGER);"
        rows = [(name, rng.choice(WHERE), rng.randrange(1, 10) * 100) for name in WHO]
        place, limit = rng.choice(WHERE), rng.randrange(2, 9) * 100
        question, query = rng.choice(
            (
                (f"Who {lives_in} {place}?", f"SELECT {who} FROM {table} WHERE {where} = '{place}'"),
                (f"Who {earns} more than {limit}?", f"SELECT {who} FROM {table} WHERE {amount} > {limit}"),
                (f"How many {table} are there in {place}?", f"SELECT COUNT(*) FROM {table} WHERE {where} = '{place}'"),
                (f"What is the highest {amount}?", f"SELECT MAX({amount}) FROM {table}"),
                (f"List every {who}, the highest {amount} first.", f"SELECT {who} FROM {table} ORDER BY {amount} DESC, {who}"),
            )
        )
        setup = schema + "".join(f"INSERT INTO {table} VALUES {row};" for row in rows)
        yield Example((Message(role="user", content=f"{schema}\n{question}"),), query, id=f"{seed}-{index}", metadata={"setup": setup})


def run(query: str, setup: str) -> list[tuple[object, ...]] | str:
    """Run a query, which may only read the given tables; returns its rows, at most ``MAX_ROWS``, or an error message.

    Args:
        query: One statement.
        setup: Statements that create and fill the tables.
    """
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(setup)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in ALLOWED_ACTIONS else sqlite3.SQLITE_DENY)
        # the first call of the handler ends the query, so that an endless one takes a fraction of a second
        database.set_progress_handler(lambda: 1, MAX_INSTRUCTIONS)
        return database.execute(query).fetchmany(MAX_ROWS)
    # Warning: two statements; ValueError: a NUL or half a surrogate
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        return str(error) or type(error).__name__
    finally:
        database.close()


def score(example: Example, reply: Reply) -> Score:
    """Run both queries; order counts where the gold query has an ORDER BY."""
    query = strip_thinking(reply.text).strip().removeprefix("```sql").strip("`\n ")
    gold, setup = example.gold or "", str(example.metadata.get("setup", ""))
    gold_rows, rows = run(gold, setup), run(query, setup)
    is_valid = bool(query) and not isinstance(rows, str)
    if "ORDER BY" in gold.upper() or isinstance(gold_rows, str) or isinstance(rows, str):
        is_right = is_valid and rows == gold_rows
    else:
        is_right = is_valid and Counter(rows) == Counter(gold_rows)
    error = "other rows" if is_valid else "not valid"
    stats = {"n": 1.0, "right": float(is_right), "valid": float(is_valid), "exact": float(query == gold)}
    return Score(stats, query, () if is_right else (error,))


METRICS = (
    rate("execution", "right", "share of queries that return what the gold query returns"),
    rate("valid", "valid", "share of replies that are a query that runs"),
    rate("exact", "exact", "share of replies that are the gold query letter for letter"),
)


def training_defaults(method: str, parameters: int) -> TrainingDefaults:
    """Return higher learning rates for small models and adapters."""
    learning_rate = 2e-5 if method == "full" else 2e-4
    if parameters < 50_000_000:
        learning_rate = 1e-3
    return TrainingDefaults(learning_rate=learning_rate, epochs=1.0, rows=4000)


@hookimpl
def sftchat_register_tasks() -> Iterable[Task]:
    """Register the task."""
    sampling = SamplingParams(max_new_tokens=64)
    return [
        Task(
            "sql", "English to SQL, scored by running it", generate, score, METRICS, sampling=sampling, training_defaults=training_defaults
        )
    ]
