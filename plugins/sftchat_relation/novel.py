"""The `novel` preset: passages of invented prose, composed so that the gold has all relations that the text states, and no other.

A passage has a few units, each a sentence or two that state relations, and between them distractors, which state none. A person may have
two relations only where no third relation follows from the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple, TypeVar

from sftchat_relation.forms import ERAS, Form
from sftchat_relation.language import CHINESE, Language
from sftchat_relation.names import Person
from sftchat_relation.vocabulary import NOVEL, SYMMETRIC

# Cumulative percentages: the number at index i is the share of passages with at most i relations, or distractors.
_RELATION_COUNTS = (12, 55, 82, 94, 98, 100)
_DISTRACTOR_COUNTS = {0: (0, 42, 84, 97, 100), 1: (50, 86, 97, 100), 2: (62, 91, 98, 100), 3: (76, 96, 100)}
"""By the number of relations, 3 for three and more."""

_PARENTS = frozenset({"父子", "父女", "母子", "母女"})
_SIBLINGS = frozenset({"兄弟", "姐妹", "兄妹", "姐弟"})
_KIN = _PARENTS | _SIBLINGS | {"祖孙"}
_LOVE = frozenset({"夫妻", "恋人", "情敌"})
_TEACHING = frozenset({"师徒", "同门"})


class _StylePercentages(NamedTuple):
    """Percentages of people with a title, a religious name, or a servant's pet name; all others have a full name."""

    titled: int = 0
    ordained: int = 0
    servant: int = 0


_STYLES = {
    ("师徒", "a"): _StylePercentages(titled=12, ordained=14),
    ("师徒", "b"): _StylePercentages(servant=8),
    ("主仆", "a"): _StylePercentages(titled=20),
    ("主仆", "b"): _StylePercentages(servant=45),
    ("祖孙", "a"): _StylePercentages(titled=8),
    ("祖孙", "b"): _StylePercentages(servant=10),
    **{("好友", slot): _StylePercentages(titled=6, ordained=3, servant=2) for slot in "ab"},
    **{("敌对", slot): _StylePercentages(titled=6, ordained=5) for slot in "ab"},
    **{("", slot): _StylePercentages(titled=12, ordained=5, servant=5) for slot in "ab"},
    **{(label, "a"): _StylePercentages(titled=8) for label in _PARENTS},
}
"""By label and slot; the label of a distractor is empty."""

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")

T = TypeVar("T")


class _Unit(NamedTuple):
    """A form, and its people by slot."""

    form: Form
    cast: dict[str, Person]


class _Role(NamedTuple):
    """Label of a relation, and slot of a person in it: ``a`` is the head, ``b`` the tail."""

    label: str
    slot: str


def compose(rng: Random, names: str, forms: str, language: Language = CHINESE) -> tuple[str, str, list[str]]:
    """Return prompt, gold and ids of the forms, in the order of the text; ``names`` and ``forms`` are splits."""
    return _Passage(rng, names, forms, language).compose()


class _Passage:
    """The state of one passage while it is composed."""

    def __init__(self, rng: Random, names: str, forms: str, language: Language) -> None:
        self.rng = rng
        self.split = forms
        self.language = language
        self.material = language.load_material()
        self.era = ERAS[rng.randrange(5) // 3]
        self.names = self.material.names(rng, names)
        self.roles: dict[Person, list[_Role]] = {}
        self.circles: dict[Person, int] = {}  # people with the same number are in one sentence, directly or through others
        self.closed: set[Person] = set()  # people that no further sentence may mention
        self.used: set[str] = set()  # ids of forms, and fillers

    def compose(self) -> tuple[str, str, list[str]]:
        rng = self.rng
        relation_count = self._draw_count(_RELATION_COUNTS)
        units: list[_Unit] = []
        stated = 0
        while stated < relation_count:
            missing = relation_count - stated
            unit = self._draw_group(missing) if missing > 1 and rng.randrange(100) < 20 else self._draw_pair()
            if unit:
                units.append(unit)
                stated += len(unit.form.relations)
        for _ in range(self._draw_count(_DISTRACTOR_COUNTS[min(relation_count, 3)])):
            units.insert(rng.randrange(len(units) + 1), self._draw_distractor())
        opener = self._fill_slots(self._pick(self.material.openers[self.era][self.split]), {}) if rng.randrange(100) < 22 else ""
        sentences = [opener] if opener else []
        sentences += [self._fill_slots(form.text, cast) for form, cast in units]
        text = self.material.sentence_space.join(sentences)
        gold = [
            self._gold_line(text, cast[relation.head].name, cast[relation.tail].name, relation.label)
            for form, cast in units
            for relation in form.relations
        ]
        return self.language.instruction + text, "\n".join(gold) or self.language.nothing, [form.id for form, _ in units]

    def _gold_line(self, text: str, head: str, tail: str, label: str) -> str:
        """Return a line of the gold; the order of a symmetric relation is that of the text."""
        if label in SYMMETRIC and _position_of(tail, text) < _position_of(head, text):
            head, tail = tail, head
        return self.language.format_line(head, tail, self.language.labels[label])

    def _draw_pair(self) -> _Unit | None:
        """Return a unit of one relation, between new people or a known and a new one; None when no form is left."""
        label = self._pick(NOVEL)
        forms = self._unused_forms(self.material.relation_forms[label, self.split])
        cast: dict[str, Person] = {}
        if self.rng.randrange(100) < 40:
            slot = self._pick("ab")
            forms = [form for form in forms if not _has_word(form, self.material.death_words)]
            candidates = [person for person in self.roles if self._may_have_role(person, _Role(label, slot))]
            if candidates:
                cast[slot] = self._pick(candidates)
                forms = [form for form in forms if form.gender_of(slot) in ("-", "=", cast[slot].gender)]
        if not forms:
            return None
        return self._cast_people(self._pick(forms), cast)

    def _draw_group(self, max_relations: int) -> _Unit | None:
        """Return a unit of several relations between new people; None when no form is left."""
        forms = [form for form in self._unused_forms(self.material.group_forms[self.split]) if len(form.relations) <= max_relations]
        return self._cast_people(self._pick(forms), {}) if forms else None

    def _draw_distractor(self) -> _Unit:
        """Return a unit without a relation, about new people or known ones from different circles; the first of a passage has a name."""
        form = self._pick([form for form in self._unused_forms(self.material.distractor_forms[self.split]) if form.people or self.circles])
        cast: dict[str, Person] = {}
        for slot in sorted(form.people) if not form.needs_newcomers else ():
            gender = form.gender_of(slot)
            circles_of_cast = {self.circles[person] for person in cast.values()}
            candidates = [
                person
                for person, circle in self.circles.items()
                if person not in self.closed and circle not in circles_of_cast and gender in ("-", person.gender)
            ]
            if candidates and self.rng.randrange(100) < 45:
                cast[slot] = self._pick(candidates)
        return self._cast_people(form, cast)

    def _may_have_role(self, person: Person, role: _Role) -> bool:
        """Return whether a known person may have one more role without implying a third relation."""
        roles = self.roles[person]
        if person in self.closed or len(roles) > 1 or (role.label in _KIN and not person.surname):
            return False
        if person.style != "full" and not _STYLES.get(role, _StylePercentages())._asdict()[person.style]:
            return False
        return all(_are_independent(other_role, role) for other_role in roles)

    def _cast_people(self, form: Form, known_people: dict[str, Person]) -> _Unit:
        """Return the form with people for every slot: the known ones, and new ones of fitting gender, surname and style."""
        cast = dict(known_people)
        self.used.add(form.id)
        for slot in sorted(form.people):
            if slot not in cast:
                cast[slot] = self._draw_person(form, slot, cast)
        merged_circles = {self.circles[person] for person in cast.values() if person in self.circles}
        circle = min(merged_circles, default=len(self.circles))
        self.circles |= {person: circle for person, former_circle in self.circles.items() if former_circle in merged_circles}
        self.circles |= dict.fromkeys(cast.values(), circle)
        for head, tail, label in form.relations:
            self.roles.setdefault(cast[head], []).append(_Role(label, "a"))
            self.roles.setdefault(cast[tail], []).append(_Role(label, "b"))
        if form.needs_newcomers or _has_word(form, self.material.death_words):
            self.closed |= set(cast.values())
        return _Unit(form, cast)

    def _draw_person(self, form: Form, slot: str, cast: dict[str, Person]) -> Person:
        gender = self._draw_gender(form, slot, cast)
        sibling: Person | None = None
        surname: str | None = None
        for head, tail, label in form.relations:
            relative = cast.get({head: tail, tail: head}.get(slot, ""))
            if relative is None:
                continue
            elder_gender = gender if slot == head else relative.gender
            is_paternal = label in _PARENTS | {"祖孙"} and elder_gender == "m" and not _has_word(form, self.material.maternal_words)
            if sibling is None and label in _SIBLINGS:
                sibling = relative
            if surname is None and (label in _SIBLINGS or is_paternal):
                surname = relative.surname
        titled, ordained, servant = _StylePercentages()
        if len(form.relations) <= 1:
            form_label = form.relations[0].label if form.relations else ""
            titled, ordained, servant = _STYLES.get((form_label, slot), _StylePercentages())
        if not form.relations and form.genders != "---":  # a distractor about marriage or brothers
            titled = ordained = 0
        percentage = self.rng.randrange(100)
        if percentage < titled and not _has_word(form, self.material.youth_words):
            return self.names.titled(gender, self.era, surname=surname)
        if titled <= percentage < titled + ordained and self.era == "old":
            return self.names.ordained(gender)
        if titled + ordained <= percentage < titled + ordained + servant:
            return self.names.servant(gender)
        shows_gender = form.gender_of(slot) in "mf" and any(slot in (relation.head, relation.tail) for relation in form.relations)
        return self.names.person(gender, surname=surname, sibling=sibling, shows_gender=shows_gender)

    def _draw_gender(self, form: Form, slot: str, cast: dict[str, Person]) -> str:
        gender = form.gender_of(slot)
        if "=" in form.genders and gender in "-=" and cast:  # rivals: the second person has the gender of the first
            return cast[min(cast)].gender
        return gender if gender in "mf" else self._pick("mf")

    def _unused_forms(self, forms: Sequence[Form]) -> list[Form]:
        return [form for form in forms if self.era in form.eras and form.id not in self.used]

    def _fill_slots(self, text: str, cast: dict[str, Person]) -> str:
        """Return the text with choices made and slots filled."""
        text = _CHOICE.sub(lambda match: self._pick(match[1].split("|")), text)
        return _SLOT.sub(lambda match: self._slot_value(match[1], cast), text)

    def _slot_value(self, slot: str, cast: dict[str, Person]) -> str:
        """Return the name (slot ``a``), pronoun (as ``pa``) or given name (``ga``) of a person, or else a filler, unused if possible."""
        if slot in cast:
            return cast[slot].name
        if slot[1:] in cast:
            person, pronouns = cast[slot[1:]], self.material.pronouns.get(slot[0])
            return pronouns[person.gender] if pronouns else person.familiar
        fillers = self.material.fillers[slot][self.era]
        filler = self._pick([filler for filler in fillers if filler not in self.used] or fillers)
        self.used.add(filler)
        return filler

    def _draw_count(self, cumulative_percentages: Sequence[int]) -> int:
        percentage = self.rng.randrange(100)
        return next(count for count, bound in enumerate(cumulative_percentages) if percentage < bound)

    def _pick(self, items: Sequence[T]) -> T:
        return items[self.rng.randrange(len(items))]


def _position_of(name: str, text: str) -> int:
    """Return where a text first has a name that is not a part of an English word."""
    match = re.search(rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])", text)
    assert match is not None  # every person of a unit is named in it
    return match.start()


def _has_word(form: Form, words: Sequence[str]) -> bool:
    return any(word in form.text for word in words)


def _are_independent(first: _Role, second: _Role) -> bool:
    """Return whether one person can have both roles without implying a relation between the two other people."""
    labels = {first.label, second.label}
    for role, other_role in ((first, second), (second, first)):
        is_elder = role.slot == "a" and role.label in _PARENTS | {"祖孙"}
        if is_elder and other_role.label in _LOVE:  # a parent's spouse is a parent
            return False
        if role.label in _TEACHING and other_role.label in _TEACHING:  # pupils of one teacher are fellow pupils
            return False
    if labels == {"主仆"}:
        return first.slot == second.slot == "a"
    return not (labels <= _KIN or labels <= _LOVE or labels == {"战友"})
