"""Immutable conversation tree of user messages and answers; the models see the path from the root to the head.

Nodes are only added, so undo, edit and branch lose nothing, and a session on disk is append-only. With several models, an answer node has
one answer for each pane, so all panes follow the same path, even when one model fails. The models do not see a turn whose reply was
cancelled or failed before its first character; it stays in the tree for ``/regen``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sftchat._util.renamed import former_names
from sftchat.errors import UsageError
from sftchat.task import ReplyScore
from sftchat.types import Choice, Message, Reply, SamplingParams

Rating = Literal["", "good", "bad"]
"""The user's rating of a reply."""


@dataclass(frozen=True)
class Answer:
    """Reply of one pane's model and how it was generated.

    Attributes:
        reply: The reply as generated.
        model: MODEL of the pane at that time.
        adapter: Adapter that replied; empty for the model as loaded.
        sampling: Sampling parameters, including the seed actually used.
        template_arguments: Chat template arguments that override the model's own.
        token_ids: Token ids, when the engine returns them.
        choices: Tokens with log-probabilities, when requested and returned.
        dropped: Number of oldest turns left out of the prompt because the context was full.
        first_token_seconds: Time to first token; 0 when unknown.
        seconds: Time to last token; 0 when unknown.
        score: Score of the reply, once it is known.
        rating: Rating by the user.
    """

    reply: Reply
    model: str = ""
    adapter: str = ""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    token_ids: tuple[int, ...] = ()
    choices: tuple[Choice, ...] = ()
    dropped: int = 0
    first_token_seconds: float = 0.0
    seconds: float = 0.0
    score: ReplyScore | None = None
    rating: Rating = ""

    @property
    def partial(self) -> bool:
        """True when the reply was cut off by the user, the token limit or an error."""
        return self.reply.finish_reason != "stop"

    @property
    def aborted_without_text(self) -> bool:
        """True when an error or the user ended the reply before its first character; such a turn is left out of prompts."""
        return not self.reply.text and self.reply.finish_reason in ("cancelled", "error")


@dataclass(frozen=True)
class Node:
    """A user message, or the models' answers to one.

    Attributes:
        id: Node id, from 1; 0 is the root of the conversation.
        parent: Id of the parent node; always smaller than ``id``.
        question: The user's message as typed; empty for answers.
        answers: One for each pane; empty for a user message.
    """

    id: int
    parent: int
    question: str = ""
    answers: tuple[Answer, ...] = ()

    @property
    def aborted_without_text(self) -> bool:
        """True for an answer node in which every answer was aborted without text."""
        return bool(self.answers) and all(answer.aborted_without_text for answer in self.answers)


@dataclass(frozen=True)
class Turn:
    """A user message and the answer of one pane.

    Attributes:
        question: The user's message as typed.
        answer: The answer; None before it exists.
        id: Id of the answer node, or of the message node when there is no answer yet.
    """

    question: str
    answer: Answer | None = None
    id: int = 0

    @property
    def reply(self) -> Reply | None:
        """The reply as generated; None before it exists."""
        return self.answer.reply if self.answer is not None else None

    @property
    def partial(self) -> bool:
        """True when the reply was cut off."""
        return self.answer is not None and self.answer.partial


@former_names(column="pane")
@dataclass(frozen=True)
class Conversation:
    """Conversation tree with its current position.

    Attributes:
        system: System prompt; may be empty.
        nodes: All nodes, parents before children.
        head: Id of the current node.
        undone: The head before each ``undo``, oldest first; ``redo`` returns to the last one.
        pane: Pane whose answers ``turns`` and ``messages`` return.
        history: True when the model sees earlier turns.
    """

    system: str = ""
    nodes: tuple[Node, ...] = ()
    head: int = 0
    undone: tuple[int, ...] = ()
    pane: int = 0
    history: bool = True

    def node(self, id: int) -> Node:
        """Return a node by id, from 1 to ``len(nodes)``."""
        return self.nodes[id - 1]

    def path_to(self, id: int) -> tuple[Node, ...]:
        """Return the nodes from the root to a node."""
        nodes: list[Node] = []
        while id:
            nodes.append(self.node(id))
            id = nodes[-1].parent
        return tuple(reversed(nodes))

    @property
    def path(self) -> tuple[Node, ...]:
        """The nodes from the root to the head."""
        return self.path_to(self.head)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Turns of the current path as the pane's model sees them: without replies that were aborted without text."""
        return self.turns_to(self.head)

    def turns_to(self, id: int) -> tuple[Turn, ...]:
        """Return the turns of the path to any node."""
        turns, question = [], ""
        path = self.path_to(id)
        for node in path:
            if not node.answers:
                question = node.question
                continue
            # a session may continue with more models than it began with: the further ones see the answers of the last one
            answer = node.answers[min(self.pane, len(node.answers) - 1)]
            if not answer.aborted_without_text:
                turns.append(Turn(question, answer, node.id))
        if path and not path[-1].answers:
            turns.append(Turn(question, None, id))
        return tuple(turns)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages that the pane's model sees, in the form that engines and templates take."""
        messages = [Message(role="system", content=self.system)] if self.system else []
        for turn in self.turns if self.history else self.turns[-1:]:
            messages.append(Message(role="user", content=turn.question))
            if turn.reply is not None:
                messages.append(Message(role="assistant", content=turn.reply.text))
        return tuple(messages)

    @property
    def waiting(self) -> bool:
        """True when the last message has no reply yet."""
        return self.head > 0 and not self.node(self.head).answers

    @property
    def leaves(self) -> tuple[int, ...]:
        """Ids of the answer nodes that end a branch, in the order of creation; replies aborted without text do not count as nodes."""
        parents = {node.parent for node in self.nodes if not node.aborted_without_text}
        return tuple(node.id for node in self.nodes if node.answers and not node.aborted_without_text and node.id not in parents)

    def ask(self, question: str) -> Conversation:
        """Append a user message.

        Raises:
            ValueError: When the previous message has no reply yet.
        """
        if self.waiting:
            raise ValueError("the last message still waits for its reply")
        parent = self.head
        if parent and self.node(parent).aborted_without_text:  # continue before the message that got no reply
            parent = self.node(self.node(parent).parent).parent
        return self._add_node(Node(len(self.nodes) + 1, parent, question=question))

    def answer(self, *answers: Answer) -> Conversation:
        """Append the answers to the last message, one for each pane.

        Raises:
            ValueError: When no message waits for a reply.
        """
        if not self.waiting:
            raise ValueError("no message waits for a reply")
        return self._add_node(Node(len(self.nodes) + 1, self.head, answers=answers))

    def unanswered(self) -> Conversation:
        """Move the head back to the last user message, with or without replies.

        Raises:
            UsageError: When there is no message.
        """
        if not self.head:
            raise UsageError("nothing was asked yet")
        return self if self.waiting else replace(self, head=self.node(self.head).parent, undone=())

    def undo(self, turns: int = 1) -> Conversation:
        """Move the head back by a number of turns; ``redo`` reverts it.

        Raises:
            UsageError: When there are fewer turns.
        """
        current = self.turns
        if not 1 <= turns <= len(current):
            raise UsageError(f"cannot go back {turns} turns: the conversation has {len(current)}")
        head = current[-turns - 1].id if turns < len(current) else 0
        return replace(self, head=head, undone=(*self.undone, self.head))

    def redo(self) -> Conversation:
        """Revert the last ``undo``.

        Raises:
            UsageError: When there is nothing to redo.
        """
        if not self.undone:
            raise UsageError("nothing was undone")
        return replace(self, head=self.undone[-1], undone=self.undone[:-1])

    def go(self, id: int) -> Conversation:
        """Move the head to any node; 0 is the root."""
        return replace(self, head=id, undone=())

    def reset(self) -> Conversation:
        """Move the head to the root and keep the system prompt; all nodes stay in the tree."""
        return self.go(0)

    def with_system(self, system: str) -> Conversation:
        """Change the system prompt; all nodes stay."""
        return replace(self, system=system)

    def seen_by(self, pane: int) -> Conversation:
        """Return the same conversation for another pane."""
        return replace(self, pane=pane)

    def with_answer(self, id: int, pane: int, answer: Answer) -> Conversation:
        """Replace the answer of a pane in node ``id``, to add later results such as its score."""
        node = self.node(id)
        answers = (*node.answers[:pane], answer, *node.answers[pane + 1 :])
        return replace(self, nodes=(*self.nodes[: id - 1], replace(node, answers=answers), *self.nodes[id:]))

    def _add_node(self, node: Node) -> Conversation:

        return replace(self, nodes=(*self.nodes, node), head=node.id, undone=())
