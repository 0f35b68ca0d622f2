"""Results over time: what is compared with what, and when an item was won and lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from sftchat.evaluation.comparison import paired_difference
from sftchat.evaluation.evalset import Evalset, EvalsetIdentity
from sftchat.evaluation.gate import Verdict
from sftchat.evaluation.history import ItemRun, Run, make_item_sections, make_sections, visible_results
from sftchat.evaluation.ledger import Ledger, LedgerItem, LedgerResult, read_item, read_items, read_results
from sftchat.evaluation.plan import Plan, Source
from sftchat.evaluation.recording import ledger_entries, ledger_item
from sftchat.evaluation.report.timeline import (
    Axis,
    draw_interval,
    item_section_lines,
    make_axis,
    section_lines,
    shorten_start,
)
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import MetricResult, ModelResult
from sftchat.evaluation.scored import Failure, Item
from tests.evaluation.conftest import F1_TASK

MakeResult = Callable[..., ModelResult]
GOLD = EvalsetIdentity("gold.jsonl", "f00d", 8)
BASE = LedgerResult(
    evaluation="e", time=1.0, role="model", model="m", identity="", weights="", step=None, task="triples", evalset=GOLD,
    settings={"sampling": {"temperature": 0.0}}, sampling=None, metrics=(MetricResult("exact", 0.5, 0.2, 0.8, "wilson"),), requested=8, answered=8,
    right=4, truncated=0, failed=0, per_item_rate=True,
)  # fmt: skip


def items(marks: str, reply: str = "") -> dict[str, LedgerItem]:
    """Items ``i0``, ``i1``, …: ``+`` right, ``-`` wrong, ``!`` not answered; with the same reply for equal marks, or the given one."""
    made = {}
    for number, mark in enumerate(marks):
        right = None if mark == "!" else mark == "+"
        value = None if right is None else float(right)
        made[f"i{number}"] = LedgerItem(f"i{number}", f"c{number}", right, value, () if right else ("wrong",), reply or mark, {"n": 1.0})
    return made


def rated(marks: str, **changes: object) -> tuple[LedgerResult, dict[str, LedgerItem]]:
    """A result whose metric is the share of right items."""
    value = marks.count("+") / len(marks)
    result = replace(
        BASE,
        metrics=(MetricResult("exact", value, value, value, "wilson"),),
        answered=len(marks) - marks.count("!"),
        failed=marks.count("!"),
        **changes,
    )  # type: ignore[arg-type]
    return result, items(marks)


def history(*entries: tuple[LedgerResult, dict[str, LedgerItem]], limit: int = 20) -> list[tuple[str, list[Run]]]:
    numbered = [replace(result, number=number, time=float(number)) for number, (result, _) in enumerate(entries, start=1)]
    of = {number: made for number, (_, made) in enumerate(entries, start=1)}
    sections = make_sections(visible_results(numbered), limit, lambda result: of[result.number], lambda task, name: None)
    return [(section.note, list(section.runs)) for section in sections]


def test_the_change_is_the_gates_paired_difference(result: MakeResult) -> None:
    """Both for a mean of items, without the task, and for a metric like F1, with it."""
    old, new = result("a", "++++----"), result("b", "++++++--")
    entries = [(one, {item.example.id: ledger_item(item, F1_TASK.metric) for item in one.items}) for one in (old, new)]
    recorded = [(replace(BASE, metrics=one.metrics, per_item_rate=False), made) for one, made in entries]
    numbered = [replace(row, number=number) for number, (row, _) in enumerate(recorded)]
    (section,) = make_sections(
        numbered, 9, lambda row: recorded[row.number][1], lambda task, name: next(one for one in F1_TASK.metrics if one.name == name)
    )
    expected = paired_difference(old.items.table, new.items.table, F1_TASK.metrics[0])

    assert section.runs == (Run(numbered[0]), Run(numbered[1], numbered[0], expected, won=("i4", "i5")))
    ((_, runs),) = history(rated("++++----"), rated("++++++--"))
    rate = paired_difference(old.items.table, new.items.table, F1_TASK.metrics[1])
    assert runs[1].difference == replace(rate, name="exact")


def test_incomplete_results_are_shown_and_not_compared() -> None:
    partial = replace(BASE, requested=3, answered=3)
    ((_, runs),) = history(rated("++++----"), (partial, items("+++")), rated("++++++-!"), rated("+++++---"))

    assert [(run.before and run.before.number, run.change) for run in runs] == [(None, None), (None, None), (None, None), (1, 0.125)]
    assert (runs[3].won, runs[3].lost) == (("i4",), ())


def test_other_content_or_settings_start_a_new_section_that_says_so() -> None:
    grown = replace(GOLD, sha256="beef", size=9)
    hot = {"sampling": {"temperature": 0.7}, "task": {"system": "Be brief."}}
    sections = history(
        rated("++++----"), rated("+++++++++", evalset=grown), rated("++++----", settings=hot, evalset=grown), rated("+++++++++", task="other", evalset=grown)
    )  # fmt: skip

    assert [(note, [run.result.number for run in runs]) for note, runs in sections] == [
        ("", [1]),
        ("gold.jsonl has other content than in the runs above: 9 items, before 8", [2]),
        ('other settings than in the runs above: system "Be brief.", above unset; temperature 0.7, above 0.0', [3]),
        ("", [4]),
    ]


def test_a_renamed_evalset_with_the_same_content_continues() -> None:
    ((_, runs),) = history(rated("++++----"), rated("+++++---", evalset=replace(GOLD, name="other.jsonl")))

    assert runs[1].change == 0.125


def test_a_baseline_is_shown_once_and_not_if_it_was_evaluated_itself() -> None:
    base = rated("++++----", role="baseline", model="base")
    ((_, runs),) = history(base, rated("+++++---"), base, rated("+++++---", role="baseline"))

    assert [run.result.number for run in runs] == [1, 2]


def test_the_limit_keeps_the_latest_and_the_change_of_the_first_of_them() -> None:
    ((_, runs),) = history(rated("++------"), rated("+++-----"), rated("++++----"), limit=1)

    assert [(run.result.number, run.change) for run in runs] == [(3, 0.125)]


def test_a_changed_scorer_is_noticed_by_equal_replies_with_other_counts() -> None:
    before, now = (
        items("++++----", reply="same"),
        {name: replace(item, stats={"n": 2.0}) for name, item in items("++++----", reply="same").items()},
    )
    now["i7"] = replace(now["i7"], reply="other")
    ((_, runs),) = history((BASE, before), (BASE, now))

    assert [run.rescored for run in runs] == [0, 7]


def test_a_metric_that_needs_several_items_is_recorded_without_values_of_items(result: MakeResult) -> None:
    def spread(sums: object) -> float:
        raise ZeroDivisionError

    item = result("a", "+").items[0]

    recorded = ledger_item(item, replace(F1_TASK.metric, function=spread))

    assert recorded == replace(ledger_item(item, F1_TASK.metric), value=None)


def test_without_the_items_only_the_change_is_known() -> None:
    ((_, runs),) = history((BASE, {}), rated("+++++---"))

    assert runs[1] == Run(runs[1].result, runs[0].result)
    assert runs[1].change == 0.125


REPLIES = st.sampled_from(["+", "-", "~", "!"])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_history_of_an_item_is_that_of_the_reports(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, result: MakeResult
) -> None:
    path = tmp_path_factory.mktemp("l") / "ledger.sqlite"
    reports = []
    for number in range(data.draw(st.integers(1, 5))):
        marks = "".join(data.draw(st.lists(REPLIES, min_size=8, max_size=8)))
        one = replace(result(f"run/checkpoint-{number}", marks), evalset=GOLD)
        report = Report("triples", (one,), verdict=Verdict())
        plan = Plan(F1_TASK, (Evalset(GOLD.name, GOLD.sha256, (), GOLD.size, frozenset()),), (Source(one.model, "replies.jsonl"),))
        assert Ledger(path, pytest.fail).record(ledger_entries(report, [plan], {}, {}, lambda path: ""))
        reports.append(one)
    results = read_results(path)

    for item_id in (f"i{number}" for number in range(8)):
        (section,) = make_item_sections(results, read_item(path, item_id), 20)
        expected, before = [], None
        for recorded, one in zip(results, reports, strict=True):
            outcome = one.items.outcomes[item_id]
            run = ItemRun(recorded, ledger_item(outcome, F1_TASK.metric))
            if isinstance(outcome, Item):
                if before is not None:
                    change = "" if outcome.right == before.right else "won" if outcome.right else "lost"
                    run = replace(run, change=change, same_reply=outcome.reply.text == before.reply.text)  # type: ignore[arg-type]
                before = outcome
            else:
                assert isinstance(outcome, Failure)
            expected.append(run)
        assert list(section.runs) == expected
    assert {name: item.right for name, item in read_items(path, results[-1].number).items()} == {
        name: outcome.right if isinstance(outcome, Item) else None for name, outcome in reports[-1].items.outcomes.items()
    }


def lines(*entries: tuple[LedgerResult, dict[str, LedgerItem]], width: int, is_ascii: bool = False) -> list[str]:
    numbered = [replace(row, number=number, time=1_700_000_000.0) for number, (row, _) in enumerate(entries)]
    sections = make_sections(numbered, 20, lambda row: entries[row.number][1], lambda task, name: None)
    return [line.plain for section in sections for line in section_lines(section, width, is_ascii=is_ascii)]


def checkpoint(step: int, marks: str, low: float, high: float, verdict: str = "") -> tuple[LedgerResult, dict[str, LedgerItem]]:
    row, made = rated(marks, model=f"runs/first/checkpoint-{step}", step=step, verdict=verdict)
    return replace(row, metrics=(replace(row.metrics[0], low=low, high=high),)), made


def test_the_table_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    entries = [
        checkpoint(50, "++++----", 0.2, 0.8),
        checkpoint(1000, "++++++--", 0.4, 0.95, "fail"),
        (replace(BASE, requested=2, answered=2), items("++")),
    ]

    assert lines(*entries, width=80) == [
        "triples on gold.jsonl, 8 items",
        "when        model        step  exact  95 % interval   0.2      0.95    change",
        "2023-11-14  runs/first     50  0.500  [0.200, 0.800]  ├────█────┤",
        "2023-11-14  runs/first  1,000  0.750  [0.400, 0.950]     ├─────█──┤  ~ +0.250  ✗",
        "2023-11-14  m                  0.500  [0.200, 0.800]                   2 of 8",
    ]


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 100, 140])
@pytest.mark.parametrize("name", ["m", "runs/a-very-long-name-of-a-run-with-a-date-2026-12-01", "模型/检查点"])
def test_no_line_is_wider_than_the_terminal(width: int, name: str) -> None:
    entries = [checkpoint(step, marks, 0.1, 0.9, "pass") for step, marks in ((50, "++++----"), (100, "-+++++--"))]
    entries = [(replace(row, model=name), made) for row, made in entries]

    assert [line for line in lines(*entries, width=width) if Text(line).cell_len > width] == []


def test_a_terminal_without_unicode_gets_ascii() -> None:
    shown = lines(checkpoint(50, "++++----", 0.25, 0.75), width=100, is_ascii=True)

    assert "|" in shown[2]
    assert shown[2].isascii()


@pytest.mark.parametrize(
    ("low", "value", "high", "drawn"),
    [
        (0.0, 0.5, 1.0, "├────█────┤"),
        (0.4, 0.5, 0.6, "    ├█┤"),
        (None, 0.5, None, "     █"),
        (0.0, 0.0, 0.0, "█"),
        (0.9, 1.0, 1.0, "         ├█"),
    ],
)
def test_an_interval_is_drawn_on_the_axis(low: float | None, value: float, high: float | None, drawn: str) -> None:
    row = replace(BASE, metrics=(MetricResult("exact", value, low, high, "wilson"),))

    assert draw_interval(row, Axis(0.0, 1.0), 11) == drawn
    assert draw_interval(replace(row, answered=3), Axis(0.0, 1.0), 11) == ""


@given(
    bounds=st.lists(st.tuples(*[st.floats(-1e6, 1e6).map(lambda number: round(number, 4))] * 3).map(sorted), min_size=1, max_size=5),
    width=st.integers(1, 60),
)
def test_the_axis_has_room_for_every_interval(bounds: list[list[float]], width: int) -> None:
    rows = [replace(BASE, metrics=(MetricResult("x", value, low, high, "bootstrap"),)) for low, value, high in bounds]

    axis = make_axis(rows)

    assert axis is not None
    assert axis.low < axis.high
    assert axis.low <= min(low for low, *_ in bounds) + 1e-6 * abs(axis.low)
    assert axis.high >= max(high for *_, high in bounds) - 1e-6 * abs(axis.high)
    assert {len(draw_interval(row, axis, width)) <= width for row in rows} == {True}


def test_the_lines_of_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    rows = [replace(BASE, number=number, time=1_700_000_000.0, step=number * 50) for number in range(1, 6)]
    marks = [items(mark)["i0"] for mark in "-+!--"]
    marks[4] = replace(marks[4], stats={"n": 2.0}, errors=("wrong", "long"))

    (section,) = make_item_sections(rows, dict(zip(range(1, 6), marks, strict=True)), 20)

    assert [line.plain for line in item_section_lines("i0", section, 80)] == [
        "i0 of triples on gold.jsonl, right in 1 of 4 runs",
        "when        model  step  item          reply               faults",
        "2023-11-14  m        50  wrong                             wrong",
        "2023-11-14  m       100  right, won    changed",
        "2023-11-14  m       150  not answered                      wrong",
        "2023-11-14  m       200  wrong, lost   changed             wrong",
        "2023-11-14  m       250  wrong         same, other scorer  wrong, long",
    ]


def test_a_value_between_0_and_1_is_a_column() -> None:
    rows = [replace(BASE, number=number, time=1_700_000_000.0) for number in (1, 2)]
    first = items("-")["i0"]

    (section,) = make_item_sections(rows, {1: replace(first, value=0.25), 2: replace(first, right=None, value=None)}, 20)

    assert [line.plain for line in item_section_lines("i0", section, 80)][1:3] == [
        "when        model  item          value  faults",
        "2023-11-14  m      wrong         0.250  wrong",
    ]


def test_a_changed_item_starts_a_new_section() -> None:
    rows = [replace(BASE, number=number) for number in (1, 2)]
    first = items("-")["i0"]

    sections = make_item_sections(rows, {1: first, 2: replace(first, content="changed", right=True)}, 20)

    assert [(section.note, [run.change for run in section.runs]) for section in sections] == [
        ("", [""]),
        ("prompt, gold reply or metadata of the item differ from the runs above", [""]),
    ]


@pytest.mark.parametrize(("text", "width", "shown"), [("run", 5, "run"), ("runs/first", 6, "…first"), ("模型一二", 5, "…一二")])
def test_a_long_name_keeps_its_end(text: str, width: int, shown: str) -> None:
    assert shorten_start(text, width) == shown
