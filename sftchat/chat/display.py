"""How replies are shown; changed by commands and keys, read by the view."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Display:
    """What a person may choose about the showing of replies.

    Attributes:
        markdown: Render Markdown; otherwise replies are shown as they were written.
        thoughts: Show what a model thinks before it answers; otherwise one line says that it did.
    """

    markdown: bool = True
    thoughts: bool = False
