"""Lines of code coloured as they come, by the library that knows the languages."""

from __future__ import annotations

from typing import Any

from sftchat.chat.rendering.cells import Line, joined

LINES = 400
"""A block longer than this goes on without colours: each line is read with all before it."""

_STYLES = {"Keyword": "keyword", "String": "string", "Comment": "comment", "Number": "number", "Function": "name", "Class": "name"}


class Code:
    """A block of code that grows by lines.

    Args:
        language: As written behind the fence; unknown ones are shown without colours.
    """

    def __init__(self, language: str) -> None:
        self._lexer = _lexer(language)
        self._source = ""
        self._count = 0

    def feed(self, line: str) -> Line:
        """The next line, coloured."""
        self._count += 1
        if self._lexer is None or self._count > LINES:
            return [("", line)] if line else []
        self._source += line + "\n"
        last: list[tuple[str, str]] = []
        for token, text in self._lexer.get_tokens(self._source):
            *before, rest = text.split("\n")
            if before:
                finished, last = [*last, (_style(token), before[-1])] if len(before) == 1 else [(_style(token), before[-1])], []
            last.append((_style(token), rest))
        found = joined([pair for pair in finished if pair[1]])
        return found if "".join(text for _, text in found) == line else [("", line)] if line else []


def _lexer(language: str) -> Any:
    """The lexer of a language; None when there is none."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    words = language.split()
    try:
        return get_lexer_by_name(words[0].strip("{}.").lower(), stripnl=False, ensurenl=False) if words else None
    except ClassNotFound:
        return None


def _style(token: Any) -> str:
    """The style of a token, by the nearest of its ancestors that has one."""
    for part in reversed(token):
        if part in _STYLES:
            return f"class:code.{_STYLES[part]}"
    return ""
