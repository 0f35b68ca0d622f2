"""Detects what a chat template silently omits: thoughts, tool calls, tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftchat.templates.special_tokens import unmarked
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Keys of an assistant turn for the reasoning before the reply."""


def reply_left_out(turn: Mapping[str, Any], written: str) -> str:
    """Return what the rendered text of an assistant turn lacks, in words; empty if complete.

    Whitespace is ignored: templates put thoughts on separate lines.

    Args:
        turn: The turn, with special tokens marked.
        written: Its rendered text, unmarked.
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
    """Split content that begins with a thought into thought and answer; the opening tag may be missing."""
    thought, end, answer = content.rpartition(THOUGHTS_END)
    if not end:
        return "", content
    return thought.strip().removeprefix(THOUGHTS_BEGIN).strip(), answer.lstrip()


def tools_left_out(turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], text: str) -> str:
    """Return the tool or tool call that the rendered text lacks, in words; empty if complete.

    Args:
        turns: The conversation.
        tools: The available tools, as JSON schemas.
        text: The rendered text, unmarked.
    """
    for tool in tools:
        name = str(tool.get("function", tool).get("name", ""))
        if name not in text:
            return f"tool '{name}'"
    return _calls_left_out(turns, text)


def _calls_left_out(turns: Iterable[Mapping[str, Any]], text: str) -> str:
    """Return the first call whose name does not follow those of the calls before it, in words: gpt-oss renders only the first call of a turn."""
    at = 0
    for name, _ in _calls(turns):
        if (found := text.find(name, at)) < 0:
            return f"the call of tool '{name}'"
        at = found + len(name)
    return ""


def _calls(turns: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, Any]]:
    """Yield name and arguments of every tool call."""
    for turn in turns:
        for call in turn.get("tool_calls") or ():
            function = call.get("function", call)
            yield unmarked(str(function.get("name", ""))), function.get("arguments")


def squashed(text: str) -> str:
    """Return the text without whitespace."""
    return "".join(text.split())
