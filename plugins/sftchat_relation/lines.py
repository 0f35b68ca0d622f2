"""Grammar of a line ``甲-乙:关系`` or ``A - B: relation``: separators, names, labels, bullets and ``无``; and the splitting of lines."""

from __future__ import annotations

import re
from typing import NamedTuple

from sftchat.text import COLONS, DASHES, normalise
from sftchat_relation.language import CHINESE, Language

MAX_NAME_LENGTH, MAX_LINE_LENGTH = 40, 200
"""Maximum lengths in characters; longer text is prose. They also bound the time per line."""

PUNCTUATION = " \t\r\n.,;:!?。、…'\"“”‘’「」『』《》*_`|()[]{}"
"""Characters ignored around a label or ``无``."""

_DASH, _COLON = re.escape(DASHES), re.escape(COLONS)
COLON = re.compile(f"[{_COLON}]")
"""Any colon; the last one of a line precedes the relation."""

SEPARATOR = re.compile(f"<?[{_DASH}=~]+>?|[→←↔⇒⇔⟶➔➡]")
"""Any dash or arrow; a run of them (``——``, ``->``) is one separator."""

BULLET = re.compile(rf"\s*(?:[*+{_DASH}]\s+|[•·●▪◦‣]\s*|\(\d{{1,3}}\)[.、:]?\s*|\[\d{{1,3}}\][.、:]?\s*|\d{{1,3}}[.)、．:]\s*|[①-⑳]\s*)")
"""Bullets and numbering; a dash or an asterisk only before a space."""

_HAN = "[\u4e00-\u9fff]"
_CHINESE_LINE = re.compile(rf"({_HAN}{{1,{MAX_NAME_LENGTH}}})-({_HAN}{{1,{MAX_NAME_LENGTH}}}):({_HAN}{{1,{CHINESE.max_label_length}}})")
"""Lines of Chinese characters only: the common case, matched faster than by the general rules."""

_PROSE = re.compile(r"[:：,，;；。、\n]")
_REMARK_SIGN = re.compile(r"[()（）\[\]{}<>*!！?？|\"“”`]")
_RELATION_WORDS = frozenset(("关系", "人物关系", "relation", "relationship"))


class Triple(NamedTuple):
    """A relation between two people; the order of head and tail matters for directed relations."""

    head: str
    tail: str
    relation: str


def exact_triple(line: str, source: str, language: Language) -> Triple | None:
    """Parse a line of exactly the form of the language, with any label; None for other lines.

    Args:
        line: One line without its line end.
        source: The passage; decides where a line with several hyphens is cut.
        language: The language of the passage.
    """
    if language is CHINESE and (match := _CHINESE_LINE.fullmatch(line)):
        return Triple(*match.groups())
    if len(line) > MAX_LINE_LENGTH or not language.exact_line.fullmatch(line) or BULLET.match(line):
        return None
    pair, _, label = line.rpartition(language.colon)
    cuts = [(pair[: match.start()], pair[match.end() :]) for match in re.finditer(language.separator, pair)]
    names = choose_cut([(head, tail) for head, tail in cuts if _is_exact_name(head, source) and _is_exact_name(tail, source)], source)
    return Triple(*names, label) if names and is_label(label, language) else None


def is_name(text: str, source: str) -> bool:
    """Return whether a text can be a name: not empty, not long, without punctuation unless it occurs so in the source.

    Args:
        text: Text on one side of a separator.
        source: The passage; names such as 苏（松本）米子 must occur in it, because other brackets or asterisks are remarks or Markdown.
    """
    if not 0 < len(text) <= MAX_NAME_LENGTH or _PROSE.search(text):
        return False
    return not _REMARK_SIGN.search(text) or text in source


def is_label(text: str, language: Language) -> bool:
    """Return whether a text can be a label, known or unknown."""
    return 0 < len(text) <= language.max_label_length and not _PROSE.search(text) and not _REMARK_SIGN.search(text)


def is_none(text: str, language: Language) -> bool:
    """Return whether a text states in a usual way that there is no relation."""
    return len(text) <= MAX_NAME_LENGTH and language.none.fullmatch(text.strip(PUNCTUATION)) is not None


def choose_cut(cuts: list[tuple[str, str]], source: str) -> tuple[str, str] | None:
    """Return the only cut of a pair into head and tail, or the only one whose parts both occur in the source; else None."""
    if len(cuts) > 1:
        cuts = [(head, tail) for head, tail in cuts if head in source and tail in source]
    return cuts[0] if len(cuts) == 1 else None


def split_statements(text: str, language: Language) -> list[str]:
    """Split a text into statements (pair, colon, label): at ``,`` and ``、`` before a statement, and at spaces between two statements."""
    statements: list[str] = []
    for part in _split_before_statements(r"([,、])", text, language, also_before_first=True):
        statements += _split_before_statements(r"(\s+)", part, language, also_before_first=False)
    return statements


def without_heading(pair: str) -> str:
    """Remove a heading before the pair (结果:甲-乙) or the word 关系 after it (甲-乙:关系)."""
    *headings, last_part = COLON.split(pair)
    if len(headings) == 1 and last_part.strip() in _RELATION_WORDS:
        return headings[0]
    return pair if any(SEPARATOR.search(heading) for heading in headings) else last_part


def _is_exact_name(name: str, source: str) -> bool:
    """Return whether a name occurs in the source, or is normalised and without separators."""
    if not is_name(name, source) or any(character.isspace() or character in DASHES for character in (name[0], name[-1])):
        return False
    return name in source or (normalise(name) == name and not SEPARATOR.search(name))


def _split_before_statements(delimiter_pattern: str, text: str, language: Language, *, also_before_first: bool) -> list[str]:
    """Split a text at each delimiter before a statement; text before the first statement is only split off with ``also_before_first``.

    ``delimiter_pattern`` has one group around the delimiter, so that the other delimiters stay in the text.
    """
    first_piece, *others = re.split(delimiter_pattern, text)
    parts = [[first_piece]]
    may_split = also_before_first or _is_statement(first_piece, language)
    for delimiter, piece in zip(others[::2], others[1::2], strict=True):
        is_statement = _is_statement(piece, language)
        if is_statement and may_split:
            parts.append([piece])
        else:
            parts[-1] += (delimiter, piece)
        may_split = may_split or is_statement
    return ["".join(pieces) for pieces in parts]


def _is_statement(text: str, language: Language) -> bool:
    """Return whether a text has a separator of names, and a colon after it."""
    separator = SEPARATOR.search(text) or language.conjunction.search(text)
    return separator is not None and COLON.search(text, separator.end()) is not None
