"""The session of a talk: keeps on disk what the talk becomes, by the difference to what is there already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sftchat.chat.conversation import Answer, Conversation, Node
from sftchat.chat.records import Facts
from sftchat.chat.sessions import Sessions, Summary, Taken
from sftchat.chat.settings import Settings
from sftchat.engines.base import Chunk


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
            self.id, self._nodes = 0, ()  # another talk altogether, such as one that was loaded
        self.id = self.id or self.sessions.new()
        try:
            for node in conversation.nodes[len(self._nodes) :]:
                self.sessions.add(self.id, node)
        except Taken:
            self.id, self._nodes = self.sessions.new(), ()
            for node in conversation.nodes:
                self.sessions.add(self.id, node)
        self._nodes = conversation.nodes
        turns = conversation.turns
        facts = Facts(
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
