"""What the generator composes passages of, in one language; and the Chinese material."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from sftchat_relation.fillers import FILLERS, OPENERS
from sftchat_relation.forms import DISTRACTOR_FORMS, GROUP_FORMS, RELATION_FORMS, Form
from sftchat_relation.names import NameSource

Fillers = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Texts by slot and era, or by era and split."""


@dataclass(frozen=True)
class Material:
    """Sentences, fillers and names of one language.

    Attributes:
        relation_forms: Forms of one relation, by Chinese label and split.
        group_forms: Forms of several relations, by split.
        distractor_forms: Forms without a relation, by split.
        fillers: Values of slots other than people, by slot and era.
        openers: Openings of scenes, by era and split.
        names: Returns a source of people for a random generator and a split.
        sentence_space: Text between two sentences.
        pronouns: Pronoun by first letter of its slot and gender.
        youth_words: A form with one of these words has no person with a title.
        death_words: People of a form with one of these words are in no other sentence.
        maternal_words: A form with one of these words is about the mother's side.
    """

    relation_forms: Mapping[tuple[str, str], tuple[Form, ...]]
    group_forms: Mapping[str, tuple[Form, ...]]
    distractor_forms: Mapping[str, tuple[Form, ...]]
    fillers: Fillers
    openers: Fillers
    names: Callable[[Random, str], NameSource]
    sentence_space: str
    pronouns: Mapping[str, Mapping[str, str]]
    youth_words: tuple[str, ...]
    death_words: tuple[str, ...]
    maternal_words: tuple[str, ...]


CHINESE_MATERIAL = Material(
    relation_forms=RELATION_FORMS,
    group_forms=GROUP_FORMS,
    distractor_forms=DISTRACTOR_FORMS,
    fillers=FILLERS,
    openers=OPENERS,
    names=NameSource,
    sentence_space="",
    pronouns={"p": {"m": "他", "f": "她"}},
    youth_words=("小姐", "少爷", "公子", "书童"),
    death_words=("临终", "灵前", "坟", "为师去后", "牺牲", "病故", "死在", "战死", "早逝", "没能回来", "含笑而逝", "遗命", "碑"),
    maternal_words=("外公", "外婆", "外孙"),
)
"""The Chinese material."""
