"""docs/chat.md lists what /help lists, and what it shows can be typed."""

from __future__ import annotations

import re
from pathlib import Path

from sftchat.chat.commands import BUILTINS, Commands
from sftchat.cli import chat

PAGE = Path(__file__).parents[2] / "docs" / "chat.md"


def tables() -> dict[str, list[str]]:
    """Return the rows of the page's command tables by heading, from the registered commands."""
    found: dict[str, list[str]] = {}
    for command in Commands(BUILTINS).values():
        call = f"/{command.name} {command.usage}".rstrip().replace("|", "\\|")
        found.setdefault(command.topic, []).append(f"| `{call}` | {command.summary} |")
    return found


def test_every_command_is_on_the_page_as_help_has_it() -> None:
    """To update the page, paste the expected rows that this test prints."""
    written: dict[str, list[str]] = {}
    topic = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("### "):
            topic = line.removeprefix("### ").lower()
        elif line.startswith("| `/"):
            written.setdefault(topic, []).append(line)

    assert written == tables()


def test_every_option_on_the_page_exists() -> None:
    shown = set(re.findall(r"`(--[a-z-]+)", PAGE.read_text(encoding="utf-8")))
    known = {option for parameter in chat.command.params for option in parameter.opts}

    assert shown
    assert shown <= known
