"""Text patterns for the pretraining of the embedded model: copying, listing, pairing, question and answer.

A pattern is a function that takes a random number generator and returns a prompt and its answer. Patterns teach a small model to find a string in its
context and to write it again in a given shape; learning this from novels alone takes many more tokens. No pattern is a row of a task that sftchat ships:
there is no kinship, no relation between characters, no arithmetic, no counting, no ordering and no identity.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import nano_ties

Pattern = Callable[[random.Random], tuple[str, str]]

COMMON_HAN = [bytes((high, low)).decode("gb2312") for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF) if (high, low) < (0xD7, 0xFA)]
"""The 3,755 common characters of GB 2312, level 1."""

SURNAMES = list("赵钱孙李周吴郑王冯陈蒋沈韩杨朱秦许何吕施张孔曹严金魏陶姜谢邹苏潘葛范彭鲁韦马苗方俞任袁柳唐薛雷贺倪汤罗毕郝安常于傅齐康伍余")
ENGLISH = """time day night year way man woman child world house school book river tree garden window door table chair horse dog cat bird fish apple
bread water milk tea rice cake stone road bridge hill mountain sea ship boat train car wheel lamp clock letter paper pen story song music color
red blue green black white yellow brown grey gold silver big small old new young long short warm cold dry wet soft hard quiet loud happy sad kind
brave calm quick slow early late near far left right north south east west spring summer autumn winter morning evening rain snow wind cloud sun moon
star field farm market shop street city village king queen doctor teacher farmer sailor singer writer baker driver guest friend brother sister
hand head eye ear foot heart voice name word line page number question answer reason idea dream plan work game gift box bag coat hat shoe ring key
coin cup plate knife spoon bell rope glass fire smoke dust leaf root flower seed grass wood iron salt sugar""".split()
FIRST_NAMES = """Anna Ben Clara David Emma Frank Grace Henry Ivy Jack Kate Leo Mary Noah Olive Paul Rose Sam Tina Victor Wendy Alan Bella Colin Dora
Eric Fiona George Hannah Ian Julia Kevin Laura Mark Nina Oscar Peter Ruth Simon Tom""".split()
PLACES = "京城 江南 山脚 河边 茶馆 酒楼 书房 后院 码头 城门 集市 庙前 渡口 客栈 学堂 花园 村口 桥头 林中 船上 屋顶 井边 田里 街角 药铺 车站 戏院 厨房 海边 灯下".split()
THINGS = (
    "长剑 茶壶 书信 铜镜 雨伞 油灯 棋盘 木箱 马车 竹笛 砚台 绸缎 钥匙 银票 斗笠 酒坛 古琴 地图 药方 风筝 草鞋 毛笔 铁锅 棉被 扇子 石像 灯笼 花瓶 帽子 粮食"
).split()
COLORS = "红色 蓝色 绿色 黑色 白色 黄色 紫色 灰色 青色 金色 银色 褐色".split()
FOODS = "米饭 面条 馒头 豆腐 鱼汤 白菜 苹果 梨子 花生 点心 包子 粥 鸡蛋 萝卜 核桃 甜糕".split()
TIMES = "清晨 黄昏 半夜 午后 初春 深秋 雪天 雨后 次日 三天后 那年 月下 天亮前 傍晚".split()
VERBS = (
    "帮助 追赶 看见 询问 等候 拦住 提醒 责备 安慰 感谢 欺骗 寻找 搀扶 推开 呼唤 邀请 嘲笑 招待 打伤 救起 说服 催促 惊动 迎接 送别 抬起 抓住 夸奖 吓唬 劝阻"
).split()
FILLER = (
    "天色渐渐暗了下来。 街上行人不多。 风吹得窗纸作响。 谁也没有说话。 远处传来几声狗叫。 雨一直下到半夜。 桌上的茶已经凉了。 那条路很长。 院子里落满了叶子。 "
    "灯火一盏一盏亮起来。 山上的雪还没有化。 众人都笑了。 他想了想，又坐下了。 门外有人敲门。 过了很久，天才亮。"
).split()


TITLES = "大夫 掌柜 师太 道人 将军 先生 姑娘 老爷 校长 医生 管家 长老 公子 夫人 班主 庄主".split()
PROSE_SENTENCES: list[str] = []
"""Sentences of the corpora, mixed into passages; the pretraining script fills this list."""


def make_name(rng: random.Random) -> str:
    """Make a Chinese name: mostly two to four characters, sometimes with a title, or a nickname."""
    roll = rng.random()
    if roll < 0.05:
        return rng.choice(SURNAMES) + rng.choice(TITLES)
    if roll < 0.08:
        return rng.choice("阿小老") + rng.choice(COMMON_HAN)
    if roll < 0.1:
        return rng.choice(COMMON_HAN) + rng.choice(COMMON_HAN) + rng.choice(TITLES)
    length = rng.choice((1, 1, 2, 2, 2, 3))
    surname = rng.choice(SURNAMES) if rng.random() < 0.7 else rng.choice(COMMON_HAN)
    return surname + "".join(rng.choice(COMMON_HAN) for _ in range(length))


def make_names(rng: random.Random, count: int) -> list[str]:
    """Make distinct names."""
    distinct: list[str] = []
    while len(distinct) < count:
        candidate = make_name(rng)
        if candidate not in distinct:
            distinct.append(candidate)
    return distinct


def make_string(rng: random.Random, low: int = 3, high: int = 16) -> str:
    """Make a string without meaning: Chinese characters, English words, or ASCII letters and digits."""
    roll = rng.random()
    length = rng.randint(low, high)
    if roll < 0.6:
        return "".join(rng.choice(COMMON_HAN) for _ in range(length))
    if roll < 0.8:
        return " ".join(rng.choice(ENGLISH) for _ in range(max(2, length // 2)))
    return "".join(rng.choice("0123456789abcdefghijklmnopqrstuvwxyzABCDEFG-_.") for _ in range(length))


def copy(rng: random.Random) -> tuple[str, str]:
    """Copy a string."""
    text = make_string(rng)
    instruction = rng.choice(("请重复：", "照抄下面的文字：\n", "原样写出：", "复制：", "Repeat: ", "Copy this text:\n", "再说一遍："))
    return instruction + text, text


def pick(rng: random.Random) -> tuple[str, str]:
    """Find the first item of a list, the last, or the one after a given item."""
    items = make_names(rng, rng.randint(3, 6)) if rng.random() < 0.6 else rng.sample(ENGLISH, rng.randint(3, 6))
    joined = "、".join(items)
    index = rng.randrange(len(items) - 1)
    question, answer = rng.choice(
        ((f"{joined}。第一个是什么？", items[0]), (f"{joined}。最后一个是什么？", items[-1]), (f"{joined}。{items[index]}的后面是什么？", items[index + 1]))
    )
    return question, answer


def listing(rng: random.Random) -> tuple[str, str]:
    """List every name of a text, one per line."""
    people = make_names(rng, rng.randint(1, 5))
    sentences = []
    for person in people:
        sentence = rng.choice(
            ("{p}坐在{place}。", "{time}，{p}到了{place}。", "{p}手里拿着{thing}。", "这时{p}走了进来。", "“是谁？”{p}问。", "{place}有个人叫{p}。", "{p}一言不发。", "大家都在等{p}。")
        )
        sentences.append(sentence.format(p=person, place=rng.choice(PLACES), time=rng.choice(TIMES), thing=rng.choice(THINGS)))
    text = mix_with_filler(rng, sentences)
    instruction = rng.choice(("写出下文中的名字，每行一个：\n", "下面的话里有谁？每行写一个名字。\n", "列出所有人名：\n"))
    return instruction + text, "\n".join(people)


def mix_with_filler(rng: random.Random, sentences: list[str]) -> str:
    """Join the sentences in order, with irrelevant ones between them."""
    mixed = []
    for sentence in sentences:
        if rng.random() < 0.3:
            mixed.append(rng.choice(FILLER))
        mixed.append(sentence)
    if rng.random() < 0.3:
        mixed.append(rng.choice(FILLER))
    return "".join(mixed)


def pairing(rng: random.Random) -> tuple[str, str]:
    """List the pairs of a text as ``left-right``, one per line."""
    count = rng.randint(1, 4)
    left, right = make_names(rng, count), [rng.choice((rng.choice(THINGS), make_name(rng), rng.choice(FOODS))) for _ in range(count)]
    form = rng.choice(("{a}配{b}", "{a}和{b}", "{a}对应{b}", "{a}旁边是{b}", "{b}旁边是{a}", "{b}放在{a}那里", "{a}要{b}", "把{b}给{a}"))
    text = rng.choice(("，", "；", "。")).join(form.format(a=a, b=b) for a, b in zip(left, right, strict=True))
    return f"写成一对一对：{text}。", "\n".join(f"{a}-{b}" for a, b in zip(left, right, strict=True))


FACTS = (
    ("{a}的{thing}是{v}的。", "{a}的{thing}是什么颜色？", COLORS),
    ("{a}住在{v}。", "{a}住在哪里？", PLACES),
    ("{a}最爱吃{v}。", "{a}最爱吃什么？", FOODS),
    ("{a}带着{v}出了门。", "{a}带着什么？", THINGS),
    ("{v}，{a}就动身了。", "{a}什么时候动身？", TIMES),
    ("{a}买了{v}回来。", "{a}买了什么？", THINGS),
    ("在{v}等人的是{a}。", "{a}在哪里等人？", PLACES),
    ("{a}把{v}弄丢了。", "{a}弄丢了什么？", THINGS),
)


def fact(rng: random.Random) -> tuple[str, str]:
    """Answer a question about one of several stated facts."""
    people = make_names(rng, rng.randint(1, 4))
    sentences, questions = [], []
    for person in people:
        form, question, values = rng.choice(FACTS)
        value, thing = rng.choice(values), rng.choice(THINGS)
        sentences.append(form.format(a=person, v=value, thing=thing))
        questions.append((question.format(a=person, thing=thing), value))
    question, answer = rng.choice(questions)
    return f"{mix_with_filler(rng, sentences)}\n问：{question}", answer


EVENTS = (
    "{a}{v}了{b}。", "{b}被{a}{v}了。", "{a}在{place}{v}了{b}。", "{time}，{a}{v}过{b}。", "{v}{b}的人是{a}。", "{a}{v}的人是{b}。", "{b}没想到{a}会{v}自己。",
    "{a}见了{b}，便上前{v}。", "是{a}{v}的{b}。", "{b}受了{a}的{v}。", "{a}对{b}又是一番{v}。", "{b}说，{v}自己的正是{a}。", "{b}让{a}给{v}了。", "{a}想{v}的是{b}。",
)  # fmt: skip


def events(rng: random.Random) -> tuple[str, str]:
    """List events of a text as ``doer-receiver:verb``, one per line; ``无`` without events."""
    count = rng.choice((0, 1, 1, 2, 2, 3))
    people = make_names(rng, 2 * count + 2)
    sentences, lines = [], []
    for i in range(count):
        a, b, verb = people[2 * i], people[2 * i + 1], rng.choice(VERBS)
        sentences.append(rng.choice(EVENTS).format(a=a, b=b, v=verb, place=rng.choice(PLACES), time=rng.choice(TIMES)))
        lines.append(f"{a}-{b}:{verb}")
    if count == 0 or rng.random() < 0.3:
        idle = f"{people[-1]}{rng.choice(('在', '去了', '离开'))}{rng.choice(PLACES)}。"
        sentences.insert(rng.randint(0, len(sentences)), idle)
    instruction = rng.choice(("谁对谁做了什么？每行一条：\n", "写出文中的动作，格式为 甲-乙:动作。\n", "列出动作：\n"))
    return instruction + mix_with_filler(rng, sentences), "\n".join(lines) or "无"


DEEDS = {
    "帮助": "帮助 搀扶 接济 照应 救起 搭救 扶起 护送 医治 收留",
    "冲突": "打伤 推倒 追打 责骂 痛斥 刺伤 绑住 辱骂 殴打 赶走",
    "欺骗": "欺骗 蒙骗 糊弄 哄骗 出卖 诬陷 敷衍 瞒过 捉弄",
    "询问": "询问 盘问 追问 质问 审问 考问 试探",
    "请求": "恳求 央求 拜托 请求 催促 哀求",
    "追寻": "追赶 跟踪 尾随 寻找 追上 拦住 堵住 等候",
    "来往": "探望 看望 拜访 迎接 招待 款待 送别 邀请",
    "称赞": "夸奖 称赞 欣赏 赞叹 佩服 祝贺",
    "劝说": "劝阻 说服 开导 安慰 提醒 告诫",
    "嘲弄": "嘲笑 讥讽 挖苦 取笑 奚落 鄙视",
    "猜疑": "怀疑 提防 猜忌 埋怨 责怪 误会",
}
DEED_FORMS = """{a}{v}了{b}。|{a}又{v}了{b}一回。|{b}被{a}{v}。|{b}让{a}{v}过好几回。|{b}叫{a}给{v}了。|{v}{b}的，正是{a}。|{a}所{v}的人，名叫{b}。
{b}至今记得{a}如何{v}自己。|{a}见{b}走来，连忙上前{v}。|{a}一心要{v}{b}。|{b}怎么也没料到，{v}自己的人会是{a}。|{place}，{a}当众{v}{b}。
提起{b}，谁都知道{a}{v}过他。|{a}带了{thing}去{v}{b}。|{b}低着头，由着{a}{v}。|那天{v}{b}的不是别人，就是{a}。|“是你{v}我的？”{b}问。{a}点了点头。
“{b}，我来{v}你。”{a}说道。|“多亏{a}{v}。”{b}叹了口气。|{a}站在{place}，远远看见{b}，便过去{v}他。|{time}，{b}正要出门，{a}却赶来{v}。|{b}哭了，因为{a}{v}她。
“{a}！”{b}喊道，“你为何{v}我？”|{b}在{place}坐了半日，{a}才来{v}他。|若说{a}{v}谁最多，那便是{b}。|{a}把{b}{v}了一番。|{a}放下{thing}，转身{v}{b}。
众人眼看着{a}{v}{b}，谁也不敢作声。|{b}受{a}{v}，已不是第一次。|{a}写信{v}{b}，信里只有三行字。|“听说{a}{v}你？”“是。”{b}答得很轻。|{b}这条命，全靠{a}{v}才保住。
{a}喝了{food}，便去{v}{b}。|自从{a}{v}{b}，两家再没有说过话。|{b}是{a}{v}过的人。|{a}{v}完{b}，头也不回地走了。|对{b}，{a}只有{v}。|{b}家里来了{a}，进门就{v}。
那个被{a}{v}的年轻人，正是{b}。|{a}低声{v}{b}：“别出声。”|{b}躲在{place}，还是被{a}{v}。|{a}与{b}本不相识，却在{place}{v}了他。|{b}向人说起，{a}曾在{time}{v}过自己。""".replace(
    "\n", "|"
).split("|")
MUTUAL = {
    "同饮": "喝酒 吃茶 吃面 饮了三杯",
    "比试": "比剑 下棋 赛马 比箭 对弈",
    "同行": "赶路 上山 进城 坐船 回乡",
    "争吵": "吵架 争执 斗嘴 对骂",
    "买卖": "做买卖 换马 讲价 算账",
}
MUTUAL_FORMS = """{a}和{b}在{place}{v}。|{a}与{b}一同{v}。|{time}，{a}约了{b}去{v}。|{a}遇上{b}，两人便{v}。|{a}同{b}又在{place}{v}了。|{b}等到{a}，才一起{v}。
{place}有两个人在{v}，一个是{a}，一个是{b}。|“走，{v}去！”{a}拉起{b}就走。|{a}找{b}{v}，{b}没有推辞。|听说{a}跟{b}昨夜{v}到天亮。|{a}、{b}二人{v}，旁人都来看。|{a}正在{place}，{b}也来了，于是一道{v}。""".replace(
    "\n", "|"
).split("|")
IDLE = """{a}在{place}坐着。|{a}买了一把{thing}。|{time}，{a}独自出了门。|{a}从{place}走过，没有停下。|“今天好冷。”{a}说。|{a}病了三天。|{a}擦着{thing}，一言不发。
{a}与{b}擦肩而过，谁也没有看谁。|{a}从来没有{v}过{b}。|有人说{a}{v}过{b}，其实没有这回事。|{a}和{b}素不相识。|{a}想{v}人，可是身边一个人也没有。|“{v}？我没有{v}过谁。”{a}摇头。
{a}听见外面有人在{v}，没有理会。|{a}坐在东边，{b}坐在西边，各吃各的{food}。|{a}卖{thing}，{b}卖{food}。|{a}到{place}时，{b}已经走了。""".replace("\n", "|").split("|")


def scenes(rng: random.Random) -> tuple[str, str]:
    """List events between people as ``doer-receiver:kind``, one per line in the order of the text; ``无`` without events.

    The kind is the class of the event, or its verb when the instruction says so. Other people, denials and sentences of real prose are mixed in.
    """
    count = rng.choices(range(6), (12, 30, 28, 18, 8, 4))[0]
    people = make_names(rng, 8)
    verbatim = rng.random() < 0.25
    events_and_lines: list[tuple[str, str]] = []
    used_pairs: set[frozenset[str]] = set()
    for index in range(count):
        a, b = rng.sample(people[: 2 * count], 2) if rng.random() < 0.4 else (people[(2 * index) % 8], people[(2 * index + 1) % 8])
        if frozenset((a, b)) in used_pairs:
            continue
        used_pairs.add(frozenset((a, b)))
        verbs_by_kind, forms = (DEEDS, DEED_FORMS) if rng.random() < 0.7 else (MUTUAL, MUTUAL_FORMS)
        kind = rng.choice(list(verbs_by_kind))
        verb = rng.choice(verbs_by_kind[kind].split())
        sentence = fill_form(rng, rng.choice(forms), a, b, verb)
        if verbs_by_kind is MUTUAL and sentence.find(b) < sentence.find(a):
            a, b = b, a
        events_and_lines.append((sentence, f"{a}-{b}:{verb if verbatim else kind}"))
    sentences = [sentence for sentence, _ in events_and_lines]
    unmentioned = [person for person in people if not any(person in sentence for sentence in sentences)]
    for _ in range(rng.choice((0, 0, 1, 1, 2)) + (count == 0)):
        roll = rng.random()
        if roll < 0.5 and len(unmentioned) > 1:
            a, b = rng.sample(unmentioned, 2)
            extra = fill_form(rng, rng.choice(IDLE), a, b, rng.choice(VERBS))
        else:
            extra = rng.choice(PROSE_SENTENCES) if PROSE_SENTENCES and roll < 0.8 else rng.choice(FILLER)
        sentences.insert(rng.randint(0, len(sentences)), extra)
    instruction = rng.choice(("从下文中提取人物之间的动作:\n", "读下面的文字，写出谁对谁做了什么，格式为 甲-乙:类别:\n", "提取动作：\n", "谁和谁之间发生了什么？每行一条:\n"))
    if verbatim:
        instruction = instruction.replace("类别", "原词").replace("动作", "动作原词").replace("什么", "什么（原词）")
    return instruction + "".join(sentences), "\n".join(line for _, line in events_and_lines) or "无"


def fill_form(rng: random.Random, form: str, a: str, b: str, verb: str) -> str:
    """Fill the slots of a form."""
    return form.format(a=a, b=b, v=verb, place=rng.choice(PLACES), time=rng.choice(TIMES), thing=rng.choice(THINGS), food=rng.choice(FOODS))


def ties(rng: random.Random) -> tuple[str, str]:
    """List relations of trade and chance between people; see `nano_ties`."""
    people = nano_ties.make_people(rng, rng.choice((4, 6, 8, 10)), make_name, COMMON_HAN, SURNAMES)
    slots = {"place": PLACES, "time": TIMES, "thing": THINGS, "food": FOODS}
    filler = FILLER if not PROSE_SENTENCES or rng.random() < 0.5 else [rng.choice(PROSE_SENTENCES)]
    return nano_ties.compose(rng, people, slots, filler)


def who(rng: random.Random) -> tuple[str, str]:
    """Name the doer or the receiver of an event, in active and passive sentences."""
    a, b, c, d = make_names(rng, 4)
    verb, other_verb = rng.sample(VERBS, 2)
    place, time = rng.choice(PLACES), rng.choice(TIMES)
    text = mix_with_filler(rng, [rng.choice(EVENTS).format(a=a, b=b, v=verb, place=place, time=time), rng.choice(EVENTS).format(a=c, b=d, v=other_verb, place=place, time=time)])
    question, answer = rng.choice(((f"谁{verb}了{b}？", a), (f"{a}{verb}了谁？", b), (f"谁{other_verb}了{d}？", c), (f"{c}{other_verb}了谁？", d)))
    return f"{text}\n{question}", answer


def substitution(rng: random.Random) -> tuple[str, str]:
    """Look up codes in a table of ``word=code`` in the prompt."""
    keys = rng.sample(THINGS + FOODS, rng.randint(2, 5))
    codes = [rng.choice((rng.choice(COMMON_HAN) + rng.choice(COMMON_HAN), rng.choice(ENGLISH))) for _ in keys]
    table = "，".join(f"{k}={c}" for k, c in zip(keys, codes, strict=True))
    asked_indices = [rng.randrange(len(keys)) for _ in range(rng.randint(1, 3))]
    return f"{table}。\n{'、'.join(keys[i] for i in asked_indices)}是什么？", "、".join(codes[i] for i in asked_indices)


def english(rng: random.Random) -> tuple[str, str]:
    """Answer a question, list the names or list the pairs of an English text."""
    people = rng.sample(FIRST_NAMES, rng.randint(2, 4))
    things = rng.sample(ENGLISH, len(people))
    form, question = rng.choice(
        (("{a} has a {b}.", "What does {a} have?"), ("{a} likes the {b}.", "What does {a} like?"), ("{a} saw a {b} today.", "What did {a} see?"),
         ("The {b} belongs to {a}.", "What belongs to {a}?"), ("{a} went to the {b}.", "Where did {a} go?"))
    )  # fmt: skip
    text = " ".join(form.format(a=a, b=b) for a, b in zip(people, things, strict=True))
    index = rng.randrange(len(people))
    if rng.random() < 0.3:
        return f"Write the names in this text, one a line:\n{text}", "\n".join(people)
    if rng.random() < 0.3:
        return f"Write pairs: {text}", "\n".join(f"{a}-{b}" for a, b in zip(people, things, strict=True))
    return f"{text}\n{question.format(a=people[index])}", things[index]


PATTERNS: tuple[tuple[Pattern, float], ...] = (  # with relative frequencies
    (copy, 1.0), (pick, 0.5), (listing, 1.0), (pairing, 1.0), (fact, 1.5), (events, 1.5), (scenes, 3.0), (ties, 14.0), (who, 1.5), (substitution, 0.7), (english, 0.8),
)  # fmt: skip
