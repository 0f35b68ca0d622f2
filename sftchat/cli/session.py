"""The session of a command, and consoles and JSON for its output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sftchat.api.session import Session as Session  # for the commands

if TYPE_CHECKING:
    from rich.console import Console


def json_text(value: Any, indent: int | None = 2, **dump_options: Any) -> str:
    """Return JSON text for printing, with characters escaped that control a terminal; ``dump_options`` are those of ``json.dumps``."""
    import json

    from sftchat.text import sanitize_json

    return sanitize_json(json.dumps(value, ensure_ascii=False, indent=indent, **dump_options))


def stdout() -> Console:
    """Return the console for results."""
    from sftchat._util.consoles import GuardedConsole

    return GuardedConsole(sys.stdout)


def stderr() -> Console:
    """Return the console for everything that is not a result."""
    from sftchat._util.consoles import GuardedConsole

    return GuardedConsole(sys.stderr)
