"""English relation labels: directions, other spellings, and which labels are broader than others."""

from __future__ import annotations

from types import MappingProxyType

from sftchat_relation.vocabulary import NOVEL, RelationVocabulary

LABELS = MappingProxyType(
    {
        "师徒": "teacher and pupil",
        "父子": "father and son",
        "父女": "father and daughter",
        "母子": "mother and son",
        "母女": "mother and daughter",
        "兄妹": "elder brother and sister",
        "姐弟": "elder sister and brother",
        "祖孙": "grandparent and grandchild",
        "主仆": "master and servant",
        "夫妻": "spouses",
        "恋人": "lovers",
        "好友": "friends",
        "敌对": "enemies",
        "情敌": "rivals in love",
        "战友": "comrades in arms",
        "同门": "fellow pupils",
        "兄弟": "brothers",
        "姐妹": "sisters",
    }
)
"""The English label of each Chinese label of novel prose."""

_DIRECTED = tuple(LABELS[label] for label in NOVEL[:9])
_SYMMETRIC = tuple(LABELS[label] for label in NOVEL[9:])
_COARSE_DIRECTED = ("parent and child", "employer and employee")
_COARSE_SYMMETRIC = ("siblings", "relatives", "in-laws", "colleagues", "allies", "neighbours")

_SAME_DIRECTION = {
    "teacher and pupil": (
        "teacher and student, teacher-pupil, teacher-student, teacher, tutor, mentor, tutor and pupil, tutor and student, mentor and student, "
        "mentor and mentee, mentor and protégé, master and apprentice, master and pupil, master and disciple, master-apprentice"
    ),
    "father and son": "father-son, father/son",
    "father and daughter": "father-daughter, father/daughter",
    "mother and son": "mother-son, mother/son",
    "mother and daughter": "mother-daughter, mother/daughter",
    "elder brother and sister": (
        "older brother and sister, big brother and sister, elder brother and younger sister, older brother and younger sister, "
        "big brother and little sister"
    ),
    "elder sister and brother": (
        "older sister and brother, big sister and brother, elder sister and younger brother, older sister and younger brother, "
        "big sister and little brother"
    ),
    "grandparent and grandchild": (
        "grandfather, grandmother, grandparent, grandfather and grandson, grandfather and granddaughter, grandfather and grandchild, "
        "grandmother and grandson, grandmother and granddaughter, grandmother and grandchild, grandparent and grandson, "
        "grandparent and granddaughter, grandfather-grandson, grandmother-granddaughter"
    ),
    "master and servant": (
        "master-servant, mistress and maid, mistress and servant, master and maid, lady and maid, master and valet, master and butler, "
        "master, mistress"
    ),
    "spouses": "spouse, husband and wife, wife and husband, husband, wife, husband-wife, married, married couple, marriage",
    "lovers": (
        "lover, sweethearts, sweetheart, in love, romantic partners, romantic relationship, boyfriend and girlfriend, girlfriend and boyfriend, "
        "boyfriend, girlfriend"
    ),
    "friends": "friend, best friends, best friend, close friends, close friend, old friends, old friend, friendship",
    "enemies": "enemy, sworn enemies, mortal enemies, archenemies, foes, foe, adversaries, enmity, hostile",
    "rivals in love": "rival in love, romantic rivals, romantic rival, love rivals, rivals for love",
    "comrades in arms": "comrades-in-arms, comrade in arms, comrades, comrade, brothers in arms, brothers-in-arms, fellow soldiers, fellow soldier",
    "fellow pupils": (
        "fellow pupil, fellow students, fellow student, fellow apprentices, fellow apprentice, classmates, classmate, schoolmates, schoolmate, "
        "fellow disciples"
    ),
    "brothers": "brother and brother, elder brother and younger brother, older brother and younger brother, twin brothers",
    "sisters": "sister and sister, elder sister and younger sister, older sister and younger sister, twin sisters",
    "parent and child": "parent, parents, father, mother, parent-child, father and child, mother and child",
    "employer and employee": "employer, boss, boss and employee",
    "siblings": "sibling, brother and sister, sister and brother, brother, sister",
    "relatives": "relative, family, kin, cousins, cousin",
    "in-laws": "in-law, in laws",
    "colleagues": "colleague, coworkers, co-workers, coworker, co-worker, partners",
    "allies": "ally",
    "neighbours": "neighbour, neighbors, neighbor",
}
_OTHER_DIRECTION = {
    "teacher and pupil": (
        "pupil, student, apprentice, disciple, pupil and teacher, student and teacher, apprentice and master, student-teacher, disciple and master"
    ),
    "father and son": "son and father, son-father",
    "father and daughter": "daughter and father, daughter-father",
    "mother and son": "son and mother, son-mother",
    "mother and daughter": "daughter and mother, daughter-mother",
    "elder brother and sister": (
        "sister and elder brother, younger sister and elder brother, little sister and big brother, younger sister and older brother"
    ),
    "elder sister and brother": (
        "brother and elder sister, younger brother and elder sister, little brother and big sister, younger brother and older sister"
    ),
    "grandparent and grandchild": (
        "grandchild, grandson, granddaughter, grandchild and grandparent, grandson and grandfather, grandson and grandmother, "
        "granddaughter and grandfather, granddaughter and grandmother"
    ),
    "master and servant": "servant, maid, valet, butler, housekeeper, servant and master, maid and mistress, servant and mistress",
    "parent and child": "child, son, daughter, child and parent",
    "employer and employee": "employee",
}
_BROADER = {
    **dict.fromkeys(("father and son", "father and daughter", "mother and son", "mother and daughter"), ("parent and child",)),
    **dict.fromkeys(("brothers", "sisters", "elder brother and sister", "elder sister and brother"), ("siblings",)),
    "master and servant": ("employer and employee",),
    "in-laws": ("relatives",),
}

VOCABULARY = RelationVocabulary(
    relations=_DIRECTED + _SYMMETRIC + _COARSE_DIRECTED + _COARSE_SYMMETRIC,
    symmetric=frozenset(_SYMMETRIC + _COARSE_SYMMETRIC),
    aliases=MappingProxyType(
        {alias: (label, False) for label, row in _SAME_DIRECTION.items() for alias in row.split(", ")}
        | {alias: (label, True) for label, row in _OTHER_DIRECTION.items() for alias in row.split(", ")}
    ),
    broader=MappingProxyType(_BROADER),
)
"""The English labels, in lower case."""
