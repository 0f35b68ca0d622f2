"""What is said and how, as JSON and back: the form in which sessions keep it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sftchat.chat.conversation import Answer, Mark, Node
from sftchat.chat.settings import Settings
from sftchat.types import Reply, SamplingParams


def dumps(value: Any) -> str:
    """JSON in ASCII, so that whatever is in a Python string, half a surrogate pair included, comes back."""
    return json.dumps(value, separators=(",", ":"))


def node_to_json(node: Node) -> str:
    """A node without its place."""
    return dumps({"question": node.question, "answers": [asdict(answer) for answer in node.answers]})


def node_from_json(id: int, parent: int, text: str) -> Node:
    """A node at its place."""
    found = json.loads(text)
    return Node(id, parent, found["question"], tuple(map(answer_from, found["answers"])))


def answer_to_json(answer: Answer) -> str:
    """One answer."""
    return dumps(asdict(answer))


def answer_from(found: dict[str, Any]) -> Answer:
    """An answer from what JSON made of it."""
    mark = found["mark"]
    return Answer(
        **{
            **found,
            "reply": Reply(**found["reply"]),
            "sampling": sampling_from(found["sampling"]),
            "token_ids": tuple(found["token_ids"]),
            "mark": Mark(**{**mark, "errors": tuple(mark["errors"])}) if mark else None,
        }
    )


def sampling_from(found: dict[str, Any]) -> SamplingParams:
    """Sampling parameters from what JSON made of them."""
    return SamplingParams(**{**found, "stop": tuple(found["stop"])})


def settings_from(found: dict[str, Any]) -> Settings:
    """Settings from what JSON made of them."""
    return Settings(**{**found, "sampling": sampling_from(found["sampling"])})
