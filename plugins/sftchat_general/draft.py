"""Building blocks of all kinds of rows: choice of words and phrasings, and the draft of a row.

In a phrasing ``[x|y]`` is a choice, and may be empty on one side; ``{slot}`` is filled in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any, TypeVar

from sftchat_general import words
from sftchat_general.phrasings_en import PHRASINGS as _EN
from sftchat_general.phrasings_zh import PHRASINGS as _ZH

T = TypeVar("T")

LANGUAGES = ("zh", "en")
SPLITS = ("train", "test")
"""Splits of words, numbers and phrasings."""

PHRASINGS: Mapping[str, Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {"zh": _ZH, "en": _EN}
"""Phrasings by language and form: for training, and held out."""

HELD_OUT = 4
"""About one word, or set of numbers, in this many is held out for testing."""

SALT = "general-2597:"
"""Chosen so that both splits have enough words of every table."""

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Persona:
    """Name and maker of the assistant, by language."""

    name: Mapping[str, str]
    maker: Mapping[str, str]


@dataclass(frozen=True)
class Draft:
    """One row before it has an id.

    Attributes:
        turns: Turns of user and assistant, alternating; the first and the last are the user's.
        gold: The gold reply.
        form: Name of the phrasing of the question.
        constraints: Constraints on the reply, see ``sftchat_general.constraints``.
        facts: Values from which the gold can be computed again.
    """

    turns: tuple[str, ...]
    gold: str
    form: str
    constraints: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Phrase:
    """A phrasing with every choice made and every slot filled, and the id of the phrasing."""

    text: str
    form: str


@dataclass(frozen=True)
class World:
    """Random choices for one row.

    Attributes:
        rng: Source of all choices.
        language: ``zh`` or ``en``.
        split: Split of words and numbers: ``train`` or ``test``.
        phrasings: Split of phrasings.
        largest: Largest number in arithmetic.
        persona: Persona of the assistant.
    """

    rng: Random
    language: str
    split: str
    phrasings: str
    largest: int
    persona: Persona

    def pick(self, values: Sequence[T]) -> T:
        """Draw one of the values of this split."""
        return self.rng.choice(share(values, self.split))

    def some(self, values: Sequence[T], count: int) -> list[T]:
        """Draw several different values of this split, in random order."""
        return self.rng.sample(share(values, self.split), count)

    def say(self, form: str, **slots: object) -> Phrase:
        """Draw a phrasing of a form and fill its slots."""
        phrasings = PHRASINGS[self.language][form][SPLITS.index(self.phrasings)]
        number = self.rng.randrange(len(phrasings))
        text = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), phrasings[number])
        return Phrase(fill(text, slots), f"{form}:{self.language}:{self.phrasings}:{number}")

    def ask_number(self, question: Phrase, value: int, facts: Mapping[str, Any]) -> Draft:
        """Create a question whose answer is a number, sometimes with the request to answer with nothing else."""
        constraint: dict[str, Any] = {"check": "number", "value": value}
        text = question.text
        if self.rng.random() < 0.4:
            text += ("" if self.language == "zh" else " ") + self.say("only_number").text
            constraint["only"] = True
        return Draft((text,), str(value), question.form, (constraint,), facts)

    def until_of_split(self, draw: Callable[[], T]) -> T:
        """Draw until the value belongs to this split."""
        while True:
            value = draw()
            if held_out(value) == (self.split == "test"):
                return value

    def nouns(self) -> list[str]:
        """Return the words of all categories in this split."""
        return [word for group in words.CATEGORIES[self.language].values() for word in share(group, self.split)]

    def listed(self, items: Sequence[object]) -> str:
        """Join items to a list in one line."""
        return ("、" if self.language == "zh" else ", ").join(map(str, items))

    def sentence(self) -> tuple[str, dict[str, str]]:
        """Create a sentence; also return its words for the person and the thing."""
        thing, measure = self.pick(words.THINGS[self.language])
        slots = {
            "name": self.pick(words.NAMES[self.language]),
            "thing": thing,
            "measure": measure,
            "verb": self.rng.choice(words.VERBS[self.language]),
            "place": self.rng.choice(words.PLACES[self.language]),
            "adjective": self.rng.choice(words.ADJECTIVES),
        }
        return fill(self.rng.choice(words.SENTENCES[self.language]), slots), {"name": slots["name"], "thing": thing}


def share(values: Sequence[T], split: str) -> list[T]:
    """Return the values of a table in one split; tuples are assigned by their first element."""
    return [value for value in values if held_out(value[0] if isinstance(value, tuple) else value) == (split == "test")]


def held_out(value: object) -> bool:
    """Return whether a word or a set of numbers belongs to the test split, by its hash."""
    return sha256(f"{SALT}{value}".encode()).digest()[0] % HELD_OUT == 0


def fill(text: str, slots: Mapping[str, object]) -> str:
    """Fill the slots of a text."""
    return _SLOT.sub(lambda match: str(slots[match[1]]), text)
