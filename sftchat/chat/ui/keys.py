"""Key bindings of the chat: enter sends, ctrl-c clears, stops or arms the exit, ctrl-d leaves; others as in readline and vi."""

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
    in_input = has_focus(buffer)

    @keys.add("enter", filter=in_input)
    def _(event: KeyPressEvent) -> None:
        terminal.send()

    @keys.add("escape", "enter", filter=in_input & emacs_mode)  # in vi mode, escape must take effect without waiting for another key
    @keys.add("c-j", filter=in_input)
    def _(event: KeyPressEvent) -> None:
        buffer.insert_text("\n")

    @keys.add(Keys.BracketedPaste, filter=in_input)
    def _(event: KeyPressEvent) -> None:
        buffer.insert_text(pasted.shorten(event.data))

    @keys.add("backspace", filter=in_input & Condition(lambda: pasted.length_before_cursor(buffer.document) > 0))
    def _(event: KeyPressEvent) -> None:
        buffer.delete_before_cursor(pasted.length_before_cursor(buffer.document))

    @keys.add("tab", filter=in_input)
    def _(event: KeyPressEvent) -> None:
        _complete(buffer)

    @keys.add("c-c", filter=in_input)
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        terminal.interrupt()

    @keys.add("c-d", filter=in_input & Condition(lambda: not buffer.text))
    def _(event: KeyPressEvent) -> None:
        terminal.leave(None)

    @keys.add("c-x", "c-e", filter=in_input)
    @keys.add("v", filter=in_input & vi_navigation_mode)
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
    """Go to the next completion of an open menu; otherwise insert the only completion or the common prefix of all, or open the menu.

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
    mode = ""
    for line in lines:
        words = line.split()
        if len(words) > 2 and [word.lower() for word in words[:2]] == ["set", "editing-mode"]:
            mode = words[2]
    return mode == "vi"
