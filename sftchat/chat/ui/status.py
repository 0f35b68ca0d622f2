"""Status line items for the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prompt_toolkit.application import Application
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.key_binding.vi_state import InputMode

from sftchat.chat.controller import ChatController
from sftchat.chat.pane import ModelPane
from sftchat.chat.render.columns import clip
from sftchat.chat.render.width import text_width
from sftchat.chat.safe_text import escape_controls


@dataclass(frozen=True)
class StatusItem:
    """An item of the status line.

    Attributes:
        text: Text to show; empty for none.
        rank: Importance: 0 is the most important; when space is short, items with a high rank are shortened and removed first.
        short: Shorter text to use before the item is removed; empty for none.
    """

    text: str
    rank: int
    short: str = ""


def pane_items(names: Sequence[str], panes: Sequence[ModelPane]) -> list[StatusItem]:
    """Return the items for the models: all details of a single one, the speed of each of several.

    Args:
        names: Names as typed, with control characters escaped.
        panes: The panes.
    """
    if len(panes) > 1:
        return [
            StatusItem(f"{_last_path_part(name)} {_format_speed(pane)}".rstrip(), rank=2, short=_last_path_part(name))
            for name, pane in zip(names, panes, strict=True)
        ]
    pane = panes[0]
    adapter = escape_controls(pane.adapter)
    context = f"{pane.context_used}/{pane.context_length}" if pane.context_length else str(pane.context_used)
    first_token = _format_seconds(pane.first_token_seconds)
    score_text = escape_controls(pane.score.text) if pane.score is not None else ""
    score_value = f"{pane.score.value:.2f}" if pane.score is not None and pane.score.value is not None else ""
    return [
        StatusItem(names[0], rank=1, short=_last_path_part(names[0])),
        StatusItem(f"adapter {adapter}" if adapter else "", rank=2, short=adapter),
        StatusItem(score_text, rank=2, short=score_value),
        StatusItem(f"context {context}" if pane.context_used else "", rank=3, short=context),
        StatusItem(_format_speed(pane), rank=4, short=_format_speed(pane).replace(" tokens", "")),
        StatusItem(f"first token {first_token}" if pane.first_token_seconds else "", rank=5, short=first_token),
    ]


def activity(chat: ChatController, seconds: float) -> StatusItem:
    """Return the item for the current activity of the chat.

    Args:
        chat: The chat.
        seconds: Time since the start of the chat.
    """
    if chat.state == "loading":
        return StatusItem(f"loading, {seconds:.0f} s", rank=0, short="loading")
    if chat.state == "generating":
        return StatusItem("replying, ctrl-c stops", rank=0, short="replying")
    if chat.state == "working":
        return StatusItem(f"{escape_controls(chat.job_title)}, ctrl-c stops", rank=0, short=escape_controls(chat.job_title))
    return StatusItem("ready", rank=0)


def vi_mode(app: Application[None]) -> str:
    """Return the vi mode; empty with other key bindings."""
    if app.editing_mode != EditingMode.VI:
        return ""
    return {InputMode.NAVIGATION: "vi: command", InputMode.REPLACE: "vi: replace"}.get(app.vi_state.input_mode, "vi: insert")


def _last_path_part(name: str) -> str:
    """Return the last part of a path or URL."""
    return name.rstrip("/").rpartition("/")[2] or name


def _format_speed(pane: ModelPane) -> str:
    """Format the speed in tokens per second; empty when unknown."""
    speed = pane.tokens_per_second
    return f"{speed:.{0 if speed >= 100 else 1}f} tokens/s" if speed else ""


def _format_seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def status_line(items: Sequence[StatusItem], columns: int) -> str:
    """Return the items in order on one line of at most ``columns`` cells.

    When they do not fit, the least important items are shortened first, then removed; a single item that is still too long is cut.
    """
    remaining = [item for item in items if item.text]
    least_important_first = sorted(range(len(remaining)), key=lambda index: (-remaining[index].rank, -index))
    for index in least_important_first:
        item = remaining[index]
        if text_width(_join_items(remaining)) > columns and item.short:
            remaining[index] = StatusItem(item.short, item.rank)
    while len(remaining) > 1 and text_width(_join_items(remaining)) > columns:
        remaining.remove(max(reversed(remaining), key=lambda item: item.rank))  # of several with the highest rank, the last
    return clip(_join_items(remaining), columns)


def _join_items(items: Sequence[StatusItem]) -> str:
    return " · ".join(item.text for item in items)
