"""What the status line says about the models."""

from __future__ import annotations

from collections.abc import Sequence

from prompt_toolkit.application import Application
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.key_binding.vi_state import InputMode

from sftchat.chat.controller import ChatController
from sftchat.chat.pane import ModelPane
from sftchat.chat.render.status import Item
from sftchat.chat.safe_text import escape_controls


def column_items(names: Sequence[str], columns: Sequence[ModelPane]) -> list[Item]:
    """The models: one with all there is to know of it, several with the speed of each.

    Args:
        names: What the user called them, harmless.
        columns: The models.
    """
    if len(columns) > 1:
        return [Item(f"{_short(name)} {_speed(column)}".rstrip(), 2, _short(name)) for name, column in zip(names, columns, strict=True)]
    column = columns[0]
    used, most = column.context_used, column.context_length
    context = f"{used}/{most}" if most else str(used)
    first = column.first_token_seconds
    mark = column.mark
    return [
        Item(names[0], 1, _short(names[0])),
        Item(f"adapter {escape_controls(column.adapter)}" if column.adapter else "", 2, escape_controls(column.adapter)),
        Item(
            escape_controls(mark.text) if mark is not None else "",
            2,
            f"{mark.value:.2f}" if mark is not None and mark.value is not None else "",
        ),
        Item(f"context {context}" if used else "", 3, context),
        Item(_speed(column), 4, _speed(column).replace(" tokens", "")),
        Item(f"first token {_seconds(first)}" if first else "", 5, _seconds(first)),
    ]


def activity(talk: ChatController, seconds: float) -> Item:
    """What the talk is doing.

    Args:
        talk: It.
        seconds: How long the chat has been running.
    """
    if talk.state == "loading":
        return Item(f"loading, {seconds:.0f} s", 0, "loading")
    if talk.state == "generating":
        return Item("replying, ctrl-c stops", 0, "replying")
    if talk.state == "working":
        return Item(f"{escape_controls(talk.doing)}, ctrl-c stops", 0, escape_controls(talk.doing))
    return Item("ready", 0)


def vi_mode(app: Application[None]) -> str:
    """The mode of vi keys; nothing with others."""
    if app.editing_mode != EditingMode.VI:
        return ""
    return {InputMode.NAVIGATION: "vi: command", InputMode.REPLACE: "vi: replace"}.get(app.vi_state.input_mode, "vi: insert")


def _short(name: str) -> str:
    """The last part of a path or of an address."""
    return name.rstrip("/").rpartition("/")[2] or name


def _speed(column: ModelPane) -> str:
    """Tokens a second; nothing when unknown."""
    speed = column.tokens_per_second
    return f"{speed:.{0 if speed >= 100 else 1}f} tokens/s" if speed else ""


def _seconds(seconds: float) -> str:
    """A short time, readable."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
