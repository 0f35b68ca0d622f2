"""Conversations written out as one text, and texts that are such, read back: what data sets of the shape ``text`` usually hold.

======  ================================================================================
chatml  ``<|im_start|>user\\n…<|im_end|>\\n``, a turn after the other
alpaca  ``### Instruction:\\n…\\n\\n### Response:\\n…``, a system turn before it; also read: ``### Input:``, ``### Human:``, ``### Assistant:``
plain   ``User: …\\nAssistant: …\\n``, a system turn as ``System: …``
======  ================================================================================

A text is taken for a conversation only as a whole, and only when its turns are in an order that a conversation may have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from sftchat.data.serialize import need_plain_turns
from sftchat.data.turns import check_order
from sftchat.errors import DataError
from sftchat.types import Example, Message

_CHATML = re.compile(r"<\|im_start\|>(system|user|assistant|tool)\n(.*?)<\|im_end\|>\s*", re.DOTALL)
_HEADING = re.compile(r"(?:\A|\n)\s*### (Instruction|Input|Response|Human|Assistant):[ \t]*\n?")
_SPEAKER = re.compile(r"(?:\A|\n)(System|User|Assistant): ?")
_ROLES = {"Instruction": "user", "Human": "user", "Response": "assistant", "Assistant": "assistant", "User": "user", "System": "system"}


def _write_chatml(turns: Sequence[Message]) -> str:
    """Every turn between its markers."""
    return "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)


def _write_alpaca(turns: Sequence[Message]) -> str:
    """Every turn under its heading; a system turn has none."""
    headings = {"system": "", "user": "### Instruction:\n", "assistant": "### Response:\n"}
    return "\n\n".join(headings[turn["role"]] + turn["content"] for turn in turns)


def _write_plain(turns: Sequence[Message]) -> str:
    """Every turn after its speaker."""
    return "".join(f"{turn['role'].capitalize()}: {turn['content']}\n" for turn in turns)


_WRITERS: dict[str, Callable[[Sequence[Message]], str]] = {"chatml": _write_chatml, "alpaca": _write_alpaca, "plain": _write_plain}

TRANSCRIPTS = tuple(_WRITERS)
"""The ways to write a conversation out, by name."""


def written_out(example: Example, name: str) -> Example:
    """An example whose conversation is one text; a text row stays what it is.

    Args:
        example: A conversation.
        name: One of ``TRANSCRIPTS``.

    Raises:
        DataError: It holds tool calls, or a turn looks like the beginning of another, so that it could not be read back.
    """
    if not example.messages:
        return example
    turns = example.conversation
    try:
        need_plain_turns(example, "text")
    except DataError as error:
        raise DataError(error.message, example.source) from None
    text = _WRITERS[name](turns)
    if turns_of(text) != tuple(turns):
        raise DataError(
            f"a turn holds the marks of {name}, or begins or ends with blanks, so it could not be read back; choose another --template",
            example.source,
        )
    return replace(example, messages=(), gold=text)


def read_back(example: Example) -> Example:
    """The conversation that a text row is, or the example as it was where it is none."""
    turns = None if example.messages or example.gold is None else turns_of(example.gold)
    if turns is None:
        return example
    if turns[-1]["role"] == "assistant":
        return replace(example, messages=turns[:-1], gold=turns[-1]["content"])
    return replace(example, messages=turns, gold=None)


def turns_of(text: str) -> tuple[Message, ...] | None:
    """The turns of a text that is a conversation in one of the ways of ``TRANSCRIPTS``; None for any other text."""
    for read in (_read_chatml, _read_headings, _read_speakers):
        turns = read(text)
        if turns and all(turn["content"].strip() for turn in turns):
            try:
                check_order(turns, "text")
            except DataError:
                continue
            return turns
    return None


def _read_chatml(text: str) -> tuple[Message, ...]:
    """The turns of ChatML, if the text is nothing else."""
    found = list(_CHATML.finditer(text))
    if "".join(match[0] for match in found) != text:
        return ()
    return tuple(Message(role=match[1], content=match[2]) for match in found)


def _read_headings(text: str) -> tuple[Message, ...]:
    """The turns under ``###`` headings; what stands before the first is the system's, and an input belongs to its instruction."""
    before, *parts = _HEADING.split(text)
    turns = [Message(role="system", content=before.strip())] if before.strip() else []
    for heading, content in zip(parts[::2], parts[1::2], strict=True):
        if heading == "Input" and turns and turns[-1]["role"] == "user":
            turns[-1] = Message(role="user", content="\n\n".join(part for part in (turns[-1]["content"], content.strip()) if part))
        else:
            turns.append(Message(role=_ROLES.get(heading, "input"), content=content.strip()))
    return tuple(turns) if parts and all(turn["role"] != "input" for turn in turns) else ()


def _read_speakers(text: str) -> tuple[Message, ...]:
    """The turns after ``User:`` and ``Assistant:``, if the text begins with one of them."""
    before, *parts = _SPEAKER.split(text)
    if before.strip() or not parts:
        return ()
    return tuple(Message(role=_ROLES[name], content=content.strip()) for name, content in zip(parts[::2], parts[1::2], strict=True))
