"""Parts of all kinds of rows: the choice of words and phrasings, and the draft of a row.

In a phrasing, ``[x|y]`` is a choice, one of which may be empty, and ``{slot}`` is replaced by a value.
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
from sftchat_general.words import SPLITS

T = TypeVar("T")

PHRASINGS: Mapping[str, Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {"zh": _ZH, "en": _EN}
"""Phrasings by language and form: for training, and held out."""

TEST_ONE_IN = 4
"""About one in this many words and sets of numbers is held out for testing."""

SALT = "general-2597:"
"""Chosen so that both splits have enough words of every table."""

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Persona:
    """Name and maker of the assistant, by language."""

    name: Mapping[str, str]
    maker: Mapping[str, str]


PERSONA = Persona(
    name={"zh": "sftchat 的小助手", "en": "the sftchat assistant"},
    maker={"zh": "sftchat 团队", "en": "the sftchat team"},
)
"""Default persona of the assistant."""


@dataclass(frozen=True)
class Draft:
    """One row before it has an id.

    Attributes:
        turns: Turns of user and assistant, alternating; the first and the last are the user's.
        gold: The gold reply.
        form: Id of the phrasing of the question.
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
    """A phrasing with its choices made and its slots filled; ``form`` is its id, such as ``who:en:train:3``."""

    text: str
    form: str


@dataclass(frozen=True)
class RowBuilder:
    """Draws words and phrasings for one row.

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
        """Draw one of the values that belong to this split."""
        return self.rng.choice(values_of_split(values, self.split))

    def pick_several(self, values: Sequence[T], count: int) -> list[T]:
        """Draw different values that belong to this split, in random order."""
        return self.rng.sample(values_of_split(values, self.split), count)

    def phrase(self, form: str, **slots: object) -> Phrase:
        """Draw a phrasing of a form and fill its slots."""
        phrasings = PHRASINGS[self.language][form][SPLITS.index(self.phrasings)]
        number = self.rng.randrange(len(phrasings))
        text = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), phrasings[number])
        return Phrase(_fill_slots(text, slots), f"{form}:{self.language}:{self.phrasings}:{number}")

    def draft_number_question(self, question: Phrase, value: int, facts: Mapping[str, Any]) -> Draft:
        """Create a question whose answer is a number, sometimes with the request to answer with nothing else."""
        constraint: dict[str, Any] = {"check": "number", "value": value}
        text = question.text
        if self.rng.random() < 0.4:
            text += ("" if self.language == "zh" else " ") + self.phrase("only_number").text
            constraint["only"] = True
        return Draft((text,), str(value), question.form, (constraint,), facts)

    def draw_in_split(self, draw: Callable[[], T]) -> T:
        """Draw until the value belongs to this split."""
        while True:
            value = draw()
            if is_held_out(value) == (self.split == "test"):
                return value

    def nouns(self) -> list[str]:
        """Return the words of all categories in this split."""
        return [word for group in words.CATEGORIES[self.language].values() for word in values_of_split(group, self.split)]

    def join_items(self, items: Sequence[object]) -> str:
        """Join items to one line, with the comma of the language."""
        return ("、" if self.language == "zh" else ", ").join(map(str, items))

    def make_sentence(self) -> tuple[str, str]:
        """Return a sentence, and the name of the person in it."""
        thing, measure = self.pick(words.THINGS[self.language])
        slots = {
            "name": self.pick(words.NAMES[self.language]),
            "thing": thing,
            "measure": measure,
            "verb": self.rng.choice(words.VERBS[self.language]),
            "place": self.rng.choice(words.PLACES[self.language]),
            "adjective": self.rng.choice(words.ADJECTIVES),
        }
        return _fill_slots(self.rng.choice(words.SENTENCES[self.language]), slots), slots["name"]


def values_of_split(values: Sequence[T], split: str) -> list[T]:
    """Return the values of a table that belong to a split; the first element decides for a tuple."""
    return [value for value in values if is_held_out(value[0] if isinstance(value, tuple) else value) == (split == "test")]


def is_held_out(value: object) -> bool:
    """Return whether a word or a set of numbers belongs to the test split, by its hash."""
    return sha256(f"{SALT}{value}".encode()).digest()[0] % TEST_ONE_IN == 0


def _fill_slots(text: str, slots: Mapping[str, object]) -> str:
    return _SLOT.sub(lambda match: str(slots[match[1]]), text)
