"""The task ``sql``: a question in English becomes a query, which is right when it returns the rows of the gold query.

A row: ``CREATE TABLE staff (name TEXT, city TEXT, pay INTEGER);\\nWho lives in Paris?`` → ``SELECT name FROM staff WHERE city = 'Paris'``
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from sftchat import Example, Message, Reply, SamplingParams, Score, Task, TrainingDefaults, hookimpl, rate
from sftchat.scorers import sql_result

TABLES = {  # by table: its columns WHO, WHERE and amount, and two verbs of questions
    "staff": ("name", "city", "pay", "earns", "lives in"),
    "shops": ("title", "street", "sales", "sells", "is in"),
    "teams": ("team", "country", "points", "scores", "comes from"),
}
WHO = ["Anna", "Ben", "Chen", "Dora", "Emil", "Fay", "Gao", "Hugo"]
WHERE = ["Paris", "Rome", "Beijing", "Oslo"]


def generate(n: int, seed: int) -> Iterator[Example]:
    """Yield ``n`` questions about a schema; ``metadata["database"]`` has the statements that build the tables."""
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
        database = schema + "".join(f"INSERT INTO {table} VALUES {row};" for row in rows)
        yield Example(
            (Message(role="user", content=f"{schema}\n{question}"),), query, id=f"{seed}-{index}", metadata={"database": database}
        )


SCORER = sql_result()


def score(example: Example, reply: Reply) -> Score:
    """Score the result of the query, and count beside it whether the query is the gold query letter for letter."""
    found = SCORER.score(example, reply)
    return replace(found, stats={**found.stats, "exact": float(found.answer == example.gold)})


METRICS = (*SCORER.metrics, rate("exact", "exact", "share of replies that are the gold query letter for letter"))


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
