"""What is said and how, as JSON and back: the form in which sessions keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sftchat._util.parsing import from_json, load_json
from sftchat.chat.conversation import Answer, Node
from sftchat.chat.settings import Settings


@dataclass(frozen=True)
class SessionMetadata:
    """What is true of a session beside its nodes.

    Attributes:
        system: The system prompt.
        head: Where the talk is.
        column: Whose answers it is about.
        history: Whether the model sees the turns before the last.
        settings: How the next reply is generated.
        models: MODEL of each column.
        folder: Where the program ran.
        title: The beginning of the first message.
        turns: How many there are.
        pending: Lines that were typed and have not had their turn.
    """

    system: str = ""
    head: int = 0
    column: int = 0
    history: bool = True
    settings: Settings = field(default_factory=Settings)
    models: tuple[str, ...] = ()
    folder: str = ""
    title: str = ""
    turns: int = 0
    pending: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse places that no talk has."""
        if self.head < 0 or self.column < 0:
            raise ValueError(f"head is {self.head} and column {self.column}, must be from 0")


@dataclass(frozen=True)
class Piece:
    """How an answer under way goes on.

    Attributes:
        text: New text.
        token_ids: Its tokens, where the engine lists them.
        tokens: How many there are.
    """

    text: str
    token_ids: tuple[int, ...]
    tokens: int


def dumps(value: Any) -> str:
    """JSON in ASCII, so that whatever is in a Python string, half a surrogate pair included, comes back."""
    return json.dumps(value, separators=(",", ":"))


def metadata_to_json(facts: SessionMetadata) -> str:
    """The facts of a session."""
    return dumps(asdict(facts))


def metadata_from_json(text: str) -> SessionMetadata:
    """The facts of a session; a new one has none.

    Raises:
        ValueError: When they are damaged, as of all that read here.
    """
    return from_json(SessionMetadata, load_json(text))


def node_to_json(node: Node) -> str:
    """A node without its place."""
    return dumps({"question": node.question, "answers": [asdict(answer) for answer in node.answers]})


def node_from_json(id: int, parent: int, text: str) -> Node:
    """A node at its place."""
    found = from_json(Node, {**from_json(Mapping[str, Any], load_json(text)), "id": id, "parent": parent})
    if not 0 <= parent < id:
        raise ValueError(f"node {id} follows node {parent}")
    return found


def answer_to_json(answer: Answer) -> str:
    """One answer."""
    return dumps(asdict(answer))


def said_from_json(text: str) -> Answer | Piece:
    """How an answer began, or how it went on."""
    found = load_json(text)
    if isinstance(found, list):
        return from_json(Piece, dict(zip(("text", "token_ids", "tokens"), found, strict=True)))
    return from_json(Answer, found)
