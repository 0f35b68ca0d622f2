"""A conversation as pure, immutable state: a tree of questions and answers, of which the path to its head is what the models see.

Nodes are only ever added, so undoing, editing and branching lose nothing, and a session on disk grows by appending. With several models side
by side an answer node holds one answer a column: the columns stay in step by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sftchat.errors import UsageError
from sftchat.types import Choice, Message, Reply, SamplingParams

Rating = Literal["", "good", "bad"]
"""What the user thought of a reply."""


@dataclass(frozen=True)
class Mark:
    """What the task's scorer thinks of a reply.

    Attributes:
        metric: Name of the task's primary metric.
        value: Its value for this reply; None where the item has no gold.
        errors: The scorer's fault classes; or, without gold, what the task finds wrong with the reply's form.
        answer: What the scorer understood the reply to say.
    """

    metric: str
    value: float | None = None
    errors: tuple[str, ...] = ()
    answer: str = ""

    @property
    def right(self) -> bool:
        """Nothing is wrong with the reply, as far as the task can tell."""
        return not self.errors

    @property
    def text(self) -> str:
        """A few words for under the reply: ``F1 0.83: missing``, ``no gold, well-formed``."""
        if self.value is None:
            return f"no gold; would be refused as one: {', '.join(self.errors)}" if self.errors else "no gold, well-formed"
        score = f"{self.metric} {self.value:.2f}"
        return f"{score}: {', '.join(self.errors)}" if self.errors else score


@dataclass(frozen=True)
class Answer:
    """What one column's model said, and how it came to say it.

    Attributes:
        reply: The reply, as generated.
        model: MODEL of the column then.
        adapter: Name of the adapter that answered; empty for what was loaded.
        sampling: How it was generated, the seed that was really used included.
        template_arguments: Arguments of the chat template beyond the model's own.
        token_ids: Its tokens, where the engine lists them.
        choices: Its tokens with their log-probabilities, where they were asked for and came with the reply.
        dropped: How many of the oldest turns the model was not shown, because the context was full.
        first_token_seconds: Time to the first token; 0 when unknown.
        seconds: Time to the last; 0 when unknown.
        mark: The scorer's judgement, once there is one.
        rating: The user's.
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
    mark: Mark | None = None
    rating: Rating = ""

    @property
    def partial(self) -> bool:
        """The reply was cut before the model ended it: by the user, by the token limit or by an error."""
        return self.reply.finish_reason != "stop"

    @property
    def silent(self) -> bool:
        """Nothing was said because of an error or the user: the models are not shown the turn."""
        return not self.reply.text and self.reply.finish_reason in ("cancelled", "error")


@dataclass(frozen=True)
class Node:
    """A question of the user, or the models' answers to one.

    Attributes:
        id: Its place in the tree, from 1; 0 is the beginning of the talk.
        parent: Id of the node it follows; always smaller.
        question: The user's message, as typed; empty for answers.
        answers: One a column; empty for a question.
    """

    id: int
    parent: int
    question: str = ""
    answers: tuple[Answer, ...] = ()

    @property
    def role(self) -> Literal["user", "assistant"]:
        """Who speaks."""
        return "assistant" if self.answers else "user"

    @property
    def silent(self) -> bool:
        """An attempt to answer in which no column said anything."""
        return bool(self.answers) and all(answer.silent for answer in self.answers)


@dataclass(frozen=True)
class Turn:
    """A message and what a column's model said to it.

    Attributes:
        question: The user's message, as typed.
        answer: The answer; None while it is awaited.
        id: Id of the answer's node, or of the question's while that waits.
    """

    question: str
    answer: Answer | None = None
    id: int = 0

    @property
    def reply(self) -> Reply | None:
        """The reply, as generated; None while it is awaited."""
        return self.answer.reply if self.answer is not None else None

    @property
    def partial(self) -> bool:
        """The reply was cut before the model ended it."""
        return self.answer is not None and self.answer.partial


@dataclass(frozen=True)
class Conversation:
    """What was said, all of it, and where the talk is.

    Attributes:
        system: The system prompt; empty for none.
        nodes: Everything ever said, each node after its parent.
        head: Id of the node where the talk is.
        undone: Heads that ``redo`` goes back to, the next one last.
        column: Whose answers ``turns`` and ``messages`` are about.
        history: Whether the model sees the turns before the last.
    """

    system: str = ""
    nodes: tuple[Node, ...] = ()
    head: int = 0
    undone: tuple[int, ...] = ()
    column: int = 0
    history: bool = True

    def node(self, id: int) -> Node:
        """The node of an id; the ids of a conversation are 1 to ``len(nodes)``."""
        return self.nodes[id - 1]

    def path_to(self, id: int) -> tuple[Node, ...]:
        """The nodes from the beginning to a node."""
        found: list[Node] = []
        while id:
            found.append(self.node(id))
            id = found[-1].parent
        return tuple(reversed(found))

    @property
    def path(self) -> tuple[Node, ...]:
        """The nodes from the beginning to the head."""
        return self.path_to(self.head)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What the column's model sees of the path: its turns, without those in which it could say nothing."""
        return self.turns_to(self.head)

    def turns_to(self, id: int) -> tuple[Turn, ...]:
        """The same for the path to any node."""
        turns, question = [], ""
        path = self.path_to(id)
        for node in path:
            if not node.answers:
                question = node.question
            elif not (answer := node.answers[min(self.column, len(node.answers) - 1)]).silent:
                turns.append(Turn(question, answer, node.id))
        return (*turns, Turn(question, None, id)) if path and not path[-1].answers else tuple(turns)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as engines and templates take it."""
        found = [Message(role="system", content=self.system)] if self.system else []
        for turn in self.turns if self.history else self.turns[-1:]:
            found.append(Message(role="user", content=turn.question))
            if turn.reply is not None:
                found.append(Message(role="assistant", content=turn.reply.text))
        return tuple(found)

    @property
    def waiting(self) -> bool:
        """The last message has no reply yet."""
        return self.head > 0 and not self.node(self.head).answers

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids of the nodes where branches end, those of failed attempts aside, in the order in which they were said."""
        parents = {node.parent for node in self.nodes if not node.silent}
        return tuple(node.id for node in self.nodes if node.answers and not node.silent and node.id not in parents)

    def ask(self, question: str) -> Conversation:
        """Append a user message.

        Raises:
            ValueError: When the message before still waits for its reply.
        """
        if self.waiting:
            raise ValueError("the last message still waits for its reply")
        parent = self.head
        if parent and self.node(parent).silent:
            parent = self.node(self.node(parent).parent).parent
        return self._added(Node(len(self.nodes) + 1, parent, question=question))

    def answer(self, *answers: Answer) -> Conversation:
        """Append the answers to the message that waits, one a column.

        Raises:
            ValueError: When none waits.
        """
        if not self.waiting:
            raise ValueError("no message waits for a reply")
        return self._added(Node(len(self.nodes) + 1, self.head, answers=answers))

    def unanswered(self) -> Conversation:
        """Go back to the last message, as if nothing had been said to it; that of a failed attempt counts.

        Raises:
            UsageError: When there is no message.
        """
        if not self.head:
            raise UsageError("nothing was asked yet")
        return self if self.waiting else replace(self, head=self.node(self.head).parent, undone=())

    def undo(self, turns: int = 1) -> Conversation:
        """Go back by some turns; ``redo`` takes it back.

        Raises:
            UsageError: When there are not so many.
        """
        seen = self.turns
        if not 1 <= turns <= len(seen):
            raise UsageError(f"cannot go back {turns} turns: the conversation has {len(seen)}")
        kept = seen[len(seen) - turns - 1].id if turns < len(seen) else 0
        return replace(self, head=kept, undone=(*self.undone, self.head))

    def redo(self) -> Conversation:
        """Take back the last ``undo``.

        Raises:
            UsageError: When there is none.
        """
        if not self.undone:
            raise UsageError("nothing was undone")
        return replace(self, head=self.undone[-1], undone=self.undone[:-1])

    def go(self, id: int) -> Conversation:
        """Go to any node; 0 is the beginning."""
        return replace(self, head=id, undone=())

    def reset(self) -> Conversation:
        """Go to the beginning and keep the system prompt; what was said stays in the tree."""
        return self.go(0)

    def with_system(self, system: str) -> Conversation:
        """Change the system prompt; what was said stays."""
        return replace(self, system=system)

    def seen_by(self, column: int) -> Conversation:
        """The same conversation as another column's model sees it."""
        return replace(self, column=column)

    def changed(self, id: int, column: int, answer: Answer) -> Conversation:
        """Replace an answer in place, to add what became known of it later, such as its mark."""
        node = self.node(id)
        answers = (*node.answers[:column], answer, *node.answers[column + 1 :])
        return replace(self, nodes=(*self.nodes[: id - 1], replace(node, answers=answers), *self.nodes[id:]))

    def _added(self, node: Node) -> Conversation:
        """With one more node, where the talk now is."""
        return replace(self, nodes=(*self.nodes, node), head=node.id, undone=())
