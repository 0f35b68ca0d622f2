"""Names of invented people: surnames, given names that fit a gender, and titles.

The split of a given name is a function of its characters, so that no given name of a test passage is in a training passage.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

SURNAMES = tuple(
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹柏窦章苏潘葛奚范彭鲁韦马苗方俞袁柳鲍史唐费廉岑薛雷贺倪汤"
    "滕殷罗毕郝邬安常傅卞齐康伍余顾孟黄穆萧尹姚邵湛汪祁毛狄臧戴宋庞熊纪舒屈项祝董梁杜阮蓝季贾路娄江童颜郭梅盛林钟徐邱骆高夏蔡田樊胡凌霍"
    "虞万柯管卢莫房裘丁宣邓郁杭洪左石崔龚程邢裴陆翁荀甄封储靳段焦侯宁甘厉武符刘景詹龙叶黎白蒲卓蔺屠蒙乔翟谭冉桑桂牛燕尚温庄晏柴阎连艾"
    "容古易廖耿满文寇欧聂晁冷辛简饶曾沙关荆游"
)
COMPOUND_SURNAMES = (
    "欧阳", "上官", "司马", "诸葛", "慕容", "东方", "南宫", "皇甫", "尉迟", "公孙", "令狐", "夏侯",
    "独孤", "端木", "轩辕", "闻人", "百里", "西门", "司徒", "宇文", "司空", "钟离",
)  # fmt: skip
MALE = (
    "刚强勇军伟雄峰岳虎豹彪威杰豪毅坚磊锋剑钧铭锐鹏鸿翰麒骏骁骥骞腾超凯建国邦振兴昌荣德义仁忠诚贤哲睿儒臣栋松桐楠森海涛波渊泽源川洲浩"
    "乾坤宇寰昊旭昭晖曜霆震炎煜烨焕炳耀辉光达志承继绍耕牧樵嵩崇峻岱彦奎斌宪章弘敬恭宽裕济勋铎钊钦铮锡滔沧"
)
FEMALE = (
    "芳芬芷芸芝芙蓉莲荷菊菱菡萱薇蔷薰兰蕙蕊莹莺娟娥婉婷娴婵嫣妍妙娜娇秀丽倩巧慧淑贞静怡悦惠柔香馨桃杏梨樱棠琴瑶琼瑾璇珍珠玲珊琳翠碧黛"
    "绫绮绣缨霞雪霜露虹雯鸾鹃月盈绢素红紫彩莉苓茵茜蕾眉萍荔锦纤"
)
NEUTRAL = (
    "云风雨清明书墨青玉秋春冬晓晨夕暮星安平永思念怀尘凡言诗画音韵歌竹溪舟帆雁鹤归知望希修允元初灵冰寒逸羽尧嘉瑞祥庆福康宝佩瑛瑜玄微朴守存"
    "宜恒悠悟惜慕佑启舒朗澄澈湘沐澜渔桥枫梧槐杉葵苇茗岚屏轩亭陵谦慎旻昕晴暄朔颂"
)
CHARACTERS = {"m": MALE, "f": FEMALE, "-": NEUTRAL}
"""Characters of given names by the gender they are mostly given to."""

LAY_TITLES = {
    ("m", "old"): ("大夫", "掌柜", "员外", "镖头", "老爷", "庄主", "捕头", "将军"),
    ("f", "old"): ("夫人", "老夫人", "大娘"),
    ("m", "new"): ("先生", "老板", "医生", "校长", "科长"),
    ("f", "new"): ("太太", "大妈", "医生"),
}
"""Titles of adults after a surname, by gender and era."""

ORDAINED_TITLES = {"m": ("道人", "真人", "大师", "上人", "长老"), "f": ("师太", "仙姑", "真人")}
"""Suffixes of religious names."""

# Second characters that form a common word with the first: in a text, such a name could be read as the word.
_COMMON_WORDS = {
    "白": "云雪玉露桃菊莲兰昼鹤", "江": "山海波涛风枫", "高": "山达超雄歌原升平亭桥岚昌志峰峻明洁", "黄": "河昏金梅", "雷": "霆雨",
    "金": "玉光银秋星桂杯", "温": "婉柔泉馨", "安": "宁康静平诚慎逸雅祥乐怡", "文": "静章书明雅昌", "明": "月", "方": "正",
    "石": "林青榴竹桥松", "马": "良", "梅": "雨香竹", "寒": "冰", "清": "风", "康": "庄", "平": "安静", "沙": "海",
    "万": "福寿言里源星光国邦元", "齐": "心", "古": "玉朴风琴诗", "林": "海涛溪", "秋": "雨", "夏": "雨夕", "冷": "静风雨清",
    "简": "明朴言", "常": "青春", "尚": "书", "武": "昌", "何": "须如言", "连": "云夕枫", "乔": "松", "关": "山怀", "龙": "凤虎舟",
    "叶": "绮", "柳": "絮岸枫", "田": "园亭", "厉": "风", "凌": "晨风", "盛": "夏春宴国", "杜": "鹃", "屈": "膝平", "水": "仙",
    "竹": "林", "松": "竹", "顾": "惜念望", "曾": "经言", "华": "盛灯光", "容": "光颜", "毕": "言", "舒": "怀朗悠", "施": "恩德",
    "许": "诺国愿", "易": "言", "计": "算", "余": "晖光音韵波望香庆", "满": "月怀", "玉": "佩",
}  # fmt: skip

TEST_ONE_IN = 4
"""One in this many given names belongs to the test split."""


def split_of(given: str) -> str:
    """Return the split of a given name, from a checksum of its characters."""
    # multiplied by Knuth's hash constant, because the low bits of a CRC are linear in the text and would favour some last characters
    return "test" if (zlib.crc32(given.encode()) * 2654435761 >> 16) % TEST_ONE_IN == 0 else "train"


@dataclass(frozen=True)
class Person:
    """One character of a passage.

    Attributes:
        name: The name as in the passage and in the gold.
        gender: ``m`` or ``f``.
        surname: Empty for a servant and for a religious name.
        given: The given name, which decides the split; for a person with a title, the whole name.
        style: ``full``, ``titled``, ``ordained`` or ``servant``.
    """

    name: str
    gender: str
    surname: str
    given: str
    style: str = "full"

    @property
    def familiar(self) -> str:
        """Familiar name: the given name if it has two characters, else the full name."""
        return self.given if len(self.given) == 2 else self.name


class NameSource:
    """Draws the people of one passage: their names are of one split, and none is a part of another."""

    def __init__(self, rng: Random, split: str) -> None:
        self._rng = rng
        self._split = split
        self._people: list[Person] = []

    def person(self, gender: str, *, surname: str | None = None, sibling: Person | None = None, shows_gender: bool = False) -> Person:
        """Draw a person with surname and given name.

        Args:
            gender: ``m`` or ``f``.
            surname: Surname of the family; None for an unused one.
            sibling: A sibling, with whom the first character of the given name may be shared.
            shows_gender: Whether the name must show the gender.
        """
        while True:
            new_surname = self.surname() if surname is None else surname
            person = self._try_add(gender, new_surname, self._draw_given_name(gender, sibling, shows_gender))
            if person:
                return person

    def titled(self, gender: str, era: str, *, surname: str | None = None) -> Person:
        """Draw a person named by surname and title, such as 墨大夫."""
        while True:
            new_surname = self.surname() if surname is None else surname
            person = self._try_add(gender, new_surname, new_surname + self._pick(LAY_TITLES[gender, era]), "titled")
            if person:
                return person
            if surname is not None:  # a surname has few titles, and all of them may belong to the other split
                return self.person(gender, surname=surname)

    def ordained(self, gender: str) -> Person:
        """Draw a person with a religious name, such as 清尘道人."""
        while True:
            first, second = self._pick(NEUTRAL), self._pick(NEUTRAL)
            person = self._try_add(gender, "", first + second + self._pick(ORDAINED_TITLES[gender]), "ordained")
            if person:
                return person

    def servant(self, gender: str) -> Person:
        """Draw a person with the pet name of a servant, such as 阿秀 or 翠儿."""
        while True:
            character = self._pick(CHARACTERS[gender] + NEUTRAL)
            given = self._pick(("阿" + character, character + "儿", "小" + character))
            person = self._try_add(gender, "", given, "servant")
            if person:
                return person

    def surname(self) -> str:
        """Draw a surname not yet used in the passage."""
        used_surnames = {person.surname for person in self._people}
        while True:
            surname = self._pick(SURNAMES if self._rng.randrange(12) else COMPOUND_SURNAMES)
            if surname not in used_surnames:
                return surname

    def _pick(self, items: Sequence[str]) -> str:
        return items[self._rng.randrange(len(items))]

    def _draw_given_name(self, gender: str, sibling: Person | None, shows_gender: bool) -> str:
        """Draw one or two characters; usually, and always with ``shows_gender``, one of them is a character of the gender."""
        gendered = CHARACTERS[gender]
        if self._rng.randrange(10) < 3:
            return self._pick(gendered if shows_gender or self._rng.randrange(3) else NEUTRAL)
        if sibling is not None and len(sibling.given) == 2 and self._rng.randrange(3) == 0:
            first = sibling.given[0]
        else:
            first = self._pick(gendered + NEUTRAL)
        second = self._pick(gendered if (shows_gender and first in NEUTRAL) or self._rng.randrange(2) else NEUTRAL)
        return first + second

    def _try_add(self, gender: str, surname: str, given: str, style: str = "full") -> Person | None:
        """Add a person; None when the name is of the other split, could be read as a word, or resembles another name of the passage."""
        name = given if given.startswith(surname) else surname + given
        # a name inside another makes the gold ambiguous
        conflicts = any(name in other.name or other.name in name or given == other.given for other in self._people)
        repeats_character = len(set(name)) < len(name)  # 刚刚 and 香香 are words
        if conflicts or repeats_character or _is_word(name) or _is_word(given) or split_of(given) != self._split:
            return None
        person = Person(name, gender, surname, given, style)
        self._people.append(person)
        return person


def _is_word(text: str) -> bool:
    return len(text) == 2 and text[1] in _COMMON_WORDS.get(text[0], "")
