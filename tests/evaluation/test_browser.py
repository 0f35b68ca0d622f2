"""The HTML page in a real Chromium: it works, logs nothing to the console, and makes no network request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sftchat import EngineError
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.report.html import PAGE_FOLDER, to_html
from sftchat.evaluation.report.view import Report
from tests.evaluation.browser import Page, browser, installed

FAIL = Verdict(("model is worse than old", "verdict: fail"), 1)

pytestmark = pytest.mark.slow


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
    """That page in the browser, as at the first visit."""
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


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_window(many: Page, width: int) -> None:
    many.resize(width)

    assert many.evaluate("document.documentElement.scrollWidth") == width


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


def test_a_search_among_thousands_of_items_is_fast(many: Page) -> None:
    many.evaluate("document.querySelector('[data-filter=all]').click()")
    began = time.perf_counter()
    many.evaluate("document.getElementById('search').value = '甲4999'; document.getElementById('search').dispatchEvent(new Event('input'))")
    many.wait("document.getElementById('status').textContent === '1–1 of 1 items'")

    assert time.perf_counter() - began < 2  # seconds, on a busy machine; 0.1 on an idle one


@pytest.mark.parametrize(
    ("gold", "reply", "missed", "off"),
    [
        ("甲-乙:夫妻", "甲-乙:夫妻", [], []),
        ("甲-乙:夫妻\n丙-丁:师徒", "丙-丁:师徒\n甲-乙:夫妻", [], []),
        ("甲-乙:夫妻\n丙-丁:师徒", "丙-丁:同学\n甲-乙:夫妻", ["师徒"], ["同学"]),
        ("甲-乙:夫妻", "甲-乙:夫妻\n甲-乙:夫妻", [], ["甲-乙:夫妻"]),
        ("甲-乙:夫妻", "无", ["甲-乙:夫妻"], ["无"]),
        ("😀a", "😁a", ["😀"], ["😁"]),
        ("", "x", [], ["x"]),
        ("长" * 3000 + "a", "长" * 2999 + "b", ["长a"], ["b"]),
    ],
)
def test_the_marked_text_is_the_difference(page: Page, gold: str, reply: str, missed: list[str], off: list[str]) -> None:
    runs = """(lines) => lines.flatMap((line) => {
        const found = [];
        line.letters.forEach((letter, at) => {
            if (line.mask[at]) return;
            if (at && !line.mask[at - 1]) found[found.length - 1] += letter; else found.push(letter);
        });
        return found;
    })"""

    source = (PAGE_FOLDER / "difference.js").read_text(encoding="utf-8")
    assert page.evaluate(f"(() => {{ {source}; return beside({gold!r}, {reply!r}).map({runs}); }})()") == [missed, off]
