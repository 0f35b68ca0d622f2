"""The gate from arguments to exit code: every code, each with its one-line reason, without torch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat import Metric, ratio
from tests.cli.conftest import Desk


def gold(path: str, n: int, start: int = 0, **metadata: object) -> None:
    """An evalset of questions whose answers are their numbers."""
    rows = [
        {"id": f"i{k:03}", "messages": [{"role": "user", "content": f"question {k}"}], "gold": f"answer {k}", "metadata": metadata}
        for k in range(start, start + n)
    ]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def replies(path: str, n: int, wrong: range | tuple[int, ...] = (), start: int = 0) -> None:
    """Stored replies, some of them wrong."""
    rows = [{"id": f"i{k:03}", "reply": "x" if k in wrong else f"answer {k}"} for k in range(start, start + n)]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def base(desk: Desk) -> Desk:
    """Folder with an evalset of 200 items, and a baseline with 20 wrong ones."""
    gold("gold.jsonl", 200)
    replies("old.jsonl", 200, range(20))
    assert desk.run("--replies", "old.jsonl", "--update-baseline", "base.jsonl")[0] == 0
    return desk


def gate(desk: Desk, *words: str, wrong: range | tuple[int, ...] = range(20)) -> tuple[int, list[str]]:
    """Return exit code and standard error lines for replies with the given items wrong."""
    replies("new.jsonl", 200, wrong)
    code, _, err = desk.run("--replies", "new.jsonl", "--baseline", "base.jsonl", *words)
    return code, err.splitlines()


def test_an_unchanged_model_passes_against_its_own_baseline(desk: Desk) -> None:
    desk.run("s:half", "--update-baseline", "base.jsonl")
    code, out, err = desk.run("s:half", "--baseline", "base.jsonl", "--json", "--quiet", "--strict")

    comparison = json.loads(out)["comparisons"][0]
    assert (code, err) == (
        0,
        "s:half on gold.jsonl: fine against base.jsonl: accuracy +0.0 points [-36.9, +36.9], p = 1, no item changed its counts\n"
        "verdict: pass\n",
    )
    assert (comparison["metrics"][0]["p"], comparison["differing"], comparison["changes"]) == (1.0, 0, [])


def test_a_regression_exits_1(base: Desk) -> None:
    assert gate(base, wrong=range(40)) == (
        1,
        ["new.jsonl on gold.jsonl: regressed, worse than base.jsonl: accuracy -10.0 points [-15.0, -5.8], p = 1.91e-06", "verdict: fail"],
    )


def test_one_changed_item_of_200_excludes_no_drop_of_two_points_but_one_of_three(base: Desk) -> None:
    """When 2.3 % of items truly break, one sample in 20 of 200 items shows at most one broken item."""
    figures = "accuracy -0.5 points [-2.8, +1.4], p = 1"
    open_ = "a drop of 2.3 points of accuracy cannot be excluded, the margin is 2; about 247 items would settle it, here are 200"

    assert gate(base, wrong=range(21)) == (
        0,
        [f"new.jsonl on gold.jsonl: inconclusive against base.jsonl: {open_}; {figures}", f"verdict: inconclusive; {open_}"],
    )
    assert gate(base, "--gate", "accuracy=3", wrong=range(21)) == (
        0,
        [f"new.jsonl on gold.jsonl: fine against base.jsonl: {figures}", "verdict: pass"],
    )


@pytest.mark.parametrize(("broken", "needed"), [(1, 110), (2, 52), (3, 32), (4, 23), (5, 18)])
def test_a_drop_beyond_the_margin_of_few_items_names_the_items_that_would_settle_it(desk: Desk, broken: int, needed: int) -> None:
    gold("gold.jsonl", 15)
    replies("old.jsonl", 15, ())
    replies("new.jsonl", 15, range(broken))

    code, _, err = desk.run("--replies", "new.jsonl", "--baseline", "old.jsonl")

    assert needed * broken / 15 >= 6  # no fewer changed items are significant
    assert (code, err.splitlines()[-1].partition("margin is 2; ")[2]) == (
        0,
        f"about {needed} items would settle it, here are 15",
    )


def test_a_drop_that_cannot_be_excluded_is_inconclusive_and_exits_4_only_when_strict(base: Desk) -> None:
    open_ = "a drop of 4.3 points of accuracy cannot be excluded, the margin is 2; about 1,210 items would settle it, here are 200"
    line = f"new.jsonl on gold.jsonl: inconclusive against base.jsonl: {open_}; accuracy -1.5 points [-4.9, +1.6], p = 0.453"
    wrong = (*range(2, 20), *range(20, 25))

    assert gate(base, wrong=wrong) == (0, [line, f"verdict: inconclusive; {open_}"])
    assert gate(base, "--strict", wrong=wrong) == (4, [line, f"verdict: inconclusive, which --strict does not accept; {open_}"])
    assert gate(base, "--strict", "--gate", "accuracy=5", wrong=wrong)[0] == 0


def test_a_significant_but_small_drop_is_not_a_regression(base: Desk) -> None:
    assert gate(base, "--min-drop", "10.5", "--gate", "accuracy=20", wrong=range(40)) == (
        0,
        [
            "new.jsonl on gold.jsonl: fine against base.jsonl, worse by less than --min-drop 10.5: "
            "accuracy -10.0 points [-15.0, -5.8], p = 1.91e-06",
            "verdict: pass",
        ],
    )
    assert gate(base, "--min-drop", "10", wrong=range(40))[0] == 1


def test_floors_are_for_the_point_and_lower_floors_for_the_bound(base: Desk) -> None:
    assert gate(base, "--min", "accuracy=0.9")[0] == 0
    code, lines = gate(base, "--min-lower", "accuracy=0.9")

    assert code == 1
    assert lines[0] == "new.jsonl on gold.jsonl: the lower bound of accuracy, 0.851, is under the floor 0.9"
    assert gate(base, "--min-lower", "accuracy=0.85")[0] == 0


def test_items_that_must_pass_fail_the_gate_one_by_one(base: Desk) -> None:
    Path("must.txt").write_text("i050\ni051\n", encoding="utf-8")

    assert gate(base, "--must-pass", "must.txt", "--must-pass", "i052")[0] == 0
    assert gate(base, "--gate", "accuracy=3", "--must-pass", "must.txt", wrong=(*range(20), 51)) == (
        1,
        [
            "new.jsonl on gold.jsonl: 1 of 2 must-pass items wrong: 'i051' (wrong)",
            "new.jsonl on gold.jsonl: fine against base.jsonl: accuracy -0.5 points [-2.8, +1.4], p = 1",
            "verdict: fail",
        ],
    )


def test_a_missing_baseline_is_not_comparable_before_any_model_is_opened(desk: Desk) -> None:
    hint = "write one with --update-baseline none.jsonl, or add --allow-missing-baseline for the first run\n"

    for words in ((), ("--require-baseline",), ("--strict",), ("--min", "accuracy=0"), ("--plan",)):
        assert desk.run("s:half", "--baseline", "none.jsonl", *words) == (4, "", f"sftchat: error: no baseline 'none.jsonl'; {hint}")
    Path("nones.json").write_text("")
    found = desk.run("s:half", "--baseline", "none.jsonl")
    assert found == (4, "", f"sftchat: error: no baseline 'none.jsonl' (there is 'nones.json'); {hint}")
    code, _, err = desk.run("s:half", "--baseline", "no/none.jsonl")
    assert (code, "no baseline 'no/none.jsonl' (there is no folder 'no'); write one" in err) == (4, True)
    assert desk.opened == []


def test_the_first_run_may_have_no_baseline_and_its_floors_apply(desk: Desk) -> None:
    words = ("s:half", "--baseline", "none.jsonl", "--allow-missing-baseline", "--quiet")

    assert desk.run(*words)[::2] == (0, "no baseline 'none.jsonl' yet; write one with --update-baseline none.jsonl\n")
    assert desk.run(*words, "--min", "accuracy=0.6")[0] == 1
    assert desk.run(*words, "--update-baseline", "none.jsonl")[0] == 0
    assert desk.run(*words)[2].endswith("no item changed its counts\nverdict: pass\n")


@pytest.mark.parametrize("word", ["nobody", "s:good.jsnol", "base.jsnol", "out"])
def test_a_baseline_that_is_neither_a_file_nor_a_model_is_refused(base: Desk, word: str) -> None:
    Path("out").mkdir()
    base.registry = replace(base.registry, engines={})
    code, _, err = base.run("--replies", "old.jsonl", "--baseline", word)

    near = " (there is 'base.jsonl')" if word == "base.jsnol" else ""
    assert (code, err.startswith(f"sftchat: error: --baseline '{word}' is no file{near} and no MODEL: ")) == (2, True)


def test_a_baseline_of_another_prompt_or_gold_reply_is_not_comparable(base: Desk) -> None:
    text = Path("gold.jsonl").read_text(encoding="utf-8")
    Path("gold.jsonl").write_text(text.replace('"answer 7"', '"answer seven"'), encoding="utf-8")

    assert gate(base) == (
        4,
        ["sftchat: error: baseline base.jsonl is of another evalset: prompt, gold reply or metadata of 'i007' has changed"],
    )


def test_a_baseline_without_a_common_item_is_not_comparable(base: Desk) -> None:
    gold("gold.jsonl", 200, start=500)
    replies("new.jsonl", 200, start=500)

    assert base.run("--replies", "new.jsonl", "--baseline", "base.jsonl") == (
        4,
        "",
        "sftchat: error: baseline base.jsonl is of another evalset (gold.jsonl): no item in common\n",
    )


def test_a_baseline_of_another_task_is_not_comparable(base: Desk) -> None:
    quiz = base.registry.tasks["quiz"]
    base.registry = replace(base.registry, tasks={"other": replace(quiz, name="other")})

    assert gate(base) == (4, ["sftchat: error: baseline base.jsonl is of task 'quiz', not of 'other'"])


def test_a_baseline_of_another_sampling_is_not_comparable(desk: Desk) -> None:
    desk.run("s:half", "--update-baseline", "base.jsonl")
    quiz = desk.registry.tasks["quiz"]
    desk.registry = replace(desk.registry, tasks={"quiz": replace(quiz, sampling=replace(quiz.sampling, max_new_tokens=7))})
    desk.opened.clear()

    assert desk.run("s:half", "--baseline", "base.jsonl") == (
        4,
        "",
        "sftchat: error: baseline base.jsonl was made with other sampling: max_new_tokens 256 then, 7 now\n",
    )
    assert desk.opened == []


def test_a_baseline_counted_by_another_scorer_is_not_comparable(base: Desk) -> None:
    quiz = base.registry.tasks["quiz"]

    def lenient(example: Any, reply: Any) -> Any:
        return replace(quiz.score(example, reply), stats={"n": 1, "right": 1}, errors=())

    base.registry = replace(base.registry, tasks={"quiz": replace(quiz, score=lenient)})

    assert gate(base) == (
        4,
        [
            "sftchat: error: baseline base.jsonl was counted by another scorer: 'right' of item 'i000' was 0 and is 1; "
            "write it again with --update-baseline"
        ],
    )


def test_added_and_removed_items_are_listed_and_the_rest_is_compared(base: Desk) -> None:
    gold("gold.jsonl", 200, start=1)
    replies("new.jsonl", 200, range(1, 20), start=1)
    words = ("--replies", "new.jsonl", "--baseline", "base.jsonl")
    lines = [
        "new.jsonl on gold.jsonl: fine against base.jsonl: accuracy +0.0 points [-1.8, +1.8], p = 1, no item changed its counts",
        "new.jsonl on gold.jsonl: compared on 199 of the baseline's 200 items; since the baseline 1 added ('i200') and 1 removed ('i000')",
    ]

    code, _, err = base.run(*words)
    assert (code, err.splitlines()) == (0, [*lines, "verdict: pass"])
    code, _, err = base.run(*words, "--strict")
    assert (code, err.splitlines()) == (4, [*lines, "verdict: not comparable, which --strict does not accept"])


def test_a_limit_compares_the_first_rows_and_reports_no_missing_items(base: Desk) -> None:
    line = "new.jsonl on gold.jsonl: compared on 100 of 200 items (--limit)"

    assert gate(base, "--limit", "100", wrong=range(20))[1][0] == line
    assert gate(base, "--limit", "100", wrong=range(20))[0] == 0
    assert gate(base, "--limit", "200", "--strict", wrong=range(20))[0] == 0
    assert base.run("--replies", "new.jsonl", "--limit", "100", "--min", "accuracy=0.8")[2].splitlines()[1:] == [
        "new.jsonl on gold.jsonl: judged on 100 of 200 items (--limit)",
        "verdict: pass",
    ]


def test_a_limit_cannot_leave_out_must_pass_items(base: Desk) -> None:
    assert gate(base, "--limit", "1", "--strict", "--require-baseline") == (
        4,
        ["sftchat: error: --limit compares 1 of the 200 items of gold.jsonl, and --strict wants all; leave one of them out"],
    )
    assert gate(base, "--limit", "10", "--must-pass", "i050", "--must-pass", "i009") == (
        2,
        ["sftchat: error: --must-pass items 'i050' are not among the first 10 of --limit"],
    )


def test_a_baseline_is_written_on_request_and_reports_what_changed(base: Desk) -> None:
    before = Path("base.jsonl").read_bytes()
    assert gate(base, "--update-baseline", "base.jsonl")[1][0] == "baseline base.jsonl: 200 items, nothing changed"
    assert Path("base.jsonl").read_bytes() != before  # the header names the model
    again = Path("base.jsonl").read_bytes()

    assert gate(base, wrong=range(40))[0] == 1
    assert Path("base.jsonl").read_bytes() == again

    code, lines = gate(base, "--update-baseline", "base.jsonl", wrong=range(5, 40))
    assert (code, lines[0]) == (1, "baseline base.jsonl: not written, because the verdict is fail; without --baseline and --min it is")
    assert Path("base.jsonl").read_bytes() == again
    assert base.run("--replies", "new.jsonl", "--update-baseline", "base.jsonl")[::2] == (
        0,
        "baseline base.jsonl: 200 items, 25 with another reply, 20 newly broken, 5 newly fixed\n",
    )
    assert gate(base, wrong=range(5, 40))[0] == 0


def test_a_baseline_has_one_line_per_item_sorted_and_the_same_bytes_every_time(desk: Desk) -> None:
    desk.run("s:half", "--update-baseline", "one.jsonl")
    desk.run("s:half", "--update-baseline", "two.jsonl")
    header, *items = (json.loads(line) for line in Path("one.jsonl").read_text(encoding="utf-8").splitlines())

    assert Path("one.jsonl").read_bytes() == Path("two.jsonl").read_bytes()
    assert (header["sftchat_baseline"], header["task"], header["metrics"], header["model"]) == (2, "quiz", ["accuracy"], "s:half")
    assert (header["sampling"]["temperature"], "seed" in header["sampling"], header["evalsets"][0]["size"]) == (0.0, False, 8)
    assert [item["id"] for item in items] == sorted(item["id"] for item in items)
    assert list(items[0]) == ["id", "reply", "finish_reason", "prompt_tokens", "completion_tokens", "stats", "right", "content"]


def test_a_baseline_can_be_scored_like_any_replies(base: Desk) -> None:
    assert json.loads(base.run("--replies", "base.jsonl", "--json")[1])["results"][0]["metrics"][0]["value"] == 0.9


def test_a_baseline_is_not_written_from_a_run_with_failed_items(desk: Desk) -> None:
    code, _, err = desk.run("s:flaky", "--update-baseline", "base.jsonl", "--quiet")

    assert code == 3
    assert err.startswith("baseline base.jsonl: not written, because some items were not answered\n")
    assert not Path("base.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--require-baseline",), "--require-baseline needs --baseline FILE"),
        (("--allow-missing-baseline",), "--allow-missing-baseline needs --baseline FILE"),
        (
            ("--baseline", "b.jsonl", "--allow-missing-baseline", "--strict", "--require-baseline"),
            "--allow-missing-baseline goes on without a baseline, which --strict and --require-baseline refuse; leave one out",
        ),
        (("--strict", "--gate", "accuracy"), "--gate and --strict need --baseline FILE"),
        (("--min-drop", "nan"), "--min-drop nan must be a number of points, such as 0.5"),
        (("--min", "accuracy=90"), "floor 'accuracy=90' can never be met: accuracy is a share of the items, from 0 to 1"),
        (("--gate", "f1"), "unknown metric 'f1' (available: accuracy)"),
        (("--gate", "accuracy=0"), "gate 'accuracy=0' must be METRIC or METRIC=MARGIN with a margin above 0 in points, such as accuracy=2"),
        (("--gate", "accuracy", "--gate", "accuracy=1"), "metric 'accuracy' is gated twice"),
        (("--must-pass", "i9"), "--must-pass: no item 'i9' in the evalset, and no such file"),
        (("--ids", "i9"), "--ids: no item 'i9' in the evalset, and no such file"),
        (("--only", "failing"), "--only failing needs --from DIR, the folder of an earlier evaluation, or a --baseline FILE"),
        (("--from", "out"), "--from says where --only looks; add --only newly-broken or --only failing"),
        (("--only", "failing", "--from", "gold.jsonl"), "'gold.jsonl' is neither the folder of an earlier evaluation nor a baseline"),
        (("--cluster", "book"), "item 'i0' has no metadata key 'book' to cluster by (it has: none)"),
        (("--plan",), "--plan needs stored items to plan from: give --baseline FILE, or --replies FILE"),
        (("--update-baseline", "gold.jsonl"), "'gold.jsonl' is no baseline, and is not overwritten; give another file"),
        (("--update-baseline", "no/base.jsonl"), "no folder 'no' for the baseline"),
        (("--update-baseline", "b.jsonl", "--limit", "3"), "--update-baseline needs every item; leave out --limit, --ids and --only"),
        (("s:bad", "--update-baseline", "b.jsonl"), "--update-baseline takes one MODEL, not 2"),
    ],
)
def test_contradictory_demands_are_refused_before_any_model_is_opened(desk: Desk, words: tuple[str, ...], message: str) -> None:
    assert desk.run("s:good", *words) == (2, "", f"sftchat: error: {message}\n")
    assert desk.opened == []


def test_the_self_check_needs_a_model(base: Desk) -> None:
    code, _, err = base.run("--replies", "base.jsonl", "--self-check")

    assert (code, err) == (2, "sftchat: error: --self-check asks a model again, and --replies asks none; leave one of them out\n")


def test_holm_holds_the_level_over_metrics_and_evalsets(base: Desk) -> None:
    """Six broken items are significant alone (p = .031), but not among three gates."""
    words = ("--gate", "accuracy=9")
    assert gate(base, *words, wrong=range(26))[0] == 1
    for name, start in (("b.jsonl", 500), ("c.jsonl", 700)):
        gold(name, 20, start=start)
        Path("new.jsonl").write_text("", encoding="utf-8")
    rows: dict[str, str] = {}
    for path, wrong in (("old", range(20)), ("new", range(26))):
        text = ""
        for n, start in ((200, 0), (20, 500), (20, 700)):
            replies("part.jsonl", n, wrong, start)
            text += Path("part.jsonl").read_text(encoding="utf-8")
        rows[path] = text
        Path(f"{path}.jsonl").write_text(text, encoding="utf-8")
    sets = [word for name in ("gold.jsonl", "b.jsonl", "c.jsonl") for word in ("--evalset", name)]

    code, _, err = base.run("--replies", "new.jsonl", "--baseline", "old.jsonl", *sets, *words)

    assert code == 0
    assert (
        "accuracy -3.0 points [-6.4, -0.4], p = 0.0312 (0.0938 adjusted); not significant: the interval excludes 0, but the adjusted p of 0.0938 is not under 0.05"
        in err
    )


def test_items_of_one_cluster_are_resampled_and_swapped_together(desk: Desk) -> None:
    rows = [
        {"id": f"i{k:03}", "messages": [{"role": "user", "content": f"question {k}"}], "gold": f"answer {k}", "book": k // 10}
        for k in range(200)
    ]
    Path("gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    replies("old.jsonl", 200)
    replies("new.jsonl", 200, range(40, 50))
    words = ("--replies", "new.jsonl", "--baseline", "old.jsonl")

    assert desk.run(*words)[0] == 1
    code, out, err = desk.run(*words, "--cluster", "book", "--json")
    comparison = json.loads(out)["comparisons"][0]

    assert (code, comparison["n"], comparison["units"], comparison["cluster"]) == (0, 200, 20, "book")
    assert (comparison["metrics"][0]["test"], comparison["metrics"][0]["p"]) == ("exact permutation", 1.0)
    assert "accuracy -5.0 points [-24.9, +12.5], p = 1\n" in err
    assert "inconclusive against old.jsonl: a drop of 21.6 points of accuracy cannot be excluded" in err


def test_a_metric_that_should_be_low_regresses_when_it_rises(base: Desk) -> None:
    quiz = base.registry.tasks["quiz"]
    wrong = Metric("wrong", lambda s: ratio(s["n"] - s["right"], s["n"]), stats=("n", "right"), per_item_rate=True, higher_is_better=False)
    base.registry = replace(base.registry, tasks={"quiz": replace(quiz, metrics=(wrong,))})

    code, lines = gate(base, wrong=range(40))
    assert code == 1
    assert lines[0] == "new.jsonl on gold.jsonl: regressed, worse than base.jsonl: wrong +10.0 points [+5.8, +15.0], p = 1.91e-06"
    assert gate(base, "--strict", wrong=range(10)) == (
        0,
        ["new.jsonl on gold.jsonl: better than base.jsonl: wrong -5.0 points [-9.0, -1.8], p = 0.00195", "verdict: pass"],
    )


def test_previously_broken_items_are_evaluated_alone_and_not_gated(base: Desk) -> None:
    replies("new.jsonl", 200, range(40))
    base.run("--replies", "new.jsonl", "--baseline", "base.jsonl", "-o", "out")
    note = "of 200 items were selected; no gate is computed on a selected subset"
    words = ("--replies", "new.jsonl", "--baseline", "base.jsonl", "--from", "out")

    code, out, err = base.run(*words, "--only", "newly-broken", "--json")
    report = json.loads(out)
    assert (code, err) == (0, f"20 {note}\n")
    assert (report["results"][0]["n"], report["gates"], len(report["comparisons"][0]["broken"])) == (20, [], 20)

    assert base.run(*words, "--only", "failing")[::2] == (0, f"40 {note}\n")
    assert base.run(*words[:-2], "--only", "failing")[::2] == (0, f"20 {note}\n")
    Path("ids.txt").write_text("i001\ni039\n", encoding="utf-8")
    assert base.run(*words, "--only", "newly-broken", "--ids", "ids.txt")[::2] == (0, f"1 {note}\n")


def test_an_empty_selection_is_reported(base: Desk) -> None:
    replies("new.jsonl", 200, range(20))
    base.run("--replies", "new.jsonl", "--baseline", "base.jsonl", "-o", "out")

    assert base.run("--replies", "new.jsonl", "--only", "newly-broken", "--from", "out") == (
        2,
        "",
        "sftchat: error: nothing in 'out' is newly broken, so there is nothing to evaluate\n",
    )
    assert base.run("--replies", "new.jsonl", "--only", "newly-broken", "--baseline", "base.jsonl") == (
        2,
        "",
        "sftchat: error: baseline base.jsonl does not record what is newly broken; give the folder of an earlier evaluation with --from\n",
    )


def test_the_plan_reports_the_smallest_detectable_drop_and_opens_no_model(base: Desk) -> None:
    code, out, err = base.run("--plan", "--baseline", "base.jsonl")

    assert (code, err, base.opened) == (0, "", [])
    assert out.splitlines() == [
        "gold.jsonl, 200 items: accuracy 0.900; the smallest drop found with 80% power is",
        "   4.5 points if 10% of the items get a new, independent reply",
        "   5.5 points if 20% of the items get a new, independent reply",
        "   7.0 points if 40% of the items get a new, independent reply",
        "  for a drop of 2 points it takes about 1,018 items (at 20%)",
    ]
    assert json.loads(base.run("--plan", "--baseline", "base.jsonl", "--json")[1])[0]["n"] == 200


def test_the_plan_of_a_few_items_reports_that_they_are_too_few(desk: Desk) -> None:
    gold("gold.jsonl", 5)
    replies("r.jsonl", 5)

    assert (
        desk.run("--plan", "--replies", "r.jsonl")[1]
        == "gold.jsonl, 5 items: accuracy 1.000; no drop can be detected with fewer than 6 items\n"
    )


def test_the_same_inputs_give_the_same_bytes(base: Desk) -> None:
    replies("new.jsonl", 200, range(30))
    words = ("--replies", "new.jsonl", "--baseline", "base.jsonl", "--json")

    assert base.run(*words) == base.run(*words)


@pytest.mark.parametrize(("selected", "chosen"), [(("--ids", "i050"), "--ids"), (("--only", "failing"), "--only")])
@pytest.mark.parametrize(
    "demand",
    [
        ("--strict",), ("--require-baseline",), ("--gate", "accuracy"), ("--min-drop", "2"), ("--allow-missing-baseline",), ("--min", "accuracy=1"),
        ("--min-lower", "accuracy=1"), ("--must-pass", "i050"),
    ],
    ids=lambda demand: demand[0],
)  # fmt: skip
def test_a_selection_accepts_no_demands(base: Desk, demand: tuple[str, ...], selected: tuple[str, ...], chosen: str) -> None:
    replies("new.jsonl", 200, range(100))

    assert base.run("--replies", "new.jsonl", "--baseline", "base.jsonl", *selected, *demand)[::2] == (
        2,
        f"sftchat: error: {chosen} evaluates a selection without a gate, and {demand[0]} demands one; leave one of them out\n",
    )
