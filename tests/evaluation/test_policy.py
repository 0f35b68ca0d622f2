"""Policy files: their keys, what options of the command line replace, and what a further rule can change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import DataError, SamplingParams, Task, UsageError
from sftchat.evaluation.evaluate import compare
from sftchat.evaluation.gate import Verdict, decide_verdict, gate_tiers
from sftchat.evaluation.gate_options import GateConfig, GatedMetric, GateOptions
from sftchat.evaluation.limits import MEASURES
from sftchat.evaluation.policy import Policy, PolicyFile, PolicyTask, PolicyTier, load_policy
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import ModelResult

EVERY_KEY = """
models = ["run", "org/name"]
strict = true
[[tasks]]
task = "tickets.toml"
evalsets = ["gold.csv", "hard"]
baseline = "base.jsonl"
replies = "replies.jsonl"
system = "Sort."
few_shot = 2
samples = 4
thinking = "keep"
sampling = { temperature = 0.7, max_new_tokens = 20 }
[tasks.block]
gate = { f1 = 3 }
min_drop = 1.5
min = { exact = 0.5 }
min_lower = { exact = 0.25 }
max = { tokens = 60, truncated = 0.05 }
max_upper = { refused = 0.1 }
must_pass = ["i1", "must.txt"]
[tasks.warn]
min = { f1 = 0.9 }
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Policy]:
    def write_and_read(text: str) -> Policy:
        (tmp_path / "gate.toml").write_text(text, encoding="utf-8")
        return load_policy(tmp_path / "gate.toml")

    return write_and_read


def test_every_key_has_its_effect(read: Callable[[str], Policy], tmp_path: Path, task: Task) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "must.txt").write_text("i2\n", encoding="utf-8")
    policy = read(EVERY_KEY)
    (entry,) = policy.content.tasks
    hard = replace(task, evalsets={"hard": tmp_path / "other" / "hard.jsonl"})
    changed = policy.overrides_of(entry).apply(task)
    options = policy.gate_options_of(entry, GateOptions(), "base.jsonl")

    assert policy.models == (str(tmp_path / "run"), "org/name")
    assert policy.task_word(entry) == str(tmp_path / "tickets.toml")
    assert policy.evalsets_of(entry, hard) == (tmp_path / "gold.csv", tmp_path / "other" / "hard.jsonl")
    assert (policy.baseline_of(entry), policy.replies_of(entry)) == (str(tmp_path / "base.jsonl"), str(tmp_path / "replies.jsonl"))
    assert (changed.system, changed.samples, changed.thinking) == ("Sort.", 4, "keep")
    assert changed.few_shot.k == 2  # type: ignore[attr-defined]
    assert changed.sampling == SamplingParams(max_new_tokens=20, temperature=0.7)
    assert options.parse(task, {"i1", "i2"}) == GateConfig(
        gated=(GatedMetric("f1", 3.0, 1.5),),
        floors={"exact": 0.5},
        lower_floors={"exact": 0.25},
        must_pass=frozenset({"i1", "i2"}),
        strict=True,
        limits={"tokens": 60, "truncated": 0.05},
        upper_limits={"refused": 0.1},
        warn=GateConfig(floors={"f1": 0.9}, policy=str(tmp_path / "gate.toml")),
        policy=str(tmp_path / "gate.toml"),
    )


def test_the_example_above_has_every_key() -> None:
    for kind in (PolicyFile, PolicyTask, PolicyTier):
        for item in fields(kind):
            assert f"{item.name} = " in EVERY_KEY or f"[tasks.{item.name}]" in EVERY_KEY or f"[[{item.name}]]" in EVERY_KEY


@pytest.mark.parametrize(
    ("block", "warn", "gated", "warned"),
    [
        ("", "", ("f1",), ()),
        ("", "min = { f1 = 0.1 }", ("f1",), ()),
        ("", "gate = { exact = 1 }", (), ("exact",)),
        ("gate = { exact = 1 }", "gate = { exact = 0.5 }", ("exact",), ("exact",)),
        ("gate = {}", "", (), ()),
    ],
)
def test_the_primary_metric_is_compared_unless_a_tier_names_metrics(
    read: Callable[[str], Policy], task: Task, block: str, warn: str, gated: tuple[str, ...], warned: tuple[str, ...]
) -> None:
    policy = read(f'[[tasks]]\ntask = "triples"\nbaseline = "base.jsonl"\n[tasks.block]\n{block}\n[tasks.warn]\n{warn}\n')
    (entry,) = policy.content.tasks

    config = policy.gate_options_of(entry, GateOptions(), "base.jsonl").parse(task, ())

    assert tuple(rule.metric for rule in config.gated) == gated
    assert tuple(rule.metric for rule in (config.warn or GateConfig()).gated) == warned


def test_typed_options_replace_rules_on_the_same_metric(read: Callable[[str], Policy], task: Task) -> None:
    policy = read(EVERY_KEY.replace(', "must.txt"', "").replace("strict = true", "strict = false"))
    (entry,) = policy.content.tasks
    typed = GateOptions(gated=("f1=5", "exact"), min_drop=2.0, floors=("f1=0.2", "exact=0.1"), must_pass=("i3",), strict=True)

    config = policy.gate_options_of(entry, typed, "base.jsonl").parse(task, {"i1", "i3"})

    assert config.gated == (GatedMetric("f1", 5.0, 2.0), GatedMetric("exact", 2.0, 2.0))
    assert (config.floors, config.lower_floors) == ({"f1": 0.2, "exact": 0.1}, {"exact": 0.25})
    assert (config.must_pass, config.strict) == ({"i1", "i3"}, True)


TASK = '[[tasks]]\ntask = "triples"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks = 1", "not a policy: tasks is 1, must be a list"),
        ("tasks = []", "not a policy: tasks is empty, must have at least one [[tasks]]"),
        ("models = []", "not a policy: key 'tasks' is missing"),
        (f"model = 'x'\n{TASK}", "not a policy: unknown key 'model' (keys: tasks, models, strict)"),
        (f"{TASK}margin = 2", "not a policy: unknown key 'tasks[0].margin' (keys: task, evalsets, baseline, replies, system, few_shot, samples, thinking, sampling, block, warn)"),
        (f"{TASK}block = {{ mim = {{ f1 = 1 }} }}", "not a policy: unknown key 'tasks[0].block.mim' (keys: gate, min_drop, min, min_lower, max, max_upper, must_pass)"),
        (f"{TASK}block = {{ min = {{ f1 = 'x' }} }}", "not a policy: tasks[0].block.min.f1 is 'x', must be a number"),
        (f"{TASK}block = {{ min = {{ f1 = nan }} }}", "not a policy: tasks[0].block.min.f1 is nan, must be a number, such as 0.8"),
        (f"{TASK}warn = {{ gate = {{ f1 = 0 }} }}", "not a policy: tasks[0].warn.gate.f1 is 0, must be a margin above 0 in points, such as 2"),
        (f"{TASK}warn = {{ min_drop = -1 }}", "not a policy: tasks[0].warn.min_drop is -1, must be 0 or more points"),
        (f"{TASK}warn = {{ max = {{ trunkated = 0 }} }}", "not a policy: tasks[0].warn.max: unknown limit 'trunkated'; did you mean 'truncated'? (available: empty, refused, tokens, truncated, unparsable)"),
        (f"{TASK}block = {{ max_upper = {{ empty = 2 }} }}", "not a policy: tasks[0].block.max_upper: limit empty = 2 must be a share from 0 to 1, such as 0.05"),
        (f"{TASK}sampling = {{ heat = 1 }}", "not a policy: tasks[0].sampling: unknown key 'heat'"),
        (f"{TASK}sampling = {{ temperature = 3.0 }}", "not a policy: tasks[0].sampling: temperature is 3.0, must be from 0 to 2"),
        (f"{TASK}samples = 0\nbaseline = 'b'", "not a policy: tasks[0].samples is 0, must be at least 1"),
        (f"{TASK}few_shot = -1\nbaseline = 'b'", "not a policy: tasks[0].few_shot is -1, must be 0 or more"),
        (TASK, "not a policy: tasks[0] has no rule; give a baseline, or rules in [tasks.block] or [tasks.warn]"),
        ("= 1", "cannot be read as a policy: Invalid statement (at line 1, column 1)"),
    ],
)  # fmt: skip
def test_a_wrong_policy_is_refused_with_its_file_and_key(read: Callable[[str], Policy], tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(text)

    assert str(caught.value) == f"{tmp_path / 'gate.toml'}: {message}"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("block = { min = { f2 = 1 } }", "tasks[0].block: unknown metric 'f2' (available: exact, f1)"),
        ("block = { must_pass = ['i9'] }", "tasks[0].block: --must-pass: no item 'i9' in the evalset, and no such file"),
        ("warn = { min = { exact = 2 } }", "tasks[0].warn: floor 'exact=2' can never be met: exact is a share of the items, from 0 to 1"),
    ],
)
def test_rules_that_do_not_fit_the_task_name_file_and_tier(
    read: Callable[[str], Policy], tmp_path: Path, task: Task, rules: str, message: str
) -> None:
    policy = read(TASK + rules)
    options = policy.gate_options_of(policy.content.tasks[0], GateOptions(), None)

    with pytest.raises(UsageError) as caught:
        options.parse(task, {"i1"})

    assert str(caught.value) == f"{tmp_path / 'gate.toml'}: {message}"


def test_a_comparison_without_a_baseline_is_refused(read: Callable[[str], Policy], tmp_path: Path) -> None:
    policy = read(f"{TASK}warn = {{ gate = {{ f1 = 2 }} }}")

    with pytest.raises(UsageError) as caught:
        policy.gate_options_of(policy.content.tasks[0], GateOptions(), None)

    assert str(caught.value) == (
        f'{tmp_path / "gate.toml"}: tasks[0].warn.gate compares with a baseline; add baseline = "FILE" to the task, or --baseline FILE'
    )


def verdict_on(report: Report, config: GateConfig) -> Verdict:
    comparisons, gates = gate_tiers(report.comparisons, lambda comparison: config)
    return decide_verdict(replace(report, comparisons=comparisons, gates=gates), config)


def test_a_warning_changes_no_exit_code_and_is_named(result: Callable[..., ModelResult]) -> None:
    report = Report("triples", (result("new", "++~-"),))
    rules = GateConfig(floors={"exact": 0.2}, policy="gate.toml", warn=GateConfig(floors={"f1": 0.9}, limits={"truncated": 0.1}))

    verdict = verdict_on(report, rules)

    assert (verdict.outcome, verdict.exit_code, verdict.headline) == ("pass", 0, "pass; warnings: min f1, max truncated")
    assert [line.partition(":")[0] for line in verdict.reasons[:3]] == ["block", "warn", "warn"]
    assert [(rule.tier, rule.rule, rule.outcome) for rule in verdict.rules] == [
        ("block", "min exact", "met"),
        ("warn", "min f1", "failed"),
        ("warn", "max truncated", "failed"),
    ]


def test_the_verdict_names_the_rules_that_failed(result: Callable[..., ModelResult]) -> None:
    limits = dict.fromkeys(("truncated", "empty"), 0.0)
    rules = GateConfig(floors={"exact": 0.9, "f1": 0.9}, lower_floors={"f1": 0.8}, limits=limits, upper_limits=limits, policy="gate.toml")

    verdict = verdict_on(Report("triples", (result("new", "++~-"),)), rules)

    assert verdict.headline == "fail; failed: min exact, min f1, min_lower f1, max truncated and 2 more"


marks = st.text("+-~", min_size=6, max_size=24)
shares = st.dictionaries(st.sampled_from(["exact", "f1"]), st.floats(0, 1), max_size=2)
limits_of_replies = st.dictionaries(st.sampled_from([*MEASURES]), st.floats(0.01, 1), max_size=3)


def tier(gated: st.SearchStrategy[tuple[GatedMetric, ...]]) -> st.SearchStrategy[GateConfig]:
    return st.builds(
        GateConfig,
        gated=gated,
        floors=shares,
        lower_floors=shares,
        must_pass=st.frozensets(st.sampled_from(["i0", "i1", "i2"]), max_size=2),
        limits=limits_of_replies,
        upper_limits=limits_of_replies,
        policy=st.just("gate.toml"),
    )


gates = st.sampled_from([(), (GatedMetric("f1"),), (GatedMetric("exact", 5.0),), (GatedMetric("f1"), GatedMetric("exact"))])


@given(data=st.data(), new=marks, strict=st.booleans())
def test_a_further_rule_never_turns_a_failing_verdict_into_a_passing_one(
    data: st.DataObject, result: Callable[..., ModelResult], task: Task, new: str, strict: bool
) -> None:
    """Rules without a baseline, and all rules of ``warn``; a further metric in ``block`` changes the adjusted p-values, see docs/policy.md."""
    old = data.draw(st.text("+-~", min_size=len(new), max_size=len(new)))
    before, after = result("old", old, len(old)), result("new", new, len(new))
    report = Report("triples", (after,), (before,), (compare(before, after, task),))
    first = replace(data.draw(tier(gates)), strict=strict)
    added, warn = data.draw(tier(st.just(()))), data.draw(tier(gates))
    merged: dict[str, Any] = {
        name: {**getattr(added, name), **getattr(first, name)} for name in ("floors", "lower_floors", "limits", "upper_limits")
    }
    second = replace(first, **merged, must_pass=first.must_pass | added.must_pass, warn=warn)

    one, other = verdict_on(report, first), verdict_on(report, second)

    assert not (one.outcome == "fail" and other.outcome != "fail")
    assert not (one.exit_code != 0 and other.exit_code == 0)
    assert verdict_on(report, replace(first, warn=warn)).exit_code == one.exit_code
