"""The turns of a conversation: read from either spelling, and refused where no chat template could render them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sftchat.errors import DataError, unknown
from sftchat.parsing import parsed
from sftchat.types import Message

ROLES = ("system", "user", "assistant", "tool")
"""The roles that a turn may have."""

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "function_call": "assistant"}
"""What ShareGPT calls them; the others go by their own name. The value of a ``function_call`` is the JSON of what is called."""

_KNOWN = ({role: role for role in ROLES}, {**{role: role for role in ROLES}, **SHAREGPT_ROLES})
"""What each name of a role means: without ShareGPT's, and with them."""


def read_turns(value: Any, where: str, role_map: Mapping[str, str] | None = None) -> tuple[Message, ...]:
    """Read a list of turns, ``{"role", "content"}`` or ShareGPT's ``{"from", "value"}``; other keys of a turn are kept unless null or [].

    Args:
        value: What the row holds.
        where: The key it stands under, for messages.
        role_map: Further names of roles, such as ``{"narrator": "user"}``.

    Raises:
        DataError: It is not a list of turns; the message has no source, which the caller adds.
    """
    if not isinstance(value, list):
        raise DataError(f"{where} is {shown(value)}, must be a list of turns")
    if not value:
        raise DataError(f"{where} has no turns; a row needs at least a user turn")
    return tuple(_turn(turn, f"{where}[{index}]", role_map or {}) for index, turn in enumerate(value))


def _turn(turn: Any, where: str, role_map: Mapping[str, str]) -> Message:
    """Read one turn."""
    if not isinstance(turn, dict):
        raise DataError(f'{where} is {shown(turn)}, must be an object such as {{"role": "user", "content": "..."}}')
    names = ("role", "content") if "role" in turn else ("from", "value")
    sharegpt = names[0] == "from"
    if names[0] not in turn or (names[1] not in turn and "tool_calls" not in turn):
        raise DataError(f"{where} has the keys {keys_of(turn)}; a turn needs role and content, or from and value")
    role = turn[names[0]]
    known = {**_KNOWN[sharegpt], **role_map}
    if text(role, f"{where}.{names[0]}") not in known:
        name = shown(role)[1:-1]
        hint = f"say what it is with 'sftchat data convert --role-map {name}=ROLE'"
        raise DataError(f"{where}.{names[0]}: {unknown('role', name, known)}; {hint}")
    content = turn.get(names[1])
    if sharegpt and role == "function_call" and role not in role_map:
        turn, content = {**turn, "tool_calls": _calls(content, f"{where}.value")}, ""
    if known[role] == "assistant" and turn.get("tool_calls"):
        content = content or ""  # a turn that only calls tools has null or no content in OpenAI's files
        checked = text(content, f"{where}.{names[1]}", empty=True)
    else:
        checked = text(content, f"{where}.{names[1]}")
    # `datasets` fills keys that only other rows have with null, and templates that ask "is there a key tool_calls" would believe it
    rest = {key: value for key, value in turn.items() if key not in names and value is not None and value != []}
    if known[role] == "assistant" and "weight" in rest and (weight := rest.pop("weight")) != 1:
        if weight != 0:
            raise DataError(f"{where}.weight is {shown(weight)}, must be 1 for a reply to learn or 0 for one that is only read")
        rest["weight"] = 0
    return cast(Message, {"role": known[role], "content": checked, **rest})


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    """The tool calls that ShareGPT writes as the JSON of ``{"name", "arguments"}``, or of a list of such."""
    try:
        found = parsed(text(value, where))
    except ValueError:
        found = None
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise DataError(
            f'{where} is {shown(value)}, must be the JSON of a call such as {{"name": "weather", "arguments": {{"city": "..."}}}}'
        )
    rest = ("name", "arguments")
    return [
        {
            **{key: inner for key, inner in call.items() if key not in rest},
            "type": "function",
            "function": {key: call[key] for key in rest if key in call},
        }
        for call in calls
    ]


def check_order(turns: Sequence[Message], where: str, *, has_gold: bool = False) -> None:
    """Refuse turns in an order that chat templates reject or, worse, render all the same.

    Args:
        turns: The turns.
        where: The key they stand under, for messages.
        has_gold: A gold reply follows, so that the last turn must not be the assistant's.

    Raises:
        DataError: A system turn that is not the first, a speaker twice in a row, a tool nobody called, or no user turn.
    """
    before = "nothing"
    for index, turn in enumerate(turns):
        role = turn["role"]
        if before not in _MAY_FOLLOW[role]:
            after = "as the first turn" if before == "nothing" else f"after {_a(before)} turn"
            raise DataError(
                f"{where}[{index}] is {_a(role)} turn {after}; the order is system (at most once, first), then user and assistant by turns"
            )
        before = role
    if before in ("system", "nothing"):
        raise DataError(f"{where} has no user turn; a row needs at least one")
    if has_gold and before == "assistant":
        raise DataError(f"{where} ends with an assistant turn and gold holds a second reply; remove one of them")


_MAY_FOLLOW = {
    "system": ("nothing",),
    "user": ("nothing", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def _a(role: str) -> str:
    """A role with its article."""
    return f"an {role}" if role == "assistant" else f"a {role}"


def text(value: Any, where: str, *, empty: bool = False) -> str:
    """The value, if it is text.

    Args:
        value: What the row holds.
        where: Its key, for messages.
        empty: Empty text is allowed.

    Raises:
        DataError: It is something else, or empty.
    """
    if not isinstance(value, str):
        raise DataError(f"{where} is {shown(value)}, must be text")
    if not value.strip() and not empty:
        raise DataError(f"{where} is empty; fill it or remove the row")
    return value


def keys_of(row: Mapping[str, Any]) -> str:
    """The keys of an object for a message, with a note at those that hold nothing."""
    return ", ".join(shown(key) + (" (null)" if value is None else "") for key, value in row.items()) or "none"


def shown(value: Any, width: int = 40) -> str:
    """A value as it stands in the file, cut to a length that fits a message."""
    written = json.dumps(value, ensure_ascii=False, default=repr)
    return written if len(written) <= width else written[: width - 1] + "…"
