"""The English material of the generator."""

from __future__ import annotations

from sftchat_relation.distractors_en import DISTRACTORS
from sftchat_relation.fillers_en import FILLERS, OPENERS
from sftchat_relation.forms import parse_other_forms, parse_relation_forms
from sftchat_relation.forms_en_bonds import BONDS
from sftchat_relation.forms_en_frames import FRAMES
from sftchat_relation.forms_en_groups import GROUPS
from sftchat_relation.forms_en_kin import KIN
from sftchat_relation.material import Material
from sftchat_relation.names_en import EnglishNameSource
from sftchat_relation.vocabulary_en import LABELS

_KINDS = {english: chinese for chinese, english in LABELS.items()}

ENGLISH_MATERIAL = Material(
    relation_forms=parse_relation_forms({**KIN, **BONDS}, FRAMES, _KINDS, "en:"),
    group_forms=parse_other_forms("en:group", GROUPS, _KINDS),
    distractor_forms=parse_other_forms("en:distractor", DISTRACTORS, _KINDS),
    fillers=FILLERS,
    openers=OPENERS,
    names=EnglishNameSource,
    sentence_space=" ",
    pronouns={
        "p": {"m": "he", "f": "she"},
        "P": {"m": "He", "f": "She"},
        "o": {"m": "him", "f": "her"},
        "s": {"m": "his", "f": "her"},
        "S": {"m": "His", "f": "Her"},
    },
    youth_words=("boy", "girl", "child", "little", "school", "born", "young", "Mama", "Daddy", "Mum", "Dad"),
    death_words=("buried", "died", "grave", "took {b}", "Long after", "until she", "murderer", "funeral"),
    maternal_words=("{b}'s mother",),
)
"""The English material."""
