"""One gate over several tasks: a model that learned one task and forgot another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Desk
from tests.cli.test_gate import gold, replies


@pytest.fixture
def two(desk: Desk) -> Desk:
    """Two tasks with an evalset of 100 items each, and stored replies and baselines of both."""
    quiz = desk.registry.tasks["quiz"]
    desk.registry = replace(desk.registry, tasks={"quiz": quiz, "general": replace(quiz, name="general", evalsets={"g": Path("g.jsonl")})})
    gold("gold.jsonl", 100)
    gold("g.jsonl", 100, start=500)
    replies("quiz.jsonl", 100, range(30))
    replies("general.jsonl", 100, range(500, 510), start=500)
    words = [word for name in ("quiz", "general") for word in ("--task", name, "--replies", f"{name}={name}.jsonl")]
    updates = [word for name in ("quiz", "general") for word in ("--update-baseline", f"{name}={name}.base.jsonl")]
    assert desk.run(*words, *updates)[::2] == (
        0,
        "baseline quiz.base.jsonl: written, 100 items of quiz.jsonl\nbaseline general.base.jsonl: written, 100 items of general.jsonl\n",
    )
    return desk


def gate(desk: Desk, *words: str, quiz: range, general: range) -> tuple[int, str, list[str]]:
    """Run the gate over both tasks for replies with the given items wrong."""
    replies("quiz.jsonl", 100, quiz)
    replies("general.jsonl", 100, general, start=500)
    given = [
        word
        for name in ("quiz", "general")
        for word in ("--task", name, "--replies", f"{name}={name}.jsonl", "--baseline", f"{name}={name}.base.jsonl")
    ]
    code, out, err = desk.run(*given, *words)
    return code, out, err.splitlines()


def test_a_model_that_learned_its_task_and_lost_another_fails_and_the_lost_task_is_named(two: Desk) -> None:
    code, out, lines = gate(two, "--json", quiz=range(10), general=range(500, 525))
    report = json.loads(out)

    assert code == 1
    assert lines == [
        "quiz.jsonl on gold.jsonl: better than quiz.base.jsonl: accuracy +20.0 points [+11.8, +29.2], p = 1.91e-06 (3.81e-06 adjusted)",
        "general.jsonl on g.jsonl: regressed, worse than general.base.jsonl: accuracy -15.0 points [-23.5, -7.7], p = 6.1e-05",
        "verdict: fail; lost: general",
    ]
    assert (report["task"], [result["task"] for result in report["results"]]) == ("quiz, general", ["quiz", "general"])
    assert [(found["task"], found["outcome"]) for found in report["gates"]] == [("quiz", "fine"), ("general", "regressed")]


def test_both_tasks_unchanged_pass(two: Desk) -> None:
    assert gate(two, "--strict", quiz=range(30), general=range(500, 510))[::2][0] == 0


def test_each_task_has_its_own_margin_and_floor(two: Desk) -> None:
    changed = {"quiz": range(33), "general": range(500, 510)}

    assert gate(two, "--strict", **changed)[0] == 4
    assert gate(two, "--strict", "--gate", "quiz:accuracy=8", **changed)[0] == 0
    assert gate(two, "--min", "general:accuracy=0.9", **changed)[0] == 0
    assert gate(two, "--min", "accuracy=0.9", **changed)[0] == 1
    assert gate(two, "--must-pass", "quiz=i032", **changed)[2][-1] == "verdict: fail; lost: quiz"


def test_holm_counts_both_tasks(two: Desk) -> None:
    """Six broken items are significant alone (p = .031), but not together with another gate."""
    changed = {"quiz": range(30), "general": range(500, 516)}

    code, _, lines = gate(two, **changed)
    assert (code, "p = 0.0312 (0.0625 adjusted)" in lines[1]) == (0, True)


def test_two_tasks_are_shown_one_after_the_other_and_stored_separately(two: Desk) -> None:
    _, out, _ = gate(two, "-o", "out", quiz=range(30), general=range(500, 510))

    assert [line for line in out.splitlines() if " on " in line] == ["quiz on gold.jsonl, 100 items", "general on g.jsonl, 100 items"]
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "replies.general.baseline.jsonl",
        "replies.general.jsonl",
        "replies.quiz.baseline.jsonl",
        "replies.quiz.jsonl",
        "report.html",
        "report.json",
    ]


def test_a_model_is_the_baseline_of_every_task(two: Desk) -> None:
    two.engines["s:other"] = lambda request: "x"
    code, _, err = two.run("s:other", "--task", "quiz", "--task", "general", "--baseline", "s:bad", "--quiet")

    assert (code, two.opened) == (0, ["s:bad", "s:other", "s:bad", "s:other"])
    assert err.count("no item changed its counts") == 2


def test_the_plan_of_two_tasks_divides_the_level(two: Desk) -> None:
    words = [word for name in ("quiz", "general") for word in ("--task", name, "--baseline", f"{name}={name}.base.jsonl")]
    both = json.loads(two.run("--plan", *words, "--json")[1])
    alone = json.loads(two.run("--plan", *words[:4], "--json")[1])

    assert [one["evalset"] for one in both] == ["gold.jsonl", "g.jsonl"]
    assert both[0]["drops"]["0.2"] > alone[0]["drops"]["0.2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--evalset", "gold.jsonl"), "--evalset gold.jsonl does not say for which task; write --evalset quiz=gold.jsonl"),
        (("--baseline", "gold.jsonl"), "--baseline gold.jsonl does not say for which task; write --baseline quiz=gold.jsonl"),
        (("--baseline", "s:bad", "--baseline", "quiz=s:good"), "--baseline is given twice: s:bad and s:good"),
        (("--min", "f1=1"), "none of the tasks quiz, general has a metric 'f1'"),
        (("--ids", "i001"), "--ids and --only evaluate one --task at a time"),
        (("--task", "quiz"), "--task quiz stands twice"),
    ],
)
def test_an_option_without_its_task_is_refused(two: Desk, words: tuple[str, ...], message: str) -> None:
    assert two.run("s:good", "--task", "quiz", "--task", "general", *words) == (2, "", f"sftchat: error: {message}\n")
    assert two.opened == []


def test_replies_are_given_for_every_task_or_for_none(two: Desk) -> None:
    assert two.run("--task", "quiz", "--task", "general", "--replies", "quiz=quiz.jsonl")[2] == (
        "sftchat: error: --replies must be given for every --task, or for none\n"
    )


def test_two_tasks_do_not_share_a_baseline(two: Desk) -> None:
    words = [word for name in ("quiz", "general") for word in ("--update-baseline", f"{name}=one.jsonl")]
    code, _, err = two.run("s:good", "--task", "quiz", "--task", "general", *words)

    assert (code, err) == (
        2,
        "sftchat: error: --update-baseline: 'one.jsonl' cannot hold both quiz and general; give each a file of its own\n",
    )


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--baseline", "quiz=quiz.base.jsonl"),
        ("--replies", "quiz=quiz.jsonl"),
        ("--evalset", "quiz=gold.jsonl"),
        ("--update-baseline", "quiz=new.jsonl"),
        ("--must-pass", "quiz=i001"),
        ("--gate", "quiz:accuracy=2"),
        ("--min", "quiz:accuracy=0.1"),
        ("--min-lower", "quiz:accuracy=0.1"),
    ],
)
def test_an_option_for_a_task_that_is_not_evaluated_is_refused(two: Desk, option: str, word: str) -> None:
    given = ("s:bad",) if option != "--replies" else ()
    code, _, err = two.run(*given, "--task", "general", option, word)

    assert (code, err) == (
        2,
        f"sftchat: error: {option} {word} is for task 'quiz', which is not evaluated: this is --task general; add --task quiz\n",
    )
    near = word.replace("quiz", "generla", 1)
    assert two.run(*given, "--task", "general", option, near)[::2] == (
        2,
        f"sftchat: error: {option} {near}: no task 'generla' and no such file; did you mean {option} {word.replace('quiz', 'general', 1)}?\n",
    )
    if "=" in word.partition(":")[0]:
        Path("there.jsonl").touch()
        assert two.run(*given, "--task", "general", option, "nowhere=there.jsonl")[::2] == (
            2,
            f"sftchat: error: {option} nowhere=there.jsonl: no task 'nowhere' and no such file (available: general, quiz)\n",
        )
    assert two.opened == []


def test_the_only_task_may_be_named_in_options(two: Desk) -> None:
    words = ("--replies", "quiz=quiz.jsonl", "--baseline", "quiz=quiz.base.jsonl", "--gate", "quiz:accuracy=2", "--must-pass", "quiz=i050")

    assert two.run("--task", "quiz", *words)[0] == 0
    Path("generals=x.jsonl").write_bytes(Path("quiz.jsonl").read_bytes())
    assert two.run("--task", "quiz", "--replies", "generals=x.jsonl")[0] == 0
