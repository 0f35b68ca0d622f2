"""The Markdown report: figures and broken items, intact for any reply and any limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sftchat import EngineError
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.markdown import COMMENT_BYTES, SUMMARY_BYTES, format_code, to_markdown
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import MetricDifference
from sftchat.text import sanitize_lines

ASKED_NOTHING = Verdict()
GOLD = {"a": "甲-乙:夫妻", "b": "丙-丁:师徒", "c": "无", "d": "戊-己:好友"}


class Cells(HTMLParser):
    """Parse the text of every table cell with its line breaks, and all tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")
            self.inside = True
        elif tag == "br":
            self.handle_data("\n")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data


def rendered(markdown: str) -> Cells:
    return Cells(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))


def test_a_comparison_shows_figures_verdict_and_what_broke(make_report: Callable[..., Report]) -> None:
    report = make_report(
        GOLD,
        {**GOLD, "a": "甲-乙:父子", "d": EngineError("server gone")},
        baseline={**GOLD, "b": "丙-丁:同学"},
    )
    measured = (
        MetricDifference("f1", 0.5, 0.48, -0.1, 0.06, 0.41, "bootstrap", "permutation", 2),
        MetricDifference("exact", 0.9, 0.5, -0.5, -0.3, 0.0004, "bootstrap", "mcnemar", 2),
    )
    report = replace(report, comparisons=(replace(report.comparisons[0], metrics=measured),))

    text = to_markdown(report, Verdict("could not judge", ("1 item was not answered",)))

    assert (
        text
        == """\
## sftchat eval: triples

⚠️ **could not judge**

- <code>1 item was not answered</code>

### gold.jsonl

<code>model</code> beside <code>old</code>: **1 newly broken, 1 newly fixed, 2 of 3 replies differ**; 2 of 3 items without any error class, **1 not answered**

| metric | baseline | model | difference | 95 % interval | p |
|---|---:|---:|---:|---|---:|
| f1 | 0.500 | 0.480 | ~ -0.020 | [-0.100, +0.060] | 0.410 |
| exact | 0.900 | 0.500 | -0.400 | [-0.500, -0.300] | <0.001 |

<details><summary>f1 by group</summary>

| group | gold | baseline | model |
|---|---:|---:|---:|
| 夫妻 | 1 | 1.000 | 0.000 |
| 师徒 | 1 | 0.000 | 1.000 |
| 父子 | 0 |  | 0.000 |

</details>

<details><summary>faults</summary>

| fault | baseline | model | change |
|---|---:|---:|---:|
| missing | 1 | 1 |  |
| spurious | 1 | 1 |  |

</details>

<details><summary>newly broken (1)</summary>

| item | gold | baseline | model | faults |
|---|---|---|---|---|
| <code>a</code> | <code>甲-乙:夫妻</code> | <code>甲-乙:夫妻</code> | <code>甲-乙:父子</code> | missing, spurious |

</details>

<details><summary>newly fixed (1)</summary>

| item | gold | baseline | model | faults |
|---|---|---|---|---|
| <code>b</code> | <code>丙-丁:师徒</code> | <code>丙-丁:同学</code> | <code>丙-丁:师徒</code> | missing, spurious |

</details>
"""
    )


def test_several_models_have_a_row_each(make_report: Callable[..., Report]) -> None:
    text = to_markdown(make_report(GOLD, GOLD, {**GOLD, "a": ""}, names="run/checkpoint-1 run/checkpoint-2"), ASKED_NOTHING)

    assert "| model | f1 | exact | 95 % interval of f1 |\n|---|---:|---:|---|\n" in text
    assert "| <code>run/checkpoint-2</code> | 0.800 | 0.750 | [" in text


@given(st.text(min_size=1, max_size=200))
def test_any_reply_is_rendered_as_text_only(reply: str) -> None:
    shown = rendered(f"| a | b |\n|---|---|\n| {format_code(reply)} | end |\n")

    visible = sanitize_lines(reply.replace("\r\n", "\n").strip("\n"), allowed="")
    assert shown.cells[2:] == [visible if reply.strip() else "(empty)", "end"]
    assert shown.tags <= {"table", "thead", "tbody", "tr", "th", "td", "code", "br", "em"}


@pytest.mark.parametrize(
    ("reply", "source"),
    [
        ("甲-乙:夫妻\n丙|丁", "<code>甲-乙:夫妻<br>丙&#124;丁</code>"),
        ("</code><script>", "<code>&#60;/code&#62;&#60;script&#62;</code>"),
        ("see https://x.y and `z`", "<code>see https&#58;//x.y and &#96;z&#96;</code>"),
        ("长" * 401, f"<code>{'长' * 399}…</code>"),
        (" \n", "*(empty)*"),
    ],
)
def test_chinese_stays_and_markup_does_not(reply: str, source: str) -> None:
    assert format_code(reply) == source


@pytest.mark.parametrize("limit", [COMMENT_BYTES, SUMMARY_BYTES])
def test_items_that_do_not_fit_are_counted(make_report: Callable[..., Report], limit: int) -> None:
    gold = {f"item-{number}": "甲-乙:夫妻" for number in range(6000)}

    text = to_markdown(make_report(gold, dict.fromkeys(gold, "错" * 100), baseline=gold), ASKED_NOTHING, limit)

    rows = text.count("| <code>item-")
    assert limit - 1000 < len(text.encode()) <= limit
    assert f"\n{6000 - rows} more in the other files of the report\n\n</details>\n" in text


def test_no_limit_is_exceeded_and_no_fold_left_open(make_report: Callable[..., Report]) -> None:
    report = make_report(GOLD, {**GOLD, "a": "错" * 300, "b": "|" * 300}, baseline=GOLD)

    for limit in range(100, 6000, 61):
        text = to_markdown(report, Verdict("fail"), limit)

        assert len(text.encode()) <= limit
        assert text.count("<details>") == text.count("</details>")
        assert text.endswith("\n")
