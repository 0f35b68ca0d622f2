"""Fuzz targets: the SQLite files of conversations and of the reply cache; damaged files, and valid files with any rows.

Bytes that begin like an SQLite file are the file. Others are rows, one per line: a table's name and its values as JSON, ``"0x…"`` for bytes.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from sftchat.chat.commands.sessions import format_sessions as list_sessions
from sftchat.chat.conversation import Answer, Conversation
from sftchat.chat.serialization import answer_to_json, node_to_json
from sftchat.chat.sessions import SCHEMA, SessionStore, restore
from sftchat.cli.chat import choose_models
from sftchat.errors import UsageError
from sftchat.evaluation import reply_cache as store
from sftchat.evaluation.cache_contents import clear, prune, summarise_models
from sftchat.types import Reply
from tests.fuzz.inputs import json_like, like, written
from tests.fuzz.target import Room, Target, refused

MARK = b"SQLite format 3\0"


def database(content: bytes, path: Path, tables: str) -> Path:
    """A database of that content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content.startswith(MARK[:6]):
        path.write_bytes(content)
        return path
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(f"{tables} PRAGMA user_version = 1;")
        for line in content.split(b"\n"):
            with suppress(ValueError, TypeError, sqlite3.Error, OverflowError, RecursionError, IndexError):
                table, *values = json.loads(line)
                holes = ", ".join("?" * len(values))
                connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({holes})", [_value(value) for value in values])
    return path


def _value(value: Any) -> Any:
    """A value of a row; lists and objects are JSON text."""
    if isinstance(value, str) and value.startswith("0x"):
        return bytes.fromhex(value[2:])
    return json.dumps(value) if isinstance(value, list | dict) else value


def sessions(content: bytes, room: Room) -> None:
    """Any file of sessions is listed and its conversations continue, or the reason is reported."""
    path = database(content, room.scratch("sessions.sqlite"), SCHEMA)
    said: list[str] = []
    with closing(SessionStore(path, said.append)) as kept:
        for found in kept.list_sessions():
            with refused():
                choose_models(found.metadata.models or ("m",), found)
                conversation, _ = restore(kept, found, 2)
                _look(conversation)
        list_sessions(kept.list_sessions(), 1)
        kept.find("")
        kept.find("name")
        kept.create()
    assert all("\n" not in line for line in said)


def _look(conversation: Conversation) -> None:
    """Read everything that resuming a conversation reads."""
    for id in range(len(conversation.nodes) + 1):
        conversation.turns_to(id)
    assert all(isinstance(message["content"], str) for message in conversation.messages)
    assert conversation.leaves is not None
    again = conversation.unanswered() if conversation.waiting else conversation.ask("more")
    with suppress(UsageError):
        again.undo()
    for turn in conversation.turns:
        assert turn.answer is None or (turn.answer.score is None or turn.answer.score.text is not None)


def replies(content: bytes, room: Room) -> None:
    """Any file of the reply cache gives replies or turns the cache off with one line."""
    path = database(content, room.scratch("replies.sqlite"), store.TABLES)
    hashed = room.file(b"weights", "model.safetensors")
    said: list[str] = []
    with closing(store.ReplyCache(path, said.append)) as kept:
        for key in (b"k", b"\0"):
            found = kept.get(key)
            assert found is None or isinstance(found.text, str)
        assert kept.file_hash(hashed) != ""
        kept.touch("ab" * 32, "m")
    assert len(said) <= 1
    with refused():
        assert all(model.replies > 0 for model in summarise_models(path))
    with refused():
        prune(path, identity="ab")
    with refused():
        clear(path)


NODE = json.loads(node_to_json(Conversation().ask("a").answer(Answer(Reply("b"))).nodes[1]))
FACTS = {
    "system": "s", "head": 2, "column": 0, "models": ["m"], "folder": "/", "title": "a", "turns": 1,
    "settings": {"sampling": {"max_new_tokens": 9, "stop": []}, "overflow": "stop", "template_arguments": {}},
}  # fmt: skip
small = st.integers(-1, 3)
talks = st.lists(
    st.tuples(st.just("sessions"), st.just(1), st.text(max_size=3) | st.none(), like(1.5), like(FACTS))
    | st.tuples(st.just("nodes"), st.just(1), small, small, like(NODE) | like({"question": "a", "answers": []}))
    | st.tuples(st.just("pieces"), st.just(1), small, small, like(json.loads(answer_to_json(Answer(Reply("b"))))) | like(["a", [1], 1])),
    min_size=1,
    max_size=5,
)
kept_replies = st.lists(
    st.tuples(st.just("replies"), like("0x6b"), like("0x" + "ab" * 32), like("0x78"), like("0x01000000"), like("stop"), like(1))
    | st.tuples(st.just("models"), like("0x" + "ab" * 32), like("m"), like(1.5))
    | st.tuples(st.just("files"), *[like(1)] * 6, like("ab")),
    min_size=1,
    max_size=4,
)


def _lines(rows: list[Any]) -> bytes:
    """Rows of tables as lines."""
    return b"\n".join(map(written, rows))


TARGETS = {
    "sessions": Target(sessions, talks.map(_lines) | json_like(FACTS).map(lambda text: MARK + text)),
    "store": Target(replies, kept_replies.map(_lines) | st.binary(max_size=60).map(lambda text: MARK + text)),
}
