"""Text as scorers compare it: normal form, CJK-aware tokens, and replies without their thinking.

Most scorers of other harnesses strip ASCII punctuation and split at spaces, which leaves Chinese either untouched or empty:
rouge-score's own tokenizer gives identical Chinese texts 0.0. Here every Chinese character is a token.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache

__all__ = ["COLONS", "DASHES", "MIDDLE_DOTS", "fold_width", "normalise", "printable", "strip_thinking", "tokens", "words"]

DASHES = "-‐‑‒–—―−─－﹣"
"""Characters that people and models write for a hyphen. They mean one only where a separator is expected: inside a name they stay."""

COLONS = ":：﹕∶︰ː"
"""Characters that people and models write for a colon, under the same reserve."""

MIDDLE_DOTS = "·‧•・･"
"""Characters that stand between the parts of a foreign name (奥黛丽·赫本); all become the first."""

# Han with its extensions, the iteration mark and the ideographic zero, and kana without the combining voice marks: no spaces between words.
_UNSPACED = "\u3005\u3007\u3040-\u3096\u309d-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"

# What NFKC would damage: ① would become 1, … three full stops, ㈱ (株), ︰ two full stops.
_KEPT = re.compile("([\u2024-\u2026\u2460-\u24ff\u3200-\u33ff\ufe19\ufe30\U0001f100-\U0001f2ff]+)")
# Unified ideographs are in normal form, and most names are nothing else.
_HAN = re.compile("[\u4e00-\u9fff]+")
_DOTS = str.maketrans(dict.fromkeys(MIDDLE_DOTS, MIDDLE_DOTS[0]))
_SPACE = re.compile(r"\s+")
_SPACE_IN_CJK = re.compile(f"(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])")
_TOKEN = re.compile(f"[{_UNSPACED}{_HANGUL}]|[a-z0-9]+")
_WORD = re.compile(f"[{_UNSPACED}{_HANGUL}]|[^\\W_{_UNSPACED}{_HANGUL}]+")
_ZERO_WIDTH_JOINER = "\u200d"
_JOINERS = "\u200c\u200d"  # Persian and Indic words need the first, emoji the second
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# everything but what is surely harmless and common, so that long texts are quick
_SUSPECT = re.compile(
    "[^\n -~\u00a1-\u00ac\u00ae-\u036f\u03a3-\u052f\u1e00-\u1eff\u2010-\u2027\u2030-\u205e\u3001-\u3020\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fcc\uac00-\ud7a3\uff01-\uff5e]"
)

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_THINKING_END = re.compile(r"</think>", re.IGNORECASE)


def fold_width(text: str) -> str:
    """Replace compatibility characters (full-width letters, no-break spaces, ligatures) and drop the invisible ones.

    This is NFKC, save for the characters whose meaning it would change: ``①``, ``…``, ``㈱`` and ``︰`` stay. Of the format
    characters (category Cf: zero-width space, byte-order mark, direction marks) only the joiner of emoji sequences is kept.

    Args:
        text: Any text; line breaks stay.
    """
    if text.isascii():
        return text
    visible = text
    if not text.replace("\n", "").isprintable():  # nothing of category Cf is printable, and asking so is much faster
        visible = "".join(c for c in text if c == _ZERO_WIDTH_JOINER or unicodedata.category(c) != "Cf")
    pieces = _KEPT.split(visible)  # with the group, every second piece is one to keep
    return "".join(piece if index % 2 else unicodedata.normalize("NFKC", piece) for index, piece in enumerate(pieces))


@lru_cache(maxsize=4096)  # the names of one prompt come by a dozen times
def normalise(text: str) -> str:
    """Bring a text into the form in which two scorers' inputs may be compared.

    Compatibility characters and invisible ones go (``fold_width``), middle dots become ``·``, runs of white space become one space,
    and spaces between Chinese or Japanese characters go altogether. Case, traditional characters and the dashes and colons that
    NFKC leaves alone stay: replace those (``DASHES``, ``COLONS``) only where a separator is expected.

    Args:
        text: Any text; the result is one line. Normalising twice changes nothing.
    """
    if _HAN.fullmatch(text):
        return text
    folded = fold_width(text).translate(_DOTS)
    return _SPACE_IN_CJK.sub("", _SPACE.sub(" ", folded).strip())


def tokens(text: str) -> list[str]:
    """Split a text into what overlap metrics count: each CJK character, and each run of ASCII letters and digits.

    NFKC and lower case come first; everything else separates. Needs no dictionary, so unseen names are cut like any others.

    Args:
        text: Any text.
    """
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())


def words(text: str) -> list[str]:
    """Split a text into what two texts may have in common: as ``tokens``, with the words of every other script whole.

    Args:
        text: Any text.
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def strip_thinking(text: str) -> str:
    """Remove what a reasoning model thinks aloud, to leave the answer.

    Drops ``<think>…</think>``, one that was never closed (a reply cut off while thinking has no answer), and everything before a
    closing tag without an opening one: some chat templates put ``<think>`` into the prompt.

    Args:
        text: A reply as generated.
    """
    if "<" not in text:
        return text
    rest = _THINKING.sub("", text)
    return _THINKING_END.split(rest)[-1]


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, such as ``1 row`` and ``2,000 rows``.

    Args:
        number: 0 or more.
        noun: For one.
        plural: For any other number; the noun with an s by default.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def printable(text: str) -> str:
    """Text from outside on one line, as a terminal may be given it: what could move the cursor, recolour, ring, reorder or hide becomes ``�``.

    Spaces of any width stay, and so do the two joiners of scripts and of emoji sequences; line breaks and tabs do not.

    Args:
        text: Any text.
    """
    return printable_lines(text, kept="").replace("\n", _REPLACEMENT)


def printable_lines(text: str, kept: str = "\t") -> str:
    """Text from outside as a terminal or a page may be given it: as ``printable``, with line breaks.

    Doing it twice changes nothing, and a text that is cut anywhere gives the same in pieces.

    Args:
        text: Any text.
        kept: Control characters that stay, besides the line feed.
    """
    return _SUSPECT.sub(lambda found: found[0] if found[0] in kept or _harmless(found[0]) else _REPLACEMENT, text)


def printable_json(text: str) -> str:
    """JSON from outside as a terminal or a CI log may be given it: what ``printable`` replaces becomes an escape, so that it is the same JSON.

    Args:
        text: JSON, its control characters below space escaped already, as ``json.dumps`` does; line breaks stay.
    """
    escaped = _SUSPECT.sub(lambda found: found[0] if _harmless(found[0]) else json.dumps(found[0])[1:-1], text)
    return escaped.replace("##[", "#\\u0023[")  # begins a command of GitHub's anywhere in a line, and stands only in strings


def _harmless(character: str) -> bool:
    """Whether a terminal shows a character and does nothing else."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"
