"""Parts of a turn: thoughts and tool calls, found in messages, in prompts, and missed when a template leaves them out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftchat.templates.special_tokens import END, START, unmarked
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
    rendered = without_whitespace(written)
    thought, answer = thought_and_answer(str(turn.get("content") or ""))
    thoughts = (("the thoughts", text) for text in (thought, *(turn.get(key) for key in THOUGHTS)))
    for part, text in (("a part of the content", answer), *thoughts):
        if isinstance(text, str) and without_whitespace(unmarked(text)) not in rendered:
            return part
    for name, arguments in _calls([turn]):
        keys = arguments if isinstance(arguments, Mapping) else ()
        if any(without_whitespace(unmarked(str(key))) not in rendered for key in keys):
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
    end = 0
    for name, _ in _calls(turns):
        if (start := text.find(name, end)) < 0:
            return f"the call of tool '{name}'"
        end = start + len(name)
    return ""


def _calls(turns: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, Any]]:
    for turn in turns:
        for call in turn.get("tool_calls") or ():
            function = call.get("function", call)
            yield unmarked(str(function.get("name", ""))), function.get("arguments")


def without_whitespace(text: str) -> str:
    """Return the text without whitespace."""
    return "".join(text.split())


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


def with_thought(written: str, thought: str, end: str) -> str:
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


def ends_with_thought(opening: str, end: str) -> bool:
    """Whether the reply's start in the prompt ends with a complete thought, such as ``<think></think>``.

    Args:
        opening: The reply's start in the prompt.
        end: Text that the template writes after a thought.
    """
    return opening.rstrip().endswith(end) or _CLOSING.search(opening) is not None


def before_cut_tag(text: str, index: int) -> int:
    """Return ``index``, or the start of a tag that it would split: ``<think>`` and ``</think>`` share their first character."""
    cut = _CUT_TAG.search(text[:index])
    return cut.start() if cut else index


def thought_closing(opening: str, lead: str) -> str:
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
