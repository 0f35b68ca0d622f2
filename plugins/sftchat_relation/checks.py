"""Row check of the relation task.

The gold of every row is checked for its format, and its names against the passage. A sentence in a pattern of the published recipe states a
relation explicitly; the gold is checked against it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sftchat.types import Example
from sftchat_relation.article import FORMS
from sftchat_relation.language import language_of
from sftchat_relation.vocabulary import VOCABULARY

_LOVERS = frozenset({"夫妻", "恋人"})
_BROTHERLY = frozenset({"兄弟", "姐妹", "同门", "好友", "战友"})

# Labels that agree with a pattern, by its number; a pattern without an entry agrees with every label.
_AGREEING_LABELS = {3: _LOVERS, 5: frozenset({"师徒"}), 6: _BROTHERLY, 7: _LOVERS}


def _compile_pattern(form: str) -> re.Pattern[str]:
    """Return the regular expression of a sentence pattern; commas may be full-width."""
    escaped = re.escape(form).replace(",", "[,，]")
    for slot in "abr":
        escaped = escaped.replace(rf"\{{{slot}\}}", rf"(?P<{slot}>[^\s,，。!！?？]+?)")
    return re.compile(escaped)


PATTERNS = tuple(_compile_pattern(form) for form in FORMS)
"""The eight sentence patterns of the recipe, as regular expressions with the groups a and b (people) and, except in the fifth, r (label)."""


@dataclass(frozen=True)
class Statement:
    """A sentence in a pattern of the recipe.

    Attributes:
        number: Number of the pattern, from 1.
        a: First person.
        b: Second person.
        label: Relation as written; None for the fifth pattern, which has none.
    """

    number: int
    a: str
    b: str
    label: str | None


def find_statements(text: str) -> Iterator[Statement]:
    """Yield the sentences of a text that match a pattern of the recipe."""
    _, _, passage = text.partition(":")  # the instruction ends with a colon
    for sentence in re.findall(r"[^。]+。", passage or text):
        for number, pattern in enumerate(PATTERNS, 1):
            match = pattern.fullmatch(sentence.strip())
            if match:
                yield Statement(number, match["a"], match["b"], match.groupdict().get("r"))
                break


def validate_row(example: Example) -> tuple[str, ...]:
    """Return the problems of a row, each a short lower-case phrase, in the order of the gold.

    Reports a malformed gold line, an unknown relation, a name that is not in the text, a pair with itself, a duplicate pair, and a relation that
    contradicts a sentence in a pattern of the recipe.
    """
    if example.gold is None:
        return ("no gold",)
    text = "".join(message["content"] for message in example.messages if message["role"] == "user")
    language = language_of(f"{text}\n{example.gold}")
    if example.gold.strip() == language.nothing:
        return ()
    statements_by_pair = {frozenset((statement.a, statement.b)): statement for statement in find_statements(text)}
    problems: list[str] = []
    checked_pairs: set[frozenset[str]] = set()
    for line in example.gold.splitlines():
        match = language.gold_line.fullmatch(line.strip())
        if not match:
            problems.append(f"malformed gold line {line!r}")
            continue
        head, tail, label = match.groups()
        pair = frozenset((head, tail))
        problems += [f"name not in the text: {name}" for name in (head, tail) if name not in text]
        if head == tail:
            problems.append(f"{head} is paired with itself")
        elif pair in checked_pairs:
            problems.append(f"duplicate pair {head}-{tail}")
        checked_pairs.add(pair)
        if language.vocabulary.canonical(label) is None:
            problems.append(f"unknown relation {label}")
        elif pair in statements_by_pair:
            problems += _compare_with_statement(head, label, statements_by_pair[pair])
    return tuple(problems)


def _compare_with_statement(head: str, label: str, statement: Statement) -> Iterator[str]:
    """Yield the contradiction of a gold label and the sentence about its pair, if there is one."""
    gold_label, gold_is_inverted = _to_canonical(label, is_inverted=head != statement.a)
    if statement.label and VOCABULARY.canonical(statement.label):
        text_label, text_is_inverted = _to_canonical(statement.label, is_inverted=False)
        is_same = (gold_label, gold_is_inverted) == (text_label, text_is_inverted)
        if not is_same and gold_label not in VOCABULARY.broader.get(text_label, ()):
            yield f"the text says {statement.label}, the gold {label}: {statement.a}, {statement.b}"
            return
    agreeing_labels = _AGREEING_LABELS.get(statement.number)
    if agreeing_labels is not None and (gold_label not in agreeing_labels or gold_is_inverted):
        yield f"{label} contradicts its sentence (pattern {statement.number}): {statement.a}, {statement.b}"


def _to_canonical(label: str, *, is_inverted: bool) -> tuple[str, bool]:
    """Return the canonical label of a relation, and whether its head is the second person of the sentence.

    ``is_inverted`` is whether the second person is the head under ``label``; False is returned for labels without a direction.
    """
    canonical, swaps_people = VOCABULARY.canonical(label) or ("", False)
    return canonical, canonical not in VOCABULARY.symmetric and swaps_people != is_inverted
