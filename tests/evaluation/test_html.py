"""The page: what is in it, that no reply can break out of it, and that it works in a real browser without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import EngineError, Example, Message, Reply, Score
from sftchat.evaluation.charts import Point, Series, curve, domain, ticks
from sftchat.evaluation.html import ITEMS, to_html
from sftchat.evaluation.items import Item
from sftchat.evaluation.report import Comparison, EvalsetIdentity, ModelResult, Report
from sftchat.evaluation.verdict import Verdict
from tests.evaluation.browser import Page, browser, installed

FAIL = Verdict(("model is worse than old", "verdict: fail"), 1)
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


def test_figures_and_verdict_stand_in_the_page_without_any_script(make_report: Callable[..., Report]) -> None:
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


def test_the_page_may_run_its_own_script_and_nothing_else(make_report: Callable[..., Report]) -> None:
    document = Document(to_html(make_report(GOLD, GOLD), Verdict((), 0)))

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
def test_no_text_breaks_out_of_the_page(text: str) -> None:
    hostile = f"</script><!--<script>{text}\"'&<b onclick=x>"
    example = Example((Message(role="user", content=hostile),), hostile, "i")
    old, new = (
        ModelResult(hostile, EvalsetIdentity(hostile), (Item(example, Reply(said), Score({}, "", faults)),))
        for said, faults in (("", ()), (hostile, (hostile,)))
    )
    report = Report(hostile, (new,), (old,), (Comparison(old, new, 1, broken=((old.items[0], new.items[0]),)),))

    html = to_html(report, Verdict((hostile, hostile), 1)).encode("utf-8", "backslashreplace").decode()

    document = Document(html)
    assert [tag for tag, _ in document.elements if tag in ("script", "b")] == ["script", "script"]
    assert json.loads(document.raw["script"][0])["results"][0]["rows"] == [[0, "broken", hostile, [hostile], 1]]


def test_several_checkpoints_make_a_curve_and_other_models_none(make_report: Callable[..., Report]) -> None:
    steps = to_html(make_report(GOLD, GOLD, {**GOLD, "a": ""}, names="run/checkpoint-100 run/checkpoint-200"), FAIL)
    others = to_html(make_report(GOLD, GOLD, {**GOLD, "a": ""}, names="one two"), FAIL)

    assert steps.count('<svg class="curve"') == 2  # one for each width
    assert "run/checkpoint-200" not in re.findall("<title>(.*?)</title>", steps)
    assert "run, step 200: 0.800" in "".join(re.findall("<title>(.*?)</title>", steps))
    assert '<svg class="curve"' not in others


def test_a_report_in_which_nothing_was_answered_is_a_page_too(make_report: Callable[..., Report]) -> None:
    html = to_html(
        make_report({"a": "无"}, {"a": EngineError("gone")}), Verdict(("1 item was not answered", "verdict: could not judge"), 3)
    )

    assert "not answered" in html
    assert payload(html)["results"][0]["rows"] == [[0, "failed", "[not answered: gone]", [], 0]]


def test_of_very_many_items_the_right_ones_are_left_out_and_counted(make_report: Callable[..., Report]) -> None:
    gold = {str(number): "甲-乙:夫妻" for number in range(ITEMS + 50)}

    html = to_html(make_report(gold, {**gold, str(ITEMS + 49): ""}), FAIL)

    rows = payload(html)["results"][0]["rows"]
    assert (len(rows), rows[0][1]) == (ITEMS, "wrong")
    assert "50 more items are not in this page" in html
    assert len(html.encode()) < 120 * ITEMS


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.43, 0.96, [0.5, 0.6, 0.7, 0.8, 0.9]), (-3, 12, [0, 5, 10])]
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


@given(st.lists(st.tuples(st.integers(0, 10**7), st.floats(-1e6, 1e6)), min_size=1, max_size=40), st.none() | st.floats(-1e6, 1e6))
def test_any_curve_stays_inside_its_picture(points: list[tuple[int, float]], baseline: float | None) -> None:
    drawing = curve([Series("run", tuple(Point(step, value) for step, value in points))], baseline, 328, "f1")

    for x, y in re.findall(r'<circle cx="([^"]+)" cy="([^"]+)"', drawing):
        assert 0 <= float(x) <= 328
        assert 0 <= float(y) <= 220


def test_an_axis_of_shares_is_0_to_1() -> None:
    assert domain([0.2, None, 0.9]) == (0, 1)
    assert domain([1.5, 3.0]) == (1.5, 3.0)
    assert domain([7.0]) == (6.5, 7.5)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = installed()
    if program is None:
        pytest.skip("no Chromium on the PATH; install one (Debian: apt-get install chromium) or name it in CHROMIUM")
    with browser(program, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def many_items(make_report: Callable[..., Report], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 5,000 items under two checkpoints."""
    gold = {f"item-{number:04}": f"甲{number}-乙:夫妻" for number in range(5000)}
    names = list(gold)
    old = {**gold, **dict.fromkeys(names[:40], "")}
    new = {**old, **{name: gold[name] for name in names[:10]}, **{name: gold[name].replace("夫妻", "夫婦") for name in names[100:160]}}
    new |= {names[30]: "</script><script>alert(1)</script>\u200b", names[31]: EngineError("server gone")}  # type: ignore[dict-item]
    path = tmp_path_factory.mktemp("many") / "report.html"
    path.write_text(to_html(make_report(gold, old, new, baseline=old, names="run/checkpoint-1 run/checkpoint-2"), FAIL), encoding="utf-8")
    return path


@pytest.fixture
def many(page: Page, many_items: Path) -> Page:
    """That page open in the browser, as at the first visit."""
    page.complaints.clear()
    page.requests.clear()
    page.prefer("light")
    page.resize(1440)
    page.open(many_items)
    page.evaluate("localStorage.clear()")
    page.open(many_items)
    return page


def filters(page: Page) -> dict[str, str]:
    return dict(
        page.evaluate("[...document.querySelectorAll('.filters button')].map(b => [b.dataset.filter, b.querySelector('span').textContent])")
    )


def status(page: Page) -> str:
    return str(page.evaluate("document.getElementById('status').textContent"))


@pytest.mark.slow
def test_items_are_filtered_searched_and_paged_in_a_real_browser(many: Page) -> None:
    page = many
    page.evaluate("document.querySelector('a[href=\"#result-1\"]').click()")
    page.wait("document.getElementById('items-of').textContent.startsWith('run/checkpoint-2')")

    assert filters(page) == {"broken": "60", "fixed": "10", "changed": "71", "failed": "1", "wrong": "89", "all": "5,000"}
    assert page.evaluate("document.querySelectorAll('.result:not([hidden])').length") == 1
    page.evaluate("document.querySelector('[data-filter=broken]').click()")
    assert status(page) == "1–25 of 60 items"
    first = page.evaluate("document.querySelector('.item').innerText").split("\n")
    assert [line for line in first if line] == [
        "item-0100",
        "newly broken",
        "item-0100",
        "gold",
        "甲100-乙:夫妻",
        "baseline",
        "甲100-乙:夫妻",
        "model missing, spurious",
        "甲100-乙:夫婦",
    ]
    assert page.evaluate("[...document.querySelector('.item').querySelectorAll('mark')].map(m => [m.className, m.textContent])") == [
        ["missed", "妻"],
        ["off", "婦"],
    ]

    page.press("ArrowRight")
    assert status(page) == "26–50 of 60 items"
    page.press("ArrowLeft")
    page.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.type("甲15")
    page.wait("document.getElementById('status').textContent === '1–10 of 10 items'")
    page.type("nowhere")
    page.wait("document.getElementById('items').innerText === 'No item matches.'")

    assert page.complaints == []
    assert set(page.requests) == {page.evaluate("location.href.split('#')[0]")}


@pytest.mark.slow
def test_replies_are_shown_as_text_and_invisible_characters_by_name(many: Page) -> None:
    page = many
    page.evaluate("location.hash = '#result-1'")
    page.wait("document.getElementById('items-of').textContent.startsWith('run/checkpoint-2')")
    page.evaluate("document.querySelector('[data-filter=wrong]').click()")
    page.evaluate(
        "document.getElementById('fault').value = 'spurious'; document.getElementById('fault').dispatchEvent(new Event('change'))"
    )
    page.evaluate("document.getElementById('search').value = 'alert'; document.getElementById('search').dispatchEvent(new Event('input'))")
    page.wait("document.getElementById('status').textContent === '1–1 of 1 items'")

    assert page.evaluate("document.querySelector('.reply:last-child p').textContent") == "</script><script>alert(1)</script>⟨U+200B⟩"
    assert page.complaints == []


@pytest.mark.slow
def test_dark_and_light_follow_the_system_and_the_button(many: Page) -> None:
    page = many
    colour = "getComputedStyle(document.body).backgroundColor"

    light = page.evaluate(colour)
    page.evaluate("document.getElementById('theme').focus()")
    page.press("Enter")
    dark = page.evaluate(colour)
    page.call("Page.reload")
    page.wait(f"document.readyState === 'complete' && {colour} === '{dark}'")
    page.evaluate("localStorage.clear()")
    page.prefer("dark")
    page.call("Page.reload")
    page.wait(f"document.readyState === 'complete' && document.documentElement.dataset.theme === 'dark' && {colour} === '{dark}'")

    assert (light, dark) == ("rgb(252, 252, 250)", "rgb(19, 20, 23)")
    assert page.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_window(many: Page, width: int) -> None:
    many.resize(width)

    assert many.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.slow
def test_everything_can_be_reached_by_keyboard_and_has_a_name(many: Page) -> None:
    page = many
    page.evaluate("document.body.focus()")
    seen = []
    for _ in range(14):
        page.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.filter || document.activeElement.tagName"))

    assert {"theme", "all", "fault", "search"} <= set(seen)
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in tree if node.get("role", {}).get("value") in ("button", "link", "combobox", "searchbox", "region", "img")]
    assert [node["role"]["value"] for node in controls if not node.get("name", {}).get("value")] == []


@pytest.mark.slow
def test_a_search_among_thousands_answers_before_a_person_notices(many: Page) -> None:
    many.evaluate("document.querySelector('[data-filter=all]').click()")
    began = time.perf_counter()
    many.evaluate("document.getElementById('search').value = '甲4999'; document.getElementById('search').dispatchEvent(new Event('input'))")
    many.wait("document.getElementById('status').textContent === '1–1 of 1 items'")

    assert time.perf_counter() - began < 2  # seconds, on a busy machine; 0.1 on an idle one
