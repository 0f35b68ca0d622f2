"""Display of tokens: safe to print, aligned at any character width, distinguishable without colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import exp

from sftchat.chat.context import Fragments, Style
from sftchat.chat.safe_text import escape_controls
from sftchat.engine import Inspects
from sftchat.types import Choice, Token

SYMBOLS = str.maketrans({"\n": "⏎", "\t": "⇥", "\r": "␍"})
REPLACEMENT_CHARACTER = "\ufffd"
"""Decoded form of an incomplete character (U+FFFD)."""
MAX_TOKENS_PER_CHARACTER = 4
"""Maximum number of tokens of one character."""
LIKELY, RARE = 0.5, 0.05
"""Probability from which a token counts as likely, and below which it counts as rare."""
Row = Sequence[tuple[Style, str]]


def one_line(token: Token) -> str:
    """Return a token on one line: line breaks and tabs as symbols, leading and trailing spaces as ``␣``."""
    text = escape_controls(token.text.translate(SYMBOLS))
    body = text.strip(" ")
    if not body:
        return "␣" * len(text) or "∅"
    lead = len(text) - len(text.lstrip(" "))
    return "␣" * lead + body + "␣" * (len(text) - lead - len(body))


def running_text(tokens: Iterable[tuple[Style, Token]]) -> Fragments:
    """Return tokens as running text."""
    return [(style, escape_controls(token.text)) for style, token in tokens]


def join_partial_characters(engine: Inspects, tokens: Sequence[Token]) -> list[Token]:
    """Join tokens that contain parts of one character, so that their text is readable."""
    readable: list[Token] = []
    place = 0
    while place < len(tokens):
        first = tokens[place]
        group = [first]
        while (
            REPLACEMENT_CHARACTER in first.text
            and not first.special
            and len(group) < MAX_TOKENS_PER_CHARACTER
            and place + len(group) < len(tokens)
        ):
            text = engine.decode([token.id for token in group])
            following = tokens[place + len(group)]
            if REPLACEMENT_CHARACTER not in text or following.special or following.trained != first.trained:
                break
            group.append(following)
        text = engine.decode([token.id for token in group]) if len(group) > 1 else first.text
        if REPLACEMENT_CHARACTER in text:  # the bytes form no complete character
            group, text = [first], first.text
        readable.append(replace(first, text=text))
        place += len(group)
    return readable


def join_partial_characters_by_bytes(choices: Sequence[Choice]) -> list[tuple[Style, Token]]:
    """Return a server's tokens as styled text, each piece in the style of its first token; parts of one character are joined by their
    bytes.
    """
    pieces: list[tuple[Style, Token]] = []
    place = 0
    while place < len(choices):
        token, size = choices[place].token, 1
        if token.data:
            for most in range(2, MAX_TOKENS_PER_CHARACTER + 1):
                parts = [choice.token.data for choice in choices[place : place + most]]
                try:
                    text = bytes(byte for part in parts for byte in part).decode() if all(parts) else ""
                except UnicodeDecodeError:
                    continue
                if text:
                    token, size = replace(token, text=text, data=()), len(parts)
                break
        pieces.append((style_of(exp(choices[place].logprob)), token))
        place += size
    return pieces


def style_of(probability: float) -> Style:
    """Return the style for a probability."""
    return "likely" if probability >= LIKELY else "rare" if probability < RARE else "unlikely"


def format_percent(probability: float) -> str:
    """Format a probability in six terminal cells."""
    return f"{100 * probability:5.1f}%" if probability >= 0.0005 else "<0.05%"


def format_likelihood(choices: Sequence[Choice]) -> str:
    """Format the log-likelihood and perplexity of a reply."""
    total = sum(choice.logprob for choice in choices)
    mean = total / len(choices)
    return f"{len(choices)} tokens, log-likelihood {total:.2f}, {mean:.3f} a token, perplexity {exp(min(-mean, 700)):.3g}"


def format_table(rows: Sequence[Row]) -> Fragments:
    """Format rows as a table: columns (except the last) padded to their widest cell, numbers right-aligned."""
    from sftchat.chat.render.width import text_width  # slow to import, and needed by no other command

    widths = [max(text_width(row[place][1]) for row in rows if place < len(row)) for place in range(max(map(len, rows)))]
    shown: list[tuple[Style, str]] = []
    for row in rows:
        for place, (style, text) in enumerate(row):
            last = place == len(row) - 1
            gap = " " * (widths[place] - text_width(text))
            number = text.strip(" <%").replace(".", "", 1).isdecimal()
            shown += [("", gap if number else ""), (style, text), ("", "" if last else ("" if number else gap) + "  ")]
        shown.append(("", "\n"))
    return shown[:-1]
