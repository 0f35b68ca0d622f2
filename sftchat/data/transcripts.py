"""Transcripts: conversations rendered as one text and parsed back, as found in data sets of the format ``text``.

======  ================================================================================
chatml  ``<|im_start|>user\\n…<|im_end|>\\n``, turn by turn
alpaca  ``### Instruction:\\n…\\n\\n### Response:\\n…``, a system turn before it; also parsed: ``### Input:``, ``### Human:``, ``### Assistant:``
plain   ``User: …\\nAssistant: …\\n``, a system turn as ``System: …``
======  ================================================================================

A text is parsed as a conversation only if all of it matches and its turns are in a valid order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from sftchat.data.serialize import require_plain_turns
from sftchat.data.turns import check_order
from sftchat.errors import DataError
from sftchat.types import Example, Message

_CHATML_TURN = re.compile(r"<\|im_start\|>(system|user|assistant|tool)\n(.*?)<\|im_end\|>\s*", re.DOTALL)
_HEADING = re.compile(r"(?:\A|\n)\s*### (Instruction|Input|Response|Human|Assistant):[ \t]*\n?")
_SPEAKER = re.compile(r"(?:\A|\n)(System|User|Assistant): ?")
_ROLES = {"Instruction": "user", "Human": "user", "Response": "assistant", "Assistant": "assistant", "User": "user", "System": "system"}


def _write_chatml(turns: Sequence[Message]) -> str:
    return "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)


def _write_alpaca(turns: Sequence[Message]) -> str:
    """Render each turn under its heading; a system turn has none."""
    headings = {"system": "", "user": "### Instruction:\n", "assistant": "### Response:\n"}
    return "\n\n".join(headings[turn["role"]] + turn["content"] for turn in turns)


def _write_plain(turns: Sequence[Message]) -> str:
    return "".join(f"{turn['role'].capitalize()}: {turn['content']}\n" for turn in turns)


_WRITERS: dict[str, Callable[[Sequence[Message]], str]] = {"chatml": _write_chatml, "alpaca": _write_alpaca, "plain": _write_plain}

TRANSCRIPT_STYLES = tuple(_WRITERS)
"""Names of the transcript styles."""


def to_transcript(example: Example, style: str) -> Example:
    """Return an example whose conversation is rendered as one text; a text row is returned unchanged.

    Args:
        example: A conversation.
        style: One of ``TRANSCRIPT_STYLES``.

    Raises:
        DataError: When it has tool calls, or a text looks like the start of a turn, so that it could not be parsed back.
    """
    if not example.messages:
        return example
    try:
        require_plain_turns(example, "text")
    except DataError as error:
        raise DataError(error.message, example.source) from None
    turns = tuple(Message(role=turn["role"], content=turn["content"]) for turn in example.conversation)  # without ``context``
    text = _WRITERS[style](turns)
    if parse_transcript(text) != turns:
        raise DataError(
            f"a turn holds the marks of {style}, or begins or ends with blanks, so it could not be read back; choose another --template",
            example.source,
        )
    return replace(example, messages=(), gold=text)


def from_transcript(example: Example) -> Example:
    """Parse a text row into a conversation; return the example unchanged when it is not one."""
    turns = None if example.messages or example.gold is None else parse_transcript(example.gold)
    if turns is None:
        return example
    if turns[-1]["role"] == "assistant":
        return replace(example, messages=turns[:-1], gold=turns[-1]["content"])
    return replace(example, messages=turns, gold=None)


def parse_transcript(text: str) -> tuple[Message, ...] | None:
    """Parse a text in one of the styles of ``TRANSCRIPT_STYLES``; None when it is not a conversation."""
    for parse in (_read_chatml, _read_headings, _read_speakers):
        turns = parse(text)
        if turns and all(turn["content"].strip() for turn in turns):
            try:
                check_order(turns, "text")
            except DataError:
                continue
            return turns
    return None


def _read_chatml(text: str) -> tuple[Message, ...]:
    matches = list(_CHATML_TURN.finditer(text))
    if "".join(match[0] for match in matches) != text:
        return ()
    return tuple(Message(role=match[1], content=match[2]) for match in matches)


def _read_headings(text: str) -> tuple[Message, ...]:
    """Parse turns under ``###`` headings; text before the first heading is the system prompt, and an input is added to its instruction."""
    preamble, *parts = _HEADING.split(text)
    turns = [Message(role="system", content=preamble.strip())] if preamble.strip() else []
    for heading, content in zip(parts[::2], parts[1::2], strict=True):
        if heading == "Input":
            if not turns or turns[-1]["role"] != "user":
                return ()
            turns[-1] = Message(role="user", content="\n\n".join(filter(None, (turns[-1]["content"], content.strip()))))
        else:
            turns.append(Message(role=_ROLES[heading], content=content.strip()))
    return tuple(turns) if parts else ()


def _read_speakers(text: str) -> tuple[Message, ...]:
    """Parse turns after ``User:`` and ``Assistant:``, if the text starts with one of them."""
    preamble, *parts = _SPEAKER.split(text)
    if preamble.strip() or not parts:
        return ()
    return tuple(Message(role=_ROLES[name], content=content.strip()) for name, content in zip(parts[::2], parts[1::2], strict=True))
