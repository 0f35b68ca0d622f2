"""One rule decides better, worse or neither, and one value is the verdict: every format agrees."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from sftchat import Metric, rate, ratio
from sftchat.evaluation.comparison import paired_difference
from sftchat.evaluation.gate import Unsettled, Verdict, decide_verdict, gate_comparisons
from sftchat.evaluation.gate_options import GateConfig, GatedMetric
from sftchat.evaluation.report.github import annotate
from sftchat.evaluation.report.html import to_html
from sftchat.evaluation.report.junit import to_junit
from sftchat.evaluation.report.markdown import to_markdown
from sftchat.evaluation.report.terminal import print_report
from sftchat.evaluation.report.view import Report, describe_disagreement
from sftchat.evaluation.results import SIGNIFICANCE_LEVEL, MetricDifference, MetricResult
from sftchat.evaluation.statistics import Counts, build_counts
from sftchat.types import Score

F1 = Metric("f1", lambda sums: ratio(2 * sums["tp"], sums["pred"] + sums["gold"]), stats=("tp", "pred", "gold"))
WRONG = Metric("wrong", lambda sums: 1 - ratio(sums["exact"], sums["n"]), stats=("exact", "n"), higher_is_better=False)
METRICS = (F1, rate("exact", "exact"), WRONG)
KINDS = {"right": (1, 1, 1), "silent": (0, 0, 1), "wrong": (0, 1, 1), "chatty": (1, 2, 1)}
"""(tp, pred, gold) of an item."""
PAIRS = [(old, new) for old in KINDS for new in KINDS]
GOLD = {"a": "甲-乙:夫妻", "b": "丙-丁:师徒"}


def table(kinds: list[str]) -> Counts:
    return build_counts(
        Score({"tp": tp, "pred": pred, "gold": gold, "n": 1, "exact": int(tp == pred == gold)})
        for tp, pred, gold in map(KINDS.__getitem__, kinds)
    )


def differences(times: list[int]) -> tuple[MetricDifference, ...]:
    """Compare two models with the given number of items of each pair of kinds."""
    pairs = [pair for pair, count in zip(PAIRS, times, strict=True) for _ in range(count)]
    before, after = (table([pair[place] for pair in pairs]) for place in (0, 1))
    return tuple(paired_difference(before, after, metric, resamples=200) for metric in METRICS)


few = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 25))
two_models = st.lists(few, min_size=len(PAIRS), max_size=len(PAIRS)).filter(any)


def only(**found: int) -> list[int]:
    """Return the number of items of each pair of kinds, from ``old_new=times``."""
    return [found.get(f"{old}_{new}", 0) for old, new in PAIRS]


def judged(report: Report, measured: tuple[tuple[MetricDifference, ...], ...], rules: GateConfig, n: int) -> Report:
    """The report with other figures in its comparisons, and the verdict on them."""
    third = MetricResult("wrong", 0.5, None, None, "none")
    (baseline,) = (replace(old, metrics=(*old.metrics, third)) for old in report.baselines)
    results = tuple(replace(new, metrics=(*new.metrics, third)) for new in report.results)
    comparisons = tuple(
        replace(one, baseline=baseline, candidate=new, metrics=found, units=n)
        for one, new, found in zip(report.comparisons, results, measured, strict=True)
    )
    comparisons, gates = gate_comparisons(comparisons, lambda _: rules.gated)
    report = replace(report, results=results, baselines=(baseline,), comparisons=comparisons, gates=gates)
    return replace(report, verdict=decide_verdict(report, rules))


def rows_of_the_terminal(report: Report) -> list[tuple[str, str, bool]]:
    """Return metric, judgement by colour, and whether ``~`` precedes the difference."""
    file = io.StringIO()
    print_report(report, Console(file=file, width=200, force_terminal=True, color_system="standard", no_color=False, highlight=False))
    colours = {"32": "better", "31": "worse", "2": "no significant difference"}
    found = []
    for line in file.getvalue().splitlines():
        plain = re.sub(r"\x1b\[[\d;]*m", "", line)
        if row := re.match(r"(f1|exact|wrong) +\d", plain):
            colour = re.search(r"\x1b\[([\d;]+)m *(~ )?[+-]\d", line)
            assert colour is not None, line
            found.append((row[0].split()[0], colours[colour[1]], colour[2] is not None))
    return found


@given(st.tuples(two_models, two_models), st.sets(st.sampled_from([m.name for m in METRICS]), min_size=1), st.sampled_from([0.5, 40.0]))
@example((only(right_wrong=6, right_right=9), only(right_wrong=6, right_right=9)), {"f1", "exact", "wrong"}, 0.5)
@example((only(right_wrong=11, wrong_right=3, right_right=90), only(right_wrong=30)), {"exact"}, 40.0)
@settings(max_examples=15, deadline=None)
def test_no_format_says_worse_where_another_says_no_difference(
    make_report: Callable[..., Report], times: tuple[list[int], list[int]], gated: set[str], min_drop: float
) -> None:
    plain = make_report(GOLD, {**GOLD, "a": ""}, {**GOLD, "b": ""}, baseline=GOLD, names="one two")
    rules = GateConfig(tuple(GatedMetric(metric.name, 2.0, min_drop) for metric in METRICS if metric.name in gated))
    report = judged(plain, tuple(map(differences, times)), rules, sum(times[0]))
    verdict = report.verdict
    assert verdict is not None

    found = [metric for comparison in report.comparisons for metric in comparison.metrics]
    expected = [metric.judgement for metric in found]
    names = [metric.name for metric in found]
    tilde = [judgement == "no significant difference" for judgement in expected]
    document = json.loads(report.to_json())
    markdown, page = to_markdown(report, verdict), to_html(report, verdict)

    assert rows_of_the_terminal(report) == list(zip(names, expected, tilde, strict=True))
    assert [metric["judgement"] for one in document["comparisons"] for metric in one["metrics"]] == expected
    assert [
        cell == "~ " for cell in re.findall(r"^\| (?:f1|exact|wrong) \| [\d.]+ \| [\d.]+ \| (~ )?[+-]", markdown, re.MULTILINE)
    ] == tilde
    assert re.findall(r'<td class="n (better|worse|no-significant-difference)">', page) == [one.replace(" ", "-") for one in expected]

    for metric in found:  # the rule itself, and one sentence in every format where test and interval disagree
        significant = metric.deciding_p < SIGNIFICANCE_LEVEL and metric.excludes_zero
        assert (metric.judgement != "no significant difference") == significant
        assert (describe_disagreement(metric) != "") == ((metric.deciding_p < SIGNIFICANCE_LEVEL) != metric.excludes_zero)
        assert all(describe_disagreement(metric) in text for text in (markdown.replace("&#95;", "_"), page))

    lines = {(one.comparison, one.metric): line for one, line in zip(report.gates, verdict.reasons, strict=True)}
    for one in report.gates:
        metric, line = report.comparisons[one.comparison].metric(one.metric), lines[one.comparison, one.metric]
        assert one.p == metric.p_adjusted == metric.deciding_p
        assert (one.outcome == "regressed") == (metric.judgement == "worse" and -metric.gain >= min_drop / 100 - 1e-12)
        assert ("better" in line, "worse" in line) == (metric.judgement == "better", metric.judgement == "worse"), line


@given(st.tuples(two_models, two_models), st.booleans(), st.sampled_from([{}, {"f1": 0.99}, {"f1": 0.0}]))
@example((only(right_wrong=6, wrong_right=1, right_right=8), only(right_right=15)), False, {})
@example((only(right_wrong=6, wrong_right=1, right_right=8), only(right_right=15)), True, {})
@settings(max_examples=15, deadline=None)
def test_every_format_derives_from_one_verdict(
    make_report: Callable[..., Report], times: tuple[list[int], list[int]], strict: bool, floors: dict[str, float]
) -> None:
    plain = make_report(GOLD, {**GOLD, "a": ""}, {**GOLD, "b": ""}, baseline=GOLD, names="one two")
    rules = GateConfig((GatedMetric("exact"), GatedMetric("f1")), floors, strict=strict)
    report = judged(plain, tuple(map(differences, times)), rules, sum(times[0]))
    verdict = report.verdict
    assert verdict is not None

    outcomes = {found.outcome for found in report.gates}
    expected = "fail" if "regressed" in outcomes or floors == {"f1": 0.99} else "inconclusive" if "inconclusive" in outcomes else "pass"
    code = {"fail": 1, "pass": 0, "inconclusive": 4 if strict else 0}[expected]
    assert (verdict.outcome, verdict.exit_code) == (expected, code)
    assert verdict.lines[-1] == f"verdict: {verdict.headline}"
    assert verdict.headline.startswith(expected)

    document = json.loads(report.to_json())["verdict"]
    assert (document["outcome"], document["exit_code"], document["headline"]) == (expected, code, verdict.headline)
    sign = {"fail": "❌", "pass": "✅", "inconclusive": "🟡"}[expected]
    assert to_markdown(report, verdict).split("\n")[2].startswith(f"{sign} **{expected}")
    tone = {"fail": "fail", "pass": "pass", "inconclusive": "unsure"}[expected]
    page = to_html(report, verdict)
    assert (f'<section class="verdict {tone}"' in page, f": {expected} – sftchat eval</title>" in page) == (True, True)
    suite = ElementTree.fromstring(to_junit(report, verdict).encode()).find("testsuite")
    assert suite is not None
    case = suite.find("testcase")
    assert case is not None
    assert {one.get("name"): one.get("value") for one in suite.iter("property")}["verdict"] == expected
    assert [child.tag for child in case] == {
        "fail": ["failure"], "pass": [], "inconclusive": ["error" if strict else "skipped"]
    }[expected]  # fmt: skip
    level = {"fail": ["error"], "pass": [], "inconclusive": ["warning"]}[expected]
    assert [line.split(" ")[0].strip(":") for line in annotate(report, verdict)][:1] == level


def test_every_format_shows_the_open_question_of_an_inconclusive_verdict_first(make_report: Callable[..., Report]) -> None:
    plain = make_report(GOLD, {**GOLD, "a": ""}, baseline=GOLD)
    measured = differences(only(right_wrong=6, wrong_right=1, right_right=8))
    report = judged(plain, (measured,), GateConfig((GatedMetric("exact"),)), 15)
    verdict = report.verdict
    words = "inconclusive; a drop of 60.0 points of exact cannot be excluded, the margin is 2; about 29 items would settle it, here are 15"

    assert verdict is not None
    assert verdict.headline == words
    assert to_markdown(report, verdict).startswith(f"## sftchat eval: triples\n\n🟡 **{words}**\n")
    assert f'<p class="word">{words}</p>' in to_html(report, verdict)
    assert annotate(report, verdict)[0].startswith(f"::warning title=sftchat eval triples::{words}%0A")
    assert f'<skipped type="inconclusive" message="{words}">' in to_junit(report, verdict)


@pytest.mark.parametrize(
    ("unsettled", "words"),
    [
        (Unsettled("f1", 3.5, 2.0, 200, 1210), "a drop of 3.5 points of f1 cannot be excluded, the margin is 2; about 1,210 items would settle it, here are 200"),
        (Unsettled("f1", None, 2.0, 200), "no bound on the drop of f1, the margin is 2"),
        (Unsettled("f1", 96.5, 2.0, 3), "a drop of 96.5 points of f1 cannot be excluded, the margin is 2; 3 items are too few for any drop to be significant, it takes 6"),
        (Unsettled("loss", 3.5, 0.5, 20, 30, "clusters", falls=False), "a rise of 3.5 points of loss cannot be excluded, the margin is 0.5; about 30 clusters would settle it, here are 20"),
    ],
)  # fmt: skip
def test_the_drop_and_the_items_that_settle_it_are_in_plain_words(unsettled: Unsettled, words: str) -> None:
    assert (unsettled.words, Verdict("inconclusive", unsettled=unsettled).headline) == (words, f"inconclusive; {words}")
    assert Verdict("inconclusive", unsettled=unsettled, strict=True).headline == f"inconclusive, which --strict does not accept; {words}"
