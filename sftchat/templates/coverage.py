"""What a chat template leaves out of what it was given: thoughts, calls of tools, tools. It does so without a word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftchat.templates.special_tokens import unmarked

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Keys of an assistant turn that hold what was thought before the reply."""


def reply_left_out(turn: Mapping[str, Any], written: str) -> str:
    """What of an assistant turn is not in the text written for it, in words; empty when all is there.

    White space does not count: templates put thoughts on lines of their own.

    Args:
        turn: The turn, special tokens marked.
        written: Its text, unmarked.
    """
    there = squashed(written)
    thought, answer = thought_and_answer(str(turn.get("content") or ""))
    for what, said in (
        ("a part of the content", answer),
        ("the thoughts", thought),
        *(("the thoughts", turn.get(key)) for key in THOUGHTS),
    ):
        if isinstance(said, str) and squashed(unmarked(said)) not in there:
            return what
    for name, arguments in _calls([turn]):
        keys = arguments if isinstance(arguments, Mapping) else ()
        if any(squashed(unmarked(str(key))) not in there for key in keys):
            return f"the call of tool '{name}'"
    return _calls_left_out([turn], written)


def thought_and_answer(content: str) -> tuple[str, str]:
    """A content that begins with a thought, in two: the text between the tags, the first of which may be missing, and what follows."""
    thought, end, answer = content.rpartition("</think>")
    if not end:
        return "", content
    return thought.strip().removeprefix("<think>").strip(), answer.lstrip()


def tools_left_out(turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], text: str) -> str:
    """Which tool, or call of one, is not in the text of a conversation, in words; empty when all are there.

    Args:
        turns: The conversation.
        tools: The tools offered, as JSON schemas.
        text: The conversation as text, unmarked.
    """
    for tool in tools:
        name = str(tool.get("function", tool).get("name", ""))
        if name not in text:
            return f"tool '{name}'"
    return _calls_left_out(turns, text)


def _calls_left_out(turns: Iterable[Mapping[str, Any]], text: str) -> str:
    """The first call whose name does not follow those of the calls before it, in words: gpt-oss writes the first call of a turn alone."""
    at = 0
    for name, _ in _calls(turns):
        if (found := text.find(name, at)) < 0:
            return f"the call of tool '{name}'"
        at = found + len(name)
    return ""


def _calls(turns: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, Any]]:
    """Name and arguments of every tool call."""
    for turn in turns:
        for call in turn.get("tool_calls") or ():
            function = call.get("function", call)
            yield unmarked(str(function.get("name", ""))), function.get("arguments")


def squashed(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())
