"""Normal form, tokens and thinking: characters that break other scorers, with the right result."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.text import (
    COLONS,
    DASHES,
    MIDDLE_DOTS,
    fold_width,
    normalise,
    printable,
    sanitize_json,
    sanitize_lines,
    strip_thinking,
    tokens,
    words,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("张三：李四﹕王五", "张三:李四:王五"),
        ("张三－李四﹣王五", "张三-李四-王五"),
        ("甲，乙；丙（丁）", "甲,乙;丙(丁)"),
        ("ＡＢｃ１２", "ABc12"),
        ("Tom\u00a0\u3000Smith", "Tom Smith"),
        ("\ufeff张\u200b三\u200e", "张三"),
        ("👨\u200d👩", "👨\u200d👩"),
        ("奥黛丽‧赫本•A・B･C·D", "奥黛丽·赫本·A·B·C·D"),
        ("  张 三\n\t李 四  ", "张三李四"),
        ("张三 Tom Smith 李四", "张三 Tom Smith 李四"),
        ("ひらがな カタカナ 漢字", "ひらがなカタカナ漢字"),
        ("김 철수", "김 철수"),
    ],
)
def test_normal_form_folds_characters_that_look_the_same(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize("text", ["①", "⑴", "…", "㈱", "︰", "第①回…"])
def test_characters_that_nfkc_would_damage_are_kept(text: str) -> None:
    assert normalise(text) == text
    assert unicodedata.normalize("NFKC", text) != text


@pytest.mark.parametrize("text", ["∶", "—", "–", "−", "‐", "。", "、", "“”", "關"])
def test_separators_and_traditional_characters_stay_inside_a_text(text: str) -> None:
    assert normalise(text) == text


def test_dash_and_colon_sets_cover_what_models_write() -> None:
    assert set("‐‑‒–—―−－-") <= set(DASHES)
    assert set("：﹕∶︰ː:") <= set(COLONS)
    assert set("·‧•・･") == set(MIDDLE_DOTS)
    assert not set(DASHES) & set(COLONS)


def test_folding_width_keeps_line_breaks() -> None:
    assert fold_width("甲：乙\n丙") == "甲:乙\n丙"


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text())
def test_normal_form_is_one_trimmed_line_without_invisible_characters(text: str) -> None:
    normal = normalise(text)
    assert normal == " ".join(normal.split())
    assert all(c == "\u200d" or unicodedata.category(c) != "Cf" for c in normal)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("王小明", ["王", "小", "明"]),
        ("张三 2020 年", ["张", "三", "2020", "年"]),
        ("ＡＢｃ，Def-9", ["abc", "def", "9"]),
        ("한국 かな", ["한", "국", "か", "な"]),
        ("，。！", []),
        ("", []),
    ],
)
def test_tokens_are_cjk_characters_and_runs_of_letters_and_digits(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_texts_that_share_only_a_number_share_only_that_token() -> None:
    # rouge-score's tokenizer keeps only the number of each text and so finds them identical.
    assert set(tokens("张三 2020 年")) & set(tokens("李四 2020 月")) == {"2020"}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("无", "无"),
        ("<think>甲和乙…</think>\n无", "\n无"),
        ("<think>\n\n</think>\n\n甲-乙:夫妻", "\n\n甲-乙:夫妻"),
        ("<THINK>x</Think>无", "无"),
        ("<think>a</think>甲<think>b</think>乙", "甲乙"),
        ("甲-乙:夫妻\n<think>这里被截断", "甲-乙:夫妻\n"),
        ("<think>没有结束", ""),
        ("模板已写出开头</think>无", "无"),
        ("a < b", "a < b"),
    ],
)
def test_thinking_is_dropped_whether_closed_or_not(reply: str, answer: str) -> None:
    assert strip_thinking(reply) == answer


@pytest.mark.parametrize("garbage", ["<think>", "</think>", "<think></think>", "<", "\u200b", " ", "甲 ", "①"])
def test_a_megabyte_is_processed_fast(garbage: str) -> None:
    text = garbage * (1_000_000 // len(garbage))
    started = time.perf_counter()
    normalise(text)
    tokens(text)
    strip_thinking(text)
    assert time.perf_counter() - started < 10


def test_words_are_those_of_every_script() -> None:
    assert words("周远山 met Dr. Müller_2 в Москве, 서울!") == ["周", "远", "山", "met", "dr", "müller", "2", "в", "москве", "서", "울"]


@given(st.text(st.sampled_from("周远 aBc1.，-")))
def test_words_of_chinese_and_english_are_tokens(text: str) -> None:
    assert words(text) == tokens(text)


def test_characters_that_control_hide_or_reorder_are_replaced() -> None:
    every = "".join(
        map(chr, (*range(0x3400), *range(0x9F00, 0xAC00), *range(0xD700, 0x10200), *range(0x1F000, 0x20000), *range(0xE0000, 0xE0200)))
    )
    shown = sanitize_lines(every)

    assert {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} == {"Cc", "Cf"}
    assert [c for c in shown if unicodedata.category(c) in ("Cc", "Cf")] == ["\t", "\n", "\u200c", "\u200d"]
    assert all(after == before or not before.isprintable() for before, after in zip(every, shown, strict=True))
    assert (printable("a\n\tb\u3000c"), sanitize_lines("a\n\tb\rc", allowed="")) == ("a\ufffd\ufffdb\u3000c", "a\n\ufffdb\ufffdc")


def test_json_escapes_what_github_reads_as_a_command_anywhere_in_a_line() -> None:
    assert sanitize_json('["##[error]"]') == '["#\\u0023[error]"]'
