"""Display of tokens: safe to print, aligned at any character width, distinguishable without colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
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
    """Return a token's text on one line: line breaks and tabs as symbols, leading and trailing spaces as ``␣``, an empty text as ``∅``."""
    text = escape_controls(token.text.translate(SYMBOLS))
    if not text.strip(" "):
        return "␣" * len(text) or "∅"
    without_leading = text.lstrip(" ")
    visible = without_leading.rstrip(" ")
    return "␣" * (len(text) - len(without_leading)) + visible + "␣" * (len(without_leading) - len(visible))


def running_text(tokens: Iterable[tuple[Style, Token]]) -> Fragments:
    """Return styled tokens as running text, with control characters escaped."""
    return [(style, escape_controls(token.text)) for style, token in tokens]


def join_partial_characters(engine: Inspects, tokens: Sequence[Token]) -> list[Token]:
    """Join tokens that contain parts of one character, so that their text is readable."""
    return [token for token, _ in group_partial_characters(engine, tokens)]


def group_partial_characters(engine: Inspects, tokens: Sequence[Token]) -> list[tuple[Token, int]]:
    """Join tokens as ``join_partial_characters`` does; return each result with the number of tokens joined."""
    groups: list[tuple[Token, int]] = []
    start = 0
    while start < len(tokens):
        first = tokens[start]
        size, text = 1, first.text
        if REPLACEMENT_CHARACTER in first.text and not first.special:
            size, text = _first_complete_group(engine, tokens[start : start + MAX_TOKENS_PER_CHARACTER])
        groups.append((replace(first, text=text), size))
        start += size
    return groups


def _first_complete_group(engine: Inspects, tokens: Sequence[Token]) -> tuple[int, str]:
    """Return how many tokens, from the first on, decode to complete characters, and their text; the first token alone when none do."""
    first = tokens[0]
    for size in range(2, len(tokens) + 1):
        last = tokens[size - 1]
        if last.special or last.trained != first.trained:
            break
        text = engine.decode([token.id for token in tokens[:size]])
        if REPLACEMENT_CHARACTER not in text:
            return size, text
    return 1, first.text


def join_partial_characters_by_bytes(choices: Sequence[Choice]) -> list[tuple[Style, Token]]:
    """Join a server's tokens that contain parts of one character by their bytes; each result has the style of its first token."""
    pieces: list[tuple[Style, Token]] = []
    start = 0
    while start < len(choices):
        token, size = choices[start].token, 1
        for candidate_size in range(2, MAX_TOKENS_PER_CHARACTER + 1):
            parts = [choice.token.data for choice in choices[start : start + candidate_size]]
            if not all(parts):  # a token without bytes
                break
            with suppress(UnicodeDecodeError):
                text = b"".join(map(bytes, parts)).decode()
                token, size = replace(token, text=text, data=()), len(parts)
                break
        pieces.append((style_of(exp(choices[start].logprob)), token))
        start += size
    return pieces


def style_of(probability: float) -> Style:
    """Return the style for a probability."""
    if probability >= LIKELY:
        return "likely"
    return "unlikely" if probability >= RARE else "rare"


def format_percent(probability: float) -> str:
    """Format a probability in six characters."""
    return f"{100 * probability:5.1f}%" if probability >= 0.0005 else "<0.05%"


def format_likelihood(choices: Sequence[Choice]) -> str:
    """Format the log-likelihood and perplexity of a reply."""
    total = sum(choice.logprob for choice in choices)
    mean = total / len(choices)
    return f"{len(choices)} tokens, log-likelihood {total:.2f}, {mean:.3f} a token, perplexity {exp(min(-mean, 700)):.3g}"


def format_table(rows: Sequence[Row]) -> Fragments:
    """Format rows as a table: each cell but the last of a row is padded to the width of its column, numbers are right-aligned."""
    from sftchat.chat.render.width import text_width  # slow to import, and needed by no other command

    widths: list[int] = []
    for column in range(max(map(len, rows))):
        widths.append(max(text_width(row[column][1]) for row in rows if column < len(row)))
    fragments: list[tuple[Style, str]] = []
    for row in rows:
        for column, (style, text) in enumerate(row):
            padding = " " * (widths[column] - text_width(text))
            is_number = text.strip(" <%").replace(".", "", 1).isdecimal()
            before, after = (padding, "") if is_number else ("", padding)
            is_last = column == len(row) - 1
            fragments += [("", before), (style, text), ("", "" if is_last else f"{after}  ")]
        fragments.append(("", "\n"))
    return fragments[:-1]
