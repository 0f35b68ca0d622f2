"""What is wrong with a relation row, as far as its own text can tell.

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

# What a pattern says beside the label in its slot, by number; it contradicts every other label.
_SAYS = {3: _LOVERS, 5: frozenset({"师徒"}), 6: _BROTHERLY, 7: _LOVERS}


def _pattern(form: str) -> re.Pattern[str]:
    """The regular expression that reads a sentence pattern back; commas may be full-width."""
    escaped = re.escape(form).replace(",", "[,，]")
    for slot in "abr":
        escaped = escaped.replace(rf"\{{{slot}\}}", rf"(?P<{slot}>[^\s,，。!！?？]+?)")
    return re.compile(escaped)


PATTERNS = tuple(_pattern(form) for form in FORMS)
"""The eight sentence patterns of the recipe, as regular expressions with the groups a, b and, except in the fifth, r."""


@dataclass(frozen=True)
class Statement:
    """One sentence in a pattern of the recipe: its number from 1, whom it is about, and the label it names, if it names one."""

    number: int
    a: str
    b: str
    label: str | None


def statements(text: str) -> Iterator[Statement]:
    """Read the sentences of a text that are in a pattern of the recipe, skipping all others."""
    for sentence in re.findall(r"[^。]+。", text.partition(":")[2] or text):
        for number, pattern in enumerate(PATTERNS, 1):
            match = pattern.fullmatch(sentence.strip())
            if match:
                yield Statement(number, match["a"], match["b"], match.groupdict().get("r"))
                break


def validate_row(example: Example) -> tuple[str, ...]:
    """Say what is wrong with a row, one short lower-case phrase a fault, in the order of the gold; empty when nothing is.

    Reports a malformed gold line, an unknown relation, a name that the text lacks, a pair with itself, a pair listed twice, and,
    where a sentence in a pattern of the recipe is about the pair, a relation that the sentence does not name or contradicts.
    """
    if example.gold is None:
        return ("no gold",)
    if example.gold.strip() == NOTHING:
        return ()
    text = "".join(message["content"] for message in example.messages if message["role"] == "user")
    about = {frozenset((statement.a, statement.b)): statement for statement in statements(text)}
    found: list[str] = []
    seen: set[frozenset[str]] = set()
    for line in example.gold.splitlines():
        match = _LINE.fullmatch(line.strip())
        if not match:
            found.append(f"malformed gold line {line!r}")
            continue
        head, tail, label = match.groups()
        pair = frozenset((head, tail))
        found += [f"name not in the text: {name}" for name in (head, tail) if name not in text]
        if head == tail:
            found.append(f"{head} is paired with itself")
        elif pair in seen:
            found.append(f"duplicate pair {head}-{tail}")
        seen.add(pair)
        if VOCABULARY.canonical(label) is None:
            found.append(f"unknown relation {label}")
        elif pair in about:
            found += _against(about[pair], head, label)
    return tuple(found)


def _against(statement: Statement, head: str, label: str) -> Iterator[str]:
    """Hold a gold label to the sentence about its pair; a sentence that names no label of the vocabulary is prose, and proves nothing."""
    gold = _oriented(label, head != statement.a)
    named = _oriented(statement.label, False) if statement.label and VOCABULARY.canonical(statement.label) else None
    said = _SAYS.get(statement.number)
    if named is not None and gold != named and gold[0] not in VOCABULARY.broader.get(named[0], ()):
        yield f"the text says {statement.label}, the gold {label}: {statement.a}, {statement.b}"
    elif said is not None and (gold[0] not in said or gold[1]):
        yield f"{label} contradicts its sentence (pattern {statement.number}): {statement.a}, {statement.b}"


def _oriented(label: str, swapped: bool) -> tuple[str, bool]:
    """The canonical label between the two people of a sentence, and whether the second of them is its head."""
    canonical, inverted = VOCABULARY.canonical(label) or ("", False)
    return canonical, canonical not in VOCABULARY.symmetric and inverted != swapped
