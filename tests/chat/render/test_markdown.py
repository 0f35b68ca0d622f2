"""Markdown rendered line by line; what is none stays as it is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.chat.render.markdown import Markdown, inline
from sftchat.chat.render.width import Line, merge_styles, text_of


def render(text: str, columns: int = 60) -> list[Line]:
    markdown = Markdown()
    return [*(line for source in text.split("\n") for line in markdown.feed(source, columns)), *markdown.end(columns)]


def shown(text: str, columns: int = 60) -> str:
    return "\n".join(map(text_of, render(text, columns)))


@pytest.mark.parametrize(
    "text",
    [
        "甲-乙:师徒\n丙-丁:夫妻\n\n无",
        "2*3*4 = 24, 2**3 and 4**5, f(*args, **kwargs, **more)",
        "__init__ and snake_case_name, a_b_",
        "#hashtag, C# and # \n1.5 and -3\n-no list",
        r"\(x^2\) and \*not\* emphasis, \frac{1}{2}",
        "<word>text</word> &lt; <!-- x -->",
        "a|b\n甲|乙",
        "5 * 3 * 2\n** not bold **",
        "`unclosed and ``` too\n[label](no url) [x] ![a](b)",
        "> ",
        "  indented\n\ttab",
        "",
    ],
)
def test_text_that_is_not_markdown_is_shown_unchanged(text: str) -> None:
    assert shown(text) == (text if text != "> " else "▌ ")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("# Title #", [("bold underline", "Title")]),
        ("## 标题", [("bold", "标题")]),
        ("#### deep *it*", [("bold italic", "deep "), ("bold italic italic", "it")]),
        ("- **注意：**后面", [("class:bullet", "•"), ("", " "), ("bold", "注意："), ("", "后面")]),
        ("  * item", [("", "  "), ("class:bullet", "•"), ("", " item")]),
        ("12. item", [("class:bullet", "12. "), ("", "item")]),
        ("> > quoted `x`", [("class:faint", "▌ ▌ "), ("class:quote", "quoted "), ("class:quote class:code", "x")]),
        (
            "a *b* **c *d* e** ***f*** ~~g~~",
            [*inline("a *b* **c *d* e** "), ("bold italic", "f"), ("", " "), ("strike", "g")],
        ),
        ("**c *d* e**", [("bold", "c "), ("bold italic", "d"), ("bold", " e")]),
        ("see [docs](https://a.b/c) now", [("", "see "), ("class:link", "docs"), ("class:faint", " (https://a.b/c)"), ("", " now")]),
        ("***", [("class:faint", "─" * 40)]),
        ("- - -", [("class:faint", "─" * 40)]),
    ],
)
def test_a_block_of_one_line(source: str, line: Line) -> None:
    assert merge_styles(render(source)[0]) == line


def test_code_is_coloured_and_keeps_every_character() -> None:
    code = '```python\ndef f(x):\n    """One\n    **two**"""\n\n    return x  # 注释\n```\n**bold**'
    lines = render(code)

    assert [text_of(line) for line in lines] == [*code.split("\n")[:-1], "bold"]
    assert ("class:code.keyword", "def") in lines[1]
    assert ("class:code.name", "f") in lines[1]
    assert lines[3] == [("class:code.string", '    **two**"""')]
    assert ("class:code.comment", "# 注释") in lines[5]


@pytest.mark.parametrize("fence", ["```", "~~~~", "  ```"])
def test_a_fence_ends_at_a_fence_of_its_own_kind(fence: str) -> None:
    text = f"{fence}\n- a\n``\n{fence}x\n{fence.strip()}\n- b"

    assert shown(text).endswith(f"- a\n``\n{fence}x\n{fence.strip()}\n• b")


@pytest.mark.parametrize("language", ["nonsense", "python title=x", "{.json}", ""])
def test_code_in_any_language_is_kept(language: str) -> None:
    text = f"```{language}\n{{\"a\": [1, '中']}}\n\n\tx \n```"

    assert shown(text) == text


TABLE = "| 名字 | n | note |\n|:--|--:|:-:|\n| 张三 | 1 | **ok** |\n| Bob | 12 | a \\| b `c|d` |"


def test_a_table_lines_up() -> None:
    assert shown(f"before\n{TABLE}\nafter").split("\n") == [
        "before",
        "名字 │  n │   note",
        "─────┼────┼──────────",
        "张三 │  1 │    ok",
        "Bob  │ 12 │ a | b c|d",
        "after",
    ]


def test_a_table_wraps_in_a_narrow_terminal_and_stays_source_text_where_it_cannot_fit() -> None:
    lines = shown("| a | b |\n|---|---|\n| one two three | 一二三四五六 |", 20).split("\n")

    assert lines == ["a        │ b", "─────────┼──────────", "one two  │ 一二三四", "three    │ 五六"]
    assert shown(TABLE, 12) == TABLE


@pytest.mark.parametrize(
    "text", ["| a line with bars |\nand no table", "|a|\n|b|\n|-|", "| a | b |\n|---|\n| c | d |", "| a |\n|---|\n| b | c |"]
)
def test_text_that_only_looks_like_a_table_is_kept(text: str) -> None:
    rendered = shown(text)

    assert re.sub(r"[\s|─│┼-]", "", rendered) == re.sub(r"[\s|─│┼-]", "", text)
    if "and no table" in text or "c |" in text:
        assert rendered == text


def test_a_table_is_shown_when_it_is_complete() -> None:
    markdown = Markdown()

    assert [markdown.feed(line, 60) for line in TABLE.split("\n")] == [[], [], [], []]
    assert markdown.pending_lines == TABLE.split("\n")
    assert text_of(markdown.feed("after", 60)[-1]) == "after"
    assert markdown.pending_lines == []


MARKED = st.text(st.sampled_from("ab1 中。*`_~#>|-+.[]():\\\n"), max_size=120)


@given(MARKED, st.integers(8, 60))
def test_all_letters_and_digits_are_shown_in_order(text: str, columns: int) -> None:
    def letters(text: str) -> str:
        return "".join(filter(str.isalnum, text))

    tables = any(re.match(r" {0,3}\|", line) for line in text.split("\n"))  # cells that wrap are read across
    seen, said = letters(shown(text, columns)), letters(text)
    assert (sorted(seen), len(seen)) == (sorted(said), len(said)) if tables else seen == said


@given(st.text(st.characters(exclude_characters="\n"), max_size=80))
def test_any_line_is_rendered(text: str) -> None:
    assert text_of(inline(text)).count("") <= len(text) + 4  # links gain a space and brackets they had


def test_a_line_of_markup_characters_is_rendered_fast() -> None:
    text = "**a *b [d](" * 2000

    assert text_of(inline(text)) == text
