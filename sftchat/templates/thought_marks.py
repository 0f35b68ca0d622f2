"""Finds thoughts in replies, and which part of them a prompt contains; pure functions on texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sftchat.templates.coverage import THOUGHTS, thought_and_answer
from sftchat.templates.special_tokens import END, START
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END

_CLOSING = re.compile(r"(?:<\|?/[^<>]*>|\[/[^\[\]]*\]|<[^<>]*\bEND[^<>]*>|<[^<>|]+\|>)\s*\Z")
_CUT_TAG = re.compile(r"[<\[][^<>\[\]\s]*\Z")


def without_thought(turn: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split an assistant turn into its thought, from the content or a key, and the turn without it."""
    content = str(turn.get("content") or "")
    for tag in (THOUGHTS_BEGIN, THOUGHTS_END):  # the template writes the tags, so those of the content do not imitate them
        content = content.replace(f"{START}{tag}{END}", tag)
    thought, answer = thought_and_answer(content)
    bare = {key: value for key, value in turn.items() if key not in THOUGHTS}
    keyed = [str(turn[key]) for key in THOUGHTS if turn.get(key)]
    return "\n".join([*keyed[:1], thought] if thought else keyed[:1]).strip(), {**bare, "content": answer}


def thought_in_content(content: str) -> str:
    """Return the start of the content up to the end of its thought and the whitespace after it; empty if there is none."""
    thought, end, answer = content.rpartition(THOUGHTS_END)
    return content[: len(content) - len(answer.lstrip())] if end and thought.lstrip().startswith(THOUGHTS_BEGIN) else ""


def filled(written: str, thought: str, end: str) -> str:
    """Insert a thought into the empty one at the start of a rendered reply; empty if there is none.

    Args:
        written: Rendered reply without a thought.
        thought: The thought.
        end: Text that the template writes after a thought.
    """
    empty = re.match(rf"(\s*(?:<[^<>/]*>|\[[^\[\]/]*\]))(\s*){re.escape(end)}", written)
    if not empty:
        return ""
    half = empty[2][: len(empty[2]) // 2]
    return f"{empty[1]}{half}{thought}{half}{written[empty.end(2) :]}"


def is_closed(opening: str, end: str) -> bool:
    """Whether the reply's start in the prompt ends with a complete thought, such as ``<think></think>``.

    Args:
        opening: The reply's start in the prompt.
        end: Text that the template writes after a thought.
    """
    return opening.rstrip().endswith(end) or _CLOSING.search(opening) is not None


def whole_tags(text: str, at: int) -> int:
    """Return ``at``, or the start of a tag that it would split: ``<think>`` and ``</think>`` share their first character."""
    cut = _CUT_TAG.search(text[:at])
    return cut.start() if cut else at


def closing(opening: str, lead: str) -> str:
    """Return the end of a thought that the prompt opened under a template that writes none; empty if none is open.

    Args:
        opening: The reply's start in the prompt.
        lead: What the template writes before the content of a finished reply instead.
    """
    if not opening.rstrip().endswith(THOUGHTS_BEGIN):
        return ""
    if THOUGHTS_END in lead:
        return lead
    return f"\n{THOUGHTS_END}\n\n" if opening.endswith("\n") else THOUGHTS_END
