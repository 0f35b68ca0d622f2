"""How things look: the sixteen colours of the user's own terminal, no backgrounds."""

from __future__ import annotations

from prompt_toolkit.styles import Style

STYLE = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "typed": "bold",
        "note": "ansibrightblack",
        "error": "ansired",
        "faint": "ansibrightblack",
        "thought": "ansibrightblack italic",
        "difference": "reverse",
        "special": "ansimagenta",
        "trained": "ansigreen",
        "good": "ansigreen",
        "bad": "ansired",
        "likely": "ansigreen",
        "unlikely": "ansiyellow",
        "rare": "ansired",
        "bullet": "ansicyan",
        "quote": "italic",
        "link": "underline",
        "code": "ansiyellow",
        "code.keyword": "ansimagenta",
        "code.string": "ansigreen",
        "code.comment": "ansibrightblack",
        "code.number": "ansicyan",
        "code.name": "ansiblue",
        "pasted": "ansicyan",
        "completion-menu": "bg:default fg:default",
        "completion-menu.completion": "bg:default fg:ansicyan",
        "completion-menu.completion.current": "bg:default fg:ansicyan reverse",
        "completion-menu.meta.completion": "bg:default fg:ansibrightblack",
        "completion-menu.meta.completion.current": "bg:default fg:default",
        "scrollbar.background": "bg:default",
        "scrollbar.button": "bg:ansibrightblack",
    }
)
