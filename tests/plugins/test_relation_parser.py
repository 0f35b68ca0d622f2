"""The parser on every way in which models write a triple, and on text that is none."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat_relation.language import CHINESE
from sftchat_relation.parser import ParsedReply, Triple, parse_reply
from sftchat_relation.vocabulary import VOCABULARY

SOURCE = "让-保罗和玛丽相恋。张三是李四的师父，王五与赵六是夫妻。李和平娶了王芳。苏步青认识苏（松本）米子。"
TEACHER = Triple("张三", "李四", "师徒")
COUPLE = Triple("王五", "赵六", "夫妻")


def read(reply: str, source: str = SOURCE) -> ParsedReply:
    return parse_reply(reply, source, CHINESE)


def strictly(*triples: Triple) -> ParsedReply:
    return ParsedReply(triples, triples, (), parsable=True, well_formed=True)


def loosely(*triples: Triple, issues: tuple[str, ...] = ("format_drift",)) -> ParsedReply:
    return ParsedReply((), triples, issues, parsable=True, well_formed=False)


def nothing(*issues: str) -> ParsedReply:
    return ParsedReply((), (), issues, parsable=False, well_formed=False)


def test_lines_in_the_exact_format_are_read_both_ways() -> None:
    assert read("张三-李四:师徒\n王五-赵六:夫妻") == strictly(TEACHER, COUPLE)


def test_every_line_is_read_and_names_are_kept_apart() -> None:
    # OpenCompass' postprocessing keeps the first line only, and takes 张三李-四 for 张三-李四.
    assert read("张三-李四:师徒\n张三李-四:师徒").lenient == (TEACHER, Triple("张三李", "四", "师徒"))


def test_nothing_is_a_valid_answer() -> None:
    assert read("无") == strictly()


@pytest.mark.parametrize(
    "reply", ["无。", "没有", "没有关系", "没有人物关系。", "文中没有明确的人物关系。", "None", "N/A", "答案:无", "[]", "{}", "- 无"]
)
def test_other_words_for_nothing_are_an_answer_in_another_format(reply: str) -> None:
    assert read(reply) == loosely()


def test_a_pair_without_a_relation_is_not_a_triple() -> None:
    assert read("张三-李四:无") == loosely()


@pytest.mark.parametrize("colon", ":：﹕∶︰ː")
@pytest.mark.parametrize("dash", ["-", "‐", "‑", "‒", "–", "—", "―", "−", "－", "﹣", "——", "->", "—>", "→", " - ", "<->"])
def test_any_dash_and_any_colon_separate(dash: str, colon: str) -> None:
    exact = (dash, colon) == ("-", ":")
    assert read(f"张三{dash}李四{colon}师徒") == (strictly(TEACHER) if exact else loosely(TEACHER))


@pytest.mark.parametrize(
    "reply",
    [
        "张三和李四:师徒",
        "张三与李四：师徒",
        "张三、李四:师徒",
        "- 张三-李四:师徒",
        "* 张三-李四:师徒",
        "• 张三-李四:师徒",
        "•张三-李四:师徒",
        "1. 张三-李四:师徒",
        "1.张三-李四:师徒",
        "2、张三-李四:师徒",
        "3）张三-李四:师徒",
        "（4）张三-李四:师徒",
        "①张三-李四:师徒",
        "[1] 张三-李四:师徒",
        "**张三**-**李四**:师徒",
        "`张三-李四:师徒`",
        "“张三”-“李四”:“师徒”",
        "张三(师父)-李四(徒弟):师徒",
        "张三-李四:师徒。",
        "张三-李四:师徒关系",
        "张三-李四:师徒（已故）",
        "张三-李四:关系:师徒",
        "结果：张三-李四:师徒",
        "助手：张三-李四:师徒",
        "assistant\n张三-李四:师徒",
        "```\n张三-李四:师徒\n```",
        "```text\n张三-李四:师徒\n```",
        "张\u200b三-李 四:师徒",
        "张三-李四:师徒 \n",
        "张三 - 李四 : 师徒",
        "(张三, 师徒, 李四)",
        "（张三，李四，师徒）",
        "[('张三', '师徒', '李四')]",
        '{"head": "张三", "tail": "李四", "relation": "师徒"}',
        '[{"人物A": "张三", "人物B": "李四", "关系": "师徒"}]',
        '[{"relation": "师徒", "tail": "李四", "head": "张三"}]',
        '{"relations": [["张三", "李四", "师徒"]]}',
        '[["张三", "师徒", "李四"]]',
        '["张三-李四:师徒"]',
        '{"张三-李四": "师徒"}',
        '```json\n[\n  {"subject": "张三", "object": "李四", "predicate": "师徒"}\n]\n```',
    ],
)
def test_a_triple_in_another_format_is_read_leniently(reply: str) -> None:
    expected = strictly(TEACHER) if reply.strip() == "张三-李四:师徒" else loosely(TEACHER)
    assert read(reply) == expected


@pytest.mark.parametrize(
    "reply",
    [
        "张三-李四:师徒;王五-赵六:夫妻",
        "张三-李四：师徒；王五-赵六：夫妻",
        "张三-李四:师徒、王五-赵六:夫妻",
        "张三-李四:师徒,王五-赵六:夫妻",
        "张三-李四:师徒，王五和赵六:夫妻",
        "张三-李四:师徒 王五-赵六:夫妻",
        "1. 张三-李四:师徒 2. 王五-赵六:夫妻".replace(" 2", "\n2"),
        "张三-李四:师徒\n\n王五-赵六:夫妻",
        "张三-李四:师徒\r\n王五-赵六:夫妻",
        "(张三, 师徒, 李四), (王五, 夫妻, 赵六)",
        '{"head": "张三", "tail": "李四", "relation": "师徒"}\n{"head": "王五", "tail": "赵六", "relation": "夫妻"}',
    ],
)
def test_several_triples_in_one_line_or_block_are_all_read(reply: str) -> None:
    assert read(reply) == loosely(TEACHER, COUPLE)


def test_a_comma_divides_only_where_another_triple_follows() -> None:
    assert read("张三-李四:师徒，情同父子") == loosely(TEACHER, issues=("extra_text", "format_drift"))
    assert read("好的，张三-李四:师徒") == loosely(TEACHER, issues=("extra_text", "format_drift"))


def test_a_name_with_a_hyphen_is_cut_where_both_parts_stand_in_the_text() -> None:
    assert read("让-保罗-玛丽:恋人") == strictly(Triple("让-保罗", "玛丽", "恋人"))
    assert read("玛丽—让-保罗:恋人") == loosely(Triple("玛丽", "让-保罗", "恋人"))


def test_a_name_that_holds_the_word_and_is_cut_where_both_parts_stand_in_the_text() -> None:
    assert read("李和平和王芳:夫妻") == loosely(Triple("李和平", "王芳", "夫妻"))


def test_an_ambiguous_line_is_reported_and_not_guessed() -> None:
    assert read("甲-乙-丙:同门") == nothing("ambiguous_split", "unparsable")
    assert read("张三-李四:师徒\n甲-乙-丙:同门") == loosely(TEACHER, issues=("ambiguous_split",))


def test_brackets_belong_to_a_name_only_where_the_text_has_them() -> None:
    assert read("苏步青-苏（松本）米子:好友") == ParsedReply(
        strict=(Triple("苏步青", "苏（松本）米子", "好友"),),
        lenient=(Triple("苏步青", "苏(松本)米子", "好友"),),
        issues=(),
        parsable=True,
        well_formed=True,
    )


def test_an_alias_is_folded_and_turned_in_the_lenient_reading_alone() -> None:
    assert read("李四-张三:徒弟\n王五-赵六:夫妇") == ParsedReply(
        strict=(Triple("李四", "张三", "徒弟"), Triple("王五", "赵六", "夫妇")),
        lenient=(TEACHER, COUPLE),
        issues=(),
        parsable=True,
        well_formed=True,
    )


def test_a_label_outside_the_vocabulary_is_kept_and_named() -> None:
    assert read("张三-李四:师侄") == loosely(Triple("张三", "李四", "师侄"), issues=("unknown_relation",))
    assert read("张三—李四:师侄") == loosely(Triple("张三", "李四", "师侄"), issues=("unknown_relation", "format_drift"))


def test_prose_around_the_lines_is_extra_text() -> None:
    reply = "好的，以下是结果：\n张三-李四:师徒\n希望对你有帮助！"
    assert read(reply) == loosely(TEACHER, issues=("extra_text",))


def test_nothing_next_to_a_triple_is_extra_text() -> None:
    assert read("张三-李四:师徒\n无") == loosely(TEACHER, issues=("extra_text",))


def test_repeats_are_left_to_the_scorer() -> None:
    assert read("张三-李四:师徒\n张三-李四:师徒") == strictly(TEACHER, TEACHER)


def test_thinking_is_not_part_of_either_reading() -> None:
    assert read("<think>王五-赵六:夫妻？</think>\n\n张三-李四:师徒") == strictly(TEACHER)


@pytest.mark.parametrize("reply", ["", "  \n ", "<think>还在想"])
def test_a_reply_without_text_is_empty(reply: str) -> None:
    assert read(reply) == nothing("empty")


@pytest.mark.parametrize("reply", ["抱歉，我无法回答这个问题。", "作为人工智能，我不便评论。", "I'm sorry, I cannot help with that."])
def test_declining_is_a_refusal(reply: str) -> None:
    assert read(reply) == nothing("refusal")


@pytest.mark.parametrize(
    "reply", ["张三是李四的师父", "张三-李四", "张三-李四:", "-:夫妻", ":", "师徒", "{", "[1, 2]", "说明：这是一段话。", "他心中没有"]
)
def test_a_reply_without_a_triple_is_unparsable(reply: str) -> None:
    assert read(reply) == nothing("unparsable")


@pytest.mark.parametrize("broken", ['[{"head": "张三"', '{"head": "张三", "tail": 3, "relation": null}', '["', "[" * 5000, '{"a":' * 5000])
def test_broken_or_deeply_nested_json_is_unparsable(broken: str) -> None:
    assert read(broken) == nothing("unparsable")


PIECES = st.sampled_from(
    [*"甲乙丙-—:：,，、;；\n ()（）[]{}\"'无和与1.*`→|", "张三", "李四", "师徒", "夫妻", "```", "<think>", "</think>", "关系", "徒弟"]
)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=60).map("".join)), st.text(max_size=30))
def test_any_reply_is_read_without_raising_and_always_the_same_way(reply: str, source: str) -> None:
    parsed = read(reply, source)
    assert parsed == read(reply, source)
    assert parsed.parsable == (not {"empty", "refusal", "unparsable"} & set(parsed.issues))
    assert parsed.parsable or not parsed.lenient
    assert len(set(parsed.issues)) == len(parsed.issues)
    assert all(triple.head and triple.tail and triple.relation for triple in parsed.lenient)
    if parsed.parsable and not parsed.well_formed:
        assert parsed.issues  # every error of the strict reading has a name
    if parsed.well_formed:
        assert len(parsed.strict) == len(parsed.lenient)
    else:
        assert parsed.strict == ()


@given(st.lists(st.tuples(st.sampled_from("甲乙丙丁"), st.sampled_from("戊己庚辛"), st.sampled_from(VOCABULARY.relations)), min_size=1))
def test_formatted_triples_are_read_back(rows: list[tuple[str, str, str]]) -> None:
    triples = [Triple(*row) for row in rows]
    assert read("\n".join(CHINESE.format_line(*triple) for triple in triples)) == strictly(*triples)


@pytest.mark.parametrize(
    "garbage",
    [
        "-",
        "[",
        "[\n",
        "\n",
        "张三-李四:师徒\n",
        "张三-李四:师徒,",
        "张三-李四:师徒 ",
        "<think>",
        '["a\n',
        "(",
        "(a,",
        ":",
        "和",
        "1",
        "```",
        "甲-" * 90 + ":夫妻\n",
    ],
)
def test_a_megabyte_of_garbage_does_not_hang(garbage: str) -> None:
    reply = garbage * (1_000_000 // len(garbage))
    started = time.perf_counter()
    read(reply)
    assert time.perf_counter() - started < 30


def test_a_megabyte_of_random_characters_does_not_hang() -> None:
    rng = random.Random(0)
    reply = "".join(rng.choice('甲乙丙-:：,、;\n ()[]{}"无和') for _ in range(1_000_000))
    started = time.perf_counter()
    read(reply)
    assert time.perf_counter() - started < 30
