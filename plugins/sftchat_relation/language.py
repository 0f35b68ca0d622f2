"""Languages of the relation task: what depends on the language of a passage, as data.

The gold of a passage is in the language of the passage. Parser, scorer, row check and generator take a ``Language``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from sftchat_relation import vocabulary, vocabulary_en
from sftchat_relation.vocabulary import RelationVocabulary

if TYPE_CHECKING:
    from sftchat_relation.material import Material

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True)
class Language:
    """A language of the relation task.

    Attributes:
        code: ``zh`` or ``en``.
        instruction: Instruction before the passage, with its line break.
        nothing: Gold of a passage without relations.
        separator: Text between head and tail in a line of the gold.
        colon: Text between tail and label.
        line_form: A line of the gold, for error messages.
        exact_line: Pattern of a line that may be exact: a text and a label around the last colon.
        gold_line: Pattern of a line of the gold, for the row check, with groups for head, tail and label.
        vocabulary: The labels.
        labels: The label of each relation of the generator; relations have the Chinese label as their name.
        max_label_length: Maximum length of a label in characters; longer text is prose.
        ignores_case: Whether replies may write labels in capitals.
        relation_word: Word for "relation" that may follow a label.
        conjunction: Pattern of a conjunction between two names.
        label_end: Pattern of what separates a label from a remark after it.
        none: Pattern of statements that there is no relation.
        load_material: Returns the sentences and names of the generator, which take time to import.
    """

    code: str
    instruction: str
    nothing: str
    separator: str
    colon: str
    line_form: str
    exact_line: re.Pattern[str]
    gold_line: re.Pattern[str]
    vocabulary: RelationVocabulary
    labels: Mapping[str, str]
    max_label_length: int
    ignores_case: bool
    relation_word: str
    conjunction: re.Pattern[str]
    label_end: re.Pattern[str]
    none: re.Pattern[str]
    load_material: Callable[[], Material]

    def format_line(self, head: str, tail: str, label: str) -> str:
        """Return a line of the gold."""
        return f"{head}{self.separator}{tail}{self.colon}{label}"

    def fold_label(self, label: str) -> str:
        """Return a label in the case of the vocabulary."""
        return label.casefold() if self.ignores_case else label


def _load_chinese_material() -> Material:
    from sftchat_relation.material import CHINESE_MATERIAL

    return CHINESE_MATERIAL


def _load_english_material() -> Material:
    from sftchat_relation.material_en import ENGLISH_MATERIAL

    return ENGLISH_MATERIAL


_NONE_WORDS = r"none|null|nil|n/a|no relations?(?: found)?"

CHINESE = Language(
    code="zh",
    instruction="从以下小说内容中提取人物关系:\n",
    nothing="无",
    separator="-",
    colon=":",
    line_form="甲-乙:关系",
    exact_line=re.compile(r"[^\s:](?:.*[^\s])?:[^\s:]+"),
    gold_line=re.compile(r"([^-:：]+)-([^-:：]+)[:：]([^-:：]+)"),
    vocabulary=vocabulary.VOCABULARY,
    labels=MappingProxyType({label: label for label in vocabulary.NOVEL}),
    max_label_length=12,
    ignores_case=False,
    relation_word="关系",
    conjunction=re.compile("[和与跟&、/]"),
    label_end=re.compile(r"[\s,、(]"),
    none=re.compile(
        r"无|没有|暂无|(?:[\u4e00-\u9fff]{0,8}[中里])?(?:无|没有|暂无|并无|不存在|未发现)(?:任何|明确的?|明显的?|直接的?)*(?:人物)?(?:之间的?)?关系|"
        + _NONE_WORDS,
        re.IGNORECASE,
    ),
    load_material=_load_chinese_material,
)
"""Chinese: ``甲-乙:关系``."""

ENGLISH = Language(
    code="en",
    instruction="Extract the relations between the characters from this passage:\n",
    nothing="none",
    separator=" - ",
    colon=": ",
    line_form="A - B: relation",
    exact_line=re.compile(r"[^\s:](?:.*[^\s:])?: [^\s:](?:[^:]*[^\s:])?"),
    gold_line=re.compile(r"([^:]+?) - ([^:]+): ([^:]+)"),
    vocabulary=vocabulary_en.VOCABULARY,
    labels=vocabulary_en.LABELS,
    max_label_length=40,
    ignores_case=True,
    relation_word=" relationship",
    conjunction=re.compile(r"[&/]|\band\b"),
    label_end=re.compile(r"\s*[,;(]"),
    none=re.compile(
        r"(?:there (?:are|is) )?no (?:clear |explicit |stated )?relation(?:ship)?s?(?: (?:found|stated|mentioned|between [\w ]+|in [\w ]+))?|"
        + _NONE_WORDS,
        re.IGNORECASE,
    ),
    load_material=_load_english_material,
)
"""English: ``A - B: relation``."""

LANGUAGES = MappingProxyType({language.code: language for language in (CHINESE, ENGLISH)})
"""All languages by code."""


def language_of(text: str) -> Language:
    """Return the language of a passage with its gold: Chinese if it has a Chinese character."""
    return CHINESE if _HAN.search(text) else ENGLISH
