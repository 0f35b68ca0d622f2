"""Row check of the relation task.

Every row is held to the shape of the gold and to its own passage. Rows in the sentence patterns of the published recipe can
also be held to what their sentences say, because there the relation is stated in so many words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sftchat.types import Example
from sftchat_relation.article import FORMS
from sftchat_relation.novel import NOTHING
from sftchat_relation.vocabulary import VOCABULARY

_LINE = re.compile(r"([^-:：]+)-([^-:：]+)[:：]([^-:：]+)")
_LOVERS = frozenset({"夫妻", "恋人"})
_BROTHERLY = frozenset({"兄弟", "姐妹", "同门", "好友", "战友"})

# Labels that a pattern implies, by number, in addition to the label in its slot; others contradict it.
_SAYS = {3: _LOVERS, 5: frozenset({"师徒"}), 6: _BROTHERLY, 7: _LOVERS}


def _pattern(form: str) -> re.Pattern[str]:
    """Return the regular expression of a sentence pattern; commas may be full-width."""
    escaped = re.escape(form).replace(",", "[,，]")
    for slot in "abr":
        escaped = escaped.replace(rf"\{{{slot}\}}", rf"(?P<{slot}>[^\s,，。!！?？]+?)")
    return re.compile(escaped)


PATTERNS = tuple(_pattern(form) for form in FORMS)
"""The eight sentence patterns of the recipe, as regular expressions with the groups a, b and, except in the fifth, r."""


@dataclass(frozen=True)
class Statement:
    """A sentence in a pattern of the recipe: number of the pattern, from 1, the two people, and the label, if any."""

    number: int
    a: str
    b: str
    label: str | None


def statements(text: str) -> Iterator[Statement]:
    """Yield the sentences of a text that match a pattern of the recipe."""
    for sentence in re.findall(r"[^。]+。", text.partition(":")[2] or text):
        for number, pattern in enumerate(PATTERNS, 1):
            match = pattern.fullmatch(sentence.strip())
            if match:
                yield Statement(number, match["a"], match["b"], match.groupdict().get("r"))
                break


def validate_row(example: Example) -> tuple[str, ...]:
    """Return the problems of a row, each a short lower-case phrase, in the order of the gold.

    Reports a malformed gold line, an unknown relation, a name that is not in the text, a pair with itself, a duplicate pair, and,
    if a sentence in a pattern of the recipe is about the pair, a relation that contradicts the sentence.
    """
    if example.gold is None:
        return ("no gold",)
    if example.gold.strip() == NOTHING:
        return ()
    text = "".join(message["content"] for message in example.messages if message["role"] == "user")
    statements_by_pair = {frozenset((statement.a, statement.b)): statement for statement in statements(text)}
    problems: list[str] = []
    checked_pairs: set[frozenset[str]] = set()
    for line in example.gold.splitlines():
        match = _LINE.fullmatch(line.strip())
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
        if VOCABULARY.canonical(label) is None:
            problems.append(f"unknown relation {label}")
        elif pair in statements_by_pair:
            problems += _against(statements_by_pair[pair], head, label)
    return tuple(problems)


def _against(statement: Statement, head: str, label: str) -> Iterator[str]:
    """Compare a gold label with the sentence about its pair; sentences without a known label are ignored."""
    gold = _oriented(label, head != statement.a)
    named = _oriented(statement.label, False) if statement.label and VOCABULARY.canonical(statement.label) else None
    implied = _SAYS.get(statement.number)
    if named is not None and gold != named and gold[0] not in VOCABULARY.broader.get(named[0], ()):
        yield f"the text says {statement.label}, the gold {label}: {statement.a}, {statement.b}"
    elif implied is not None and (gold[0] not in implied or gold[1]):
        yield f"{label} contradicts its sentence (pattern {statement.number}): {statement.a}, {statement.b}"


def _oriented(label: str, swapped: bool) -> tuple[str, bool]:
    """Return the canonical label between the two people of a sentence, and whether the second is its head."""
    canonical, inverted = VOCABULARY.canonical(label) or ("", False)
    return canonical, canonical not in VOCABULARY.symmetric and inverted != swapped
