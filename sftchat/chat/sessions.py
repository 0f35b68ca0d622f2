"""Session storage: saves a conversation to SQLite incrementally."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftchat._util.parsing import from_json
from sftchat._util.sqlite import open_database
from sftchat.chat.context import Settings
from sftchat.chat.conversation import Answer, Conversation, Node
from sftchat.chat.serialization import (
    Piece,
    SessionMetadata,
    answer_to_json,
    metadata_from_json,
    metadata_to_json,
    node_from_json,
    node_to_json,
    partial_from_json,
    to_ascii_json,
)
from sftchat.engine import Chunk
from sftchat.errors import SftchatError, UsageError, first_line
from sftchat.types import Reply


class Session:
    """Saves one conversation as a session; writes nothing before the first message.

    Args:
        store: The session store; None disables saving.
        summary: Session to continue; a new one by default.
        conversation: Conversation of the session to continue.

    Attributes:
        store: The session store; None disables saving.
        id: Session id; 0 before anything is saved.
        pending: Lines of a resumed session that were typed but not processed.
    """

    def __init__(self, store: SessionStore | None = None, summary: Summary | None = None, conversation: Conversation | None = None) -> None:
        self.store = store
        self.id = 0
        self.pending: tuple[str, ...] = ()
        self._stored_nodes: tuple[Node, ...] = ()
        self.continue_session(summary, conversation)

    def save(self, conversation: Conversation, settings: Settings, models: Sequence[str], pending: Sequence[str] = ()) -> None:
        """Save what changed since the last call, and the pending lines."""
        store = self.store
        if store is None or store.broken:
            return
        if not (self.id or conversation.nodes or pending):  # an empty conversation makes no session
            return
        if not self._save_changed_nodes(conversation):  # another conversation, for example one that was loaded
            self.id, self._stored_nodes = 0, ()
        self.id = self.id or store.create()
        try:
            for node in conversation.nodes[len(self._stored_nodes) :]:
                store.add_node(self.id, node)
        except SessionConflict:  # go on in a new session
            self.id, self._stored_nodes = store.create(), ()
            for node in conversation.nodes:
                store.add_node(self.id, node)
        self._stored_nodes = conversation.nodes
        turns = conversation.turns
        typed = [turn.question for turn in turns[:1]] + list(pending)
        metadata = SessionMetadata(
            system=conversation.system,
            head=conversation.head,
            pane=conversation.pane,
            history=conversation.history,
            settings=settings,
            models=tuple(models),
            folder=str(Path.cwd()),
            title=typed[0][:80] if typed else "",
            turns=len(turns),
            pending=tuple(pending),
        )
        store.save(self.id, metadata)

    def continue_session(self, summary: Summary | None, conversation: Conversation | None) -> None:
        """Continue in another session: that of ``summary`` with its conversation, or a new one when both are None."""
        self.id = summary.id if summary is not None else 0
        self.pending = summary.metadata.pending if summary is not None else ()
        # a reply interrupted by a crash is part of the conversation but not yet a stored node
        stored_count = self.store.count_nodes(summary) if self.store is not None and summary is not None else 0
        self._stored_nodes = conversation.nodes[:stored_count] if conversation is not None else ()

    def begin_reply(self, question_id: int, pane: int, answer: Answer) -> None:
        """Record that a pane starts to reply to a message."""
        if self.store is not None and self.id:
            self.store.begin_reply(self.id, question_id, pane, answer)

    def add_piece(self, question_id: int, pane: int, chunk: Chunk) -> None:
        """Record a chunk of a reply."""
        if self.store is not None and self.id and (chunk.text or chunk.tokens):
            self.store.add_piece(self.id, question_id, pane, chunk.text, chunk.token_ids, chunk.tokens)

    def _save_changed_nodes(self, conversation: Conversation) -> bool:
        """Save the stored nodes whose score or rating changed; return False, without saving, if they are nodes of another conversation."""
        assert self.store is not None
        stored, current = self._stored_nodes, conversation.nodes[: len(self._stored_nodes)]
        if current == stored:
            return True
        if len(current) < len(stored) or not all(map(_same_messages, stored, current)):
            return False
        for old, new in zip(stored, current, strict=True):
            if old != new:
                self.store.update_node(self.id, new)
        return True


def _same_messages(node: Node, other: Node) -> bool:
    """Return whether two nodes have the same parent, question and replies."""
    if (node.parent, node.question) != (other.parent, other.question):
        return False
    return [answer.reply for answer in node.answers] == [answer.reply for answer in other.answers]


def restore(store: SessionStore, summary: Summary, panes: int) -> tuple[Conversation, Settings]:
    """Restore the conversation and settings of a session.

    Args:
        store: The session store.
        summary: The session to restore.
        panes: Number of models that continue it; if its focused pane is not among them, the last one is focused.

    Raises:
        SftchatError: When the session is damaged.
    """
    conversation = store.load_conversation(summary)
    return conversation.seen_by(min(conversation.pane, panes - 1)), summary.metadata.settings


SESSIONS_FILE = "sessions.sqlite"
FORMAT_VERSION = 1
LOCK_WAIT_SECONDS = 10.0
MAX_PANES = 1000
"""Larger than any real number of panes; a larger value means that the data is damaged."""
YEAR_10000 = 253_402_300_800
"""In seconds since 1970; upper bound of valid times."""

SCHEMA = """
CREATE TABLE sessions (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, used REAL, facts TEXT);
CREATE TABLE nodes (session INTEGER, id INTEGER, parent INTEGER, said TEXT, PRIMARY KEY (session, id)) WITHOUT ROWID;
CREATE TABLE pieces (session INTEGER, question INTEGER, column INTEGER, piece TEXT);
CREATE INDEX pieces_of_session ON pieces (session, question);
"""


@dataclass(frozen=True)
class Summary:
    """Summary of a session for lists.

    Attributes:
        id: Session id.
        name: Name given with ``/save``; usually empty.
        used: Time of the last write, in seconds since 1970.
        metadata: Metadata as passed to ``SessionStore.save``.
    """

    id: int
    name: str
    used: float
    metadata: SessionMetadata


class SessionConflict(Exception):
    """Another process writes to the same session."""


class SessionStore:
    """Session store in a SQLite file, opened on first use.

    Args:
        path: The database file; created with its folder when missing, readable by its owner only.
        warn: Called with one line, once when saving stops working and once for each damaged session.

    Attributes:
        broken: True when the file cannot be used; then nothing is found or saved.
        warn: As the argument; may be replaced.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self.broken = False
        self.warn = warn
        self._connection: sqlite3.Connection | None = None
        self._damaged: set[int] = set()

    def create(self) -> int:
        """Create a session and return its id; 0 when the store is broken."""
        rows = self._execute("INSERT INTO sessions (used, facts) VALUES (?, '{}') RETURNING id", time.time())
        return int(rows[0][0]) if rows else 0

    def save(self, session: int, metadata: SessionMetadata) -> None:
        """Save the metadata of a session: head, settings, models."""
        self._execute("UPDATE sessions SET used = ?, facts = ? WHERE id = ?", time.time(), metadata_to_json(metadata), session)

    def add_node(self, session: int, node: Node) -> None:
        """Save a new node; delete the stored pieces of its answers.

        Raises:
            SessionConflict: When the session has another node with that id.
        """
        try:
            self._execute("INSERT INTO nodes VALUES (?, ?, ?, ?)", session, node.id, node.parent, node_to_json(node))
        except sqlite3.IntegrityError:
            raise SessionConflict from None
        if node.answers:
            self._execute("DELETE FROM pieces WHERE session = ? AND question = ?", session, node.parent)

    def update_node(self, session: int, node: Node) -> None:
        """Save a changed node."""
        self._execute("UPDATE nodes SET said = ? WHERE session = ? AND id = ?", node_to_json(node), session, node.id)

    def begin_reply(self, session: int, question_id: int, pane: int, answer: Answer) -> None:
        """Record that a pane starts to reply, with the text that a continued answer has already."""
        self._execute("INSERT INTO pieces VALUES (?, ?, ?, ?)", session, question_id, pane, answer_to_json(answer))

    def add_piece(self, session: int, question_id: int, pane: int, text: str, token_ids: tuple[int, ...], tokens: int) -> None:
        """Record a chunk of a reply; on disk when this returns."""
        self._execute("INSERT INTO pieces VALUES (?, ?, ?, ?)", session, question_id, pane, to_ascii_json([text, token_ids, tokens]))

    def rename(self, session: int, name: str) -> None:
        """Name a session.

        Raises:
            UsageError: When another session has the name.
        """
        try:
            self._execute("UPDATE sessions SET name = ? WHERE id = ?", name, session)
        except sqlite3.IntegrityError:
            raise UsageError(f"session name '{name}' is taken; /load {name} goes on with that one") from None

    def list_sessions(self, limit: int = -1) -> tuple[Summary, ...]:
        """List at most ``limit`` sessions, last used first; -1 for all. Damaged ones are skipped, each with one warning."""
        summaries = []
        for id, name, used, facts in self._execute("SELECT id, name, used, facts FROM sessions ORDER BY used DESC LIMIT ?", limit):
            try:
                if not isinstance(used, float) or not 0 <= used < YEAR_10000:
                    raise ValueError(f"it was used at {used!r}")
                summaries.append(Summary(id, from_json(str, name or ""), used, metadata_from_json(facts)))
            except (ValueError, TypeError) as error:
                if id not in self._damaged:
                    self._damaged.add(id)
                    self.warn(str(self._damaged_error(id, error)))
        return tuple(summaries)

    def find(self, name: str) -> Summary | None:
        """Find a session by name or, second, by id; the last used session when ``name`` is empty. None when there is none."""
        summaries = self.list_sessions()
        if not name:
            return summaries[0] if summaries else None
        by_id = {str(summary.id): summary for summary in summaries}
        by_name = {summary.name: summary for summary in summaries}
        return by_name.get(name) or by_id.get(name)

    def load_conversation(self, session: Summary) -> Conversation:
        """Load the conversation of a session, including the partial text of a reply interrupted by a crash.

        Raises:
            SftchatError: When the session is damaged.
        """
        rows = self._execute("SELECT id, parent, said FROM nodes WHERE session = ? ORDER BY id", session.id)
        metadata = session.metadata
        try:
            nodes = tuple(node_from_json(*row) for row in rows)
            if [node.id for node in nodes] != list(range(1, len(nodes) + 1)):
                raise ValueError("a node is missing")
            head = min(metadata.head, len(nodes))
            conversation = Conversation(metadata.system, nodes, head, pane=metadata.pane, history=metadata.history)
            answers = self._partial_answers(session.id, head) if conversation.waiting else ()
            return conversation.answer(*answers) if answers else conversation
        except (ValueError, TypeError) as error:
            raise self._damaged_error(session.id, error) from error

    def count_nodes(self, session: Summary) -> int:
        """Return the number of stored nodes of a session."""
        rows = self._execute("SELECT count(*) FROM nodes WHERE session = ?", session.id)
        return int(rows[0][0]) if rows else 0

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _partial_answers(self, session: int, question_id: int) -> tuple[Answer, ...]:
        """Rebuild the partial answers to a message, one for each pane, from the stored beginning and pieces of each."""
        partial: dict[int, Answer] = {}
        rows = self._execute("SELECT column, piece FROM pieces WHERE session = ? AND question = ? ORDER BY rowid", session, question_id)
        for pane, text in rows:
            row = partial_from_json(text)
            if not isinstance(pane, int) or not 0 <= pane < MAX_PANES or (isinstance(row, Piece) and pane not in partial):
                raise ValueError(f"column {pane!r} of question {question_id} is invalid or has no beginning")
            if isinstance(row, Answer):
                partial[pane] = row
                continue
            answer = partial[pane]
            reply = replace(answer.reply, text=answer.reply.text + row.text, completion_tokens=answer.reply.completion_tokens + row.tokens)
            partial[pane] = replace(answer, reply=reply, token_ids=(*answer.token_ids, *row.token_ids))
        if not any(answer.reply.text or answer.token_ids for answer in partial.values()):
            return ()  # the process was killed before the first token: the message has no reply yet
        no_answer = Answer(Reply("", "cancelled"))
        return tuple(partial.get(pane, no_answer) for pane in range(max(partial) + 1))

    def _damaged_error(self, id: int, error: Exception) -> SftchatError:
        return SftchatError(f"session {id} in '{self.path}' is damaged and cannot go on: {' '.join(str(error).split())}")

    def _execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute an SQL statement; mark the store as broken when it fails.

        Raises:
            sqlite3.IntegrityError: When it violates a constraint.
        """
        if self.broken:
            return []
        try:
            if self._connection is None:
                self._connection = _connect(self.path)
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.IntegrityError:
            raise
        except (OSError, sqlite3.Error, SftchatError) as error:
            self.broken = True
            with suppress(sqlite3.Error):
                self.close()
            cause = getattr(error, "strerror", None) or first_line(error)
            reason = str(error) if isinstance(error, SftchatError) else cause.lower()
            self.warn(f"the conversation is not kept from here on: cannot use '{self.path}': {reason}")
            return []


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database file; create it when missing.

    Raises:
        OSError, sqlite3.Error, SftchatError: When it cannot be used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # readable by its owner only
    return open_database(
        path, SCHEMA, FORMAT_VERSION, LOCK_WAIT_SECONDS, lambda version: f"it has format {version}, this sftchat reads {FORMAT_VERSION}"
    )
