"""JUnit XML: which items are failures, and that any text is preserved."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import EngineError, Example, Message, Reply, Score
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.gate import Unsettled, Verdict
from sftchat.evaluation.report.junit import to_junit
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import Comparison, ModelResult
from sftchat.evaluation.scored import Item, collect_outcomes
from sftchat.text import sanitize_lines

ASKED_NOTHING = Verdict()
GOLD = {"a": "甲-乙:夫妻", "b": "丙-丁:师徒", "c": "无", "d": "戊-己:好友"}

# junit-10.xsd of Jenkins' xunit-plugin: attributes and children by element
ALLOWED = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": ({"name", "time", "classname", "group"}, {"skipped", "error", "failure", "system-out", "system-err"}),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
}
REQUIRED = {"property": {"name", "value"}, "testsuite": {"name", "tests", "failures", "errors"}, "testcase": {"name"}}


def outcomes(text: str) -> dict[str, tuple[str, str | None]]:
    """Return the result of each case by name: the element and its message."""
    found = {}
    for case in ElementTree.fromstring(text.encode()).iter("testcase"):
        found[case.attrib["name"]] = next(((child.tag, child.get("message")) for child in case), ("passed", None))
    return found


def test_with_a_baseline_only_new_errors_fail(make_report: Callable[..., Report]) -> None:
    report = make_report(
        GOLD,
        {"a": "甲-乙:父子", "b": "丙-丁:师徒", "c": "子-丑:好友", "d": EngineError("server gone")},
        baseline={"a": "甲-乙:夫妻", "b": "", "c": "子-丑:同学", "d": "戊-己:好友"},
    )

    text = to_junit(report, ASKED_NOTHING)

    assert outcomes(text) == {
        "a": ("failure", "newly broken: missing, spurious"),
        "d": ("error", "not answered"),
        "b": ("passed", None),
        "c": ("skipped", "broken as before: spurious"),
    }
    assert ElementTree.fromstring(text.encode()).find(".//failure").text == (  # type: ignore[union-attr]
        "gold:\n甲-乙:夫妻\n\nbaseline:\n甲-乙:夫妻\n\nmodel:\n甲-乙:父子"
    )
    assert "[not answered: server gone]" in text


def test_without_a_baseline_no_item_fails_and_the_verdict_covers_the_floors(make_report: Callable[..., Report]) -> None:
    report = make_report(GOLD, {**GOLD, "a": "错"})

    text = to_junit(report, Verdict("fail", ("model on gold.jsonl: f1 0.750 is under the floor 0.9",)))

    assert outcomes(text) == {
        "verdict": ("failure", "fail"),
        "a": ("skipped", "not right, and no baseline says whether that is new: missing, spurious"),
        "b": ("passed", None),
        "c": ("passed", None),
        "d": ("passed", None),
    }
    suites = [dict(suite.attrib) for suite in ElementTree.fromstring(text.encode()).iter("testsuite")]
    assert suites == [
        {"name": "gate", "tests": "1", "failures": "1", "errors": "0", "skipped": "0"},
        {"name": "model on gold.jsonl", "tests": "4", "failures": "0", "errors": "0", "skipped": "1"},
    ]


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (Verdict("pass"), "passed"),
        (Verdict("fail"), "failure"),
        (Verdict("could not judge"), "error"),
        (Verdict("not comparable", strict=True), "error"),
        (Verdict("inconclusive"), "skipped"),
        (Verdict("inconclusive", strict=True), "error"),
    ],
)
def test_only_a_failed_gate_is_a_failure_and_an_inconclusive_one_is_skipped(
    make_report: Callable[..., Report], verdict: Verdict, outcome: str
) -> None:
    text = to_junit(make_report(GOLD, GOLD), verdict)

    found = {one.get("name"): one.get("value") for one in ElementTree.fromstring(text.encode()).iter("property")}
    assert outcomes(text)["verdict"][0] == outcome
    assert found == {"verdict": verdict.outcome, "exit_code": str(verdict.exit_code)}


def test_an_inconclusive_verdict_has_its_open_question_as_properties(make_report: Callable[..., Report]) -> None:
    text = to_junit(make_report(GOLD, GOLD), Verdict("inconclusive", unsettled=Unsettled("f1", 33.4, 2.0, 15, 77)))

    assert {one.get("name"): one.get("value") for one in ElementTree.fromstring(text.encode()).iter("property")} == {
        "verdict": "inconclusive",
        "exit_code": "0",
        "metric": "f1",
        "drop": "33.4",
        "margin": "2",
        "n": "15",
        "items_needed": "77",
        "units": "items",
        "falls": "True",
    }
    assert outcomes(text)["verdict"] == (
        "skipped",
        "inconclusive; a drop of 33.4 points of f1 cannot be excluded, the margin is 2; about 77 items would settle it, here are 15",
    )


def test_the_file_is_valid_under_the_schema(make_report: Callable[..., Report]) -> None:
    report = make_report(
        GOLD, {**GOLD, "a": "错", "b": EngineError("x")}, {**GOLD, "c": "错"}, baseline={**GOLD, "c": "错"}, names="one two"
    )

    for element in ElementTree.fromstring(
        to_junit(report, Verdict("inconclusive", unsettled=Unsettled("f1", 33.4, 2.0, 15, 77))).encode()
    ).iter():
        attributes, children = ALLOWED[element.tag]
        assert set(element.attrib) <= attributes
        assert set(element.attrib) >= REQUIRED.get(element.tag, set())
        assert {child.tag for child in element} <= children


@given(st.text(), st.text(), st.text())
def test_any_text_gives_xml_with_every_character_that_xml_allows(name: str, old: str, new: str) -> None:
    example = Example((Message(role="user", content="?"),), old, name)
    result = [
        ModelResult(name, EvalsetIdentity(name), collect_outcomes([Item(example, Reply(text), Score({"n": 1}, "", errors))]))
        for text, errors in ((old, ()), (new, (new,)))
    ]
    before, after = result
    comparison = Comparison(before, after, 1, broken=((before.items[0], after.items[0]),))

    root = ElementTree.fromstring(
        to_junit(Report(name, (after,), (before,), (comparison,)), Verdict("could not judge", (name,))).encode("utf-8")
    )

    def legal(text: str) -> str:
        return sanitize_lines(text, allowed="\t\r")

    case = root.findall("testsuite")[1].find("testcase")
    assert case is not None
    failure = case.find("failure")
    assert failure is not None
    assert (case.get("name"), failure.get("message")) == (legal(name), legal(f"newly broken: {new}"))
    assert failure.text == legal(f"gold:\n{old}\n\nbaseline:\n{old}\n\nmodel:\n{new}")


def test_the_same_report_gives_the_same_bytes(make_report: Callable[..., Report]) -> None:
    first, second = (to_junit(make_report(GOLD, {**GOLD, "a": "错"}, baseline=GOLD), ASKED_NOTHING) for _ in range(2))

    assert first == second
