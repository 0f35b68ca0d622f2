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
    dumps,
    metadata_from_json,
    metadata_to_json,
    node_from_json,
    node_to_json,
    partial_from_json,
)
from sftchat.engine import Chunk
from sftchat.errors import SftchatError, UsageError, first_line
from sftchat.types import Reply


class Session:
    """Saves one conversation as a session; writes nothing before the first message.

    Args:
        sessions: The session store; None disables saving.
        summary: Session to continue; a new one by default.
        kept: The part of its conversation that is stored already.

    Attributes:
        sessions: The session store; None disables saving.
        id: Session id; 0 before anything is saved.
        pending: Lines of a resumed session that were typed but not processed.
    """

    def __init__(self, sessions: Sessions | None = None, summary: Summary | None = None, kept: Conversation | None = None) -> None:
        self.sessions = sessions
        self.id = 0
        self.pending: tuple[str, ...] = ()
        self._nodes: tuple[Node, ...] = ()
        self.go_on(summary, kept)

    def save(self, conversation: Conversation, settings: Settings, models: Sequence[str], pending: Sequence[str] = ()) -> None:
        """Save what changed since the last call, and the pending lines."""
        if self.sessions is None or self.sessions.broken or not (self.id or conversation.nodes or pending):
            return
        if conversation.nodes[: len(self._nodes)] != self._nodes and not self._save_changes(conversation):
            self.id, self._nodes = 0, ()  # an unrelated conversation, for example one that was loaded
        self.id = self.id or self.sessions.new()
        try:
            for node in conversation.nodes[len(self._nodes) :]:
                self.sessions.add(self.id, node)
        except SessionConflict:
            self.id, self._nodes = self.sessions.new(), ()
            for node in conversation.nodes:
                self.sessions.add(self.id, node)
        self._nodes = conversation.nodes
        turns = conversation.turns
        metadata = SessionMetadata(
            system=conversation.system,
            head=conversation.head,
            pane=conversation.pane,
            history=conversation.history,
            settings=settings,
            models=tuple(models),
            folder=str(Path.cwd()),
            title=next((line[:80] for line in (*(turn.question for turn in turns[:1]), *pending)), ""),
            turns=len(turns),
            pending=tuple(pending),
        )
        self.sessions.save(self.id, metadata)

    def go_on(self, summary: Summary | None, kept: Conversation | None) -> None:
        """Continue in another session: that of ``summary``, or a new one when it is None."""
        self.id = summary.id if summary is not None else 0
        self.pending = summary.metadata.pending if summary is not None else ()
        # a reply interrupted by a crash is part of the conversation but not yet a stored node
        stored = self.sessions.stored(summary) if self.sessions is not None and summary is not None else 0
        self._nodes = kept.nodes[:stored] if kept is not None else ()

    def begin(self, question: int, pane: int, answer: Answer) -> None:
        """Record that a pane starts to reply to a message."""
        if self.sessions is not None and self.id:
            self.sessions.begin(self.id, question, pane, answer)

    def piece(self, question: int, pane: int, chunk: Chunk) -> None:
        """Record a chunk of a reply."""
        if self.sessions is not None and self.id and (chunk.text or chunk.tokens):
            self.sessions.piece(self.id, question, pane, chunk.text, chunk.token_ids, chunk.tokens)

    def _save_changes(self, conversation: Conversation) -> bool:
        """Save changes of stored nodes; False when the stored nodes belong to another conversation."""
        assert self.sessions is not None
        before, now = self._nodes, conversation.nodes[: len(self._nodes)]
        if len(now) < len(before) or any(
            (old.parent, old.question, [answer.reply for answer in old.answers])
            != (new.parent, new.question, [answer.reply for answer in new.answers])
            for old, new in zip(before, now, strict=True)
        ):
            return False
        for old, new in zip(before, now, strict=True):
            if old != new:
                self.sessions.change(self.id, new)
        return True


def restored(sessions: Sessions, summary: Summary, panes: int) -> tuple[Conversation, Settings]:
    """Restore the conversation and settings of a session.

    Args:
        sessions: The session store.
        summary: The session to restore.
        panes: Number of models that continue it.

    Raises:
        SftchatError: When the session is damaged.
    """
    conversation = sessions.conversation(summary)
    return conversation.seen_by(min(conversation.pane, panes - 1)), summary.metadata.settings


FILE = "sessions.sqlite"
VERSION = 1
WAIT_SECONDS = 10.0
MAX_PANES = 1000
"""Larger than any real number of panes; a larger value means that the data is damaged."""
YEAR_10000 = 253_402_300_800
"""In seconds since 1970; upper bound of valid times."""

TABLES = """
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
        metadata: Metadata as passed to ``Sessions.save``.
    """

    id: int
    name: str
    used: float
    metadata: SessionMetadata


class SessionConflict(Exception):
    """Another process writes to the same session."""


class Sessions:
    """Session store in a SQLite file, opened on first use.

    Args:
        path: The database file; created with its folder when missing, readable by its owner only.
        warn: Called once, with one line, when saving stops working.

    Attributes:
        broken: True when the file cannot be used: nothing is found or saved.
        warn: Called once, with one line, when saving stops working.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self.broken = False
        self.warn = warn
        self._connection: sqlite3.Connection | None = None
        self._damaged: set[int] = set()

    def new(self) -> int:
        """Create a session and return its id; 0 when saving is not possible."""
        rows = self._do("INSERT INTO sessions (used, facts) VALUES (?, '{}') RETURNING id", time.time())
        return int(rows[0][0]) if rows else 0

    def save(self, session: int, metadata: SessionMetadata) -> None:
        """Save the metadata of a session: head, settings, models."""
        self._do("UPDATE sessions SET used = ?, facts = ? WHERE id = ?", time.time(), metadata_to_json(metadata), session)

    def add(self, session: int, node: Node) -> None:
        """Save a new node and delete the stored chunks of its reply.

        Raises:
            SessionConflict: When the session has another node with that id.
        """
        try:
            self._do("INSERT INTO nodes VALUES (?, ?, ?, ?)", session, node.id, node.parent, node_to_json(node))
        except sqlite3.IntegrityError:
            raise SessionConflict from None
        if node.answers:
            self._do("DELETE FROM pieces WHERE session = ? AND question = ?", session, node.parent)

    def change(self, session: int, node: Node) -> None:
        """Save a changed node."""
        self._do("UPDATE nodes SET said = ? WHERE session = ? AND id = ?", node_to_json(node), session, node.id)

    def begin(self, session: int, question: int, pane: int, answer: Answer) -> None:
        """Record that a pane starts to reply, with the text the answer has already."""
        self._do("INSERT INTO pieces VALUES (?, ?, ?, ?)", session, question, pane, answer_to_json(answer))

    def piece(self, session: int, question: int, pane: int, text: str, token_ids: tuple[int, ...], tokens: int) -> None:
        """Record a chunk of a reply; on disk when this returns."""
        self._do("INSERT INTO pieces VALUES (?, ?, ?, ?)", session, question, pane, dumps([text, token_ids, tokens]))

    def rename(self, session: int, name: str) -> None:
        """Name a session.

        Raises:
            UsageError: When another session has the name.
        """
        try:
            self._do("UPDATE sessions SET name = ? WHERE id = ?", name, session)
        except sqlite3.IntegrityError:
            raise UsageError(f"session name '{name}' is taken; /load {name} goes on with that one") from None

    def all(self, most: int = -1) -> tuple[Summary, ...]:
        """List the sessions, last used first; damaged ones are skipped with one warning."""
        summaries = []
        for id, name, used, facts in self._do("SELECT id, name, used, facts FROM sessions ORDER BY used DESC LIMIT ?", most):
            try:
                if not isinstance(used, float) or not 0 <= used < YEAR_10000:
                    raise ValueError(f"it was used at {used!r}")
                summaries.append(Summary(id, from_json(str, name or ""), used, metadata_from_json(facts)))
            except (ValueError, TypeError) as error:
                if id not in self._damaged:
                    self._damaged.add(id)
                    self.warn(str(self._broken_session(id, error)))
        return tuple(summaries)

    def find(self, wanted: str) -> Summary | None:
        """Find a session by name or number; the last used summary when ``wanted`` is empty."""
        summaries = self.all()
        if not wanted:
            return summaries[0] if summaries else None
        return next((summary for summary in summaries if summary.name == wanted), None) or next(
            (summary for summary in summaries if str(summary.id) == wanted), None
        )

    def conversation(self, session: Summary) -> Conversation:
        """Load the conversation of a session, including the partial text of a reply interrupted by a crash.

        Raises:
            SftchatError: When the session is damaged.
        """
        rows = self._do("SELECT id, parent, said FROM nodes WHERE session = ? ORDER BY id", session.id)
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
            raise self._broken_session(session.id, error) from error

    def stored(self, session: Summary) -> int:
        """Number of stored nodes of a session."""
        rows = self._do("SELECT count(*) FROM nodes WHERE session = ?", session.id)
        return int(rows[0][0]) if rows else 0

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _partial_answers(self, session: int, question: int) -> tuple[Answer, ...]:
        """Rebuild partial answers to a message, by pane: the first stored row of a pane is an Answer, later ones are Pieces to append."""
        partial: dict[int, Answer] = {}
        rows = self._do("SELECT column, piece FROM pieces WHERE session = ? AND question = ? ORDER BY rowid", session, question)
        for pane, text in rows:
            part = partial_from_json(text)
            if not isinstance(pane, int) or not 0 <= pane < MAX_PANES or (isinstance(part, Piece) and pane not in partial):
                raise ValueError(f"column {pane!r} of question {question} is invalid or has no beginning")
            if isinstance(part, Answer):
                partial[pane] = part
                continue
            reply = partial[pane].reply
            reply = replace(reply, text=reply.text + part.text, completion_tokens=reply.completion_tokens + part.tokens)
            partial[pane] = replace(partial[pane], reply=reply, token_ids=(*partial[pane].token_ids, *part.token_ids))
        if not any(answer.reply.text or answer.token_ids for answer in partial.values()):
            return ()  # the process was killed before the first token: the message has no reply yet
        nothing = Answer(Reply("", "cancelled"))
        return tuple(partial.get(pane, nothing) for pane in range(max(partial) + 1))

    def _broken_session(self, id: int, error: Exception) -> SftchatError:
        return SftchatError(f"session {id} in '{self.path}' is damaged and cannot go on: {' '.join(str(error).split())}")

    def _do(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
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
            said = str(error) if isinstance(error, SftchatError) else (getattr(error, "strerror", None) or first_line(error)).lower()
            self.warn(f"the conversation is not kept from here on: cannot use '{self.path}': {said}")
            return []


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database file; create it when missing.

    Raises:
        OSError, sqlite3.Error, SftchatError: When it cannot be used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # readable by its owner only
    return open_database(path, TABLES, VERSION, WAIT_SECONDS, lambda version: f"it has format {version}, this sftchat reads {VERSION}")
