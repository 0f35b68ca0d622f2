"""The reply cache as a file: replies are read back unchanged, and an unusable file is reported once and bypassed."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import SftchatError
from sftchat.evaluation.cache_contents import ModelSummary, clear, count_leak_checks, disk_size, prune, summarise_models
from sftchat.evaluation.reply_cache import CachedReply, ReplyCache, default_path
from sftchat.models.fingerprint import file_hash

ONE, TWO = "aa" * 32, "bb" * 32
REPLY = CachedReply("甲-乙:夫妻", (7, 8), "stop", 5)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, said: list[str]) -> Iterator[ReplyCache]:
    with closing(ReplyCache(tmp_path / "cache" / "replies.sqlite", said.append, settled_seconds=-1)) as store:
        yield store


@given(
    text=st.text(st.characters(codec=None)),
    ids=st.lists(st.integers(0, 2**32 - 1)).map(tuple),
    finish=st.sampled_from(["stop", "length"]),
    prompt=st.integers(0, 2**31),
)
def test_any_reply_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, text: str, ids: tuple[int, ...], finish: str, prompt: int
) -> None:
    reply = CachedReply(text, ids, finish, prompt)  # type: ignore[arg-type]
    store = ReplyCache(tmp_path_factory.mktemp("s") / "replies.sqlite", pytest.fail)

    store.put(b"key", ONE, reply)

    assert (store.get(b"key"), store.get(b"other")) == (reply, None)
    store.close()


def test_the_first_reply_of_a_key_stays_unless_it_is_to_be_replaced(store: ReplyCache) -> None:
    other = CachedReply("无", (9,), "length", 5)

    assert store.put(b"k", ONE, REPLY)
    assert store.put(b"k", ONE, other)
    assert store.get(b"k") == REPLY
    assert store.put(b"k", ONE, other, replace=True)
    assert store.get(b"k") == other


def test_the_folder_is_the_users_cache_or_the_one_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_path() == Path(os.environ["XDG_CACHE_HOME"]) / "sftchat" / "replies.sqlite"

    monkeypatch.setenv("SFTCHAT_CACHE_DIR", str(tmp_path / "mine"))
    assert default_path() == tmp_path / "mine" / "replies.sqlite"


@pytest.mark.parametrize("content", [b"no database, yet longer than a header" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_reported_in_one_line_and_caches_nothing(store: ReplyCache, said: list[str], content: bytes) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(content)

    assert (store.put(b"k", ONE, REPLY), store.get(b"k"), store.broken) == (False, None, True)
    assert len(said) == 1
    assert said[0].startswith(f"replies are not cached: cannot use '{store.path}': ")
    assert said[0].endswith("; $SFTCHAT_CACHE_DIR chooses another folder, 'sftchat cache prune --all' empties this one")
    assert "\n" not in said[0]


def test_a_file_damaged_while_in_use_turns_the_cache_off(store: ReplyCache, said: list[str]) -> None:
    for number in range(2000):
        store.put(b"%d" % number, ONE, REPLY)
    store.close()
    data = bytearray(store.path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    store.path.write_bytes(data)

    found = [store.get(b"%d" % number) for number in range(2000)]

    assert (found, len(said), store.broken) == ([None] * 2000, 1, True)


def test_a_damaged_row_turns_the_cache_off(store: ReplyCache, said: list[str]) -> None:
    store.put(b"k", ONE, REPLY)
    store.close()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("UPDATE replies SET tokens = x'010203'")

    assert (store.get(b"k"), store.get(b"k"), len(said), store.broken) == (None, None, 1, True)


def test_a_folder_that_cannot_be_made_is_reported_in_one_line(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "taken").write_bytes(b"")
    store = ReplyCache(tmp_path / "taken" / "replies.sqlite", said.append)

    assert (store.get(b"k"), store.file_hash(tmp_path / "taken")) == (None, file_hash(tmp_path / "taken"))
    assert len(said) == 1
    assert "not a directory" in said[0] or "file exists" in said[0]


def test_a_file_of_a_later_format_is_not_changed(store: ReplyCache, said: list[str]) -> None:
    store.put(b"k", ONE, REPLY)
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA user_version = 2")

    assert store.get(b"k") is None
    expected = f"'{store.path}' has format 2, this sftchat reads 1; 'sftchat cache prune --all' empties it"
    assert said == [f"replies are not cached: {expected}"]
    with pytest.raises(SftchatError, match="has format 2"):
        summarise_models(store.path)


def test_a_hash_is_cached_while_the_file_is_unchanged(store: ReplyCache, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    assert store.file_hash(path) == file_hash(path)
    store.close()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("UPDATE files SET sha256 = 'from memory'")

    assert store.file_hash(path) == "from memory"

    path.write_bytes(b"abd")
    assert store.file_hash(path) == file_hash(path)


def test_a_changed_byte_is_detected_after_size_and_time_are_restored(store: ReplyCache, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    before = path.stat()
    first = store.file_hash(path)
    time.sleep(0.02)  # a tick of the file system's clock

    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert store.file_hash(path) == file_hash(path) != first


def test_the_hash_of_a_recently_changed_file_is_not_cached(tmp_path: Path) -> None:
    store = ReplyCache(tmp_path / "replies.sqlite", pytest.fail)
    path = tmp_path / "weights"
    path.write_bytes(b"abc")

    store.file_hash(path)
    store.close()

    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (0,)


@pytest.fixture
def two_models(store: ReplyCache) -> Path:
    """Add three replies of ONE, used 10 days ago, and one of TWO, used now."""
    for number in range(3):
        store.put(b"%d" % number, ONE, REPLY)
    store.put(b"other", TWO, REPLY)
    store.touch(ONE, "run")
    store.touch(TWO, "sftchat:nano")
    store.close()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("UPDATE models SET used = used - 10 * 86400 WHERE name = 'run'")
    return store.path


def test_the_summary_counts_replies_by_model_the_last_used_first(two_models: Path) -> None:
    now = time.time()

    assert [(kept.name, kept.identity, kept.replies, round((now - kept.used) / 86400)) for kept in summarise_models(two_models)] == [
        ("sftchat:nano", TWO, 1, 0),
        ("run", ONE, 3, 10),
    ]
    assert disk_size(two_models) > 4096


@pytest.mark.parametrize(
    ("choice", "count", "left"),
    [
        ({"identity": "bB"}, 1, ["run"]),
        ({"older_than": 9.5}, 3, ["sftchat:nano"]),
        ({"older_than": 10.5}, 0, ["sftchat:nano", "run"]),
        ({"identity": "bb", "older_than": 9.5}, 0, ["sftchat:nano", "run"]),
        ({}, 4, []),
    ],
)
def test_pruning_deletes_only_the_selected_models(two_models: Path, choice: dict[str, object], count: int, left: list[str]) -> None:
    assert prune(two_models, **choice) == count  # type: ignore[arg-type]
    assert [kept.name for kept in summarise_models(two_models)] == left


def test_clearing_empties_a_cache_and_deletes_a_damaged_one(two_models: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database" * 1000)

    assert (clear(two_models), summarise_models(two_models)) == (4, [])
    assert (clear(damaged), damaged.exists()) == (0, False)
    assert (clear(tmp_path / "none"), prune(tmp_path / "none"), summarise_models(tmp_path / "none")) == (0, 0, [])


def test_replies_without_a_name_are_listed_too(store: ReplyCache) -> None:
    store.put(b"k", ONE, REPLY)
    store.close()

    assert summarise_models(store.path) == [ModelSummary("", ONE, 1, 0.0)]


def test_leak_checks_are_counted_pruned_by_age_and_cleared(store: ReplyCache) -> None:
    store.touch(ONE, "run")
    store.put(b"k", ONE, REPLY)
    store.put_leaks(b"l", "[]")
    assert count_leak_checks(store.path) == 1
    assert prune(store.path, older_than=1) == 0
    assert prune(store.path, identity=ONE) == 1
    assert count_leak_checks(store.path) == 1
    assert prune(store.path) == 0
    assert count_leak_checks(store.path) == 0
    store.put_leaks(b"l", "[]")
    assert (clear(store.path), count_leak_checks(store.path)) == (0, 0)


def test_a_file_without_leak_checks_gets_them(store: ReplyCache) -> None:
    store.put(b"k", ONE, REPLY)
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("DROP TABLE leak_checks")
    store.put_leaks(b"l", "[]")
    assert (store.get_leaks(b"l"), store.get(b"k"), count_leak_checks(store.path)) == ("[]", REPLY, 1)
