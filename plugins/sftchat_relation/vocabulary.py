"""Relation labels: directions, other spellings, and which labels are broader than others.

Scorer, parser and row check read these tables instead of testing for single labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class RelationVocabulary:
    """The labels of one labelling scheme.

    Attributes:
        relations: The canonical labels.
        symmetric: The canonical labels without a direction.
        aliases: Canonical label of another spelling, and whether head and tail are swapped: ``甲-乙:徒弟`` (甲 is the pupil) is ``乙-甲:师徒``.
        broader: By label, the less specific labels that hold wherever it holds, in the same direction.
    """

    relations: tuple[str, ...]
    symmetric: frozenset[str]
    aliases: Mapping[str, tuple[str, bool]]
    broader: Mapping[str, tuple[str, ...]]

    def canonical(self, label: str) -> tuple[str, bool] | None:
        """Return the canonical label of a known spelling, and whether head and tail are swapped; None for an unknown label."""
        if label in self.relations:
            return label, False
        return self.aliases.get(label)


DIRECTED = ("师徒", "父子", "父女", "母子", "母女", "兄妹", "姐弟", "祖孙", "主仆")
"""The nine directed relations of novel prose; the head is the teacher, the parent, the elder or the master."""

SYMMETRIC = ("夫妻", "恋人", "好友", "敌对", "情敌", "战友", "同门", "兄弟", "姐妹")
"""The nine relations of novel prose without a direction."""

NOVEL = DIRECTED + SYMMETRIC
"""The eighteen relations of the `novel` preset and of the evalset of novel prose."""

# Other labels of the published recipe, then labels of real data sets, which are less specific or do not occur in novels.
_ELDERS = ("师叔", "师伯", "师姑")
_COARSE_DIRECTED = ("父母", "师生", "上下级", "君臣", "雇佣")
_COARSE_SYMMETRIC = ("兄弟姐妹", "亲戚", "姻亲", "同学", "合作", "同事", "盟友", "邻居")

_SAME_DIRECTION = {
    "师徒": "师父 师傅 师尊 恩师 老师",
    "同门": "师兄弟 师姐妹 师兄妹 师姐弟 师兄 师弟 师姐 师妹 同门师兄弟",
    "好友": "朋友 挚友 知己 友人 密友",
    "敌对": "仇敌 仇人 死敌 敌人 仇家 宿敌",
    "恋人": "情侣 爱人 情人 恋爱",
    "夫妻": "夫妇 配偶 丈夫 妻子",
    "战友": "同袍",
    "兄弟": "弟兄 手足",
    "姐妹": "姊妹",
    "姐弟": "姊弟",
    "祖孙": "爷孙 祖父 祖母 爷爷 奶奶 外公 外婆 外祖父 外祖母",
    "主仆": "主人",
    "父母": "亲子 父亲 母亲",
    "兄弟姐妹": "兄弟姊妹",
    "亲戚": "亲属 亲人",
    "同学": "同窗",
    "同事": "同僚",
    "合作": "搭档",
    "盟友": "同盟",
}
_OTHER_DIRECTION = {
    "师徒": "徒弟 弟子 徒儿 门徒 学徒 学生",
    "祖孙": "孙子 孙女 外孙 外孙女",
    "主仆": "仆人 丫鬟 侍女 随从",
    "父母": "子女 孩子",
}
_BROADER = {
    "父子": ("父母",), "父女": ("父母",), "母子": ("父母",), "母女": ("父母",), "兄弟": ("兄弟姐妹",), "姐妹": ("兄弟姐妹",), "兄妹": ("兄弟姐妹",),
    "姐弟": ("兄弟姐妹",), "师徒": ("师生",), "主仆": ("上下级", "雇佣"), "君臣": ("上下级",), "姻亲": ("亲戚",),
}  # fmt: skip

VOCABULARY = RelationVocabulary(
    relations=NOVEL + _ELDERS + _COARSE_DIRECTED + _COARSE_SYMMETRIC,
    symmetric=frozenset(SYMMETRIC + _COARSE_SYMMETRIC),
    aliases=MappingProxyType(
        {alias: (label, False) for label, row in _SAME_DIRECTION.items() for alias in row.split()}
        | {alias: (label, True) for label, row in _OTHER_DIRECTION.items() for alias in row.split()}
    ),
    broader=MappingProxyType(_BROADER),
)
"""The labels of this plugin: novels, the published recipe and the coarser real data sets."""
