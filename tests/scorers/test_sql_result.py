"""``sql_result``: results, limits and what a query may not do."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sftchat import Example, Reply, Score
from sftchat.errors import UsageError
from sftchat.scorers import make_scorer, sql_result
from sftchat.scorers.sql import is_ordered

STAFF = "CREATE TABLE staff (name TEXT, pay REAL); INSERT INTO staff VALUES ('Anna', 3), ('Ben', 2), ('Ben', 2), ('Chen', 0.1)"


def scored(gold: str, reply: str, database: str = STAFF, **arguments: Any) -> Score:
    return sql_result(**arguments).score(Example((), gold, metadata={"database": database}), Reply(reply))


def errors(gold: str, reply: str, **arguments: Any) -> tuple[str, ...]:
    return scored(gold, reply, **arguments).errors


def test_the_example_of_the_docstring() -> None:
    staff = "CREATE TABLE staff (name TEXT, pay INTEGER); INSERT INTO staff VALUES ('Anna', 3), ('Ben', 2)"

    assert scored("SELECT name FROM staff WHERE pay > 2", "SELECT name FROM staff WHERE pay >= 3", staff) == Score(
        {"n": 1, "correct": 1, "valid": 1}, "SELECT name FROM staff WHERE pay >= 3"
    )


@pytest.mark.parametrize(
    ("gold", "reply", "expected"),
    [
        ("SELECT name FROM staff", "```sql\nSELECT name AS who FROM staff ORDER BY pay;\n```", ()),
        ("SELECT name FROM staff", "SQL: select name from staff", ()),
        ("SELECT name FROM staff", "SELECT DISTINCT name FROM staff", ("wrong_result",)),
        ("SELECT name FROM staff ORDER BY name", "SELECT name FROM staff ORDER BY name DESC", ("wrong_result",)),
        ("SELECT name FROM (SELECT name FROM staff ORDER BY name)", "SELECT name FROM staff ORDER BY name DESC", ()),
        ("SELECT COUNT(*) FROM staff", "SELECT 4.0", ()),
        ("SELECT 0.3", "SELECT SUM(pay) * 3 FROM staff WHERE name = 'Chen'", ()),
        ("SELECT NULL", "SELECT NULL", ()),
        ("SELECT 1", "SELECT '1'", ("wrong_result",)),
        ("SELECT 1", "SELEC 1", ("sql_error",)),
        ("SELECT 1", "SELECT 1; SELECT 1", ("sql_error",)),
        ("SELECT 1", "-- nothing", ("sql_error",)),
        ("SELECT 1", "SELECT '\0'", ("sql_error",)),
        ("SELECT 1", "SELECT missing FROM staff", ("sql_error",)),
        ("SELECT 1", "", ("empty",)),
        ("not SQL", "not SQL", ("sql_error",)),
        ("SELECT 1", "DELETE FROM staff", ("forbidden",)),
        ("SELECT 1", "DROP TABLE staff", ("forbidden",)),
        ("SELECT 1", "PRAGMA writable_schema = 1", ("forbidden",)),
        ("SELECT 1", "ATTACH 'other.db' AS other", ("forbidden",)),
        ("SELECT 1", "VACUUM INTO 'copy.db'", ("forbidden",)),
        ("SELECT 1", "SELECT load_extension('x')", ("forbidden",)),
        ("SELECT 1", "CREATE TEMP TABLE t (x)", ("forbidden",)),
        ("SELECT 1", "BEGIN", ("forbidden",)),
    ],
)
def test_replies_are_right_by_their_result_and_may_only_read(
    gold: str, reply: str, expected: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert errors(gold, reply) == expected
    assert list(tmp_path.iterdir()) == []


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ENDLESS + "SELECT COUNT(*) FROM n", ("timeout",)),
        (ENDLESS + "SELECT x FROM n", ("wrong_result",)),
        ("SELECT randomblob(1000000000)", ("sql_error",)),
        (ENDLESS + "SELECT group_concat(hex(randomblob(1000))) FROM n", ("timeout",)),
        (ENDLESS + "SELECT randomblob(900000) FROM n", ("wrong_result",)),
    ],
)
def test_endless_queries_and_results_end_soon(query: str, expected: tuple[str, ...]) -> None:
    started = time.thread_time()

    assert errors("SELECT 1", query, seconds=0.3) == expected
    assert time.thread_time() - started < 3


def test_the_order_of_rows_may_always_or_never_count() -> None:
    gold, other = "SELECT name FROM staff ORDER BY name", "SELECT name FROM staff ORDER BY name DESC"

    assert errors(gold, other, ordered="no") == ()
    assert errors("SELECT name FROM staff", other, ordered="yes") == ("wrong_result",)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order /* by */\nby a limit 1", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("WITH x AS (SELECT 1 ORDER BY 1) SELECT * FROM x", False),
        ("SELECT 'order by', \"order by\", [order by] FROM t -- order by", False),
        ("SELECT row_number() OVER (ORDER BY a) FROM t", False),
    ],
)
def test_only_an_order_at_the_top_counts(query: str, expected: bool) -> None:
    assert is_ordered(query) is expected


def test_the_database_may_be_a_file_which_stays_as_it_is(tmp_path: Path) -> None:
    script, file = tmp_path / "staff.sql", tmp_path / "staff with space?.sqlite"
    script.write_text(STAFF)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(STAFF)
    before = file.read_bytes()

    for path in (script, file):
        scorer = make_scorer("sql_result", {"database": str(path)})
        example = Example((), "SELECT COUNT(*) FROM staff")
        assert [scorer.score(example, Reply(reply)).errors for reply in ("SELECT 4", "DELETE FROM staff")] == [(), ("forbidden",)]
        assert list(scorer.validate_row(example)) == []
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["staff with space?.sqlite", "staff.sql"]


def test_rows_need_a_gold_query_that_runs() -> None:
    def problems(gold: str | None, **metadata: Any) -> list[str]:
        return list(sql_result(max_rows=3, seconds=0.2).validate_row(Example((), gold, metadata=metadata)))

    assert problems("SELECT 1 FROM staff LIMIT 2", database=STAFF) == []
    assert problems(None, database=STAFF) == ["the row has no gold reply to compare with"]
    assert problems("SELECT 1") == ["the row has no metadata 'database' with SQL statements, and the scorer no argument 'database'"]
    assert problems("SELECT x", database=STAFF) == ["the gold query fails: no such column: x"]
    assert problems("SELECT 1 FROM staff", database=STAFF) == ["the gold query returns more than 3 rows, or too much text"]
    assert problems("SELECT 1", database="CREATE") == ["the gold query fails: the database cannot be built: incomplete input"]
    assert problems("SELECT 1", database="ATTACH 'x.db' AS x") == ["the gold query fails: the database cannot be built: not authorized"]
    assert problems("SELECT 1", database=f"CREATE TABLE t AS {ENDLESS} SELECT x FROM n") == [
        "the gold query fails: the database cannot be built: interrupted"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ordered": "maybe"}, "ordered is 'maybe', must be auto, yes or no"),
        ({"seconds": 0.0}, "seconds is 0 and max_rows is 10000, must be above 0"),
        ({"database": "missing.sql"}, "cannot read the database 'missing.sql': no such file or directory"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_scorer("sql_result", arguments)

    assert str(caught.value) == message


def test_a_file_that_is_no_sql_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")

    with pytest.raises(UsageError, match="is neither an SQLite file nor SQL statements: the database cannot be built"):
        sql_result(str(path))
