"""Where the thoughts of a reply begin and end, and what of them a prompt has written; pure functions over texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sftchat.templates.coverage import THOUGHTS, thought_and_answer
from sftchat.templates.special_tokens import END, START

OPENS, ENDS = "<think>", "</think>"
"""How most models write a thought, and how rows hold one within the content."""

_CLOSING = re.compile(r"(?:<\|?/[^<>]*>|\[/[^\[\]]*\]|<[^<>]*\bEND[^<>]*>|<[^<>|]+\|>)\s*\Z")
_CUT_TAG = re.compile(r"[<\[][^<>\[\]\s]*\Z")


def without_thought(turn: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The thought of an assistant turn, from its content or a key of its own, and the turn without it."""
    content = str(turn.get("content") or "")
    for tag in (OPENS, ENDS):  # the template writes the tags, so those of the content are no text that imitates them
        content = content.replace(f"{START}{tag}{END}", tag)
    thought, answer = thought_and_answer(content)
    bare = {key: value for key, value in turn.items() if key not in THOUGHTS}
    keyed = [str(turn[key]) for key in THOUGHTS if turn.get(key)]
    return "\n".join([*keyed[:1], thought] if thought else keyed[:1]).strip(), {**bare, "content": answer}


def thought_in_content(content: str) -> str:
    """What a content begins with up to the end of its thought and the space after it; empty where it has none."""
    thought, end, answer = content.rpartition(ENDS)
    return content[: len(content) - len(answer.lstrip())] if end and thought.lstrip().startswith(OPENS) else ""


def filled(written: str, thought: str, end: str) -> str:
    """A written reply with a thought within the empty one that it begins with; empty where it begins with none.

    Args:
        written: What the template writes of a reply without a thought.
        thought: The thought.
        end: What the template writes after a thought.
    """
    empty = re.match(rf"(\s*(?:<[^<>/]*>|\[[^\[\]/]*\]))(\s*){re.escape(end)}", written)
    if not empty:
        return ""
    half = empty[2][: len(empty[2]) // 2]
    return f"{empty[1]}{half}{thought}{half}{written[empty.end(2) :]}"


def is_closed(opening: str, end: str) -> bool:
    """Whether what a prompt writes of a reply ends with a thought that is over, such as ``<think></think>``.

    Args:
        opening: What the prompt writes of the reply.
        end: What the template writes after a thought.
    """
    return opening.rstrip().endswith(end) or _CLOSING.search(opening) is not None


def whole_tags(text: str, at: int) -> int:
    """The place ``at`` in a text, or where a tag begins that it would cut: ``<think>`` and ``</think>`` share their first character."""
    cut = _CUT_TAG.search(text[:at])
    return cut.start() if cut else at


def closing(opening: str, lead: str) -> str:
    """What ends a thought that a prompt has opened under a template that writes none; empty where it has opened none.

    Args:
        opening: What the prompt writes of the reply.
        lead: What the template writes before the content of a finished reply instead of it.
    """
    if not opening.rstrip().endswith(OPENS):
        return ""
    if ENDS in lead:
        return lead
    return f"\n{ENDS}\n\n" if opening.endswith("\n") else ENDS
