"""JSON serialization of conversations and replies for sessions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sftchat._util.parsing import from_json, load_json
from sftchat.chat.context import Settings
from sftchat.chat.conversation import Answer, Node


@dataclass(frozen=True)
class SessionMetadata:
    """Metadata of a session, apart from its nodes.

    Attributes:
        system: The system prompt.
        head: Id of the current node.
        pane: Index of the focused pane.
        history: Whether the model sees earlier turns.
        settings: Generation settings of the next reply.
        models: MODEL of each pane.
        folder: Working directory of the process.
        title: Beginning of the first message.
        turns: Number of turns.
        pending: Lines that were typed but not processed.
    """

    system: str = ""
    head: int = 0
    pane: int = 0
    history: bool = True
    settings: Settings = field(default_factory=Settings)
    models: tuple[str, ...] = ()
    folder: str = ""
    title: str = ""
    turns: int = 0
    pending: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.head < 0 or self.pane < 0:
            raise ValueError(f"head is {self.head} and pane {self.pane}, must be from 0")


@dataclass(frozen=True)
class Piece:
    """A chunk of a partial answer.

    Attributes:
        text: New text.
        token_ids: Its token ids, when the engine returns them.
        tokens: Number of tokens.
    """

    text: str
    token_ids: tuple[int, ...]
    tokens: int


def to_ascii_json(value: Any) -> str:
    """Serialize to ASCII JSON, so that any Python string, including lone surrogates, round-trips."""
    return json.dumps(value, separators=(",", ":"))


def metadata_to_json(metadata: SessionMetadata) -> str:
    """Serialize the metadata of a session."""
    return to_ascii_json(_rename_key(asdict(metadata), "pane", "column"))


def metadata_from_json(text: str) -> SessionMetadata:
    """Parse the metadata of a session; keys that are missing, as in a new session, have defaults.

    Raises:
        ValueError: When the JSON is damaged. The other parsers of this module raise it too.
    """
    return from_json(SessionMetadata, _rename_key(load_json(text), "column", "pane"))


def node_to_json(node: Node) -> str:
    """Serialize a node without its id and parent, which are columns of their own."""
    return to_ascii_json({"question": node.question, "answers": [_rename_key(asdict(answer), "score", "mark") for answer in node.answers]})


def node_from_json(id: int, parent: int, text: str) -> Node:
    """Parse a node that was stored under an id and a parent id."""
    row = from_json(Mapping[str, Any], load_json(text))
    if isinstance(answers := row.get("answers"), list):
        row = {**row, "answers": [_rename_key(answer, "mark", "score") for answer in answers]}
    node = from_json(Node, {**row, "id": id, "parent": parent})
    if not 0 <= parent < id:
        raise ValueError(f"node {id} follows node {parent}")
    return node


def answer_to_json(answer: Answer) -> str:
    """Serialize an answer."""
    return to_ascii_json(_rename_key(asdict(answer), "score", "mark"))


def partial_from_json(text: str) -> Answer | Piece:
    """Parse one stored row of an unfinished answer: first an ``Answer``, then ``Piece``s to append to it."""
    value = load_json(text)
    if isinstance(value, list):
        return from_json(Piece, dict(zip(("text", "token_ids", "tokens"), value, strict=True)))
    return from_json(Answer, _rename_key(value, "mark", "score"))


def _rename_key(value: Any, old: str, new: str) -> Any:
    """Rename a key of an object; the names on disk are those of an earlier release."""
    return {new if key == old else key: item for key, item in value.items()} if isinstance(value, dict) else value
