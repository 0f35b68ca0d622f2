"""Relations of trade and chance between people (*ties*): the most frequent pattern in the pretraining of the embedded model.

The model learns how a text states a relation between people, and how a text denies one. The ties are those of lodger and landlord, ferryman and
passenger, examiner and candidate, and similar ones. There is no kinship, love, friendship, enmity, service or teaching, and no label or sentence of the
relation task.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import NamedTuple


def split_forms(text: str) -> list[str]:
    """Split a block into its forms, at each new line and each ``|`` outside brackets; ``[x|y]`` within a form is a choice."""
    return [form for line in text.splitlines() for form in re.split(r"\|(?![^\[\]]*\])", line) if form]


# by label: words for the head, words for the tail, and sentences that state the relation without these words
DIRECTED = {
    "租住": ("房东 屋主", "房客 租客", "{b}每月初一把租钱交给{a}。|{a}把后院两间房租给了{b}。|{b}住着{a}的屋子，[欠了三个月房钱|一住便是两年]。|{b}租下{a}的阁楼，[图个清静|说好按月算钱]。"),
    "借贷": ("债主 放债人", "欠债人 借债人", "{a}借给{b}五十两银子。|{b}欠着{a}一笔钱，[至今没有还|利滚利还不清]。|{a}拿着借据上门，{b}[躲到后院去了|求他宽限几日]。|{b}向{a}借了[三石米|十块钱]，[写下字据|说秋后还清]。"),
    "摆渡": ("艄公 摆渡人", "渡客 过河人", "{a}撑船把{b}送到了对岸。|{b}站在船头，{a}在船尾摇橹。|{b}喊了半天，{a}才把船撑过来接他。|{b}过河坐的是{a}的船。"),
    "编稿": ("编辑 主编", "投稿人 撰稿人", "{b}的文章[登在|刊在]{a}办的刊物上。|{a}退回了{b}的稿子，[附了一封长信|嫌太长]。|{b}把稿子寄给{a}，[等了两个月|过了半月便登出来]。|{a}替{b}改了三遍稿。"),
    "断案": ("县官 审案官", "犯人 受审人", "{a}一拍惊堂木，喝令{b}跪下。|{a}判了{b}[三年流放|四十大板]。|{b}在堂上招了供，{a}命人记下。|{b}的案子是{a}断的。"),
    "看守": ("狱卒 牢头", "囚犯 犯囚", "{a}打开牢门，把饭推给{b}。|{b}关在牢里，[日夜由|一直是]{a}看着。|{a}巡到牢门前，看见{b}[靠墙坐着|正在发呆]。|{b}隔着铁栏叫{a}[拿水来|开门]。"),
    "占卜": ("算命先生 相士", "问卦人 求签人", "{a}替{b}起了一卦，[说是大吉|半天没有开口]。|{b}摇出一支签，{a}[解了半天|看了直摇头]。|{b}伸出手掌，让{a}看相。|{a}说{b}今年有灾，[收了卦金|劝他莫出远门]。"),
    "裁衣": ("裁缝 成衣匠", "定衣人 试衣人", "{a}给{b}量了身，[说十天来取|记下尺寸]。|{b}身上这件[长衫|棉袄]是{a}缝的。|{b}拿布去找{a}做衣裳。|{a}把新衣改了又改，{b}还嫌袖子长。"),
    "搭救": ("救命恩人 搭救人", "获救者 落难人", "{b}掉进河里，是{a}把他捞上来的。|{a}从火里背出了{b}。|要不是{a}，{b}早已没命了。|{b}冻倒在路边，{a}用热汤把他救活。"),
    "押镖": ("镖师 押镖人", "托镖人 货主", "{b}把三箱货托给{a}押送。|{a}替{b}走了一趟镖。|{b}的货有{a}押着，[一路平安|半路遇了雨]。|{b}出了两百两，请{a}护送货物。"),
    "担保": ("保人 作保人", "受保人 被保人", "{a}替{b}作了保。|{a}在{b}的契约上按了手印，担保不误。|{b}进衙门，全凭{a}一纸保书。|有{a}作保，{b}才[领到差事|放了出来]。"),
    "考试": ("考官 主考", "考生 应试人", "{a}出的题，{b}答了整整一天。|{a}看过{b}的卷子，[批了个优|圈了三处]。|{b}交了卷，{a}收在案上。|{b}那年应试，主持的正是{a}。"),
    "征税": ("税吏 收税官", "纳税人 税户", "{a}到{b}家收税，[空手而回|记了一笔]。|{b}把税银点给{a}。|{a}翻着册子，说{b}还少两斗粮税。|{b}求{a}减些税，[他不肯|他叹了口气]。"),
    "翻译": ("译者 翻译官", "原作者 著书人", "{a}把{b}的书译成了中文。|{b}的小说是{a}翻译的。|{a}译了{b}三本书。|{b}说一句，{a}便替他翻译一句。"),
    "监工": ("监工 工头", "苦力 短工", "{a}拿着鞭子，催{b}[搬石头|快些挑土]。|{b}在{a}的工地上扛活。|{b}歇了一会儿，就被工地上的{a}记了名。|{a}点名发工钱，{b}排在最后。"),
    "施舍": ("施主 施粥人", "乞丐 讨饭人", "{a}给了讨饭的{b}[一碗粥|两个馒头]。|{b}伸出破碗，{a}放进几个铜钱。|{b}在{a}门前讨饭。|{a}开仓放粥，{b}领了头一碗。"),
    "送信": ("信差 邮差", "收信人 收件人", "{a}把一封信送到{b}手里。|{b}等着{a}送信来。|{a}敲门说有信，{b}[披衣出来|签了字]。|{b}的信一向是{a}送的。"),
    "宴请": ("东道 做东的", "来客 赴宴人", "{a}摆酒请了{b}。|{b}到{a}府上赴宴。|{a}设宴，给{b}留了上座。|{b}吃了{a}的酒席，[连声道谢|喝得大醉]。"),
    "追捕": ("捕快 捕头", "逃犯 通缉犯", "{a}奉命捉拿{b}。|{b}逃进山里，{a}带人搜了三天。|{a}给{b}上了镣铐，押回衙门。|{b}翻墙跑了，{a}紧追不舍。"),
    "接生": ("接生婆 稳婆", "产妇 临盆妇人", "{a}替{b}接了生。|{b}生产那夜，是{a}来接生的。|{b}疼得直叫，{a}[卷起袖子|让她别怕]，孩子终于落地。"),
    "画像": ("画师 画匠", "画中人 入画人", "{a}画的正是{b}。|{b}坐着不动，让{a}画像。|{a}给{b}画了一张像，[挂在厅里|画了三天]。|墙上那张{b}的像出自{a}之手。"),
    "辩护": ("律师 辩护人", "当事人 委托人", "{a}替{b}打赢了官司。|{b}请{a}为自己辩护。|法庭上，{a}为{b}说了一个钟头。|{b}把案卷交给{a}，[请他出庭|托他写状子]。"),
    "放牧": ("牧主 羊主", "羊倌 牧人", "{b}替{a}放羊。|{a}的三百只羊都交给{b}放。|{b}丢了两只羊，{a}要他赔。"),
    "引荐": ("引荐人 荐主", "受荐人 被荐人", "{a}把{b}荐到了衙门里。|{b}靠{a}一封荐书谋到差事。|{a}在老爷面前举荐了{b}。"),
}  # fmt: skip
MUTUAL = {
    "同乡": ("同乡 老乡", "{a}和{b}都是[河间|湖州|清河]人。|{a}听出{b}的口音，原来两人是一个村出来的。|{a}与{b}同县，[在外相逢分外亲热|离家只隔一条河]。"),
    "旅伴": ("旅伴 同路人", "{a}和{b}结伴上路。|{a}与{b}一路同行，[走了半个月|到了渡口才分手]。|一路上{a}背干粮，{b}背水。"),
    "牌局": ("牌搭子 牌友", "{a}和{b}天天凑在一桌打牌。|三缺一，{a}便去叫{b}来摸牌。|{a}打牌，从来少不了{b}。"),
    "邻座": ("邻座 同排看客", "{a}的座位挨着{b}的座位。|戏园里{a}坐三号，{b}坐四号。|{a}与{b}的位子紧挨着。"),
    "同庚": ("同庚 同岁人", "{a}与{b}同年同月生。|{a}和{b}都属虎，今年二十四。|{a}多大，{b}便多大。"),
    "棋局": ("棋伴 下棋对手", "{a}和{b}每天傍晚摆一盘棋。|{a}执黑，{b}执白，[杀得难解难分|下到天黑]。|{a}悔了一步棋，{b}不依。"),
    "同屋": ("同屋 室友", "{a}和{b}合住一间屋。|{a}睡上铺，{b}睡下铺。|{a}打呼噜，吵得同住的{b}睡不着。"),
    "诗会": ("诗伴 社友", "{a}与{b}同在一个诗社。|{a}作了一首诗，{b}便和一首。|{a}写上句，{b}对下句。"),
    "合演": ("同台角儿 搭戏人", "{a}唱生，{b}唱旦，一台戏演了半年。|{a}和{b}在台上唱对手戏。|{a}拉琴，{b}开口便唱。"),
    "共事": ("同僚 同衙", "{a}与{b}在一个衙门当差。|{a}和{b}同在账房，[各管一本账|对面坐着]。|{a}值早班，{b}便值晚班。"),
}  # fmt: skip

FORMS_WITH_BOTH_WORDS = split_forms("""{H}{a}在{place}等了一上午，{T}{b}才来。|{T}{b}一见{H}{a}，[转身就走|便停住了脚]。|{H}{a}把{thing}递给{T}{b}，[没有多话|让他收好]。|{T}{b}给{H}{a}带来了{food}。
{H}叫{a}，{T}叫{b}，[都上了年纪|两人都不多话]。|{H}是{a}，{T}是{b}。|{time}，{H}{a}和{T}{b}又在{place}见面了。|{H}{a}咳嗽一声，{T}{b}[抬起头来|忙站起身]。|一边坐着{H}{a}，一边坐着{T}{b}。
“{a}是{H}，{b}是{T}。”[有人说|旁人指着他们说]。|{T}{b}丢了{thing}，{H}{a}[帮他找了半天|说不要紧]。|{H}{a}今天很高兴，[多给了|请]{T}{b}一份{food}。|{T}{b}还没开口，{H}{a}就明白了。
{place}里只有两个人：{H}{a}，{T}{b}。|{H}{a}数着铜钱，{T}{b}[站在门外|低头不语]。|自从有了{T}{b}，{H}{a}[忙得吃不上饭|再没闲过]。|{T}{b}走得慢，{H}{a}[只好等着|在前头招手]。
{H}{a}问{T}{b}：“[冷不冷|还要多久|那件事怎样了]？”|“[请坐|随我来|小心台阶]。”{H}{a}对{T}{b}说。|“[多谢|有劳了|实在对不住]。”{T}{b}向{H}{a}说。|{H}{a}和{T}{b}为了{thing}[争了几句|商量了半天]。
{T}{b}睡着了，{H}{a}[轻轻关上门|替他盖上衣服]。|{H}{a}嫌{T}{b}来得太早。|{T}{b}嫌{H}{a}话多。|人都散了，只剩下{H}{a}与{T}{b}。|{T}{b}的{thing}坏了，{H}{a}[给他换了一个|看也不看]。
这位{H}姓甚名谁？原来是{a}；那{T}便是{b}。|{H}{a}年纪轻，{T}{b}年纪大，[看着倒像反了|旁人常笑]。|{T}{b}说了谎，{H}{a}[没有揭穿|一眼看了出来]。|{H}{a}站着，{T}{b}坐着，[谁都不说话|说的是天气]。
{b}这个{T}[脾气不小|手脚快]，{a}这个{H}[倒也随和|也拿他没法子]。|做{H}的{a}[一夜没睡|笑了笑]，做{T}的{b}[也一样|没有笑]。|{a}做{H}，{b}做{T}，[各有各的难处|转眼三年]。|当{H}的{a}给当{T}的{b}[让了路|倒了杯茶]。
{place}下雨，{H}{a}拉着{T}{b}[躲到檐下|往屋里跑]。|{H}{a}病倒，{T}{b}[来看过两回|也没有来]。|{T}{b}走后，{H}{a}[把门锁上|发现桌上留了{thing}]。|{H}{a}忘了{T}{b}的名字，[只好笑笑|又问了一遍]。""")  # fmt: skip
FORMS_WITH_ONE_WORD = split_forms("""{Y}是{X}的{N}。|{X}的{N}是{Y}。|{X}的{N}叫{Y}。|{N}{Y}来找{X}，[说有急事|手里拿着{thing}]。|{X}在{place}碰见{N}{Y}。|{X}对{N}{Y}说：“[天晚了|坐吧]。”|{X}不喜欢{N}{Y}。|{X}和{N}{Y}说了半天话。
谁是{X}的{N}？{Y}。|“{X}，你的{N}来了。”{Y}[走进门来|就站在后头]。|{X}指着{Y}说：“他就是我的{N}。”|“我是{X}的{N}。”{Y}[说|自报家门]。|{X}只有一个{N}，就是{Y}。|{X}请{N}{Y}[吃{food}|坐下]。
{time}，{X}的{N}{Y}[走了|病了|搬到了{place}]。|{N}{Y}送给{X}一件{thing}。|{X}把{thing}忘在{N}{Y}那里。|{Y}给{X}当{N}，[已有三年|还是头一回]。|{X}换了{N}，新来的叫{Y}。|{X}记得{N}{Y}[爱吃{food}|不爱说话]。
{Y}不是别人，是{X}的{N}。|认得{X}的人都认得他的{N}{Y}。|{X}跟着{N}{Y}到了{place}。|听说{N}{Y}在{place}，{X}[连忙赶去|放了心]。|{X}终于找到一位{N}，那人名叫{Y}。|{X}提起{Y}，总说：“我那个{N}啊。”
{X}身边站着{N}{Y}。|{Y}，也就是{X}的{N}，[在{place}住了很久|不吃{food}]。|{X}心里明白，{N}{Y}[不会来了|已经老了]。|{X}要写信给{N}{Y}，[提起笔又放下|写了三行]。|{X}替{N}{Y}收着{thing}。|人家问{Y}和{X}怎么认识的，{Y}说：“我是他的{N}。”""")  # fmt: skip
FORMS_WITH_SHARED_WORD = split_forms("""{a}和{b}是{D}。|{a}与{b}，{D}，[一早出了门|在{place}坐下]。|{D}{a}、{b}在{place}[分了{food}|歇脚]。|“{a}和{b}？他们是{D}。”|{a}同{b}原来是{D}。|{time}来了{D}：{a}和{b}。
{a}来了，{b}也来了，{D}[说说笑笑|坐到一处]。|{D}，{a}高，{b}矮。|{a}和{b}算得上{D}，[人人知道|只是很少说话]。|{a}、{b}这{D}，[一个爱吃{food}|一个爱睡]。""")  # fmt: skip
FORMS_WITHOUT_TIE = split_forms("""{a}不是{b}的{N}，[只是路过|认错人了]。|{a}和{b}不是{D}。|有人说{a}是{b}的{N}，[其实不是|那是瞎说]。|外头都传{b}找了{a}做{N}，[没有这回事|两人却从没见过]。|{a}想找个{N}，[一直没有找到|问了一圈也没有人肯]。
{a}想给{b}当{N}，{b}[不肯|没有答应]。|{a}冒充{b}的{N}，[被人揭穿|没有人相信]。|“你是{N}？”“不是。”{a}[摇头|答道]。|“你是{b}的{N}？”“我不认得他。”{a}说。|街上走过一个{N}，[没有人知道他姓什么|{a}没有看见]。
戏里的{H}骂了{T}一顿，台下的{a}[打了个盹|笑出声来]。|书上说{H}最怕{T}，{a}[看到这里便合上书|不信]。|两个{N}在{place}吵架，{a}[躲开了|也不认得他们]。|{a}从前也有过一个{N}，[名字已经忘了|后来不知去向]。|{a}的{N}是谁，[谁也不知道|他从来不说]。
{a}不认得{b}。|{a}和{b}从来没有见过面。|{a}在东街，{b}在西街，[互不相识|没有来往]。|{a}看见{b}走过，[没有打招呼|不知道他是谁]。|{a}听人提起过{b}，[没有见过|并不认识]。|{a}与{b}擦肩而过，[谁也没有看谁|各走各的]。
{a}把{b}错认成自己的{N}，[连忙道歉|闹了个笑话]。|{b}原要请{a}做{N}，[后来没有请|钱不够，只好算了]。|{a}梦见自己有了个{N}，[醒来什么也没有|醒来还在{place}]。|“{N}！”有人在{place}喊，{a}[回头看了看，不是叫他|没有理会]。
{a}路过{place}，[买了{food}便走|没有停]。|{a}擦着{thing}，[一言不发|想着心事]。|{a}病了[三天|半个月]，[没有人来看|自己好了]。|{a}一个人在{place}[喝茶|看天]。|{time}，{a}[出了门|还没有起]。|{a}没有{N}，[也不想有|凡事自己来]。
{a}向{b}问过一次时辰。|{a}踩了{b}的脚，[说声对不住就走了|{b}没有作声]。|{b}让{a}先走，[两人并不相识|笑了笑]。|{a}拾到一张字条，上面写着“致{N}”，[不知是谁的|没有署名]。|同一条街上，{a}卖{food}，{b}卖{thing}，[各做各的|从不说话]。
别人以为{a}和{b}是{D}，[其实初次见面|两人都摇头]。|{a}问{place}有没有{N}，[没有人答|人说没有]。|{a}、{b}碰巧坐在一张桌上，[吃完各自走了|没有说话]。|{a}骗人说{b}是他的{N}，[{b}根本不认得他|很快露了马脚]。""")  # fmt: skip
FORMS_OF_THREE = (
    ("{b}和{c}都是{a}的{T}。", ("ab", "ac"), False), ("{H}{a}手下有两个{T}，一个叫{b}，一个叫{c}。", ("ab", "ac"), False), ("{a}做了{b}的{H}，后来又做了{c}的{H}。", ("ab", "ac"), False),
    ("{T}{b}、{c}一齐来见{H}{a}。", ("ab", "ac"), False), ("{a}、{b}、{c}三人都是{N}。", ("ab", "ac", "bc"), True), ("{N}三人，{a}、{b}、{c}，坐在{place}。", ("ab", "ac", "bc"), True),
    ("{a}是{b}的{H}，也是{c}的{H}。", ("ab", "ac"), False), ("{b}的{H}{a}又收下{c}做{T}。", ("ab", "ac"), False),
)  # fmt: skip
INSTRUCTIONS = (
    "谁是谁的什么人？格式 甲-乙:往来\n",
    "读下文，写出人物之间的往来，每行一条:\n",
    "写出这段话里谁和谁有往来，是什么往来：\n",
    "提取往来:\n",
    "从这段话里找出有往来的人:\n",
)

_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def make_people(rng: random.Random, count: int, new_name: Callable[[random.Random], str], han: list[str], surnames: list[str]) -> list[str]:
    """Return distinct names. Some share a surname or a character, as in a family saga, so that the model must copy exactly."""
    people: list[str] = []
    while len(people) < count:
        candidate = new_name(rng)
        if people and rng.random() < 0.35:
            other = rng.choice(people)
            candidate = other[0] + "".join(rng.choice(han) for _ in range(rng.choice((1, 1, 2))))
            if len(other) > 2 and rng.random() < 0.4:
                candidate = other[:2] + rng.choice(han)
        elif rng.random() < 0.06:
            candidate = rng.choice(surnames) + rng.choice(surnames) + rng.choice(han)
        if not any(candidate in other or other in candidate for other in people):
            people.append(candidate)
    return people


class Tie(NamedTuple):
    """A relation between two people: ``head`` has the first word of the relation, ``tail`` the second."""

    head: str
    tail: str
    label: str


class Scene:
    """A passage under construction.

    Args:
        rng: Random number generator.
        people: Names that may occur.
        slots: Values by name of slot, such as ``place``.
    """

    def __init__(self, rng: random.Random, people: list[str], slots: dict[str, list[str]]) -> None:
        self.rng, self.people, self.slots = rng, people, slots
        self.sentences: list[tuple[str, list[Tie]]] = []  # text, and the ties that it states
        self.tied_with: dict[str, set[str]] = {}

    def fill_form(self, form: str, **words: str) -> str:
        """Make the choices of a form and fill its slots."""
        form = _CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), form)
        return form.format(**words, **{slot: self.rng.choice(values) for slot, values in self.slots.items()})

    def choose_pair(self) -> tuple[str, str] | None:
        """Return two people without a relation so far; None when twenty tries find none."""
        for _ in range(20):
            mentioned = [person for person in self.people if person in self.tied_with]
            a = self.rng.choice(mentioned if mentioned and self.rng.random() < 0.4 else self.people)
            b = self.rng.choice(self.people)
            if self.rng.random() < 0.5:
                a, b = b, a
            if a != b and b not in self.tied_with.get(a, ()):
                return a, b
        return None

    def record_tie(self, a: str, b: str) -> None:
        """Record that two people are related."""
        self.tied_with.setdefault(a, set()).add(b)
        self.tied_with.setdefault(b, set()).add(a)

    def add_tie(self) -> None:
        """Add a sentence that states one tie."""
        pair = self.choose_pair()
        if pair is None:
            return
        self.record_tie(*pair)
        self.sentences.append(self._directed_sentence(*pair) if self.rng.random() < 0.65 else self._mutual_sentence(*pair))

    def _directed_sentence(self, head: str, tail: str) -> tuple[str, list[Tie]]:
        rng = self.rng
        label = rng.choice(list(DIRECTED))
        head_words, tail_words, forms_without_words = DIRECTED[label]
        head_word, tail_word = rng.choice(head_words.split()), rng.choice(tail_words.split())
        roll = rng.random()
        if roll < 0.35:
            text = self.fill_form(rng.choice(split_forms(forms_without_words)), a=head, b=tail)
        elif roll < 0.7:
            text = self.fill_form(rng.choice(FORMS_WITH_BOTH_WORDS), a=head, b=tail, H=head_word, T=tail_word)
        elif rng.random() < 0.5:
            text = self.fill_form(rng.choice(FORMS_WITH_ONE_WORD), X=head, Y=tail, N=tail_word)
        else:
            text = self.fill_form(rng.choice(FORMS_WITH_ONE_WORD), X=tail, Y=head, N=head_word)
        return text, [Tie(head, tail, label)]

    def _mutual_sentence(self, a: str, b: str) -> tuple[str, list[Tie]]:
        """Return a sentence on a relation without direction; the person named first is the head."""
        rng = self.rng
        label = rng.choice(list(MUTUAL))
        words, forms_without_words = MUTUAL[label]
        word = rng.choice(words.split())
        roll = rng.random()
        if roll < 0.35:
            text = self.fill_form(rng.choice(split_forms(forms_without_words)), a=a, b=b)
        elif roll < 0.7:
            text = self.fill_form(rng.choice(FORMS_WITH_ONE_WORD), X=a, Y=b, N=word)
        else:
            text = self.fill_form(rng.choice(FORMS_WITH_SHARED_WORD), a=a, b=b, D=rng.choice(("两个", "一对")) + word)
        return text, [Tie(b, a, label) if text.find(b) < text.find(a) else Tie(a, b, label)]

    def add_group(self) -> None:
        """Add a sentence about three people; with fewer than three people without a tie, one about two."""
        rng = self.rng
        untied = [person for person in self.people if person not in self.tied_with]
        if len(untied) < 3:
            self.add_tie()
            return
        people = dict(zip("abc", rng.sample(untied, 3), strict=True))
        form, pairs, is_mutual = rng.choice(FORMS_OF_THREE)
        label = rng.choice(list(MUTUAL if is_mutual else DIRECTED))
        if is_mutual:
            text = self.fill_form(form, **people, N=rng.choice(MUTUAL[label][0].split()))
        else:
            head_words, tail_words, _ = DIRECTED[label]
            text = self.fill_form(form, **people, H=rng.choice(head_words.split()), T=rng.choice(tail_words.split()))
        for x, y in pairs:
            self.record_tie(people[x], people[y])
        self.sentences.append((text, [Tie(people[x], people[y], label) for x, y in pairs]))

    def add_sentence_without_tie(self) -> None:
        """Add a sentence that states no tie, at any place."""
        rng = self.rng
        label = rng.choice([*DIRECTED, *MUTUAL])
        head_words, tail_words, _ = DIRECTED.get(label) or (MUTUAL[label][0], "", "")
        head_word = rng.choice(head_words.split())
        tail_word = rng.choice(tail_words.split()) if tail_words else head_word
        pair = self.choose_pair()
        if pair is None:
            return
        a, b = pair
        form = rng.choice(FORMS_WITHOUT_TIE)
        words = {"H": head_word, "T": tail_word, "N": rng.choice((head_word, tail_word)), "D": rng.choice(("两个", "一对")) + head_word}
        text = self.fill_form(form, a=a, b=b, **words)
        self.sentences.insert(rng.randint(0, len(self.sentences)), (text, []))


def compose(rng: random.Random, people: list[str], slots: dict[str, list[str]], filler: list[str]) -> tuple[str, str]:
    """Write a passage with an instruction, and its answer.

    Args:
        rng: Random number generator.
        people: Names that may occur.
        slots: Values by name of slot, such as ``place``.
        filler: Sentences without people.

    Returns:
        The prompt, and mostly the relations as ``head-tail:label``, one per line in the order of the text, or ``无`` without relations. Some prompts
        ask for the label of one relation, or for the pairs without labels.
    """
    scene = Scene(rng, people, slots)
    for _ in range(rng.choices(range(6), (12, 36, 28, 14, 7, 3))[0]):
        if rng.random() < 0.08:
            scene.add_group()
        else:
            scene.add_tie()
    for _ in range(rng.choices(range(4), (40, 38, 16, 6))[0] + (not scene.sentences)):
        scene.add_sentence_without_tie()
    for _ in range(rng.choices(range(3), (60, 30, 10))[0]):
        scene.sentences.insert(rng.randint(0, len(scene.sentences)), (rng.choice(filler), []))
    text = "".join(sentence for sentence, _ in scene.sentences)
    ties = [tie for _, stated in scene.sentences for tie in stated]
    roll = rng.random()
    if ties and roll < 0.08:
        tie = rng.choice(ties)
        questions = (f"{text}\n{tie.head}和{tie.tail}是什么往来？", f"{text}\n问：{tie.tail}和{tie.head}有什么往来？")
        return rng.choice(questions), tie.label
    if ties and roll < 0.16:
        return f"{text}\n这段话里，有往来的是哪些人？每行一对：", "\n".join(f"{tie.head}-{tie.tail}" for tie in ties)
    return rng.choice(INSTRUCTIONS) + text, "\n".join(f"{tie.head}-{tie.tail}:{tie.label}" for tie in ties) or "无"
