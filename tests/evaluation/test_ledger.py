"""The ledger as a file: results are read back unchanged, several processes may write, and an unusable file costs one line."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import SftchatError
from sftchat.evaluation.cache_contents import prune_ledger
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.ledger import Ledger, LedgerItem, LedgerResult, read_item, read_items, read_results
from sftchat.evaluation.ledger_file import connect, count_results, delete_results, ledger_path
from sftchat.evaluation.recording import git_commit
from sftchat.evaluation.results import MetricResult

RESULT = LedgerResult(
    evaluation="e", time=1.5, role="model", model="run/checkpoint-5", identity="aa" * 32, weights="bb" * 32, step=5, task="quiz",
    evalset=EvalsetIdentity("gold.jsonl", "f00d", 2), settings={"sampling": {"temperature": 0.0}}, sampling={"temperature": 0.0, "seed": 0},
    metrics=(MetricResult("accuracy", 0.5, 0.1, 0.9, "wilson"), MetricResult("f1", 0.2, None, None, "none")), requested=2, answered=2, right=1,
    truncated=1, failed=0, replies="/out/replies.jsonl", commit="c0ffee", verdict="fail", higher_is_better=False, per_item_rate=True,
)  # fmt: skip
ITEMS = [
    LedgerItem("a", "c1", True, 1.0, (), "r1", {"n": 1.0, "right": 1.0}),
    LedgerItem("b", "c2", False, 0.0, ("wrong", "long"), "r2", {"n": 1.0, "right": 0.0}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "ledger.sqlite"


def test_results_and_items_come_back_as_they_were(path: Path) -> None:
    failed = LedgerItem("b", "c2", None, None, (), "", {})
    later = replace(RESULT, evaluation="f", time=2.0, step=None, sampling=None, metrics=(), answered=1, failed=1)
    assert (read_results(path), read_item(path, "a"), count_results(path), path.exists()) == ([], {}, 0, False)

    ledger = Ledger(path, pytest.fail)
    assert ledger.record([(later, [ITEMS[0], failed])])
    assert ledger.record([(RESULT, ITEMS)])

    first, second = read_results(path)
    assert ([first, second], first.number, second.number) == ([RESULT, later], 2, 1)
    assert (read_items(path, first.number), read_items(path, second.number)) == (
        {"a": ITEMS[0], "b": ITEMS[1]},
        {"a": ITEMS[0], "b": failed},
    )
    assert (read_item(path, "b"), read_item(path, "c")) == ({1: failed, 2: ITEMS[1]}, {})
    assert (first.complete, second.complete, first.series == second.series) == (True, False, True)


@given(name=st.text(st.characters(codec=None)), errors=st.lists(st.text(st.characters(codec=None))).map(tuple))
def test_any_text_can_be_recorded(tmp_path_factory: pytest.TempPathFactory, name: str, errors: tuple[str, ...]) -> None:
    path = tmp_path_factory.mktemp("l") / "ledger.sqlite"
    item = LedgerItem(name, "c", False, 0.0, errors, "r", {"n": 1.0})

    Ledger(path, pytest.fail).record([(replace(RESULT, model=name, settings={"template": name}), [item])])

    (result,) = read_results(path)
    stored = name.encode("utf-8", "backslashreplace").decode()
    assert (result.model, result.settings) == (stored, {"template": name})
    assert read_item(path, name) == {1: replace(item, id=stored)}


WRITER = """
import sys
from pathlib import Path
from tests.evaluation.test_ledger import ITEMS, RESULT
from sftchat.evaluation.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]), sys.exit)
for _ in range(20):
    ledger.record([(RESULT, ITEMS), (RESULT, ITEMS)])
"""


def test_two_processes_write_at_once_and_nothing_is_lost(path: Path) -> None:
    root = Path(__file__).parents[2]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=root) for _ in range(2)]

    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert read_results(path) == [RESULT] * 80
    assert list(read_item(path, "b").values()) == [ITEMS[1]] * 80


@pytest.mark.parametrize("content", [b"no database, yet longer than a header" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_costs_one_line_until_it_is_cleared(path: Path, content: bytes) -> None:
    said: list[str] = []
    path.parent.mkdir()
    path.write_bytes(content)

    assert not Ledger(path, said.append).record([(RESULT, ITEMS)])
    assert len(said) == 1
    assert said[0].startswith(f"this evaluation is not recorded for 'sftchat history': cannot use '{path}': ")
    assert said[0].endswith("; $SFTCHAT_CACHE_DIR chooses another folder, 'sftchat cache prune --ledger --all' empties this one")
    assert "\n" not in said[0]
    with pytest.raises(SftchatError, match="cannot use"):
        read_results(path)
    with pytest.raises(SftchatError, match="cannot use"):
        prune_ledger(path, 3)
    assert (prune_ledger(path, None), path.exists()) == (0, False)
    assert Ledger(path, pytest.fail).record([(RESULT, ITEMS)])


@pytest.mark.parametrize("damage", ["metrics = '[1'", "step = 'five'", "time = NULL", "metrics = '[{\"name\": 1}]'", "model = x'ff'"])
def test_a_damaged_row_is_an_error_of_one_line_for_readers(path: Path, damage: str) -> None:
    Ledger(path, pytest.fail).record([(RESULT, ITEMS)])
    with closing(connect(path)) as connection:
        connection.execute(f"UPDATE results SET {damage}")

    with pytest.raises(SftchatError, match=r"^cannot use .*[^\n]$"):
        read_results(path)


@pytest.mark.parametrize("damage", ["errors = '[1]'", "stats = '[]'", "is_right = 2", "value = 'x'", "reply = x'ff'", "content = NULL"])
def test_a_damaged_item_is_an_error_of_one_line_for_readers(path: Path, damage: str) -> None:
    Ledger(path, pytest.fail).record([(RESULT, ITEMS)])
    with closing(connect(path)) as connection:
        connection.execute(f"UPDATE items SET {damage}")

    with pytest.raises(SftchatError, match=r"^cannot use .*[^\n]$"):
        read_items(path, 1)


def test_a_locked_file_costs_one_line_after_the_wait(path: Path) -> None:
    said: list[str] = []
    ledger = Ledger(path, said.append, wait=0.05)
    ledger.record([(RESULT, ITEMS)])
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not ledger.record([(RESULT, ITEMS)])
        assert ["database is locked" in line for line in said] == [True]
        other.execute("COMMIT")
    assert ledger.record([(RESULT, ITEMS)])


def test_a_file_of_a_later_format_is_not_changed(path: Path) -> None:
    said: list[str] = []
    Ledger(path, pytest.fail).record([(RESULT, ITEMS)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")

    assert not Ledger(path, said.append).record([(RESULT, ITEMS)])
    format_line = f"'{path}' has format 2, this sftchat reads 1; 'sftchat cache prune --ledger --all' empties it"
    assert said == [f"this evaluation is not recorded for 'sftchat history': {format_line}"]


def test_the_items_of_the_oldest_results_go_first_and_the_results_stay(path: Path) -> None:
    many = [LedgerItem(f"i{number}", "c" * 16, True, 1.0, (), "r" * 16, {"n": 1.0}) for number in range(500)]
    ledger = Ledger(path, pytest.fail, max_bytes=200_000)
    for _ in range(6):
        ledger.record([(RESULT, many)])

    results = read_results(path)
    assert len(results) == 6
    kept = [len(read_items(path, result.number)) for result in results]
    assert (kept[0], kept[-1], kept) == (0, 500, sorted(kept))
    assert path.stat().st_size < 400_000

    Ledger(path, pytest.fail, max_bytes=0).record([(RESULT, many), (RESULT, many)])
    assert [len(read_items(path, result.number)) for result in read_results(path)] == [0] * 6 + [500, 500]


def test_results_are_deleted_by_age(path: Path) -> None:
    now = time.time()
    Ledger(path, pytest.fail).record([(replace(RESULT, time=now - 9 * 86_400), ITEMS), (replace(RESULT, time=now), ITEMS)])

    assert (prune_ledger(path, 10), prune_ledger(path, 8), count_results(path)) == (0, 1, 1)
    assert list(read_item(path, "a")) == [2]
    assert (delete_results(path), read_item(path, "a"), count_results(path)) == (1, {}, 0)


def test_the_ledger_is_beside_the_reply_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTCHAT_CACHE_DIR", str(tmp_path / "mine"))

    assert ledger_path() == tmp_path / "mine" / "ledger.sqlite"


def test_the_commit_is_that_of_the_folder_and_empty_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        author = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) == ""
    git("init", "-q")
    assert git_commit(tmp_path) == ""
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) == ""
