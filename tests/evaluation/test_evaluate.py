"""Models scored and compared: as data, JSON and tables."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from sftchat import Example, NotComparableError, Reply, Task
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.evaluate import Scorer, compare, evaluate, summarise
from sftchat.evaluation.report.terminal import print_report
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import ModelResult, SliceResult
from sftchat.evaluation.scored import Failure, collect_outcomes
from sftchat.evaluation.statistics import wilson_interval
from sftchat.testing import ScriptedEngine

Make = Callable[..., Example]
RIGHT, WRONG = "甲-乙:夫妻", "甲-乙:恋人"
GOLD = EvalsetIdentity("gold.jsonl", "ab12", 8)


Result = Callable[..., ModelResult]


def shown(report: Report) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    print_report(report, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.split("\n"))


def test_a_model_generates_and_its_replies_are_scored_and_summed_up(task: Task, example: Make) -> None:
    engine = ScriptedEngine({"一": RIGHT, "二": WRONG, "三": Reply("", "error")}, name="nano")

    found = evaluate(engine, task, [example("a", prompt="一"), example("b", prompt="二"), example("c", prompt="三")])

    assert [(metric.name, metric.value, metric.interval) for metric in found.metrics] == [
        ("f1", 0.5, "bootstrap"),
        ("exact", 0.5, "wilson"),
    ]
    assert (found.model, found.items.totals.right, found.failures) == ("nano", 1, (Failure(example("c", prompt="三"), "scripted"),))
    assert (found.errors, found.items.totals.completion_tokens) == ({"missing": 1, "spurious": 1}, 12)
    assert found.slices == (SliceResult("夫妻", 2, {"f1": 2 / 3}), SliceResult("恋人", 0, {"f1": 0.0}))
    assert found.seconds is not None


def test_generated_examples_have_no_ids_and_are_numbered(task: Task, example: Make) -> None:
    found = evaluate(ScriptedEngine([RIGHT, WRONG]), task, [example("", prompt="一"), example("", prompt="二")])

    assert [item.example.id for item in found.items] == ["row-000001", "row-000002"]


def test_a_model_without_any_reply_has_no_metrics(result: Result) -> None:
    found = result("dead", "!!")

    assert (found.metrics, found.slices, len(found.failures)) == ((), (), 2)


def test_broken_items_are_listed_worst_first_and_failures_are_not_compared(task: Task, example: Make, result: Result) -> None:
    old, new = result("old", "+++-!+"), result("new", "+--+++")
    worst = Scorer(task)(example("i2"), Reply("甲-乙:恋人\n丙-丁:同门"))
    new = replace(new, items=collect_outcomes(worst if item.example.id == "i2" else item for item in new.items))

    found = compare(old, new, task)

    assert [after.example.id for _, after in found.broken] == ["i2", "i1"]
    assert [after.example.id for _, after in found.fixed] == ["i3"]
    assert (found.n, found.differing) == (5, 3)
    assert [(metric.name, metric.test, metric.differing) for metric in found.metrics] == [
        ("f1", "exact permutation", 3),
        ("exact", "mcnemar", 3),
    ]


def test_a_model_compared_with_itself_does_not_differ(task: Task, result: Result) -> None:
    found = compare(result("a", "++-"), result("a", "++-"), task)

    assert [(metric.difference, metric.p, metric.judgement) for metric in found.metrics] == [(0.0, 1.0, "no significant difference")] * 2
    assert (*found.broken, *found.fixed, found.differing) == (0,)


def test_results_of_different_sets_are_not_compared(task: Task, result: Result) -> None:
    other = replace(result("b", "++"), evalset=replace(GOLD, sha256="cd34"))

    other_items = replace(
        result("b", "++"), items=collect_outcomes(replace(i, example=replace(i.example, id="x")) for i in result("b", "+").items)
    )
    for pair in ((result("a", "++"), other), (result("a", "++"), other_items)):
        with pytest.raises(NotComparableError, match=r"^'a' and 'b' were not scored on the same items of the same evalset \("):
            compare(*pair, task)


def test_a_comparison_without_common_items_has_no_metrics(task: Task, result: Result) -> None:
    assert compare(result("a", "+!"), result("b", "!+"), task).metrics == ()


def test_the_report_has_the_same_bytes_every_time_and_no_time(task: Task, result: Result) -> None:
    def report(seconds: float) -> str:
        old, new = replace(result("old", "+-+"), seconds=seconds), result("new", "++!")
        return Report("triples", (new,), (old,), (compare(old, new, task),), versions={"sftchat": "1"}).to_json()

    text = report(1.0)
    document = json.loads(text)

    assert text == report(2.0)
    assert text.endswith("}\n")
    assert sorted(document) == [
        "baselines",
        "comparisons",
        "gates",
        "rankings",
        "remarks",
        "results",
        "sampling",
        "schema_version",
        "seed",
        "task",
        "verdict",
        "versions",
    ]
    assert document["results"][0] == {
        "model": "new",
        "task": "triples",
        "evalset": {"name": "gold.jsonl", "sha256": "ab12", "size": 8},
        "n": 2,
        "right": 2,
        "truncated": 0,
        "failed": [{"id": "i2", "error": "server gone"}],
        "metrics": [
            {"name": name, "value": 1.0, "low": pytest.approx(wilson_interval(1.0, 2).low), "high": 1.0, "interval": "wilson"}
            for name in ("f1", "exact")
        ],
        "groups": [{"name": "夫妻", "support": 2, "metrics": {"f1": 1.0}}],
        "errors": {},
        "prompt_tokens": 6,
        "completion_tokens": 10,
    }
    assert {key: document["comparisons"][0][key] for key in ("baseline", "candidate", "evalset", "n", "broken", "fixed", "differing")} == {
        "baseline": "old",
        "candidate": "new",
        "evalset": "gold.jsonl",
        "n": 2,
        "broken": [],
        "fixed": ["i1"],
        "differing": 1,
    }


def test_one_model_is_shown_with_intervals_slices_and_error_classes(result: Result) -> None:
    assert (
        shown(Report("triples", (result("nano", "++-~!"),)))
        == """\
triples on gold.jsonl, 5 of 8 items

model  nano

metric   value   95 % interval
───────────────────────────────
f1       0.500   [0.000, 1.000]
exact    0.500   [0.150, 0.850]

group   gold      f1
────────────────────
夫妻       4   0.667
恋人       0   0.000

fault      count
────────────────
missing        2
spurious       2

nano: 2 of 4 items without any error class, 1 truncated, 1 not answered, 20
tokens

"""
    )


def test_two_models_are_shown_with_differences_and_the_items_that_changed(task: Task, result: Result) -> None:
    old, new = result("old", "--------"), result("new", "-+++++++")

    assert (
        shown(Report("triples", (new,), (old,), (compare(old, new, task),))).split("newly fixed")[0]
        == """\
triples on gold.jsonl, 8 items

baseline  old
model     new

metric   baseline   model   difference   95 % interval          p
─────────────────────────────────────────────────────────────────
f1          0.000   0.875       +0.875   [+0.329, +1.000]   0.016
exact       0.000   0.875       +0.875   [+0.329, +1.000]   0.016

group (f1)   gold   baseline   model   change
─────────────────────────────────────────────
夫妻            8      0.000   0.933   +0.933
恋人            0      0.000   0.000

fault      baseline   model   change
────────────────────────────────────
missing           8       1       -7
spurious          8       1       -7

"""
    )


def test_a_difference_that_is_not_significant_is_marked(task: Task, result: Result) -> None:
    old, new = result("old", "+++-"), result("new", "++--")

    assert "f1          0.750   0.500     ~ -0.250   [-0.806, +0.400]   1.000" in shown(
        Report("triples", (new,), (old,), (compare(old, new, task),))
    )


def test_several_models_are_shown_one_row_each(result: Result) -> None:
    text = shown(Report("triples", (result("one", "++-"), result("two", "+--"), result("dead", "!!!"))))

    assert [line.split()[0] for line in text.split("\n") if line][:5] == ["triples", "model", "─" * 38, "one", "two"]


def test_replies_cannot_move_the_cursor(task: Task, example: Make) -> None:
    old = summarise("old", task, collect_outcomes([Scorer(task)(example("a"), Reply(RIGHT))]), GOLD)
    new = summarise("new", task, collect_outcomes([Scorer(task)(example("a"), Reply("\x1b[2J[bold]x[/bold]\n" * 12))]), GOLD)

    text = shown(Report("triples", (new,), (old,), (compare(old, new, task),)))

    assert "\x1b" not in text
    assert "[bold]x[/bold]" in text
    assert "… 4 more lines" in text
