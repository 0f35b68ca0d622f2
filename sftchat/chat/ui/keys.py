"""Key bindings of the chat: enter sends, ctrl-c clears, stops or arms the exit, ctrl-d leaves; the rest as in readline and vi."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, get_common_complete_suffix
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition, emacs_mode, has_focus, is_searching, vi_navigation_mode
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from sftchat._util.parsing import expand_user
from sftchat.chat.ui.input import Pasted

if TYPE_CHECKING:
    from sftchat.chat.ui.app import Terminal


def chat_keys(terminal: Terminal, buffer: Buffer, pasted: Pasted) -> KeyBindings:
    """Build the key bindings of a chat, on top of those of prompt_toolkit.

    Args:
        terminal: The view; its methods are the actions of the keys.
        buffer: The input.
        pasted: Long pastes in the input.
    """
    keys = KeyBindings()
    writing = has_focus(buffer)

    @keys.add("enter", filter=writing)
    def _(event: KeyPressEvent) -> None:
        terminal.send()

    @keys.add(
        "escape", "enter", filter=writing & emacs_mode
    )  # in vi mode a single escape must take effect without waiting for the next key
    @keys.add("c-j", filter=writing)
    def _(event: KeyPressEvent) -> None:
        buffer.insert_text("\n")

    @keys.add(Keys.BracketedPaste, filter=writing)
    def _(event: KeyPressEvent) -> None:
        buffer.insert_text(pasted.shorten(event.data))

    @keys.add("backspace", filter=writing & Condition(lambda: pasted.before(buffer.document) > 0))
    def _(event: KeyPressEvent) -> None:
        buffer.delete_before_cursor(pasted.before(buffer.document))

    @keys.add("tab", filter=writing)
    def _(event: KeyPressEvent) -> None:
        _complete(buffer)

    @keys.add("c-c", filter=writing)
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        terminal.interrupt()

    @keys.add("c-d", filter=writing & Condition(lambda: not buffer.text))
    def _(event: KeyPressEvent) -> None:
        terminal.leave(None)

    @keys.add("c-x", "c-e", filter=writing)
    @keys.add("v", filter=writing & vi_navigation_mode)
    def _(event: KeyPressEvent) -> None:
        terminal.edit_input()

    @keys.add("c-z")
    def _(event: KeyPressEvent) -> None:
        terminal.suspend()

    @keys.add("f2")
    def _(event: KeyPressEvent) -> None:
        terminal.toggle_thoughts()

    @keys.add("f4", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        vi = event.app.editing_mode == EditingMode.VI
        event.app.editing_mode = EditingMode.EMACS if vi else EditingMode.VI

    return keys


def _complete(buffer: Buffer) -> None:
    """Insert the only completion, the common prefix of all, or the next one in the menu.

    prompt_toolkit's own binding does nothing when tab is pressed before the menu has opened.
    """
    if buffer.complete_state is not None and len(buffer.complete_state.completions) > 1:
        buffer.complete_next()
        return
    completions = list(buffer.completer.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
    if len(completions) == 1:
        buffer.cancel_completion()
        buffer.apply_completion(completions[0])
    elif common := get_common_complete_suffix(buffer.document, completions):
        buffer.insert_text(common)
    else:
        buffer.start_completion()


def prefers_vi(environment: Mapping[str, str]) -> bool:
    """Return whether the user's readline configuration selects vi keys."""
    path = environment.get("INPUTRC") or Path("~/.inputrc")
    try:
        lines = expand_user(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, RuntimeError):
        return False
    chosen = [
        words[2] for words in map(str.split, lines) if [word.lower() for word in words[:2]] == ["set", "editing-mode"] and len(words) > 2
    ]
    return chosen[-1:] == ["vi"]
