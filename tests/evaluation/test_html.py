"""The HTML page: its contents, and that no reply escapes into markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sftchat import EngineError, Example, Message, Reply, Score
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.html import MAX_ITEMS, to_html
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import Comparison, ModelResult
from sftchat.evaluation.scored import Item, collect_outcomes

FAIL = Verdict("fail", ("model is worse than old",))
GOLD = {"a": "甲-乙:夫妻", "b": "丙-丁:师徒", "c": "无", "d": "戊-己:好友"}


class Document(HTMLParser):
    """Every element with its attributes, and the text of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        self.text += " "

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in self.raw:
            self.raw[self._inside].append(data)
        else:
            self.text += data


def payload(html: str) -> Any:
    return json.loads(Document(html).raw["script"][0])


def test_the_items_lie_in_the_page_with_gold_old_and_new_reply(make_report: Callable[..., Report]) -> None:
    report = make_report(
        GOLD,
        {"a": "甲-乙:父子", "b": "丙-丁:师徒", "c": "无", "d": EngineError("server gone")},
        baseline={**GOLD, "b": ""},
    )

    assert payload(to_html(report, FAIL)) == {
        "evalsets": [
            [
                ["a", "a", "甲-乙:夫妻", ["甲-乙:夫妻", []]],
                ["d", "d", "戊-己:好友", ["戊-己:好友", []]],
                ["b", "b", "丙-丁:师徒", ["", ["missing"]]],
                ["c", "c", "无", ["无", []]],
            ]
        ],
        "results": [
            {
                "model": "model",
                "baseline": "old",
                "name": "gold.jsonl",
                "evalset": 0,
                "rows": [
                    [0, "broken", "甲-乙:父子", ["missing", "spurious"], 1],
                    [1, "failed", "[not answered: server gone]", [], 0],
                    [2, "fixed", "丙-丁:师徒", [], 1],
                    [3, "right", "无", [], 0],
                ],
            }
        ],
    }


def test_figures_and_verdict_are_in_the_page_without_script(make_report: Callable[..., Report]) -> None:
    report = make_report(GOLD, {**GOLD, "a": "甲-乙:父子"}, baseline=GOLD)

    text = " ".join(Document(to_html(report, FAIL)).text.split())

    metric = report.comparisons[0].metrics[0]
    assert "fail model is worse than old gold.jsonl 4 items sha256 f00d" in text
    assert f"f1 {metric.baseline:.3f} {metric.candidate:.3f} ~ {metric.difference:+.3f}" in text
    assert "夫妻 0.000 1.000 1" in text
    assert "missing 1 0 +1" in text


def test_the_same_report_gives_the_same_bytes(make_report: Callable[..., Report]) -> None:
    first, second = (to_html(make_report(GOLD, {**GOLD, "a": "错"}, baseline=GOLD), FAIL) for _ in range(2))

    assert first == second


def test_the_page_may_run_only_its_own_script(make_report: Callable[..., Report]) -> None:
    document = Document(to_html(make_report(GOLD, GOLD), Verdict()))

    policy = next(attributes["content"] for tag, attributes in document.elements if attributes.get("http-equiv"))
    hashes = {
        kind: "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for kind, text in (("script", document.raw["script"][1]), ("style", document.raw["style"][0]))
    }
    assert policy == (
        f"default-src 'none'; style-src {hashes['style']}; script-src {hashes['script']}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    refused = [(tag, name) for tag, attributes in document.elements for name in attributes if name == "style" or name.startswith("on")]
    assert refused == []
    addresses = [a[name] for _, a in document.elements for name in ("src", "href") if a.get(name)]
    assert [address for address in addresses if not str(address).startswith(("#", "data:"))] == []


@given(st.text())
def test_no_text_escapes_into_markup(text: str) -> None:
    hostile = f"</script><!--<script>{text}\"'&<b onclick=x>"
    example = Example((Message(role="user", content=hostile),), hostile, "i")
    old, new = (
        ModelResult(hostile, EvalsetIdentity(hostile), collect_outcomes([Item(example, Reply(said), Score({"n": 1}, "", faults))]))
        for said, faults in (("", ()), (hostile, (hostile,)))
    )
    report = Report(hostile, (new,), (old,), (Comparison(old, new, 1, broken=((old.items[0], new.items[0]),)),))

    html = to_html(report, Verdict("fail", (hostile, hostile))).encode("utf-8", "backslashreplace").decode()

    document = Document(html)
    assert [tag for tag, _ in document.elements if tag in ("script", "b")] == ["script", "script"]
    assert json.loads(document.raw["script"][0])["results"][0]["rows"] == [[0, "broken", hostile, [hostile], 1]]


def test_several_checkpoints_give_a_curve_and_other_models_none(make_report: Callable[..., Report]) -> None:
    steps = to_html(make_report(GOLD, GOLD, {**GOLD, "a": ""}, names="run/checkpoint-100 run/checkpoint-200"), FAIL)
    others = to_html(make_report(GOLD, GOLD, {**GOLD, "a": ""}, names="one two"), FAIL)

    assert steps.count('<svg class="curve"') == 2  # one for each width
    assert "run/checkpoint-200" not in re.findall("<title>(.*?)</title>", steps)
    assert "run, step 200: 0.800" in "".join(re.findall("<title>(.*?)</title>", steps))
    assert '<svg class="curve"' not in others


def test_a_report_without_any_reply_is_a_page_too(make_report: Callable[..., Report]) -> None:
    html = to_html(make_report({"a": "无"}, {"a": EngineError("gone")}), Verdict("could not judge", ("1 item was not answered",)))

    assert "not answered" in html
    assert payload(html)["results"][0]["rows"] == [[0, "failed", "[not answered: gone]", [], 0]]


def test_of_many_items_the_right_ones_are_left_out_and_counted(make_report: Callable[..., Report]) -> None:
    gold = {str(number): "甲-乙:夫妻" for number in range(MAX_ITEMS + 50)}

    html = to_html(make_report(gold, {**gold, str(MAX_ITEMS + 49): ""}), FAIL)

    rows = payload(html)["results"][0]["rows"]
    assert (len(rows), rows[0][1]) == (MAX_ITEMS, "wrong")
    assert "50 more items are not in this page" in html
    assert len(html.encode()) < 120 * MAX_ITEMS
