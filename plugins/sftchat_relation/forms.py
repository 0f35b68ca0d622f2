"""Sentence patterns of the `novel` preset, and their grammar.

A form is prose, with an optional tag before ``>``: ``!`` when all its people must be new to the passage; the genders of {a}, {b}, {c} as
``m``, ``f`` or ``-``; ``o`` or ``n`` for the old or the new era; and for a group its relations, such as ``mfm ab夫妻 ac父子 bc母子>``. In the
prose ``[x|y]`` is a choice; {a}, {b}, {c} are people, {pa} is a pronoun and {ga} a given name of {a}; every other slot is a key of
`fillers`. In a form of one relation, {a} is the head and {b} the tail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sftchat_relation.distractors import DISTRACTORS as _DISTRACTORS
from sftchat_relation.forms_bonds import BONDS
from sftchat_relation.forms_frames import FRAMES, Frames
from sftchat_relation.forms_groups import GROUPS as _GROUPS
from sftchat_relation.forms_kin import KIN

ERAS = ("old", "new")
"""Eras of a story: imperial, or modern."""

_GENDERS = {
    "父子": "mm", "父女": "mf", "母子": "fm", "母女": "ff", "兄妹": "mf", "姐弟": "fm", "兄弟": "mm", "姐妹": "ff",
    "夫妻": "mf", "恋人": "mf", "情敌": "-=",
}  # fmt: skip
"""Genders of head and tail, by label; see ``Form.genders``."""
_TAG = re.compile(r"(!?)(?:([mf-]*)([on]?)((?: [a-c]{2}[^ >]+)*)>)?")
_PEOPLE = re.compile(r"\{([a-c])\}")


class FormRelation(NamedTuple):
    """Slots of head and tail, and label of a relation that a form states."""

    head: str
    tail: str
    label: str


@dataclass(frozen=True)
class Form:
    """One sentence pattern.

    Attributes:
        id: Label, split and number, such as ``师徒:train:3``.
        split: ``train`` or ``test``.
        text: Prose with choices and slots.
        genders: Required genders of {a}, {b} and {c}: ``m``, ``f``, ``-`` for any, ``=`` for that of the other person.
        eras: Eras in which it can be used.
        relations: The relations that it states, in the order of the text; empty for a distractor.
        needs_newcomers: Whether all its people must be new to the passage.
    """

    id: str
    split: str
    text: str
    genders: str
    eras: tuple[str, ...]
    relations: tuple[FormRelation, ...]
    needs_newcomers: bool

    @property
    def people(self) -> tuple[str, ...]:
        """Slots of people, in order of first mention."""
        return tuple(dict.fromkeys(_PEOPLE.findall(self.text)))

    def gender_of(self, slot: str) -> str:
        """Return the required gender of the person in a slot."""
        return self.genders["abc".index(slot)]


def parse_form(row: str, form_id: str, split: str, label: str | None = None, kinds: Mapping[str, str] | None = None) -> Form:
    """Parse one row of a table.

    Args:
        row: The row.
        form_id: Id of the form.
        split: Split of the form.
        label: The relation of the whole table, if there is one.
        kinds: Chinese label by label of another language, whose tags have ``_`` for spaces.
    """
    tag = _TAG.match(row)
    assert tag is not None  # every part of the tag is optional
    newcomers_mark, genders, era, pairs = tag.groups(default="")
    relations = tuple(FormRelation(pair[0], pair[1], kinds[pair[2:].replace("_", " ")] if kinds else pair[2:]) for pair in pairs.split())
    if label is not None:
        relations = (FormRelation("a", "b", label),)
        genders = genders or _GENDERS.get(label, "")
    eras = {"o": ERAS[:1], "n": ERAS[1:]}.get(era, ERAS)
    return Form(form_id, split, row[tag.end() :], genders.ljust(3, "-"), eras, relations, bool(newcomers_mark))


def _parse_table(name: str, split: str, rows: tuple[str, ...], label: str | None, kinds: Mapping[str, str] | None) -> tuple[Form, ...]:
    return tuple(parse_form(row, f"{name}:{split}:{number}", split, label, kinds) for number, row in enumerate(rows, 1))


def parse_relation_forms(
    tables: Mapping[str, Mapping[str, tuple[str, ...]]], frames: Frames, kinds: Mapping[str, str] | None = None, prefix: str = ""
) -> dict[tuple[str, str], tuple[Form, ...]]:
    """Return the forms of one relation, by Chinese label and split.

    Args:
        tables: Rows by label and split.
        frames: Frames that are added to the rows.
        kinds: Chinese label by label of another language.
        prefix: Prefix of the ids.
    """
    return {
        (kinds[label] if kinds else label, split): _parse_table(
            prefix + label, split, rows + frames.fill(label, split), kinds[label] if kinds else label, kinds
        )
        for label, splits in tables.items()
        for split, rows in splits.items()
    }


def parse_other_forms(
    name: str, table: Mapping[str, tuple[str, ...]], kinds: Mapping[str, str] | None = None
) -> dict[str, tuple[Form, ...]]:
    """Return the forms of several relations or of none, by split; ``name`` begins their ids."""
    return {split: _parse_table(name, split, rows, None, kinds) for split, rows in table.items()}


RELATION_FORMS = parse_relation_forms({**KIN, **BONDS}, FRAMES)
"""Forms of one relation, by label and split."""

GROUP_FORMS = parse_other_forms("group", _GROUPS)
"""Forms of several relations among three people, by split."""

DISTRACTOR_FORMS = parse_other_forms("distractor", _DISTRACTORS)
"""Forms without a relation, by split."""
