"""The scorer: right replies and error classes."""

from __future__ import annotations

from typing import Any

import pytest

from sftchat import DataError, Example, Message, Reply, Score
from sftchat_relation.scorer import STATS, score
from sftchat_relation.vocabulary import VOCABULARY

PASSAGE = "张三是李四的师父。王小明与李小红是夫妻，李小芳在旁，赵六是他们的朋友，钱七、孙八也在。"


def item(gold: str | None, passage: str = PASSAGE) -> Example:
    return Example((Message(role="user", content=passage),), gold, id="item-1", source="gold.jsonl:7")


def judge(gold: str, reply: str, finish_reason: Any = "stop", passage: str = PASSAGE) -> Score:
    return score(item(gold, passage), Reply(reply, finish_reason))


def counts(judged: Score) -> tuple[float, float, float]:
    return judged.stats["tp"], judged.stats["pred"], judged.stats["gold"]


def test_a_right_reply_has_every_count_and_no_error_class() -> None:
    assert judge("张三-李四:师徒\n王小明-李小红:夫妻", "张三-李四:师徒\n王小明-李小红:夫妻") == Score(
        stats={
            "n": 1,
            "tp": 2,
            "pred": 2,
            "gold": 2,
            "strict_tp": 2,
            "strict_pred": 2,
            "pair_tp": 2,
            "pair_pred": 2,
            "pair_gold": 2,
            "relation_right": 2,
            "relation_total": 2,
            "exact": 1,
            "parsed": 1,
            "truncated": 0,
        },
        answer="张三-李四:师徒\n王小明-李小红:夫妻",
        errors=(),
        groups={"师徒": {"n": 1, "parsed": 1, "tp": 1, "pred": 1, "gold": 1}, "夫妻": {"n": 1, "parsed": 1, "tp": 1, "pred": 1, "gold": 1}},
    )


def test_an_unreadable_reply_counts_all_gold_as_missed() -> None:
    assert judge("张三-李四:师徒", "张三是李四的师父") == Score(
        stats=dict.fromkeys(STATS, 0) | {"n": 1, "gold": 1, "pair_gold": 1},
        answer="",
        errors=("missing", "unparsable"),
        groups={"师徒": {"n": 1, "parsed": 0, "tp": 0, "pred": 0, "gold": 1}},
    )


def test_nothing_for_nothing_is_exact_and_adds_no_triples() -> None:
    assert judge("无", "无") == Score(stats=dict.fromkeys(STATS, 0) | {"n": 1, "exact": 1, "parsed": 1}, answer="无")


def test_garbage_for_nothing_is_not_exact() -> None:
    assert judge("无", "嗯嗯嗯") == Score(stats=dict.fromkeys(STATS, 0) | {"n": 1}, answer="", errors=("unparsable",))


COUPLE = "王小明-李小红:夫妻"


@pytest.mark.parametrize(
    ("gold", "reply", "right", "errors"),
    [
        # Character ROUGE-L ranks these three 0.90, 0.80 and 0.60: exactly the wrong way round.
        (COUPLE, "王小明-李小芳:夫妻", 0, ("wrong_tail",)),
        (COUPLE, "王小明-李小红:兄妹", 0, ("wrong_relation",)),
        (COUPLE, "李小红-王小明:夫妻", 1, ()),
        (COUPLE, "李小芳-李小红:夫妻", 0, ("wrong_head",)),
        (COUPLE, "李小红-赵六:夫妻", 0, ("wrong_head",)),
        (COUPLE, "赵六-王小明:夫妻", 0, ("wrong_tail",)),
        (COUPLE, "王小明-周九:夫妻", 0, ("hallucinated_entity",)),
        (COUPLE, "王小明-小红:夫妻", 0, ("boundary",)),
        (COUPLE, "小明-小红:夫妻", 0, ("boundary",)),
        (COUPLE, "王小明-李晓红:夫妻", 0, ("boundary",)),
        (COUPLE, "王小明-李小红:师侄", 0, ("unknown_relation",)),
        (COUPLE, "赵六-钱七:师侄", 0, ("unknown_relation", "missing")),
        (COUPLE, "赵六-钱七:好友", 0, ("spurious", "missing")),
        (COUPLE, "周九-钱七:好友", 0, ("hallucinated_entity", "missing")),
        (COUPLE, "无", 0, ("missing",)),
        ("无", COUPLE, 0, ("spurious",)),
        ("张三-李四:师徒", "李四-张三:师徒", 0, ("flipped_direction",)),
        ("张三-李四:师徒", "李四-张三:徒弟", 1, ()),
        ("张三-李四:师徒", "张三-李四:徒弟", 0, ("flipped_direction",)),
        ("李四-张三:徒弟", "张三-李四:师父", 1, ()),
        ("张三-李四:师徒", "张三-赵六:师徒", 0, ("wrong_tail",)),
        ("张三-李四:师徒", "赵六-李四:师徒", 0, ("wrong_head",)),
        ("张三-李四:师徒", "李四-赵六:师徒", 0, ("spurious", "missing")),
        ("张三-李四:恋人", "张三-李四:情侣", 1, ()),
        ("张三-李四:情侣", "李四-张三:恋人", 1, ()),
        (COUPLE, COUPLE + "\n" + COUPLE, 1, ("duplicate",)),
        (COUPLE, COUPLE + "\n李小红-王小明:夫妻", 1, ("duplicate",)),
        (COUPLE, COUPLE + "\n王小明-李小红:恋人", 1, ("spurious",)),
        (COUPLE, "王小明—李小红：夫妻", 1, ("format_drift",)),
        (COUPLE, "结果如下\n" + COUPLE, 1, ("extra_text",)),
        (COUPLE, "", 0, ("missing", "empty")),
        (COUPLE, "抱歉，我无法回答", 0, ("missing", "refusal")),
        (COUPLE, "甲-乙-丙:夫妻", 0, ("missing", "ambiguous_split", "unparsable")),
    ],
)
def test_every_error_class_has_its_name(gold: str, reply: str, right: int, errors: tuple[str, ...]) -> None:
    judged = judge(gold, reply)
    assert (judged.stats["tp"], judged.errors) == (right, errors)


def test_a_cut_off_reply_is_truncated_and_still_scored() -> None:
    judged = judge(COUPLE, COUPLE, "length")
    assert (judged.stats["tp"], judged.stats["truncated"], judged.errors) == (1, 1, ("truncated",))


def test_a_repeat_counts_once() -> None:
    assert counts(judge(COUPLE, "\n".join([COUPLE] * 50))) == (1, 1, 1)


def test_nearest_counterparts_are_paired_first() -> None:
    judged = judge("张三-李四:师徒\n张三-赵六:师徒", "李四-张三:师徒\n张三-钱七:师徒\n孙八-钱七:好友")
    assert judged.errors == ("flipped_direction", "wrong_tail", "spurious")


@pytest.mark.parametrize(
    ("gold", "reply", "right"),
    [
        ("张三-李四:父母", "张三-李四:父子", 1),
        ("张三-李四:父母", "李四-张三:父子", 0),
        ("张三-李四:父子", "张三-李四:父母", 0),
        ("张三-李四:兄弟姐妹", "李四-张三:兄妹", 1),
        ("张三-李四:兄弟姐妹", "张三-李四:兄妹", 1),
        ("张三-李四:师生", "张三-李四:师徒", 1),
        ("张三-李四:师生", "李四-张三:师徒", 0),
        ("张三-李四:上下级", "张三-李四:主仆", 1),
        ("张三-李四:亲戚", "李四-张三:姻亲", 1),
    ],
)
def test_a_finer_label_is_right_in_the_direction_of_the_broader_one(gold: str, reply: str, right: int) -> None:
    assert counts(judge(gold, reply)) == (right, 1, 1)


def test_a_reversed_finer_label_is_a_flip() -> None:
    assert judge("张三-李四:父母", "李四-张三:父子").errors == ("flipped_direction",)


def test_a_finer_and_a_broader_label_for_one_fact_are_right_once() -> None:
    assert counts(judge("张三-李四:父母", "张三-李四:父子\n张三-李四:父母")) == (1, 2, 1)


def test_a_finer_label_counts_in_the_slice_of_the_gold() -> None:
    assert judge("张三-李四:父母", "张三-李四:父子\n赵六-钱七:师侄\n赵六-钱七:好友").groups == {
        "父母": {"n": 1, "parsed": 1, "tp": 1, "pred": 1, "gold": 1},
        "unknown_relation": {"n": 1, "parsed": 1, "tp": 0, "pred": 1, "gold": 0},
        "好友": {"n": 1, "parsed": 1, "tp": 0, "pred": 1, "gold": 0},
    }


def test_strict_counts_fold_nothing_and_require_the_format() -> None:
    def strict(gold: str, reply: str) -> tuple[float, float]:
        stats = judge(gold, reply).stats
        return stats["strict_tp"], stats["strict_pred"]

    assert strict("张三-李四:情侣", "张三-李四:情侣") == (1, 1)
    assert strict("张三-李四:情侣", "李四-张三:情侣") == (1, 1)
    assert strict("张三-李四:情侣", "张三-李四:恋人") == (0, 1)
    assert strict("张三-李四:父母", "张三-李四:父子") == (0, 1)
    assert strict(COUPLE, COUPLE + "。") == (0, 0)


def test_pair_counts_ignore_relation_and_order() -> None:
    stats = judge("张三-李四:师徒\n" + COUPLE, "李四-张三:师徒\n王小明-李小红:兄妹\n赵六-钱七:好友").stats
    picked = {key: stats[key] for key in ("tp", "pair_tp", "pair_pred", "pair_gold", "relation_right", "relation_total")}
    assert picked == {"tp": 0, "pair_tp": 2, "pair_pred": 3, "pair_gold": 2, "relation_right": 0, "relation_total": 2}


def test_names_are_compared_in_normal_form() -> None:
    passage = "奥黛丽·赫本嫁给了梅尔·费勒。"
    assert counts(judge("奥黛丽·赫本-梅尔·费勒:夫妻", "奥黛丽・赫本-梅尔•费勒:夫妻", passage=passage)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("gold", "reply", "passage", "right", "strictly"),
    [
        # OpenCompass drops hyphens and cuts at the first full stop: it takes 张三李-四 for 张三-李四 and reads no further than J.
        ("张三-李四:师徒", "张三李-四:师徒", "张三是李四的师父。", 0, 0),
        ("J.罗琳-尼尔.默里:夫妻", "J.罗琳-尼尔.默里:夫妻", "J.罗琳嫁给了尼尔.默里。", 1, 1),
        ("J.罗琳-尼尔.默里:夫妻", "J．罗琳－尼尔．默里：夫妻", "J.罗琳嫁给了尼尔.默里。", 1, 0),
        # Invisible characters are ignored, but the letters differ from the gold.
        ("张三-李四:师徒", "张\u200b三-李四:师徒", "张三是李四的师父。", 1, 0),
        ("张三-李四:师徒", "\ufeff张三-李四:师徒", "张三是李四的师父。", 1, 0),
        # NFKC alone would make these equal.
        ("兵①-李四:师徒", "兵1-李四:师徒", "兵①是李四的师父。", 0, 0),
        ("兵①-李四:师徒", "兵①-李四:师徒", "兵①是李四的师父。", 1, 1),
        # Another script is another name, and a dash inside a name is no hyphen.
        ("关羽-张飞:好友", "關羽-張飛:好友", "关羽与张飞交好。", 0, 0),
        ("让–保罗-玛丽:恋人", "让–保罗-玛丽:恋人", "让–保罗和玛丽相恋。", 1, 1),
        ("让-保罗-玛丽:恋人", "让–保罗-玛丽:恋人", "让-保罗和玛丽相恋。", 0, 0),
    ],
)
def test_names_that_look_alike_are_equal_and_others_are_not(gold: str, reply: str, passage: str, right: int, strictly: int) -> None:
    stats = judge(gold, reply, passage=passage).stats
    assert (stats["tp"], stats["strict_tp"], stats["exact"], stats["gold"]) == (right, strictly, right, 1)


def test_the_answer_is_the_reply_in_normal_form() -> None:
    assert judge(COUPLE, "1. 李四—张三：徒弟\n2. 张三-李四:师徒\n3. 王小明与李小红:夫妇").answer == "张三-李四:师徒\n王小明-李小红:夫妻"
    assert judge(COUPLE, "没有关系。").answer == "无"


def test_names_from_every_user_turn_are_in_the_text() -> None:
    turns = [("user", "甲乙相识。"), ("assistant", "无"), ("user", "丙丁相恋。")]
    example = Example(tuple(Message(role=role, content=text) for role, text in turns), "丙-丁:恋人")
    assert score(example, Reply("甲-乙:好友")).errors == ("spurious", "missing")


@pytest.mark.parametrize(
    "gold", ["", "张三和李四", "张三-李四：师徒", "张三-李四:师侄", "张三-李四:师徒\n\n" + COUPLE, "甲-乙-丙:好友", "没有", None]
)
def test_gold_in_another_format_is_an_error_with_its_place(gold: str | None) -> None:
    with pytest.raises(DataError, match=r"^gold\.jsonl:7: "):
        score(item(gold), Reply("无"))


@pytest.mark.parametrize("relation", VOCABULARY.relations)
def test_swapping_names_matters_exactly_where_the_relation_has_a_direction(relation: str) -> None:
    judged = judge(f"张三-李四:{relation}", f"李四-张三:{relation}")
    expected = (1, ()) if relation in VOCABULARY.symmetric else (0, ("flipped_direction",))
    assert (judged.stats["tp"], judged.errors) == expected
