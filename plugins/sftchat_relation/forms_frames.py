"""Data: sentences that fit many relations, with slots for the nouns of a relation; the grammar is that of `forms`.

The nouns of a relation are the same in both splits, the sentences differ. {H} is the noun of the head, {T} of the tail, {D} of both together,
and {N} is the noun of {Y}, one of the two people, in relation to the other, {X}. A leading ``+`` marks friendly acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Nouns(NamedTuple):
    """Nouns for the two sides of a relation.

    Attributes:
        tag: Required genders, as in `forms`; empty for those of the relation.
        head: Noun of the head.
        tail: Noun of the tail.
        alone: Whether one of the nouns determines the relation and the genders.
    """

    tag: str
    head: str
    tail: str
    alone: bool = False


PAIRS: dict[str, tuple[Nouns, ...]] = {
    "父子": (Nouns("", "[父亲|老父]", "儿子"),),
    "父女": (Nouns("", "[父亲|老父]", "女儿"),),
    "母子": (Nouns("", "[母亲|老母]", "儿子"),),
    "母女": (Nouns("", "[母亲|老母]", "女儿"),),
    "兄弟": (Nouns("", "[哥哥|兄长]", "弟弟"),),
    "姐妹": (Nouns("", "姐姐", "妹妹"),),
    "兄妹": (Nouns("", "[哥哥|兄长]", "妹妹"),),
    "姐弟": (Nouns("", "姐姐", "弟弟"),),
    "祖孙": (Nouns("mm>", "[祖父|爷爷]", "孙子", True), Nouns("ff>", "[祖母|奶奶]", "孙女", True)),
    "师徒": (Nouns("", "[师父|恩师]", "[徒弟|徒儿]", True),),
    "主仆": (Nouns("", "[主人|东家]", "[仆人|下人]", True),),
    "夫妻": (Nouns("", "丈夫", "[妻子|爱妻]", True),),
}
"""Relations with different nouns for the two sides."""

PEERS = {
    "恋人": ("[恋人|心上人]", "一对恋人"),
    "好友": ("[好友|挚友|知己]", "[两位好友|一对知己]"),
    "敌对": ("[死敌|仇人|仇家]", "[两个死敌|两个仇家]"),
    "情敌": ("情敌", "两个情敌"),
    "战友": ("[战友|老战友]", "[两个战友|两个老战友]"),
    "同门": ("同门", "两个同门"),
}
"""Relations with one noun for both sides, and the noun for both together."""

COUPLES = {"夫妻": "[夫妻二人|夫妻俩]", "兄弟": "[兄弟二人|兄弟俩]", "姐妹": "[姐妹二人|姐妹俩]"} | {label: words[1] for label, words in PEERS.items()}

HOSTILE = frozenset({"敌对", "情敌"})

BOTH = {
    "train": (
        "{H}{a}[坐在{place}喝茶|在{place}歇脚]，{T}{b}站在一旁，[谁也不说话|半晌没有作声]。",
        "{time}，{T}{b}把{object}交到{H}{a}手里，[转身走了|什么也没说]。",
        "{H}{a}病了，{T}{b}[守了三天三夜|端汤送药，一刻也不离开]。",
        "{T}{b}闯了祸，{H}{a}[出面赔了钱|叹着气去赔礼]。",
        "{H}{a}要去{city}，{T}{b}送到{place}才回头。",
        "{T}{b}从{city}寄来一封信，{H}{a}看了一遍又一遍。",
        "这些年，{H}{a}[忙里忙外|起早贪黑]，{T}{b}却[日日闲坐|整日在{place}闲逛]。",
        "{H}{a}开口便骂，{T}{b}低着头听，[一句也不敢回|眼圈渐渐红了]。",
        "{T}{b}问了一句，{H}{a}[没有回答|只是摇头]。",
        "{place}起火时，{H}{a}拉着{T}{b}冲了出来。",
        "{T}{b}一连几日没有回来，{H}{a}[急得四处打听|夜夜点着灯等]。",
        "{H}{a}把{object}留给{T}{b}，自己两手空空去了{city}。",
        "听说{T}{b}受了伤，{H}{a}连夜赶到{place}。",
        "{H}{a}笑着招手，{T}{b}这才[从{place}跑过来|慢慢走近]。",
        "{place}那头，{H}{a}和{T}{b}[正说着话|吵了起来]。",
        "{T}{b}回头看了{H}{a}一眼，[加快了脚步|眼里含着泪]。",
        "“{T}呢？”有人问{H}{a}。{a}指了指{place}：“{b}在那边。”",
        "“{H}在哪里？”有人问{T}{b}。{b}答道：“{a}去{city}了。”",
        "{H}名叫{a}，{T}名叫{b}，[两人同住一处|都不是本地人]。",
        "{T}{b}最怕{H}{a}生气，[做什么都要先问一声|说话总是小心]。",
        "雨越下越大，{H}{a}把伞往{T}{b}那边[偏了偏|挪了挪]。",
        "{H}{a}死死护住{T}{b}，[挨了几棍也没有松手|谁也不许靠近]。",
    ),
    "test": (
        "{T}{b}在{place}迷了路，{H}{a}[提着灯|冒着雨]找了一夜。",
        "{H}{a}[剥着花生|抽着烟]，忽然问起{place}的事，{T}{b}支吾了半天。",
        "门一开，{H}{a}先走进来，后头跟着{T}{b}，手里提着{object}。",
        "{T}{b}[瞒着众人|悄悄]卖了{object}，只为给{H}{a}抓药。",
        "{H}{a}话少，{T}{b}话多，[坐在一处倒也热闹|一路上全听见一个人说]。",
        "{time}，{H}{a}带着{T}{b}搬到了{city}。",
        "{T}{b}哭着不肯走，{H}{a}[狠下心|背过身去]，一眼也没有再看。",
        "{H}{a}输光了钱，{T}{b}只好去{place}[做工|帮忙]。",
        "“别怕。”{H}{a}拉住{T}{b}的手，[往{place}跑去|一步步退到墙边]。",
        "{T}{b}说要去{city}，{H}{a}[沉默了许久|连说了三个好字]。",
        "{H}{a}的饭凉了，{T}{b}又端去热了一回。",
        "{place}来了生人，{H}{a}让{T}{b}先躲一躲。",
        "多年以后，{T}{b}还记得{H}{a}那天说过的话。",
        "{T}{b}照着样子写字，{H}{a}在旁边看着，[忍不住笑了|一言不发]。",
        "{H}{a}拍拍身上的土，叫上{T}{b}，[一起回家|去了{place}]。",
        "{T}{b}躲在{H}{a}身后，[不敢抬头|只露出半张脸]。",
        "“你{T}在{place}。”有人告诉{H}{a}。{a}赶去一看，果然是{b}。",
        "“你{H}来了。”有人告诉{T}{b}。{b}出门一看，果然是{a}。",
        "这家里，{H}{a}[做主|当家]，{T}{b}[跑腿|听话]。",
        "{T}{b}一心想让{H}{a}[过上好日子|高兴]，什么苦都肯吃。",
        "灯灭了，{H}{a}摸黑去找{T}{b}，[碰翻了椅子|喊了好几声]。",
        "{H}{a}舍不得吃，把点心都留给了{T}{b}。",
    ),
}
"""Sentences with the nouns of both people."""

ONE = {
    "train": (
        "{X}的{N}{Y}住在{place}后头，[隔几日便来一趟|很少出门]。",
        "+{time}，{X}提着{object}去看{N}{Y}。",
        "{X}逢人便说，{Y}是自己的{N}。",
        "{Y}是{X}的{N}，[{place}一带无人不知|这件事谁都晓得]。",
        "{X}一进{place}，就看见{N}{Y}[坐在那里|迎面走来]。",
        "“这是我的{N}{Y}。”{X}指着身边的人说。",
        "+{X}写信给{N}{Y}，说{city}的天气[一日冷似一日|还好]。",
        "{N}{Y}走后，{X}[一个人坐到半夜|好几天没有说话]。",
        "提起{N}{Y}，{X}[总有说不完的话|便不再作声]。",
        "{X}在{city}等了{n}年，终于等到{N}{Y}的消息。",
        "{Y}，{X}的{N}，[这天也到了{place}|一早便出了门]。",
        "+{X}卖掉{object}，替{N}{Y}还了债。",
    ),
    "test": (
        "{X}有个{N}，名叫{Y}，[住在{city}|在{place}做事]。",
        "{place}里，{X}把{object}递给{N}{Y}，[两人相视无言|手却有些发抖]。",
        "“{Y}是你什么人？”“是我的{N}。”{X}[答得干脆|低声答道]。",
        "{X}的{N}不是别人，正是{Y}。",
        "{X}听见{N}{Y}的名字，[手里的茶洒了一半|脸色变了一变]。",
        "{time}，{X}在{place}遇见{N}{Y}，[站着说了半晌|两人都愣住了]。",
        "人人都知道{Y}是{X}的{N}，[只有{X}自己从不提起|连孩子也知道]。",
        "+{X}病中，只有{N}{Y}来过一回。",
        "{N}{Y}的[脾气|心思]，{X}最清楚不过。",
        "{X}没有想到，{N}{Y}会[从{city}赶来|在{place}等着]。",
        "+{X}梦见了{N}{Y}，醒来时天还没有亮。",
        "+那一夜，{X}和{N}{Y}[说了很多话|都没有睡]。",
    ),
}
"""Sentences with the noun of one person."""

TOGETHER = {
    "train": (
        "{a}、{b}{D}在{place}[坐了一夜|碰了面]，话却不多。",
        "{time}，{a}和{b}{D}[都到了{city}|又在{place}相见]。",
        "“看，那就是{a}和{b}。”“{D}？怪不得。”[茶客们|路人]低声议论。",
        "{D}里，{a}年长些，{b}[性子急|话更多]。",
        "说起{place}的{D}，人人都知道是{a}和{b}。",
        "{a}和{b}本是{D}，[这事瞒不了人|{city}城里都晓得]。",
    ),
    "test": (
        "{D}，一个叫{a}，一个叫{b}，[都在{place}做事|先后到了{city}]。",
        "{city}的人都认得{a}和{b}这{D}。",
        "{a}走在前头，{b}走在后头，{D}[一路无话|各想各的心事]。",
        "{object}摆在{a}和{b}{D}中间，谁也没有去拿。",
        "{time}，{place}只剩下{a}和{b}{D}。",
        "谁能想到，{a}和{b}竟是{D}。",
    ),
}
"""Sentences with the noun of both together."""


class Frames(NamedTuple):
    """The frames of one language.

    Attributes:
        pairs: Nouns of relations with different nouns for the two sides.
        peers: Nouns of relations with one noun for both sides, and the noun for both together.
        couples: Nouns for both together, by relation.
        hostile: Relations without friendly acts.
        both: Sentences with the nouns of both people, by split.
        one: Sentences with the noun of one person, by split.
        together: Sentences with the noun of both together, by split.
    """

    pairs: Mapping[str, tuple[Nouns, ...]]
    peers: Mapping[str, tuple[str, str]]
    couples: Mapping[str, str]
    hostile: frozenset[str]
    both: Mapping[str, tuple[str, ...]]
    one: Mapping[str, tuple[str, ...]]
    together: Mapping[str, tuple[str, ...]]

    def fill(self, label: str, split: str) -> tuple[str, ...]:
        """Return the sentences of one relation and split, with its nouns."""
        rows = []
        for nouns in self.pairs.get(label, ()):
            rows += [nouns.tag + row.replace("{H}", nouns.head).replace("{T}", nouns.tail) for row in self.both[split]]
            if nouns.alone:
                rows += [nouns.tag + _fill_one(row, "a", nouns.tail, "b") for row in self.one[split]]
                rows += [nouns.tag + _fill_one(row, "b", nouns.head, "a") for row in self.one[split]]
        if label in self.peers:
            noun, _ = self.peers[label]
            fitting = [row for row in self.one[split] if label not in self.hostile or not row.startswith("+")]
            rows += [_fill_one(row, x, noun, y) for row in fitting for x, y in ("ab", "ba")]
        if label in self.couples:
            rows += [row.replace("{D}", self.couples[label]) for row in self.together[split]]
        return tuple(rows)


def _fill_one(row: str, x: str, noun: str, y: str) -> str:
    """Return a sentence with the noun of one person, whose slots are those of the two people; {xo} and {xs} are pronouns of {X}."""
    row = row.removeprefix("+").replace("{xo}", f"{{o{x}}}").replace("{xs}", f"{{s{x}}}")
    return row.replace("{X}", f"{{{x}}}").replace("{Y}", f"{{{y}}}").replace("{N}", noun)


FRAMES = Frames(PAIRS, PEERS, COUPLES, HOSTILE, BOTH, ONE, TOGETHER)
"""The Chinese frames."""
