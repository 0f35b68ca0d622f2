"""Text for scorers and for display: normalisation, CJK-aware tokens, removal of thoughts, sanitizing.

A tokenizer for English, such as that of rouge-score, finds no token in Chinese text, so that even identical texts score 0. Here every Chinese
character is a token.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

__all__ = ["COLONS", "DASHES", "MIDDLE_DOTS", "fold_width", "normalise", "printable", "strip_thinking", "tokens", "words"]

DASHES = "-‐‑‒–—―−─－﹣"
"""Characters written in place of a hyphen. Replace them only where a separator is expected: inside a name they are significant."""

COLONS = ":：﹕∶︰ː"
"""Characters written in place of a colon; the same restriction applies."""

MIDDLE_DOTS = "·‧•・･"
"""Characters between the parts of a foreign name (奥黛丽·赫本); all are normalised to the first."""

# Characters of scripts without spaces between words: Han with its extensions, the iteration mark, the ideographic zero, and kana without the
# combining voice marks.
_UNSPACED = "\u3005\u3007\u3040-\u3096\u309d-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"

# Characters whose meaning NFKC would change: ① to 1, … to three full stops, ㈱ to (株), ︰ to two full stops.
_NOT_FOLDED = "([\u2024-\u2026\u2460-\u24ff\u3200-\u33ff\ufe19\ufe30\U0001f100-\U0001f2ff]+)"
# Unified ideographs, which most Chinese names consist of; normalisation does not change them.
_HAN = "[\u4e00-\u9fff]+"
_DOTS = str.maketrans(dict.fromkeys(MIDDLE_DOTS, MIDDLE_DOTS[0]))
_SPACE = re.compile(r"\s+")
_SPACE_IN_CJK = f"(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])"
_TOKEN = f"[{_UNSPACED}{_HANGUL}]|[a-z0-9]+"
_WORD = f"[{_UNSPACED}{_HANGUL}]|[^\\W_{_UNSPACED}{_HANGUL}]+"
_ZERO_WIDTH_JOINER = "\u200d"
_JOINERS = "\u200c\u200d"  # Persian and Indic words need the first, emoji sequences the second
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# All characters except common harmless ones; each match is then checked by `_is_harmless`, which would be slow for every character.
_MAYBE_HARMFUL = "[^\n -~\u00a1-\u00ac\u00ae-\u036f\u03a3-\u052f\u1e00-\u1eff\u2010-\u2027\u2030-\u205e\u3001-\u3020\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fcc\uac00-\ud7a3\uff01-\uff5e]"

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_THINKING_END = re.compile(r"</think>", re.IGNORECASE)


def _is_plain_ascii(text: str) -> bool:
    """Return whether a text consists of printable ASCII characters and line feeds."""
    return text.isascii() and text.replace("\n", "").isprintable()


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    """Compile a pattern on first use: large character classes take milliseconds, which commands that print little do not need."""
    return re.compile(pattern)


def fold_width(text: str) -> str:
    """Replace compatibility characters (full-width letters, no-break spaces, ligatures) and remove invisible ones.

    Applies NFKC, except to characters whose meaning it would change, such as ``①``, ``…``, ``㈱`` and ``︰``. Format characters (category Cf, such as
    zero-width space, byte-order mark and direction marks) are removed, except the joiner of emoji sequences.

    Args:
        text: Any text; line breaks are kept.
    """
    if text.isascii():
        return text
    visible = text
    if not text.replace("\n", "").isprintable():  # a fast test: characters of category Cf are not printable
        visible = "".join(c for c in text if c == _ZERO_WIDTH_JOINER or unicodedata.category(c) != "Cf")
    pieces = _compile(_NOT_FOLDED).split(visible)  # the pattern has a group, so every second piece is a match
    return "".join(piece if index % 2 else unicodedata.normalize("NFKC", piece) for index, piece in enumerate(pieces))


@lru_cache(maxsize=4096)  # the same names occur many times in a prompt
def normalise(text: str) -> str:
    """Normalise a text for comparison by scorers; idempotent.

    Applies ``fold_width``. Middle dots become ``·``, runs of white space become one space, and spaces between Chinese or Japanese characters are
    removed. Case, traditional characters, ``DASHES`` and ``COLONS`` are kept unless NFKC changes them.

    Args:
        text: Any text; the result is one line.
    """
    if _compile(_HAN).fullmatch(text):
        return text
    folded = fold_width(text).translate(_DOTS)
    return _compile(_SPACE_IN_CJK).sub("", _SPACE.sub(" ", folded).strip())


def tokens(text: str) -> list[str]:
    """Split a text into tokens for overlap metrics: each CJK character, and each run of ASCII letters and digits.

    The text is NFKC-normalised and lower-cased first; all other characters are separators.

    Args:
        text: Any text.
    """
    return _compile(_TOKEN).findall(unicodedata.normalize("NFKC", text).lower())


def words(text: str) -> list[str]:
    """Split a text into words for similarity search: like ``tokens``, but with whole words of every other script.

    Args:
        text: Any text.
    """
    return _compile(_WORD).findall(unicodedata.normalize("NFKC", text).lower())


def strip_thinking(text: str) -> str:
    """Remove a reasoning model's thoughts and keep the answer.

    Removes ``<think>…</think>``, an unclosed ``<think>`` with all text after it, and all text before a closing tag without an opening one, because
    some chat templates put ``<think>`` into the prompt.

    Args:
        text: A reply as generated.
    """
    if "<" not in text:
        return text
    return _THINKING_END.split(_THINKING.sub("", text))[-1]


def pluralize(number: int, noun: str, plural: str = "") -> str:
    """Format a number with its noun, such as ``1 row`` and ``2,000 rows``.

    Args:
        number: 0 or more.
        noun: Singular form.
        plural: Plural form; the noun with an s by default.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def keys_of(row: Mapping[str, Any]) -> str:
    """Format the keys of an object for a message; a key with a null value is marked."""
    return ", ".join(abbreviate(key) + (" (null)" if value is None else "") for key, value in row.items()) or "none"


def abbreviate(value: Any, width: int = 40) -> str:
    """Format a value as JSON, cut to ``width`` characters."""
    json_text = json.dumps(value, ensure_ascii=False, default=repr)
    return json_text if len(json_text) <= width else json_text[: width - 1] + "…"


def printable(text: str) -> str:
    """Sanitize untrusted text for one line of a terminal: control characters and invisible ones become ``�``, line breaks and tabs included.

    Spaces of any width and the two zero-width joiners are kept.

    Args:
        text: Any text.
    """
    return sanitize_lines(text, allowed="").replace("\n", _REPLACEMENT)


def sanitize_lines(text: str, allowed: str = "\t") -> str:
    """Sanitize untrusted text for a terminal or a page: like ``printable``, but line breaks are kept.

    Idempotent; a text may be split anywhere and sanitized in parts.

    Args:
        text: Any text.
        allowed: Control characters to keep in addition to the line feed.
    """
    if _is_plain_ascii(text):
        return text
    return _compile(_MAYBE_HARMFUL).sub(lambda match: match[0] if match[0] in allowed or _is_harmless(match[0]) else _REPLACEMENT, text)


def sanitize_json(text: str) -> str:
    """Sanitize untrusted JSON for a terminal or a CI log: control and invisible characters become JSON escapes, so that the value is unchanged.

    Args:
        text: JSON in which control characters below space are already escaped, as by ``json.dumps``; line breaks are kept.
    """
    escaped = text
    if not _is_plain_ascii(text):
        escaped = _compile(_MAYBE_HARMFUL).sub(lambda match: match[0] if _is_harmless(match[0]) else json.dumps(match[0])[1:-1], text)
    return escaped.replace("##[", "#\\u0023[")  # starts a GitHub workflow command anywhere in a line; can only occur in strings


def _is_harmless(character: str) -> bool:
    """Return whether a character is visible, a space or a joiner, so that it cannot control a terminal."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"
