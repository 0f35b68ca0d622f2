"""The session of a talk: keeps on disk what the talk becomes, by the difference to what is there already."""

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
    said_from_json,
)
from sftchat.chat.settings import Settings
from sftchat.engine import Chunk
from sftchat.errors import SftchatError, UsageError, first_line
from sftchat.types import Reply


class Session:
    """One talk's place among the sessions; nothing is written before something is said.

    Args:
        sessions: Where; None keeps nothing.
        found: The session to go on with; a new one by default.
        kept: What it has of the conversation.

    Attributes:
        sessions: Where it is kept.
        id: Its number; 0 before anything is kept.
        pending: Lines of a session that goes on which were typed and have not had their turn.
    """

    def __init__(self, sessions: Sessions | None = None, found: Summary | None = None, kept: Conversation | None = None) -> None:
        self.sessions = sessions
        self.id = 0
        self.pending: tuple[str, ...] = ()
        self._nodes: tuple[Node, ...] = ()
        self.go_on(found, kept)

    def save(self, conversation: Conversation, settings: Settings, models: Sequence[str], pending: Sequence[str] = ()) -> None:
        """Keep what changed since the last time, and the lines that wait for their turn."""
        if self.sessions is None or self.sessions.broken or not (self.id or conversation.nodes or pending):
            return
        if conversation.nodes[: len(self._nodes)] != self._nodes and not self._changed(conversation):
            self.id, self._nodes = 0, ()  # another conversation altogether, such as one that was loaded
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
        facts = SessionMetadata(
            system=conversation.system,
            head=conversation.head,
            column=conversation.column,
            history=conversation.history,
            settings=settings,
            models=tuple(models),
            folder=str(Path.cwd()),
            title=next((line[:80] for line in (*(turn.question for turn in turns[:1]), *pending)), ""),
            turns=len(turns),
            pending=tuple(pending),
        )
        self.sessions.save(self.id, facts)

    def go_on(self, found: Summary | None, kept: Conversation | None) -> None:
        """Keep what comes in another session: one that was found, or a new one."""
        self.id = found.id if found is not None else 0
        self.pending = found.facts.pending if found is not None else ()
        # a reply that was under way is in the talk, and not yet among the nodes on disk
        stored = self.sessions.stored(found) if self.sessions is not None and found is not None else 0
        self._nodes = kept.nodes[:stored] if kept is not None else ()

    def begin(self, question: int, column: int, answer: Answer) -> None:
        """A column begins to answer a question."""
        if self.sessions is not None and self.id:
            self.sessions.begin(self.id, question, column, answer)

    def piece(self, question: int, column: int, chunk: Chunk) -> None:
        """An answer goes on."""
        if self.sessions is not None and self.id and (chunk.text or chunk.tokens):
            self.sessions.piece(self.id, question, column, chunk.text, chunk.token_ids, chunk.tokens)

    def _changed(self, conversation: Conversation) -> bool:
        """Keep what became known of nodes that were kept; False when they are others."""
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


def restored(sessions: Sessions, found: Summary, columns: int) -> tuple[Conversation, Settings]:
    """What a session was: its talk and its settings.

    Args:
        sessions: Where it is.
        found: Which one.
        columns: How many models will go on with it.

    Raises:
        SftchatError: When it is damaged.
    """
    conversation = sessions.conversation(found)
    return conversation.seen_by(min(conversation.column, columns - 1)), found.facts.settings


FILE = "sessions.sqlite"
VERSION = 1
WAIT_SECONDS = 10.0
MOST_COLUMNS = 1000
"""More than any talk has; what says otherwise is damaged."""
YEAR_10000 = 253_402_300_800
"""In seconds since 1970: no clock shows it."""

TABLES = """
CREATE TABLE sessions (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, used REAL, facts TEXT);
CREATE TABLE nodes (session INTEGER, id INTEGER, parent INTEGER, said TEXT, PRIMARY KEY (session, id)) WITHOUT ROWID;
CREATE TABLE pieces (session INTEGER, question INTEGER, column INTEGER, piece TEXT);
CREATE INDEX pieces_of_session ON pieces (session, question);
"""


@dataclass(frozen=True)
class Summary:
    """A session as a list shows it.

    Attributes:
        id: Its number.
        name: What ``/save`` called it; empty for most.
        used: When it was last written, in seconds since 1970.
        facts: What ``Sessions.save`` was given.
    """

    id: int
    name: str
    used: float
    facts: SessionMetadata


class SessionConflict(Exception):
    """Another program goes on with the same session."""


class Sessions:
    """The sessions of a file; opened at its first use.

    Args:
        path: The file; made with its folder when missing, readable by its owner only.
        warn: Told once, in one line, when nothing can be kept any more.

    Attributes:
        broken: The file could not be used: nothing is found or kept.
        warn: Told once, in one line, when nothing can be kept any more.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self.broken = False
        self.warn = warn
        self._connection: sqlite3.Connection | None = None
        self._damaged: set[int] = set()

    def new(self) -> int:
        """Begin a session and return its number; 0 when it cannot be kept."""
        rows = self._do("INSERT INTO sessions (used, facts) VALUES (?, '{}') RETURNING id", time.time())
        return int(rows[0][0]) if rows else 0

    def save(self, session: int, facts: SessionMetadata) -> None:
        """Keep what is true of a session now: where its talk is, its settings, its models."""
        self._do("UPDATE sessions SET used = ?, facts = ? WHERE id = ?", time.time(), metadata_to_json(facts), session)

    def add(self, session: int, node: Node) -> None:
        """Keep a new node; the pieces of the reply that it has are not needed any more.

        Raises:
            Taken: When the session has another node in its place.
        """
        try:
            self._do("INSERT INTO nodes VALUES (?, ?, ?, ?)", session, node.id, node.parent, node_to_json(node))
        except sqlite3.IntegrityError:
            raise SessionConflict from None
        if node.answers:
            self._do("DELETE FROM pieces WHERE session = ? AND question = ?", session, node.parent)

    def change(self, session: int, node: Node) -> None:
        """Keep what became known of a node."""
        self._do("UPDATE nodes SET said = ? WHERE session = ? AND id = ?", node_to_json(node), session, node.id)

    def begin(self, session: int, question: int, column: int, answer: Answer) -> None:
        """A column begins to answer; what the answer says already is kept with it."""
        self._do("INSERT INTO pieces VALUES (?, ?, ?, ?)", session, question, column, answer_to_json(answer))

    def piece(self, session: int, question: int, column: int, text: str, token_ids: tuple[int, ...], tokens: int) -> None:
        """An answer goes on; on disk when this returns."""
        self._do("INSERT INTO pieces VALUES (?, ?, ?, ?)", session, question, column, dumps([text, token_ids, tokens]))

    def rename(self, session: int, name: str) -> None:
        """Give a session a name.

        Raises:
            UsageError: When another one has it.
        """
        try:
            self._do("UPDATE sessions SET name = ? WHERE id = ?", name, session)
        except sqlite3.IntegrityError:
            raise UsageError(f"session name '{name}' is taken; /load {name} goes on with that one") from None

    def all(self, most: int = -1) -> tuple[Summary, ...]:
        """The sessions, the last used first; damaged ones are left out, and that is said once."""
        found = []
        for id, name, used, facts in self._do("SELECT id, name, used, facts FROM sessions ORDER BY used DESC LIMIT ?", most):
            try:
                if not isinstance(used, float) or not 0 <= used < YEAR_10000:
                    raise ValueError(f"it was used at {used!r}")
                found.append(Summary(id, from_json(str, name or ""), used, metadata_from_json(facts)))
            except (ValueError, TypeError) as error:
                if id not in self._damaged:
                    self._damaged.add(id)
                    self.warn(str(self._broken_session(id, error)))
        return tuple(found)

    def find(self, wanted: str) -> Summary | None:
        """The session of a name or a number; of that which was used last when nothing is wanted."""
        found = self.all()
        if not wanted:
            return found[0] if found else None
        return next((one for one in found if one.name == wanted), None) or next((one for one in found if str(one.id) == wanted), None)

    def conversation(self, session: Summary) -> Conversation:
        """All that was said in a session; a reply that was under way when the program ended is there as far as it came.

        Raises:
            SftchatError: When it is damaged.
        """
        rows = self._do("SELECT id, parent, said FROM nodes WHERE session = ? ORDER BY id", session.id)
        facts = session.facts
        try:
            nodes = tuple(node_from_json(*row) for row in rows)
            if [node.id for node in nodes] != list(range(1, len(nodes) + 1)):
                raise ValueError("a node is missing")
            head = min(facts.head, len(nodes))
            found = Conversation(facts.system, nodes, head, column=facts.column, history=facts.history)
            return found.answer(*answers) if found.waiting and (answers := self._under_way(session.id, head)) else found
        except (ValueError, TypeError) as error:
            raise self._broken_session(session.id, error) from error

    def stored(self, session: Summary) -> int:
        """How many nodes of a session are on disk."""
        rows = self._do("SELECT count(*) FROM nodes WHERE session = ?", session.id)
        return int(rows[0][0]) if rows else 0

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _under_way(self, session: int, question: int) -> tuple[Answer, ...]:
        """The answers that were being given to a question, by column."""
        found: dict[int, Answer] = {}
        rows = self._do("SELECT column, piece FROM pieces WHERE session = ? AND question = ? ORDER BY rowid", session, question)
        for column, piece in rows:
            said = said_from_json(piece)
            if not isinstance(column, int) or not 0 <= column < MOST_COLUMNS or (isinstance(said, Piece) and column not in found):
                raise ValueError(f"column {column!r} of question {question} goes on and did not begin")
            if isinstance(said, Answer):
                found[column] = said
                continue
            reply = found[column].reply
            reply = replace(reply, text=reply.text + said.text, completion_tokens=reply.completion_tokens + said.tokens)
            found[column] = replace(found[column], reply=reply, token_ids=(*found[column].token_ids, *said.token_ids))
        if not any(answer.reply.text or answer.token_ids for answer in found.values()):
            return ()  # the program was killed before the first token: the question has no reply yet
        nothing = Answer(Reply("", "cancelled"))
        return tuple(found.get(column, nothing) for column in range(max(found) + 1))

    def _broken_session(self, id: int, error: Exception) -> SftchatError:
        """The error for a session that cannot be read."""
        return SftchatError(f"session {id} in '{self.path}' is damaged and cannot go on: {' '.join(str(error).split())}")

    def _do(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Carry out a statement, or give up on the file for good.

        Raises:
            sqlite3.IntegrityError: When it would break a rule of the tables.
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
    """Open the file, made when it is missing.

    Raises:
        OSError, sqlite3.Error, SftchatError: When it cannot be used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # readable by its owner only
    return open_database(path, TABLES, VERSION, WAIT_SECONDS, lambda found: f"it has format {found}, this sftchat reads {VERSION}")
