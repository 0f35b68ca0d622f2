"""Inline Markdown: code, emphasis, links. Ambiguous markup stays as written.

Intentionally narrower than CommonMark: ``__init__``, ``2**3``, ``a*b*c``, ``\\(x\\)`` and ``<tag>`` are plain text in model replies, and a
closing ``**`` may stand between a Chinese full stop and the next word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sftchat.chat.render.width import Line, joined

_SPAN = re.compile(
    r"(?P<ticks>(?<!`)`{1,3}(?!`))(?P<code>[^`\n]{1,2000}?)(?P=ticks)(?!`)"
    r"|(?<![A-Za-z0-9*\\])\*\*(?=[^\s*])(?P<strong>.{1,2000}?)(?<=[^\s*\\])\*\*(?![A-Za-z0-9*])"
    r"|(?<![A-Za-z0-9*\\])\*\*\*(?=[^\s*])(?P<both>[^*]{1,2000}?)(?<=[^\s\\])\*\*\*(?![A-Za-z0-9*])"
    r"|(?<![A-Za-z0-9*\\])\*(?=[^\s*])(?P<emphasis>[^*]{1,2000}?)(?<=[^\s\\])\*(?![A-Za-z0-9*])"
    r"|(?<![A-Za-z0-9~\\])~~(?=[^\s~])(?P<struck>[^~]{1,2000}?)(?<=[^\s\\])~~(?![A-Za-z0-9~])"
    r"|(?<![\\!\]])\[(?P<label>[^\[\]]{1,500})\]\((?P<url>[a-z]+://[^()\s]{1,1000})\)"
)
_STYLES = {"strong": "bold", "both": "bold italic", "emphasis": "italic", "struck": "strike"}


def inline(text: str, style: str = "") -> Line:
    """Style emphasis, code and links of a line and remove their markers.

    Args:
        text: One line or a part of it.
        style: Base style of the line.
    """
    return joined(_spans(text, style))


def _spans(text: str, style: str) -> Iterator[tuple[str, str]]:
    """Split a text into styled pieces, recursively within emphasis."""
    at = 0
    for match in _SPAN.finditer(text):
        if match.start() > at:
            yield style, text[at : match.start()]
        at = match.end()
        kind = match.lastgroup
        if match["code"] is not None:
            yield f"{style} class:code".strip(), match["code"]
        elif match["url"] is not None:
            yield f"{style} class:link".strip(), match["label"]
            yield f"{style} class:faint".strip(), f" ({match['url']})"
        else:
            assert kind is not None
            yield from _spans(match[kind], f"{style} {_STYLES[kind]}".strip())
    if at < len(text):
        yield style, text[at:]
