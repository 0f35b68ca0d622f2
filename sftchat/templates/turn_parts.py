"""Parts of a turn, i.e. thoughts and tool calls: found in messages and prompts, and reported when a template leaves them out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftchat.templates.special_tokens import END, START, unmark
from sftchat.thinking import THOUGHTS_BEGIN, THOUGHTS_END

THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Keys of an assistant turn for the reasoning before the reply."""


def find_missing_part(turn: Mapping[str, Any], written: str) -> str:
    """Describe the first part of an assistant turn that its rendered text lacks; empty if it is complete.

    Whitespace is ignored: templates put thoughts on separate lines.

    Args:
        turn: The turn, with special tokens marked.
        written: Its rendered text, unmarked.
    """
    rendered = without_whitespace(written)

    def is_missing(text: Any) -> bool:
        return isinstance(text, str) and without_whitespace(unmark(text)) not in rendered

    thought, answer = split_content(str(turn.get("content") or ""))
    if is_missing(answer):
        return "a part of the content"
    if any(map(is_missing, (thought, *(turn.get(key) for key in THOUGHT_KEYS)))):
        return "the thoughts"
    for name, arguments in _iter_calls([turn]):
        if isinstance(arguments, Mapping) and any(is_missing(str(key)) for key in arguments):
            return f"the call of tool '{name}'"
    return _find_missing_call([turn], written)


def split_content(content: str) -> tuple[str, str]:
    """Split content that begins with a thought into thought and answer; the opening tag may be missing."""
    thought, end, answer = content.rpartition(THOUGHTS_END)
    if not end:
        return "", content
    return thought.strip().removeprefix(THOUGHTS_BEGIN).strip(), answer.lstrip()


def find_missing_tool(turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], text: str) -> str:
    """Describe the first tool or tool call that the rendered text lacks; empty if it is complete.

    Args:
        turns: The conversation.
        tools: The available tools, as JSON schemas.
        text: The rendered text, unmarked.
    """
    for tool in tools:
        name = str(tool.get("function", tool).get("name", ""))
        if name not in text:
            return f"tool '{name}'"
    return _find_missing_call(turns, text)


def _find_missing_call(turns: Iterable[Mapping[str, Any]], text: str) -> str:
    """Describe the first call whose name is not in the text after the names of the calls before it; gpt-oss renders only the first call of a turn."""
    end = 0
    for name, _ in _iter_calls(turns):
        start = text.find(name, end)
        if start < 0:
            return f"the call of tool '{name}'"
        end = start + len(name)
    return ""


def _iter_calls(turns: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, Any]]:
    """Yield the function name and the arguments of each tool call."""
    for turn in turns:
        for call in turn.get("tool_calls") or ():
            function = call.get("function", call)
            yield unmark(str(function.get("name", ""))), function.get("arguments")


def without_whitespace(text: str) -> str:
    """Return the text without whitespace."""
    return "".join(text.split())


_CLOSING_TAG = re.compile(r"(?:<\|?/[^<>]*>|\[/[^\[\]]*\]|<[^<>]*\bEND[^<>]*>|<[^<>|]+\|>)\s*\Z")
"""A closing tag at the end of a text: ``</think>``, ``<|/think|>``, ``[/THINK]``, ``<|END_THINKING|>`` or ``<channel|>``."""
_CUT_TAG = re.compile(r"[<\[][^<>\[\]\s]*\Z")
"""A tag at the end of a text that is not closed, such as ``<th``."""
_EMPTY_THOUGHT = r"(\s*(?:<[^<>/]*>|\[[^\[\]/]*\]))(\s*)"
"""An opening tag such as ``<think>`` or ``[THINK]``, and the whitespace after it."""


def extract_thought(turn: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the thought of an assistant turn, from a key and from the content, and the turn without it."""
    content = str(turn.get("content") or "")
    for tag in (THOUGHTS_BEGIN, THOUGHTS_END):  # may be marked as forged; here they delimit the thought
        content = content.replace(f"{START}{tag}{END}", tag)
    thought_in_content, answer = split_content(content)
    turn_without_keys = {key: value for key, value in turn.items() if key not in THOUGHT_KEYS}
    thought_under_key = next((str(turn[key]) for key in THOUGHT_KEYS if turn.get(key)), "")
    thoughts = [thought for thought in (thought_under_key, thought_in_content) if thought]
    return "\n".join(thoughts).strip(), {**turn_without_keys, "content": answer}


def leading_thought(content: str) -> str:
    """Return the thought at the start of the content, with its tags and the whitespace after it; empty if there is none."""
    thought, end_tag, answer = content.rpartition(THOUGHTS_END)
    if not end_tag or not thought.lstrip().startswith(THOUGHTS_BEGIN):
        return ""
    return content[: len(content) - len(answer.lstrip())]


def fill_empty_thought(written: str, thought: str, end: str) -> str:
    """Insert a thought between the tags of an empty thought at the start of a rendered reply; empty if the reply does not start so.

    Args:
        written: Rendered reply without a thought.
        thought: The thought.
        end: Text that the template writes after a thought.
    """
    match = re.match(_EMPTY_THOUGHT + re.escape(end), written)
    if match is None:
        return ""
    opening_tag, whitespace = match.groups()
    half = whitespace[: len(whitespace) // 2]  # on each side of the thought
    return f"{opening_tag}{half}{thought}{half}{written[match.end(2) :]}"


def ends_with_thought(opening: str, end: str) -> bool:
    """Whether the reply's start in the prompt ends with a complete thought, such as ``<think></think>``.

    Args:
        opening: The reply's start in the prompt.
        end: Text that the template writes after a thought.
    """
    return opening.rstrip().endswith(end) or _CLOSING_TAG.search(opening) is not None


def avoid_cut_tag(text: str, index: int) -> int:
    """Return ``index``, or if that is inside a tag, the start of the tag: ``<think>`` and ``</think>`` share their first character."""
    tag = _CUT_TAG.search(text[:index])
    return tag.start() if tag else index


def missing_thought_end(opening: str, lead: str) -> str:
    """Return the text that ends a thought opened by the prompt, for a template that renders no thoughts; empty if none is open.

    Args:
        opening: The reply's start in the prompt.
        lead: The reply's start in a finished turn, before the content.
    """
    if not opening.rstrip().endswith(THOUGHTS_BEGIN):
        return ""
    if THOUGHTS_END in lead:
        return lead
    return f"\n{THOUGHTS_END}\n\n" if opening.endswith("\n") else THOUGHTS_END
