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
    """What one row may be made of.

    Attributes:
        rng: Makes every choice of the row.
        language: ``zh`` or ``en``.
        split: Whose words and numbers: ``train`` or ``test``.
        phrasings: Whose phrasings.
        largest: The largest number in arithmetic.
        persona: Who answers.
    """

    rng: Random
    language: str
    split: str
    phrasings: str
    largest: int
    persona: Persona

    def pick(self, values: Sequence[T]) -> T:
        """One of the values that this split may use."""
        return self.rng.choice(share(values, self.split))

    def some(self, values: Sequence[T], count: int) -> list[T]:
        """Several different ones, in random order."""
        return self.rng.sample(share(values, self.split), count)

    def say(self, form: str, **slots: object) -> Phrase:
        """Phrase something in this language."""
        phrasings = PHRASINGS[self.language][form][SPLITS.index(self.phrasings)]
        number = self.rng.randrange(len(phrasings))
        text = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), phrasings[number])
        return Phrase(fill(text, slots), f"{form}:{self.language}:{self.phrasings}:{number}")

    def ask_number(self, question: Phrase, value: int, facts: Mapping[str, Any]) -> Draft:
        """A question whose answer is a number, now and then with the demand for nothing else."""
        constraint: dict[str, Any] = {"check": "number", "value": value}
        text = question.text
        if self.rng.random() < 0.4:
            text += ("" if self.language == "zh" else " ") + self.say("only_number").text
            constraint["only"] = True
        return Draft((text,), str(value), question.form, (constraint,), facts)

    def until_of_split(self, draw: Callable[[], T]) -> T:
        """Draw until the outcome belongs to this split."""
        while True:
            value = draw()
            if held_out(value) == (self.split == "test"):
                return value

    def nouns(self) -> list[str]:
        """The words of all categories that this split may use."""
        return [word for group in words.CATEGORIES[self.language].values() for word in share(group, self.split)]

    def listed(self, items: Sequence[object]) -> str:
        """Items as one writes them in a line."""
        return ("、" if self.language == "zh" else ", ").join(map(str, items))

    def sentence(self) -> tuple[str, dict[str, str]]:
        """A sentence, and the words in it that are names of people or things."""
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
    """The values of a table that one split may use; of a row with several columns, the first decides."""
    return [value for value in values if held_out(value[0] if isinstance(value, tuple) else value) == (split == "test")]


def held_out(value: object) -> bool:
    """Whether a word or a set of numbers belongs to the test split: the same in every table, everywhere and always."""
    return sha256(f"{SALT}{value}".encode()).digest()[0] % HELD_OUT == 0


def fill(text: str, slots: Mapping[str, object]) -> str:
    """Fill the slots of a text; values are taken as they are."""
    return _SLOT.sub(lambda match: str(slots[match[1]]), text)
