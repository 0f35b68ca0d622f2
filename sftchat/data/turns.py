"""Turns of a conversation, with their tool calls, in normal form: that of OpenAI's chat completions, with call arguments as objects.

They are parsed from either key style, and rejected when no chat template could render them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any, cast

from sftchat._util.parsing import load_json
from sftchat.data.row_options import DEFAULT_ROW_OPTIONS, OnChange, RowOptions, ignore_change
from sftchat.errors import DataError, unknown_name_message
from sftchat.text import abbreviate, keys_of
from sftchat.types import Example, Message

ROLES = ("system", "user", "assistant", "tool")
"""Valid roles."""

ALIASES = {"developer": "system", "function": "tool"}
"""Other role names in OpenAI's files: the newer name of ``system`` and the older one of ``tool``."""

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "observation": "tool", "function_call": "assistant"}
"""ShareGPT's role names; others are the same. The value of a ``function_call`` is the JSON of the call."""

_OPENAI_ROLES = {**{role: role for role in ROLES}, **ALIASES}
_ROLES_BY_NAME = {"role": _OPENAI_ROLES, "from": {**_OPENAI_ROLES, **SHAREGPT_ROLES}}
"""Roles by their name under the key ``role``, and under ShareGPT's key ``from``."""


def require_text(value: Any, location: str, *, empty: bool = False) -> str:
    """Return the value if it is text.

    Args:
        value: Value in the row.
        location: Its key, for messages.
        empty: Allow empty text.

    Raises:
        DataError: When it is not text, or empty.
    """
    if not isinstance(value, str):
        raise DataError(f"{location} is {abbreviate(value)}, must be text")
    if not value.strip() and not empty:
        raise DataError(f"{location} is empty; fill it or remove the row")
    return value


def read_turns(
    value: Any, location: str, options: RowOptions = DEFAULT_ROW_OPTIONS, on_change: OnChange = ignore_change
) -> tuple[Message, ...]:
    """Read a list of turns, ``{"role", "content"}`` or ShareGPT's ``{"from", "value"}``; other keys of a turn are kept unless null or [].

    Tool calls are converted to normal form, a ShareGPT call is merged with the assistant text before it, and text parts are joined.

    Args:
        value: Value in the row.
        location: Key in the row, for messages.
        options: Additional role names, and how to handle turns in an invalid order.
        on_change: Called with a description of each change.

    Raises:
        DataError: When it is not a list of turns; the error does not contain the row's file and line, which the caller adds.
    """
    if not isinstance(value, list):
        raise DataError(f"{location} is {abbreviate(value)}, must be a list of turns")
    if not value:
        raise DataError(f"{location} has no turns; a row needs at least a user turn")
    turns: list[Message] = []
    for index, raw_turn in enumerate(value):
        turn = _read_turn(raw_turn, f"{location}[{index}]", options.roles, on_change)
        if turns and turns[-1]["role"] == "assistant" and _is_sharegpt_call(raw_turn, options.roles):
            turns[-1] = _merge_turns(turns[-1], turn, f"{location}[{index}]")
        else:
            turns.append(turn)
    return tuple(turns)


def normalize_turns(turns: tuple[Message, ...], location: str, options: RowOptions, on_change: OnChange) -> tuple[Message, ...]:
    """Apply the options about the order of turns.

    Args:
        turns: All turns of the row.
        location: Key in the row, for messages.
        options: Options for reading rows.
        on_change: Called with a description of each change.

    Raises:
        DataError: When turns of one role cannot be joined.
    """
    if options.leading_assistant == "drop":
        start = int(turns[0]["role"] == "system")
        end = next((index for index in range(start, len(turns)) if turns[index]["role"] != "assistant"), len(turns))
        if end > start:
            on_change("assistant turns before the first user turn are left out (--leading-assistant drop)")
            turns = turns[:start] + turns[end:]
    if not options.merge_turns:
        return turns
    merged: list[Message] = []
    for index, turn in enumerate(turns):
        if merged and turn["role"] == merged[-1]["role"] != "tool":
            merged[-1] = _merge_turns(merged[-1], turn, f"{location}[{index}]")
            on_change("consecutive turns of one role are joined (--merge-turns)")
        else:
            merged.append(turn)
    return tuple(merged)


def _merge_turns(first: Message, second: Message, location: str) -> Message:
    """Merge two turns of one role: texts separated by a blank line, calls concatenated."""
    common_keys = (first.keys() & second.keys()) - {"role", "content", "tool_calls"}
    difference = next((key for key in common_keys if first.get(key) != second.get(key)), "")
    if not difference and first.get("weight", 1) != second.get("weight", 1):
        difference = "weight"
    if difference:
        raise DataError(f"{location} and the turn before it differ in {difference}, so they cannot be joined; make them alike")
    joined = {**first, **second, "content": "\n\n".join(filter(None, (first["content"], second["content"])))}
    if calls := [*first.get("tool_calls", ()), *second.get("tool_calls", ())]:
        joined["tool_calls"] = calls
    return cast(Message, joined)


def _is_sharegpt_call(turn: Mapping[str, Any], roles: Mapping[str, str]) -> bool:
    """Return whether a turn is ShareGPT's ``function_call``, to which the user gives no other role."""
    return "role" not in turn and turn.get("from") == "function_call" and "function_call" not in roles


def _read_turn(turn: Any, location: str, roles: Mapping[str, str], on_change: OnChange) -> Message:
    if not isinstance(turn, dict):
        raise DataError(f'{location} is {abbreviate(turn)}, must be an object such as {{"role": "user", "content": "..."}}')
    role_key, content_key = ("role", "content") if "role" in turn else ("from", "value")
    call_keys = [key for key in ("tool_calls", "function_call") if turn.get(key)]
    if role_key not in turn or (content_key not in turn and not call_keys):
        raise DataError(f"{location} has the keys {keys_of(turn)}; a turn needs role and content, or from and value")
    role_name = require_text(turn[role_key], f"{location}.{role_key}")
    roles_by_name = {**_ROLES_BY_NAME[role_key], **roles}
    if role_name not in roles_by_name:
        name = abbreviate(role_name)[1:-1]  # without the quotes
        raise DataError(
            f"{location}.{role_key}: {unknown_name_message('role', name, roles_by_name)}; say what it is with --role-map {name}=ROLE"
        )
    role = roles_by_name[role_name]
    other_keys = turn.keys() - {role_key, content_key}
    # `datasets` adds keys of other rows with null values, and templates test whether the key tool_calls is there
    extra = {key: value for key, value in turn.items() if key in other_keys - {"function_call"} and value is not None and value != []}
    if any(turn[key] is None for key in other_keys):
        on_change(NULLS_REMOVED)
    content = turn.get(content_key)
    if _is_sharegpt_call(turn, roles):
        extra["tool_calls"] = _parse_sharegpt_calls(content, f"{location}.value", on_change)
        content = ""
    elif len(call_keys) > 1:
        raise DataError(f"{location} has both tool_calls and function_call; remove one")
    elif call_keys:
        extra["tool_calls"] = normalize_calls(turn[call_keys[0]], f"{location}.{call_keys[0]}", on_change)
    if isinstance(content, list):
        content = _join_parts(content, f"{location}.{content_key}")
    # in OpenAI's files a turn with tool calls only has null or no content, and a tool result may be empty
    may_be_empty = role == "tool" or (role == "assistant" and bool(extra.get("tool_calls")))
    if may_be_empty and not content:
        content = ""
    text = require_text(content, f"{location}.{content_key}", empty=may_be_empty)
    return cast(Message, {"role": role, "content": text, **_normalize_weight(extra, role, location)})


def _normalize_weight(extra: dict[str, Any], role: str, location: str) -> dict[str, Any]:
    """Return ``extra`` (the keys of a turn except role and content) with at most one training flag, ``weight``: 0 for a reply without a loss.

    The flags ``train`` and ``loss`` of other formats have the same meaning as ``weight``.
    """
    flags: dict[str, Any] = {key: extra.pop(key) for key in ("weight", "train", "loss") if key in extra}
    for key, value in flags.items():
        if isinstance(value, str) or value not in (0, 1):
            raise DataError(
                f"{location}.{key} is {abbreviate(value)}, must be 1 or true for a reply to learn, 0 or false for one that is only read"
            )
    if role != "assistant":
        for key in ("train", "loss"):
            if flags.get(key):
                raise DataError(f"{location}.{key} is {abbreviate(flags[key])}, but only assistant turns are learned; remove it")
        return {**extra, "weight": flags["weight"]} if "weight" in flags else extra
    if len(set(map(bool, flags.values()))) > 1:
        listed_flags = ", ".join(f"{key} is {abbreviate(flag)}" for key, flag in flags.items())
        raise DataError(f"{location} is to be learned and not to be learned: {listed_flags}")
    return {**extra, "weight": 0} if flags and not any(flags.values()) else extra


def _join_parts(parts: list[Any], location: str) -> str:
    """Return the text of content parts in OpenAI's format.

    Raises:
        DataError: When a part is not text, for example an image.
    """
    texts = []
    for index, part in enumerate(parts):
        part_type = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str):
            texts.append(part)
        elif part_type in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise DataError(f'{location}[{index}] is a part of type {abbreviate(part_type)}; only parts of type "text" can be read')
    return "".join(texts)


def _parse_sharegpt_calls(value: Any, location: str, on_change: OnChange) -> list[dict[str, Any]]:
    """Parse ShareGPT's tool calls: ``{"name", "arguments"}`` or a list of those, as JSON text or parsed."""
    parsed = value
    if not isinstance(value, (dict, list)):
        try:
            parsed = load_json(require_text(value, location))
        except ValueError:
            parsed = None
    calls: list[Any] = parsed if isinstance(parsed, list) else [parsed]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise DataError(
            f'{location} is {abbreviate(value)}, must be the JSON of a call such as {{"name": "weather", "arguments": {{"city": "..."}}}}'
        )
    if isinstance(value, str):  # arguments as text again: nulls in text are the author's, not Arrow's, and normalize_calls keeps them
        calls = [
            {**call, "arguments": dumps(call["arguments"], ensure_ascii=False)} if isinstance(call.get("arguments"), dict) else call
            for call in calls
        ]
    return normalize_calls(calls, location, on_change)


def check_order(turns: Sequence[Message], location: str, *, has_gold: bool = False) -> None:
    """Reject an order of turns that chat templates reject or render wrongly.

    Args:
        turns: The turns.
        location: Key in the row, for messages.
        has_gold: True when a gold reply follows, so that the last turn must not be the assistant's.

    Raises:
        DataError: When a system turn is not first, a role occurs twice in a row, a tool turn follows no call, or there is no user turn.
    """
    previous = "nothing"
    for index, turn in enumerate(turns):
        role = turn["role"]
        if previous not in _ALLOWED_BEFORE[role]:
            position = "as the first turn" if previous == "nothing" else f"after {_with_article(previous)} turn"
            order = "the order is system (at most once, first), then user and assistant by turns"
            user_follows = any(later["role"] == "user" for later in turns[index:])
            raise DataError(
                f"{location}[{index}] is {_with_article(role)} turn {position}; {order}{_make_order_hint(previous, role, user_follows)}"
            )
        previous = role
    if previous in ("system", "nothing"):
        raise DataError(f"{location} has no user turn; a row needs at least one")
    if has_gold and previous == "assistant":
        raise DataError(f"{location} ends with an assistant turn and gold holds a second reply; remove one of them")


_ALLOWED_BEFORE = {
    "system": ("nothing",),
    "user": ("nothing", "system", "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
"""Roles that the turn before a turn may have, by the role of that turn."""


def _make_order_hint(previous: str, role: str, user_follows: bool) -> str:
    """Return the end of an error: the option that accepts turns in such an order; empty when there is none."""
    if previous == role:
        return "; --merge-turns joins consecutive turns of one role"
    if role == "assistant" and user_follows and previous in ("nothing", "system"):
        return "; --leading-assistant drop leaves out those before the first user turn"
    return ""


def _with_article(role: str) -> str:
    return f"an {role}" if role == "assistant" else f"a {role}"


NULLS_REMOVED = "members that are null in turns, tools or calls of tools are left out; Arrow adds them where other rows have a value"


def normalize_tools(value: Any, location: str = "tools", on_change: OnChange = ignore_change) -> list[dict[str, Any]]:
    """Convert tools to ``{"type": "function", "function": {"name", …}}``.

    Args:
        value: A list of tools, or its JSON text; a tool may be the function alone. None and empty text are no tools.
        location: Key in the row, for messages.
        on_change: Called with a description of each change.

    Raises:
        DataError: When the value is no list of tools, or a tool has no name; the error does not contain the row's file and line.
    """
    tools = value or []
    if isinstance(value, str):
        try:
            tools = load_json(value) if value.strip() else []
        except ValueError as error:
            raise DataError(f"{location} is {abbreviate(value)}, which is no JSON: {error}") from error
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        raise DataError(f"{location} is {abbreviate(value)}, must be a list of JSON schemas")
    return [_normalize_tool(tool, f"{location}[{index}]", on_change) for index, tool in enumerate(tools)]


def _normalize_tool(tool: Mapping[str, Any], location: str, on_change: OnChange) -> dict[str, Any]:
    tool_without_nulls = remove_nulls(tool, on_change)
    function = tool_without_nulls.get("function", tool_without_nulls)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(f"{location} is {abbreviate(tool)}, which names no function")
    if "function" in tool_without_nulls:
        return {"type": "function", **tool_without_nulls}
    # the tool is the function alone; a type other than "function" belongs to it
    return {"type": "function", "function": {key: value for key, value in function.items() if (key, value) != ("type", "function")}}


def normalize_calls(value: Any, location: str, on_change: OnChange = ignore_change) -> list[dict[str, Any]]:
    """Convert tool calls to ``{"type": "function", "function": {"name", "arguments"}}``, with arguments parsed from JSON text.

    Args:
        value: A call or a list of calls; a call may be the function alone: ``{"name", "arguments"}``.
        location: Key in the row, for messages.
        on_change: Called with a description of each change.

    Raises:
        DataError: When a call is no object with a function's name; the error does not contain the row's file and line.
    """
    if not isinstance(value, list):
        return [_normalize_call(value, location, on_change)]
    return [_normalize_call(call, f"{location}[{index}]", on_change) for index, call in enumerate(value)]


def _normalize_call(call: Any, location: str, on_change: OnChange) -> dict[str, Any]:
    call_without_nulls = remove_nulls(call, on_change) if isinstance(call, dict) else {}
    function = call_without_nulls.get("function", call_without_nulls)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(
            f'{location} is {abbreviate(call)}, must be a call such as {{"type": "function", "function": {{"name": "weather", "arguments": {{}}}}}}'
        )
    function_keys: tuple[str, ...] = ("function",)
    if "function" not in call_without_nulls:  # the call is the function alone
        function_keys = ("name", "arguments")
        function = {key: function[key] for key in function_keys if key in function}
    extra = {key: value for key, value in call_without_nulls.items() if key not in function_keys}
    if isinstance(function.get("arguments"), str):
        function = {**function, "arguments": _parse_arguments(function["arguments"])}
    return {"type": "function", **extra, "function": function}


def _parse_arguments(text: str) -> Any:
    """Parse JSON text of an object; return other text unchanged, also that of an object with nulls, which ``remove_nulls`` would change."""
    try:
        value = load_json(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) and value == remove_nulls(value, ignore_change) else text


def remove_nulls(value: Mapping[str, Any], on_change: OnChange) -> dict[str, Any]:
    """Return an object without null members, at any depth; list elements stay.

    Args:
        value: Nested at most ``MAX_DEPTH`` levels.
        on_change: Called when a member was removed.
    """
    removed = False

    def copy_without_nulls(inner: Any) -> Any:
        nonlocal removed
        if isinstance(inner, Mapping):
            removed |= None in inner.values()
            return {key: copy_without_nulls(member) for key, member in inner.items() if member is not None}
        return [copy_without_nulls(member) for member in inner] if isinstance(inner, list) else inner

    result: dict[str, Any] = copy_without_nulls(value)
    if removed:
        on_change(NULLS_REMOVED)
    return result


def tools_of(example: Example) -> tuple[Mapping[str, Any], ...]:
    """Return the tools of an example (key ``tools``) in normal form; empty when it has none.

    Raises:
        DataError: When the value is no list of tools, or a tool has no name.
    """
    try:
        return tuple(normalize_tools(example.metadata.get("tools")))
    except DataError as error:
        raise DataError(error.message, example.source) from error
