"""The `article` preset: the published recipe for relation rows, reproduced with its noise.

Twenty characters, twenty-three labels and eight sentence patterns are combined at random, so that a sentence may contradict its label. A model
trained on these rows learns the patterns, not the relations. The rows serve as a baseline for training and as input for the row check.
"""

from __future__ import annotations

from random import Random

PROMPT = "从以下小说内容中提取人物关系:"
"""Instruction before the text, without a line break."""

CHARACTERS = (
    "韩立", "墨大夫", "紫灵", "李慕白", "莫倾城", "楚风", "柳如烟", "剑宗掌门", "江尘", "林清",
    "沈墨", "苏璃", "周天", "谢灵涯", "唐昊", "萧炎", "白浅", "夜华", "凤九", "东皇太一",
)  # fmt: skip
"""Names of the characters."""

RELATIONS = (
    "夫妻", "师徒", "恋人", "敌对", "父女", "师兄弟", "好友", "师妹", "师姐", "师傅", "师尊", "同门",
    "情敌", "师父", "徒弟", "战友", "师叔", "师伯", "师姑", "父子", "母子", "兄弟", "姐妹",
)  # fmt: skip
"""The labels, in the published order."""

FORMS = (
    "{a}与{b}是{r}关系。",
    "{a}是{b}的{r}。",
    "{b}一直深爱着{a},两人是{r}。",
    "{a}和{b}关系复杂,既是{r},又有矛盾。",
    "{a}收{b}为徒弟,师徒关系牢固。",
    "{a}与{b}情同手足,是{r}。",
    "{a}深爱着{b},两人结为{r}。",
    "{a}和{b}曾是{r}。",
)
"""Sentence patterns; numbered from 1 in the metadata."""


def compose(rng: Random) -> tuple[str, str, list[int]]:
    """Return prompt, gold, and the pattern number of each sentence."""
    count = 1 + rng.randrange(3)
    relations = rng.sample(RELATIONS, count)
    people = rng.sample(CHARACTERS, 2 * count)
    sentences, gold_lines, numbers = [], [], []
    for head, tail, relation in zip(people[::2], people[1::2], relations, strict=True):
        number, form = rng.choice(list(enumerate(FORMS, 1)))
        sentences.append(form.format(a=head, b=tail, r=relation))
        gold_lines.append(f"{head}-{tail}:{relation}")
        numbers.append(number)
    return PROMPT + " ".join(sentences), "\n".join(gold_lines), numbers
