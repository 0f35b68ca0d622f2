"""Names of invented people: surnames, given names that fit a gender, titles, and the wall between train and test.

A given name belongs to one split by a checksum of its characters, so that no person of a test passage was ever met in
training, whoever generates the two files, in whatever order.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

SURNAMES = tuple(
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹柏窦章苏潘葛奚范彭鲁韦马苗方俞袁柳鲍史唐费廉岑薛雷贺倪汤"
    "滕殷罗毕郝邬安常傅卞齐康伍余顾孟黄穆萧尹姚邵湛汪祁毛狄臧戴宋庞熊纪舒屈项祝董梁杜阮蓝闵季贾路娄江童颜郭梅盛林钟徐邱骆高夏蔡田樊胡凌霍"
    "虞万柯管卢莫房裘丁宣邓郁杭洪左石崔龚程邢裴陆翁荀甄封储靳段焦侯宁甘厉武符刘景詹龙叶黎白蒲卓蔺屠蒙乔翟谭冉桑桂牛燕尚温庄晏柴阎连艾"
    "容古易廖耿满文寇欧聂晁冷辛简饶曾沙关荆游"
)
COMPOUND_SURNAMES = (
    "欧阳", "上官", "司马", "诸葛", "慕容", "东方", "南宫", "皇甫", "尉迟", "公孙", "令狐", "夏侯",
    "独孤", "端木", "轩辕", "闻人", "百里", "西门", "司徒", "宇文", "长孙", "司空",
)  # fmt: skip
MALE = (
    "刚强勇军伟雄峰岳虎豹彪威杰豪毅坚磊锋剑钧铭锐鹏鸿翰麒骏骁骥骞腾超凯建国邦振兴昌荣德义仁忠诚贤哲睿儒臣栋松桐楠森海涛波渊泽源川洲浩瀚"
    "乾坤宇寰昊旭昭晖曜霆震炎煜烨焕炳耀辉光达志承继绍耕牧樵嵩崇峻岱彦奎斌宪章弘敬恭宽裕济勋铎钊钦铮锡滔沧"
)
FEMALE = (
    "芳芬芷芸芝芙蓉莲荷菊菱菡萱薇蔷薰兰蕙蕊莹莺娟娥婉婷娴婵嫣妍姝媛妙娜娇姗秀丽倩巧慧淑贞静怡悦惠柔香馨桃杏梨樱棠琴瑶琼瑾璇珍珠玲珊琳翠碧黛"
    "绫绮绣缨霞雪霜露虹雯鸾鹃月盈绢素红紫彩莉苓茵菀茜蓓蕾眉萍荔锦纤"
)
NEUTRAL = (
    "云风雨清明书墨青玉秋春冬晓晨夕暮星安平永思念怀尘凡言诗画音韵歌竹溪舟帆雁鹤归知望希修允元初灵冰寒逸羽尧嘉瑞祥庆福康宝佩珏瑛瑜璟玄微朴守存"
    "宜恒悠悟惜慕佑启舒朗澄澈湘沅沐澜渔樾桥枫梧槐杉葵苇茗岚屏轩亭陵谦慎旻晗昕晴暄曦朔望颂"
)
CHARACTERS = {"m": MALE, "f": FEMALE, "-": NEUTRAL}
"""Characters of given names by the gender they are mostly given to."""

LAY_TITLES = {
    ("m", "old"): ("大夫", "掌柜", "员外", "镖头", "老爷", "庄主", "捕头", "将军"),
    ("f", "old"): ("夫人", "老夫人", "大娘"),
    ("m", "new"): ("先生", "老板", "医生", "校长", "科长"),
    ("f", "new"): ("太太", "大妈", "医生"),
}
"""What follows a surname where a novel names a grown person by standing, by gender and age of the story."""

ORDAINED_TITLES = {"m": ("道人", "真人", "大师", "上人", "长老"), "f": ("师太", "仙姑", "真人")}
"""What follows two characters of a religious name."""

# Surname and given name that read as an everyday word: the passage would be a riddle, not an exercise.
_WORDS = frozenset(
    "白云 白雪 白玉 白露 江山 高山 黄河 雷霆 雷雨 金玉 温婉 温柔 安宁 安康 安静 安平 安诚 文静 文章 文书 明月 方正 石林 马良 梅雨 梅香 寒冰 清风 "
    "康宁 平安 平静 高达 高超 高雄 高歌 高原 沙海 江海 江波 江涛 白桃 白菊 白莲 白兰 万福 万寿 齐心 古玉 石青 石榴 石竹 石桥 金光 金银 金秋 金星 "
    "黄昏 黄金 黄梅 林海 林涛 林溪 秋雨 夏雨 夏夕 冷静 冷风 冷雨 冷清 简明 简朴 古朴 温泉 温馨 常青 常言 常春 常德 常平 尚书 武威 武昌 武德 文明 文雅 "
    "文德 文昌 白昼 白鹤 石松 江风 江枫 何须 何如 何言 游云 连云 连夕 连枫 乔松 关山 关怀 马勇 龙凤 龙虎 龙舟 古风 古琴 古诗 叶绮 柳絮 柳岸 柳枫 "
    "田园 田亭 康平 安慎 安逸 安雅 安祥 安乐 安怡 厉风 凌晨 凌风 盛夏 盛春 盛宴 盛国 杜鹃 屈膝 屈平 范章 水仙 竹林 梅竹 松竹 兰竹 顾惜 顾念 顾望 "
    "曾经 曾言 华盛 华灯 华光 容光 容颜 毕言 舒怀 舒朗 舒悠 施恩 施德 许诺 许国 许愿 易言 计算 万言 万里 万源 万星 万光 万国 万邦 万元 余晖 余光 余音 "
    "余韵 余波 余望 余香 余庆 余庆 康庄 满月 满怀 满族 简言 高升 高平 高亭 高桥 高岚 高昌 高志 高峰 高峻 高明 高洁 金星 金桂 金杯 玉佩".split()
)

TEST_SHARE = 4
"""One given name in this many belongs to the test split."""


def split_of(given: str) -> str:
    """The split that owns a given name: a checksum of its characters, the same on every machine."""
    # A multiplicative step first: the low bits of a CRC are linear in the text, and would favour some last characters.
    return "test" if (zlib.crc32(given.encode()) * 2654435761 >> 16) % TEST_SHARE == 0 else "train"


@dataclass(frozen=True)
class Person:
    """One character of a passage.

    Attributes:
        name: The name as it stands in the passage and in the gold.
        gender: ``m`` or ``f``.
        surname: Empty for someone known by a given or a religious name alone.
        given: What the split is decided by; for a title, the whole name.
    """

    name: str
    gender: str
    surname: str
    given: str

    @property
    def pronoun(self) -> str:
        """What the narration calls the person when not by name."""
        return "他" if self.gender == "m" else "她"

    @property
    def familiar(self) -> str:
        """What family and friends call the person: the given name where it can stand alone, else the name."""
        return self.given if len(self.given) == 2 else self.name


class NameSource:
    """Draws the people of one passage: distinct, all of one split, no name a part of another."""

    def __init__(self, rng: Random, split: str) -> None:
        """Draw from a generator of random numbers, keeping to one split."""
        self._rng = rng
        self._split = split
        self._people: list[Person] = []

    def person(self, gender: str, *, surname: str | None = None, like: Person | None = None) -> Person:
        """A new person with surname and given name; ``like`` is a sibling whose generation character may be shared."""
        while True:
            family = surname if surname is not None else self.surname()
            person = self._admit(Person("", gender, family, self._given(gender, like)))
            if person:
                return person

    def titled(self, gender: str, era: str, *, surname: str | None = None) -> Person:
        """A new person named by surname and standing, such as 墨大夫."""
        while True:
            family = surname if surname is not None else self.surname()
            person = self._admit(Person("", gender, family, family + self._pick(LAY_TITLES[gender, era])))
            if person:
                return person
            if surname is not None:  # few titles fit one surname, and all may belong to the other split
                return self.person(gender, surname=surname)

    def ordained(self, gender: str) -> Person:
        """A new person with a religious name, such as 清尘道人."""
        while True:
            first, second = self._pick(NEUTRAL), self._pick(NEUTRAL)
            person = self._admit(Person("", gender, "", first + second + self._pick(ORDAINED_TITLES[gender])))
            if person:
                return person

    def servant(self, gender: str) -> Person:
        """A new person with the pet name of a servant, such as 阿秀 or 翠儿."""
        while True:
            character = self._pick(CHARACTERS[gender] + NEUTRAL)
            given = self._pick(("阿" + character, character + "儿", "小" + character))
            person = self._admit(Person("", gender, "", given))
            if person:
                return person

    def surname(self) -> str:
        """A surname that nobody in the passage has."""
        taken = {person.surname for person in self._people}
        while True:
            surname = self._pick(SURNAMES) if self._rng.randrange(12) else self._pick(COMPOUND_SURNAMES)
            if surname not in taken:
                return surname

    def _pick(self, items: Sequence[str]) -> str:
        return items[self._rng.randrange(len(items))]

    def _given(self, gender: str, like: Person | None) -> str:
        """One or two characters, at least one of them of the gender three times in four."""
        marked = CHARACTERS[gender]
        if self._rng.randrange(10) < 3:
            return self._pick(marked if self._rng.randrange(3) else NEUTRAL)
        if like is not None and len(like.given) == 2 and self._rng.randrange(3) == 0:
            first = like.given[0]
        else:
            first = self._pick(marked + NEUTRAL)
        second = self._pick(marked if self._rng.randrange(2) else NEUTRAL)
        return first + second

    def _admit(self, draft: Person) -> Person | None:
        """The person with the name put together, or None where split, sense or somebody else's name forbids it."""
        given, surname = draft.given, draft.surname
        name = given if given.startswith(surname) else surname + given
        # A character twice (刚刚, 香香) reads as a word; a name inside a name makes the gold ambiguous.
        clash = any(name in other.name or other.name in name or given == other.given for other in self._people)
        if clash or name in _WORDS or given in _WORDS or len(set(name)) < len(name) or split_of(given) != self._split:
            return None
        person = Person(name, draft.gender, surname, given)
        self._people.append(person)
        return person
