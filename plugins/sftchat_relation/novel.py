"""The `novel` preset: passages of invented prose, composed so that the gold is all and only what the text says.

A passage is a few units (a sentence or two each) that state relations, with sentences that state none between them. People
may take part in two relations where no third one follows from the two; everything else is kept apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import TypeVar

from sftchat_relation.fillers import FILLERS, OPENERS
from sftchat_relation.forms import DISTRACTOR_FORMS, ERAS, GROUP_FORMS, RELATION_FORMS, Form
from sftchat_relation.names import NameSource, Person
from sftchat_relation.vocabulary import NOVEL, VOCABULARY

PROMPT = "从以下小说内容中提取人物关系:\n"
"""Instruction before the passage."""

NOTHING = "无"
"""The gold of a passage without relations."""

# Cumulative percentages: how many relations a passage has, and how many distractors go with none, one or two, and more.
_COUNTS = (12, 55, 82, 94, 98, 100)
_DISTRACTORS = {0: (0, 42, 84, 97, 100), 1: (50, 86, 97, 100), 2: (62, 91, 98, 100), 3: (76, 96, 100)}

_PARENTS = frozenset({"父子", "父女", "母子", "母女"})
_SIBLINGS = frozenset({"兄弟", "姐妹", "兄妹", "姐弟"})
_KIN = _PARENTS | _SIBLINGS | {"祖孙"}
_LOVE = frozenset({"夫妻", "恋人", "情敌"})
_TEACHING = frozenset({"师徒", "同门"})

# Percentages of people named by standing, by a religious name, by a servant's pet name; everybody else has a full name.
_STYLES: dict[tuple[str, str], tuple[int, int, int]] = {
    ("师徒", "a"): (12, 14, 0),
    ("师徒", "b"): (0, 0, 8),
    ("主仆", "a"): (20, 0, 0),
    ("主仆", "b"): (0, 0, 45),
    ("祖孙", "a"): (8, 0, 0),
    ("祖孙", "b"): (0, 0, 10),
    ("好友", "a"): (6, 3, 2),
    ("好友", "b"): (6, 3, 2),
    ("敌对", "a"): (6, 5, 0),
    ("敌对", "b"): (6, 5, 0),
    ("", "a"): (12, 5, 5),
    ("", "b"): (12, 5, 5),
} | {(label, "a"): (8, 0, 0) for label in sorted(_PARENTS)}

_NAMED = ("titled", "ordained", "servant")

# Words that do not go with a person named by standing, and words after which nobody should turn up in another sentence.
_YOUNG = ("小姐", "少爷", "公子", "书童")
_FINAL = ("临终", "灵前", "坟", "为师去后", "牺牲", "病故", "死在", "战死", "早逝", "没能回来", "含笑而逝", "遗命", "碑")

_MATERNAL = ("外公", "外婆", "外孙")

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")

T = TypeVar("T")


def compose(rng: Random, names: str, forms: str) -> tuple[str, str, list[str]]:
    """One passage: the prompt, the gold and the ids of its forms in the order of the text."""
    return _Passage(rng, names, forms).compose()


class _Passage:
    """The state of one passage while it is put together."""

    def __init__(self, rng: Random, names: str, forms: str) -> None:
        self.rng = rng
        self.split = forms
        self.era = ERAS[rng.randrange(5) // 3]
        self.source = NameSource(rng, names)
        self.roles: dict[Person, list[tuple[str, str]]] = {}  # what each person already is: label and slot
        self.circle: dict[Person, int] = {}  # people with the same number are linked somehow
        self.closed: set[Person] = set()  # people that no further sentence may mention
        self.used: set[str] = set()  # forms and fillers of this passage

    def compose(self) -> tuple[str, str, list[str]]:
        rng = self.rng
        relation_count = self._below(_COUNTS)
        units: list[tuple[Form, dict[str, Person]]] = []
        stated = 0
        while stated < relation_count:
            unit = self._group(relation_count - stated) if relation_count - stated > 1 and rng.randrange(100) < 20 else self._pair()
            if unit:
                units.append(unit)
                stated += len(unit[0].relations)
        for _ in range(self._below(_DISTRACTORS[min(relation_count, 3)])):
            units.insert(rng.randrange(len(units) + 1), self._distractor(named=not self.circle))
        opener = self._fill(self._pick(OPENERS[self.era][self.split]), {}) if rng.randrange(100) < 22 else ""
        text = opener + "".join(self._fill(form.text, cast) for form, cast in units)
        gold = [self._line(text, cast, relation) for form, cast in units for relation in form.relations]
        return PROMPT + text, "\n".join(gold) or NOTHING, [form.id for form, _ in units]

    def _line(self, text: str, cast: dict[str, Person], relation: tuple[str, str, str]) -> str:
        head, tail, label = cast[relation[0]].name, cast[relation[1]].name, relation[2]
        if label in VOCABULARY.symmetric and text.index(tail) < text.index(head):
            head, tail = tail, head
        return f"{head}-{tail}:{label}"

    def _pair(self) -> tuple[Form, dict[str, Person]] | None:
        """A unit of one relation, about new people or about one known person and a new one."""
        label = self._pick(NOVEL)
        pool = self._open(RELATION_FORMS[label, self.split])
        shared: dict[str, Person] = {}
        if self.rng.randrange(100) < 40:
            slot = self._pick("ab")
            pool = [form for form in pool if not any(word in form.text for word in _FINAL)]
            candidates = [person for person in self.roles if self._may_be(person, label, slot)]
            if candidates:
                shared[slot] = self._pick(candidates)
                pool = [form for form in pool if form.genders["abc".index(slot)] in ("-", "=", shared[slot].gender)]
        if not pool:
            return None
        form = self._pick(pool)
        return form, self._cast(form, shared)

    def _group(self, most: int) -> tuple[Form, dict[str, Person]] | None:
        """A unit of several relations, at most so many, about new people."""
        pool = [form for form in self._open(GROUP_FORMS[self.split]) if len(form.relations) <= most]
        if not pool:
            return None
        form = self._pick(pool)
        return form, self._cast(form, {})

    def _distractor(self, *, named: bool) -> tuple[Form, dict[str, Person]]:
        """A sentence without a relation, about new or known people who have nothing to do with one another."""
        pool = [form for form in self._open(DISTRACTOR_FORMS[self.split]) if form.people or not named]
        form = self._pick(pool)
        cast: dict[str, Person] = {}
        for slot in sorted(form.people) if not form.newcomers else ():
            gender = form.genders["abc".index(slot)]
            circles = {self.circle[person] for person in cast.values()}
            known = [
                person
                for person, circle in self.circle.items()
                if person not in self.closed and circle not in circles and gender in ("-", person.gender)
            ]
            if known and self.rng.randrange(100) < 45:
                cast[slot] = self._pick(known)
        return form, self._cast(form, cast)

    def _may_be(self, person: Person, label: str, slot: str) -> bool:
        """Return whether a known person can have one more relation without implying a third one."""
        if person in self.closed or len(self.roles[person]) > 1 or (label in _KIN and not person.surname):
            return False
        if person.style != "full" and not _STYLES.get((label, slot), (0, 0, 0))[_NAMED.index(person.style)]:
            return False
        return all(_independent(role, (label, slot)) for role in self.roles[person])

    def _cast(self, form: Form, known: dict[str, Person]) -> dict[str, Person]:
        """People for every slot: the known ones, and new ones of fitting gender, surname and standing."""
        cast = dict(known)
        self.used.add(form.id)
        for slot in sorted(form.people):
            if slot in cast:
                continue
            gender = self._gender(form, slot, cast)
            relative = next((cast[other] for other in sorted(cast) if self._share_surname(form, slot, other, cast, gender)), None)
            siblings = {head + tail for head, tail, label in form.relations if label in _SIBLINGS}
            like = next((cast[other] for other in sorted(cast) if slot + other in siblings or other + slot in siblings), None)
            cast[slot] = self._name(form, slot, gender, relative, like)
        circle = min((self.circle[person] for person in cast.values() if person in self.circle), default=len(self.circle))
        merged = {self.circle[person] for person in cast.values() if person in self.circle}
        self.circle |= {person: circle for person in self.circle if self.circle[person] in merged}
        self.circle |= dict.fromkeys(cast.values(), circle)
        for head, tail, label in form.relations:
            self.roles.setdefault(cast[head], []).append((label, "a"))
            self.roles.setdefault(cast[tail], []).append((label, "b"))
        if form.newcomers or any(word in form.text for word in _FINAL):
            self.closed |= set(cast.values())
        return cast

    def _gender(self, form: Form, slot: str, cast: dict[str, Person]) -> str:
        gender = form.genders["abc".index(slot)]
        other = next((cast[slot].gender for slot in sorted(cast)), None)
        if "=" in form.genders and gender in "-=" and other:  # rivals: the second person has the gender of the first
            return other
        return gender if gender in "mf" else self._pick("mf")

    @staticmethod
    def _share_surname(form: Form, slot: str, other: str, cast: dict[str, Person], gender: str) -> bool:
        """Return whether a new person has the surname of one already cast."""
        for head, tail, label in form.relations:
            if {head, tail} != {slot, other}:
                continue
            elder = gender if slot == head else cast[other].gender
            if label in _SIBLINGS or (label in _PARENTS | {"祖孙"} and elder == "m" and not any(word in form.text for word in _MATERNAL)):
                return True
        return False

    def _name(self, form: Form, slot: str, gender: str, relative: Person | None, like: Person | None) -> Person:
        label = form.relations[0][2] if len(form.relations) == 1 else "" if not form.relations else "group"
        titled, ordained, servant = _STYLES.get((label, slot), (0, 0, 0))
        surname = relative.surname if relative else None
        if not form.relations and form.genders != "---":  # marriages and brothers: not among monks and widows
            titled = ordained = 0
        roll = self.rng.randrange(100)
        if roll < titled and not any(word in form.text for word in _YOUNG):
            return self.source.titled(gender, self.era, surname=surname)
        if titled <= roll < titled + ordained and self.era == "old":
            return self.source.ordained(gender)
        if titled + ordained <= roll < titled + ordained + servant:
            return self.source.servant(gender)
        marked = any(form.genders["abc".index(slot)] in "mf" and slot in relation[:2] for relation in form.relations)
        return self.source.person(gender, surname=surname, like=like, marked=marked)

    def _open(self, forms: Sequence[Form]) -> list[Form]:
        return [form for form in forms if self.era in form.eras and form.id not in self.used]

    def _fill(self, text: str, cast: dict[str, Person]) -> str:
        """Return the text with choices made and slots filled."""
        text = _CHOICE.sub(lambda match: self._pick(match[1].split("|")), text)
        return _SLOT.sub(lambda match: self._slot(match[1], cast), text)

    def _slot(self, slot: str, cast: dict[str, Person]) -> str:
        """Return the text of a slot: a person's name (a), pronoun (pa) or given name (ga), or else a filler, unused if possible."""
        if slot in cast:
            return cast[slot].name
        if slot[1:] in cast:
            return cast[slot[1:]].pronoun if slot[0] == "p" else cast[slot[1:]].familiar
        values = FILLERS[slot][self.era]
        fresh = [value for value in values if value not in self.used] or list(values)
        value = self._pick(fresh)
        self.used.add(value)
        return value

    def _below(self, cumulative: Sequence[int]) -> int:
        roll = self.rng.randrange(100)
        return next(i for i, bound in enumerate(cumulative) if roll < bound)

    def _pick(self, items: Sequence[T]) -> T:
        return items[self.rng.randrange(len(items))]


def _independent(first: tuple[str, str], second: tuple[str, str]) -> bool:
    """Return whether one person can have both roles without implying a relation of the two others."""
    labels = {first[0], second[0]}
    for role, other in ((first, second), (second, first)):
        elder = role[1] == "a" and role[0] in _PARENTS | {"祖孙"}
        if elder and other[0] in _LOVE:  # a parent's spouse is a parent
            return False
        if role[0] in _TEACHING and other[0] in _TEACHING:  # pupils of one teacher are fellow pupils
            return False
    if labels == {"主仆"}:
        return first[1] == second[1] == "a"
    return not (labels <= _KIN or labels <= _LOVE or labels == {"战友"})
