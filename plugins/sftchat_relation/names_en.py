"""Names of invented people in English: given names, surnames, titles and pet names; the split is decided as in `names`."""

from __future__ import annotations

from collections.abc import Sequence

from sftchat_relation.names import NameSource, Person, split_of
from sftchat_relation.names_en_words import FEMALE, FEMALE_PET_NAMES, MALE, MALE_PET_NAMES, RELIGIOUS_TITLES, SURNAMES, TITLES

_GIVEN = {"m": MALE, "f": FEMALE}
_PET_NAMES = {"m": MALE_PET_NAMES, "f": FEMALE_PET_NAMES}


class EnglishNameSource(NameSource):
    """Draws the people of one English passage: their names are of one split, and none is a part of another."""

    def person(self, gender: str, *, surname: str | None = None, sibling: Person | None = None, shows_gender: bool = False) -> Person:
        """Draw a person with a given name, which always shows the gender, and mostly a surname.

        Args:
            gender: ``m`` or ``f``.
            surname: Surname of the family; None for an unused one.
            sibling: Not used.
            shows_gender: Not used.
        """
        while True:
            new_surname = self.surname() if surname is None else surname
            given = self._pick(_GIVEN[gender])
            has_surname = self._rng.randrange(100) < (70 if surname is None else 40)
            person = self._try_add_person(f"{given} {new_surname}" if has_surname else given, gender, new_surname, given, "full")
            if person:
                return person

    def titled(self, gender: str, era: str, *, surname: str | None = None) -> Person:
        """Draw a person with a title and a surname, such as Captain Reed, sometimes with a given name."""
        for _ in range(40):
            new_surname = self.surname() if surname is None else surname
            title, given = self._pick(TITLES[gender, era]), self._pick(_GIVEN[gender])
            has_given_name = title in ("Sir", "Lady", "Dame") or self._rng.randrange(100) < 35
            name = f"{title} {given} {new_surname}" if has_given_name else f"{title} {new_surname}"
            person = self._try_add_person(name, gender, new_surname, given if has_given_name else name, "titled")
            if person:
                return person
        return self.person(gender, surname=surname)

    def ordained(self, gender: str) -> Person:
        """Draw a person with a religious title, such as Abbot Martin."""
        while True:
            given = self._pick(_GIVEN[gender])
            person = self._try_add_person(f"{self._pick(RELIGIOUS_TITLES[gender])} {given}", gender, "", given, "ordained")
            if person:
                return person

    def servant(self, gender: str) -> Person:
        """Draw a person who is called by a pet name, such as Tilly."""
        while True:
            given = self._pick(_PET_NAMES[gender])
            person = self._try_add_person(given, gender, "", given, "servant")
            if person:
                return person

    def surname(self) -> str:
        """Draw a surname not yet used in the passage."""
        used_surnames = {person.surname for person in self._people}
        while True:
            surname = self._pick(SURNAMES)
            if surname not in used_surnames:
                return surname

    def _pick(self, items: Sequence[str]) -> str:
        return items[self._rng.randrange(len(items))]

    def _try_add_person(self, name: str, gender: str, surname: str, given: str, style: str) -> Person | None:
        """Add a person; None when the name is of the other split, or resembles another name of the passage."""
        conflicts = any(name in other.name or other.name in name or given == other.given for other in self._people)
        if conflicts or split_of(given) != self._split:
            return None
        person = Person(name, gender, surname, given, style)
        self._people.append(person)
        return person
