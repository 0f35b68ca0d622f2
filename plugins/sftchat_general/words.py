"""Data: words of the rows, by language.

About a quarter of the words is held out for ``split=test`` (``sftchat_general.draft.is_held_out``), the same ones in every table. The generated
rows depend on the order of a table.
"""

from __future__ import annotations

LANGUAGES = ("zh", "en")
SPLITS = ("train", "test")
"""Splits of words, numbers and phrasings."""

NAMES: dict[str, tuple[str, ...]] = {
    "en": tuple(
        "Anna Tom Lucy Ben Emma Jack Mary Sam Alice Peter Nora Leo Grace Henry Ruby Oscar Clara Paul Ella David Julia Mark Rose "
        "Simon Amy Frank Lily George Helen Max Sarah Adam Eva Daniel Zoe Martin Laura Kevin Nina Robert".split()
    ),
    "zh": tuple(
        "小明 小红 小刚 小丽 小华 小芳 小军 小兰 李雷 韩梅 王强 张敏 刘洋 陈静 杨帆 赵磊 周婷 吴昊 徐慧 孙涛 马超 朱琳 胡斌 郭雪 何平 高飞 林晓 罗云 "
        "郑凯 梁燕 宋佳 唐宁 许文 韩冰 冯亮 邓超 曹颖 彭辉 曾莉 肖阳".split()
    ),
}
"""Names of people."""

CATEGORIES: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "a fruit": tuple("apple banana pear peach grape lemon mango cherry plum melon apricot papaya strawberry coconut".split()),
        "an animal": tuple("tiger rabbit horse monkey elephant giraffe camel wolf zebra donkey kangaroo dolphin squirrel panda".split()),
        "a vehicle": tuple("bus train bicycle truck airplane tram ferry tractor motorcycle helicopter taxi van".split()),
        "a piece of clothing": tuple("shirt coat scarf sweater jacket skirt trousers sock glove dress jeans pyjamas".split()),
        "a musical instrument": tuple("piano violin guitar flute trumpet drum harp cello clarinet saxophone banjo accordion".split()),
    },
    "zh": {
        "水果": tuple("苹果 香蕉 梨 桃子 葡萄 柠檬 芒果 樱桃 西瓜 草莓 菠萝 荔枝 石榴 橘子".split()),
        "动物": tuple("老虎 兔子 马 猴子 大象 长颈鹿 骆驼 狼 斑马 熊猫 松鼠 海豚 袋鼠 狐狸".split()),
        "交通工具": tuple("公交车 火车 自行车 卡车 飞机 轮船 地铁 摩托车 直升机 出租车 电车 渡轮".split()),
        "衣物": tuple("衬衫 大衣 围巾 毛衣 外套 裙子 裤子 袜子 手套 睡衣 背心 棉袄".split()),
        "乐器": tuple("钢琴 小提琴 吉他 长笛 小号 二胡 古筝 琵琶 口琴 大提琴 手风琴 唢呐".split()),
    },
}
"""Words by category, without overlap; English categories include the article."""

WORDS: tuple[str, ...] = tuple(
    sorted(
        {word for group in CATEGORIES["en"].values() for word in group}
        | set(
            "river mountain window garden bottle candle letter market bridge forest island kitchen mirror needle office pencil "
            "ribbon school ticket village winter yellow basket button corner dinner engine flower hammer jungle kettle ladder "
            "magnet number orange pepper rocket silver tunnel valley weather blanket cabinet diamond evening feather harbour "
            "journey lantern message network ocean picture quarter shadow teacher umbrella volcano whisper anchor breeze castle "
            "desert echo fossil glacier honey igloo jewel knight lemonade meadow nectar oyster parade quilt raindrop sailor "
            "thunder uniform velvet walnut yogurt zipper".split()
        )
    )
)
"""English words, in alphabetical order."""

PHRASES: tuple[str, ...] = tuple(
    "春暖花开 人山人海 一心一意 风和日丽 百花齐放 大海捞针 画蛇添足 守株待兔 自言自语 千山万水 欢天喜地 井底之蛙 天天向上 好好学习 "
    "床前明月光 春眠不觉晓 白日依山尽 黄河入海流 更上一层楼 处处闻啼鸟 举头望明月 低头思故乡 花落知多少 锄禾日当午 "
    "世上无难事 有志者事竟成 远亲不如近邻 百闻不如一见 不到长城非好汉 三人行必有我师 山重水复疑无路 柳暗花明又一村 "
    "飞流直下三千尺 两岸猿声啼不住 轻舟已过万重山 千里江陵一日还 桃花潭水深千尺 一寸光阴一寸金 兴高采烈 五颜六色 十全十美 四面八方".split()
)
"""Chinese idioms, sayings and lines of classical verse, without punctuation."""

COLOURS: dict[str, tuple[str, ...]] = {
    "en": ("red", "blue", "green", "purple", "yellow", "white", "black", "orange", "brown", "pink", "grey", "silver"),
    "zh": ("红色", "蓝色", "绿色", "紫色", "黄色", "白色", "黑色", "橙色", "棕色", "粉色", "灰色", "银色"),
}
"""Colours, as a noun and as an adjective."""

BELONGINGS: dict[str, tuple[str, ...]] = {
    "en": ("hat", "bag", "car", "umbrella", "cup", "bike", "pen", "phone", "coat", "sofa", "door", "kite"),
    "zh": ("帽子", "书包", "汽车", "雨伞", "杯子", "自行车", "钢笔", "手机", "外套", "沙发", "大门", "风筝"),
}
"""Possessions that have a colour."""

CITIES: dict[str, tuple[str, ...]] = {
    "en": ("Paris", "London", "Rome", "Berlin", "Madrid", "Boston", "Tokyo", "Oslo", "Vienna", "Dublin", "Sydney", "Prague"),
    "zh": ("北京", "上海", "广州", "成都", "西安", "武汉", "杭州", "昆明", "南京", "青岛", "长沙", "厦门"),
}
"""Cities."""

COUNTABLE: dict[str, tuple[tuple[str, str], ...]] = {
    "en": tuple(
        (word, "")
        for word in "apples pencils stamps marbles coins cards cookies eggs buttons shells stickers books balloons cups roses stones".split()
    ),
    "zh": (
        ("苹果", "个"), ("铅笔", "支"), ("邮票", "张"), ("气球", "个"), ("硬币", "枚"), ("卡片", "张"), ("鸡蛋", "个"), ("贝壳", "个"), ("贴纸", "张"),
        ("图书", "本"), ("玫瑰", "朵"), ("饼干", "块"), ("糖果", "颗"), ("橘子", "个"), ("本子", "个"), ("积木", "块"),
    ),
}  # fmt: skip
"""Countable things: English plurals, Chinese nouns with their measure words."""

THINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "en": tuple(
        (word, "") for word in "lamp kite box basket ladder vase clock mirror chair drum bottle blanket statue wagon teapot lantern".split()
    ),
    "zh": (
        ("风筝", "只"), ("雨伞", "把"), ("盒子", "个"), ("帽子", "顶"), ("铅笔", "支"), ("皮球", "个"), ("钥匙", "把"), ("照片", "张"), ("手套", "只"),
        ("书包", "个"), ("扇子", "把"), ("杯子", "个"), ("贝壳", "个"), ("灯笼", "盏"), ("围巾", "条"), ("口琴", "支"),
    ),
}  # fmt: skip
"""Nouns for sentences, in Chinese with their measure words."""

SENTENCES: dict[str, tuple[str, ...]] = {
    "en": (
        "{name} {verb} the {adjective} {thing} {place}.",
        "Yesterday {name} {verb} the {thing} {place}.",
        "{name} and a friend {verb} the {adjective} {thing}.",
    ),
    "zh": (
        "{name}在{place}{verb}了一{measure}{thing}。",
        "昨天{name}{verb}了一{measure}{thing}。",
        "{name}和朋友在{place}{verb}了一{measure}{thing}。",
    ),
}
"""Sentence patterns for rewriting."""

VERBS: dict[str, tuple[str, ...]] = {
    "en": ("found", "painted", "carried", "washed", "dropped", "cleaned", "moved", "lifted"),
    "zh": ("捡到", "看见", "找到", "画", "发现", "弄丢", "看到", "捡起"),
}
PLACES: dict[str, tuple[str, ...]] = {
    "en": (
        "in the garden", "behind the house", "near the station", "under the tree", "at school", "by the window", "in the kitchen", "on the hill",
    ),
    "zh": ("院子里", "公园里", "教室里", "河边", "路边", "门口", "山坡上", "树下"),
}  # fmt: skip
ADJECTIVES: tuple[str, ...] = ("old", "small", "heavy", "broken", "new", "wooden", "large", "dusty")

DAYS: dict[str, tuple[str, ...]] = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "zh": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"),
}
MONTHS: dict[str, tuple[str, ...]] = {
    "en": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
    ),
    "zh": ("一月", "二月", "三月", "四月", "五月", "六月", "七月", "八月", "九月", "十月", "十一月", "十二月"),
}  # fmt: skip

LABELS: dict[str, tuple[str, ...]] = {
    "en": ("Note: ", "Update: ", "Reminder: ", "Hint: ", "News: ", "Warning: ", "Answer: ", "Summary: "),
    "zh": ("注意：", "通知：", "提醒：", "提示：", "消息：", "警告：", "回答：", "摘要："),
}
"""Prefixes of sentences."""

TAGS: tuple[str, ...] = ("answer", "result", "output", "final", "reply", "word", "text", "solution")
"""Names of tags that enclose an answer."""
