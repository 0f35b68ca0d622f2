"""The line grammar ``甲-乙:关系``: what a separator, a name, a bullet and a ``无`` are, and where a line may be cut."""

from __future__ import annotations

import re
from typing import NamedTuple

from sftchat.text import COLONS, DASHES, normalise

NOTHING = "无"
"""The whole of a reply that finds no relation."""

MAX_NAME_LENGTH, MAX_LABEL_LENGTH, MAX_LINE_LENGTH = 40, 12, 200
"""Beyond these a stretch of text is prose; they also bound the work that one line can cause."""

PUNCTUATION = " \t\r\n.,;:!?。、…'\"“”‘’「」『』《》*_`|()[]{}"
"""What may surround a label or a ``无`` without changing it."""

_DASH, _COLON = re.escape(DASHES), re.escape(COLONS)
COLON = re.compile(f"[{_COLON}]")
"""A colon of any kind; the last one of a line stands before the relation."""

SEPARATOR = re.compile(f"<?[{_DASH}=~]+>?|[→←↔⇒⇔⟶➔➡]")
"""A dash or an arrow of any kind; a run of them (``——``, ``->``) is one separator."""

CONJUNCTION = re.compile("[和与跟&、/]")
"""What stands between two names in ordinary language."""

BULLET = re.compile(rf"\s*(?:[*+{_DASH}]\s+|[•·●▪◦‣]\s*|\(\d{{1,3}}\)[.、:]?\s*|\[\d{{1,3}}\][.、:]?\s*|\d{{1,3}}[.)、．:]\s*|[①-⑳]\s*)")
"""Bullets and numbering; a dash or an asterisk is one only with a space behind it."""

_HAN = "[\u4e00-\u9fff]"
_PLAIN = re.compile(rf"({_HAN}{{1,{MAX_NAME_LENGTH}}})-({_HAN}{{1,{MAX_NAME_LENGTH}}}):({_HAN}{{1,{MAX_LABEL_LENGTH}}})")
"""What nearly every line is: Chinese characters, which are in normal form and nobody's bullet or separator. Only faster than the general way."""

_EXACT = re.compile(r"[^\s:](?:.*[^\s])?:[^\s:]+")
_PROSE = re.compile(r"[:：,，;；。、\n]")
_MARK = re.compile(r"[()（）\[\]{}<>*!！?？|\"“”`]")
_NONE = re.compile(
    r"无|没有|暂无|(?:[\u4e00-\u9fff]{0,8}[中里])?(?:无|没有|暂无|并无|不存在|未发现)(?:任何|明确的?|明显的?|直接的?)*(?:人物)?(?:之间的?)?关系"
    r"|none|null|nil|n/a|no relations?(?: found)?",
    re.IGNORECASE,
)
_RELATION_WORDS = frozenset(("关系", "人物关系", "relation"))


class Triple(NamedTuple):
    """One relation between two people; the order of head and tail means something where the relation is directed."""

    head: str
    tail: str
    relation: str

    def __str__(self) -> str:
        """The triple as a line of gold."""
        return f"{self.head}-{self.tail}:{self.relation}"


def exact_triple(line: str, source: str) -> Triple | None:
    """The triple of a line that has exactly the shape ``甲-乙:关系``, as written, whatever its label; None for any other line.

    Args:
        line: One line without its end.
        source: Decides where a line with several hyphens is cut.
    """
    if match := _PLAIN.fullmatch(line):
        return Triple(*match.groups())
    if len(line) > MAX_LINE_LENGTH or not _EXACT.fullmatch(line) or BULLET.match(line):
        return None
    pair, _, label = line.rpartition(":")
    cuts = [(pair[: hyphen.start()], pair[hyphen.end() :]) for hyphen in re.finditer("-", pair)]
    names = choose_cut([(head, tail) for head, tail in cuts if _exact_name(head, source) and _exact_name(tail, source)], source)
    return Triple(*names, label) if names and is_label(label) else None


def is_name(text: str, source: str) -> bool:
    """Whether a text can be a name: not empty, not long, no punctuation but what the source has inside it.

    Args:
        text: What stands on one side of a separator.
        source: Names such as 苏（松本）米子 must stand in it as they are; elsewhere a bracket or an asterisk is a remark or Markdown.
    """
    if not 0 < len(text) <= MAX_NAME_LENGTH or _PROSE.search(text):
        return False
    return not _MARK.search(text) or text in source


def is_label(text: str) -> bool:
    """Whether a text can be a label, be it one that the vocabulary does not have."""
    return 0 < len(text) <= MAX_LABEL_LENGTH and not _PROSE.search(text) and not _MARK.search(text)


def is_none(text: str) -> bool:
    """Whether a text says, in any of the usual ways, that there is no relation."""
    return len(text) <= MAX_NAME_LENGTH and _NONE.fullmatch(text.strip(PUNCTUATION)) is not None


def choose_cut(cuts: list[tuple[str, str]], source: str) -> tuple[str, str] | None:
    """The one cut whose parts both stand in the source, else the only one there is, else None."""
    if len(cuts) > 1:
        cuts = [cut for cut in cuts if cut[0] in source and cut[1] in source]
    return cuts[0] if len(cuts) == 1 else None


def split_statements(statement: str) -> list[str]:
    """Cut at ``,`` and ``、`` where the next piece again holds a separator and a colon, and at spaces where both sides do."""
    statements: list[str] = []
    for piece in _rejoin(re.split(r"([,、])", statement), both=False):
        statements.extend(_rejoin(re.split(r"(\s+)", piece), both=True))
    return statements


def without_heading(pair: str) -> str:
    """Drop a label before the pair (结果:甲-乙) or the word 关系 after it (甲-乙:关系); what still holds a colon is no pair."""
    pieces = COLON.split(pair)
    if len(pieces) == 2 and pieces[1].strip() in _RELATION_WORDS:
        return pieces[0]
    return pair if any(SEPARATOR.search(piece) for piece in pieces[:-1]) else pieces[-1]


def _exact_name(name: str, source: str) -> bool:
    """A name that stands in the source as it is, or that is in normal form without anything that could be a separator."""
    if not is_name(name, source) or any(c.isspace() or c in DASHES for c in name[:1] + name[-1:]):
        return False
    return name in source or (normalise(name) == name and not SEPARATOR.search(name))


def _rejoin(pieces: list[str], *, both: bool) -> list[str]:
    """Join pieces, which alternate with their delimiters, back together wherever the delimiter divides no two statements."""
    joined = [[pieces[0]]]
    seen_statement = _is_statement(pieces[0])
    for delimiter, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        is_statement = _is_statement(piece)
        if is_statement and (seen_statement or not both):
            joined.append([piece])
        else:
            joined[-1] += (delimiter, piece)
        seen_statement = is_statement or seen_statement
    return ["".join(parts) for parts in joined]


def _is_statement(piece: str) -> bool:
    """Whether a piece holds a separator and, after it, a colon."""
    separator = SEPARATOR.search(piece) or CONJUNCTION.search(piece)
    return separator is not None and COLON.search(piece, separator.end()) is not None
