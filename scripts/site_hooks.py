"""Hooks that mkdocs calls while it builds the site; named in ``mkdocs.yml``."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_context: Any) -> str:
    """Remove the backslash before a bar in code in a table: GitHub's tables need it, Python-Markdown would show it."""
    unescaped = (re.sub(r"`[^`]*`", _without_backslash, line) if line.startswith("|") else line for line in markdown.split("\n"))
    return "\n".join(unescaped)


def _without_backslash(code: re.Match[str]) -> str:
    """Return a code span as Python-Markdown reads it."""
    return code[0].replace("\\|", "|")
