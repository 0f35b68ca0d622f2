"""Parser of replies into triples: strictly by the format, and leniently.

The parser reads the reply, the passage (to distinguish ``让-保罗`` from two people) and the language, but not the gold, so that the result does
not depend on the right answer. Scores of both results distinguish format errors from wrong relations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from sftchat.text import fold_width, normalise, strip_thinking
from sftchat_relation.language import Language
from sftchat_relation.lines import (
    BULLET,
    COLON,
    MAX_LINE_LENGTH,
    PUNCTUATION,
    SEPARATOR,
    Triple,
    choose_cut,
    exact_triple,
    is_label,
    is_name,
    is_none,
    split_statements,
    without_heading,
)
from sftchat_relation.structured import Row, parse_bracket_rows, parse_json_rows

__all__ = ["ParsedReply", "Triple", "parse_reply"]


@dataclass(frozen=True)
class ParsedReply:
    """A parsed reply.

    Attributes:
        strict: Literal triples; empty unless every line of the reply is exactly of the form ``甲-乙:关系`` or ``A - B: relation``.
        lenient: Normalised triples with canonical labels and direction; duplicates and unknown labels are kept.
        issues: Each at most once: ``format_drift`` (read, but not in the exact format), ``extra_text``, ``unknown_relation``,
            ``ambiguous_split``; for an unreadable reply one of ``empty``, ``refusal``, ``unparsable``.
        parsable: Whether the reply has a triple or states that there is none.
        well_formed: Whether the reply is exactly in the format, or exactly ``无`` or ``none``.
    """

    strict: tuple[Triple, ...]
    lenient: tuple[Triple, ...]
    issues: tuple[str, ...]
    parsable: bool
    well_formed: bool


_FENCE = re.compile(r"\s*(?:```|~~~)\s*\w*\s*")
_ECHO = re.compile(r"(?:<\|im_start\|>)?\s*(?:assistant|助手|模型|答案?|输出|回答)\s*(?:[:：]|\n)\s*", re.IGNORECASE)
"""A role or heading before the answer, such as ``助手：``."""
_REMARK = re.compile(r"\([^()]*\)$")
_QUOTES = " \t'\"“”‘’「」『』《》*_`"
_JSON_START = re.compile(r"[ \t]*([\[{])")
_REFUSAL = re.compile(r"抱歉|对不起|很遗憾|无法|不能|不便|语言模型|人工智能|\b(?:sorry|cannot|can't|unable|as an ai)\b", re.IGNORECASE)

_JSON_ATTEMPTS = 4  # each may scan the rest of the reply before it fails; without a bound, a reply of "[" lines takes quadratic time


def parse_reply(reply: str, source: str, language: Language) -> ParsedReply:
    """Parse a reply strictly and leniently; never raises, and takes about linear time.

    Args:
        reply: The reply as generated; thoughts are removed first.
        source: The passage; names in it decide where an ambiguous line is cut.
        language: The language of the passage, with its labels.
    """
    text = strip_thinking(reply).strip()
    if not text:
        return ParsedReply((), (), ("empty",), parsable=False, well_formed=False)
    lines = text.split("\n")
    exact_triples = [exact_triple(line, source, language) for line in lines]
    strict = tuple(triple for triple in exact_triples if triple is not None and language.vocabulary.canonical(triple.relation) is not None)
    well_formed = text == language.nothing or len(strict) == len(lines)
    reader = _LenientReader(source, language)
    reader.read(text)
    if not reader.triples and not reader.states_nothing:
        issues = ["ambiguous_split"] if "ambiguous_split" in reader.issues else []
        issues.append("refusal" if _REFUSAL.search(text[:400]) else "unparsable")
        return ParsedReply((), (), tuple(issues), parsable=False, well_formed=False)
    if reader.triples and reader.states_nothing:
        reader.issues["extra_text"] = None
    return ParsedReply(
        strict=strict if well_formed else (),
        lenient=tuple(reader.triples),
        issues=tuple(reader.issues),
        parsable=True,
        well_formed=well_formed,
    )


class _LenientReader:
    """Lenient parser of one reply.

    Attributes:
        triples: Normalised triples of the reply.
        issues: Issues of the reply, as the keys of an ordered set.
        states_nothing: Whether the reply states that there is no relation.
    """

    def __init__(self, source: str, language: Language) -> None:
        self.raw_source = source
        self.language = language
        self.vocabulary = language.vocabulary
        self.triples: list[Triple] = []
        self.issues: dict[str, None] = {}
        self.states_nothing = False

    @cached_property
    def source(self) -> str:
        """The normalised source; computed lazily, because lines in the exact format do not need it."""
        return normalise(self.raw_source)

    def read(self, text: str) -> None:
        """Parse a reply: JSON values that start a line, and all other lines."""
        echo = _ECHO.match(text)
        position = echo.end() if echo else 0
        if echo:
            self.issues["format_drift"] = None
        attempts = _JSON_ATTEMPTS
        while position < len(text):
            opening = _JSON_START.match(text, position)
            if opening and attempts:
                json_rows = parse_json_rows(text, opening.start(1), self._is_known_label)
                if json_rows:
                    rows, position = json_rows
                    self.issues["format_drift"] = None
                    self.states_nothing = self.states_nothing or not rows
                    self._read_rows(rows)
                    continue
                attempts -= 1
            line_end = text.find("\n", position)
            if line_end < 0:
                line_end = len(text)
            self._read_line(text[position:line_end])
            position = line_end + 1

    def _read_line(self, line: str) -> None:
        """Parse one line: ``无``, a triple in the exact format, or anything else leniently."""
        triple = exact_triple(line, self.raw_source, self.language)
        if line == self.language.nothing:
            self.states_nothing = True
        elif triple and self._is_usable_as_written(triple.relation):
            self._add_triple(normalise(triple.head), normalise(triple.tail), triple.relation)
        else:
            self._read_loose_line(line)

    def _read_loose_line(self, line: str) -> None:
        state_before = len(self.triples), self.states_nothing
        without_markdown = line.replace("**", "").replace("`", "")
        if not without_markdown.strip() or _FENCE.fullmatch(line[:MAX_LINE_LENGTH]):
            self.issues["format_drift"] = None
            return
        for part in fold_width(without_markdown).split(";"):
            self._read_part(_without_bullet(part))
        if state_before != (len(self.triples), self.states_nothing):
            self.issues["format_drift"] = None

    def _read_part(self, part: str) -> None:
        """Parse a line without semicolons: first its groups in brackets, if it begins with one, then the other text as statements."""
        if part.lstrip()[:1] in {"(", "[", "{", "<"}:
            rows, outside = parse_bracket_rows(part, self._is_known_label)
            if rows:
                self._read_rows(rows)
                part = outside
        for statement in split_statements(part, self.language):
            self._read_statement(statement)

    def _read_rows(self, rows: list[Row | str]) -> None:
        for row in rows:
            if isinstance(row, str):
                self._read_loose_line(row)
                continue
            head, tail, relation = (normalise(part) for part in row)
            if not (is_name(head, self.source) and is_name(tail, self.source) and self._add_triple(head, tail, relation)):
                self.issues["extra_text"] = None

    def _read_statement(self, statement: str) -> None:
        """Parse a triple, ``无``, or extra text."""
        if not statement.strip(PUNCTUATION):
            return
        if len(statement) > MAX_LINE_LENGTH:
            self.issues["extra_text"] = None
            return
        text = _without_bullet(normalise(statement)).rstrip(PUNCTUATION)
        pair, label = "", text
        for colon in COLON.finditer(text):  # the last colon counts
            pair, label = text[: colon.start()], text[colon.end() :]
        if is_none(label, self.language):
            self.states_nothing = True
        elif not self._add_pair(without_heading(pair), label.strip(PUNCTUATION)):
            self.issues["extra_text"] = None

    def _add_pair(self, pair: str, label: str) -> bool:
        """Add the triple of a pair, cut at a separator, or at a conjunction if the label is known; False if it cannot be cut or the label is prose."""
        cuts = self._find_cuts(SEPARATOR, pair)
        if not cuts and self._is_known_label(self.language.label_end.split(label)[0]):
            cuts = self._find_cuts(self.language.conjunction, pair)
        if not cuts:
            return False
        names = choose_cut(cuts, self.source)
        if names is None:  # several cuts are possible: an issue of its own, not extra text
            self.issues["ambiguous_split"] = None
            return True
        return self._add_triple(*names, label)

    def _find_cuts(self, separator: re.Pattern[str], pair: str) -> list[tuple[str, str]]:
        """Return all cuts of a pair at a separator into two possible names."""
        cuts = [(self._clean_name(pair[: match.start()]), self._clean_name(pair[match.end() :])) for match in separator.finditer(pair)]
        return [(head, tail) for head, tail in cuts if is_name(head, self.source) and is_name(tail, self.source)]

    def _clean_name(self, text: str) -> str:
        """Remove quotes, and a remark in brackets unless it is part of the name in the passage."""
        name = text.strip(_QUOTES)
        return name if name in self.source else _REMARK.sub("", name).strip(_QUOTES)

    def _is_known_label(self, label: str) -> bool:
        return self.vocabulary.canonical(self.language.fold_label(normalise(label)).removesuffix(self.language.relation_word)) is not None

    def _is_usable_as_written(self, label: str) -> bool:
        """Return whether a label is known as written, or cannot be converted to a known one."""
        return self.vocabulary.canonical(label) is not None or (
            self._find_known_label(self.language.fold_label(label)) is None and not is_none(label, self.language)
        )

    def _find_known_label(self, label: str) -> str | None:
        """Return the known label in a text, ignoring a final 关系 and a remark after it; None without one."""
        relation_word = self.language.relation_word
        first_part = self.language.label_end.split(label)[0]
        candidates = (label, label.removesuffix(relation_word), first_part, first_part.removesuffix(relation_word))
        return next((candidate for candidate in candidates if self.vocabulary.canonical(candidate) is not None), None)

    def _add_triple(self, head: str, tail: str, label: str) -> bool:
        """Add a triple with a known or unknown label; False when the label is prose."""
        label = self.language.fold_label(label)
        known_label = self._find_known_label(label)
        if known_label is not None:
            if label.removeprefix(known_label).removeprefix(self.language.relation_word)[:1] not in {"", "("}:
                self.issues["extra_text"] = None  # 夫妻，他们很恩爱: the label counts, the remark is extra text
            relation, inverted = self.vocabulary.canonical(known_label) or (known_label, False)
            self.triples.append(Triple(tail, head, relation) if inverted else Triple(head, tail, relation))
        elif is_none(label, self.language):
            self.states_nothing = True
        elif is_label(label, self.language):
            self.issues["unknown_relation"] = None
            self.triples.append(Triple(head, tail, label))
        else:
            return False
        return True


def _without_bullet(text: str) -> str:
    bullet = BULLET.match(text)
    return text[bullet.end() :] if bullet else text
