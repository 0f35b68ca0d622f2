"""A plan: which items are evaluated, what they are compared with, and what is refused before any model is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftchat import DataError, NotComparableError, Task, UsageError
from sftchat.evaluation.gate_options import GateConfig, GateOptions
from sftchat.evaluation.plan import check_output, make_plan
from sftchat.evaluation.selection import Selection, past_ids

ROWS = [{"id": f"i{number}", "messages": [{"role": "user", "content": f"{number}?"}], "gold": "无"} for number in range(4)]


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def replies(path: Path, *ids: str) -> Path:
    path.write_text("".join(json.dumps({"id": identity, "reply": "无"}) + "\n" for identity in ids), encoding="utf-8")
    return path


def test_models_are_opened_in_the_order_baseline_first(task: Task, gold: Path) -> None:
    plan = make_plan(task, ["a", "b"], evalset_sources=[gold], baseline="c", seed=3)

    assert plan.models == ("c", "a", "b")
    assert [source.file for source in plan.sources] == ["replies.1.jsonl", "replies.2.jsonl"]
    assert (plan.sampling.seed, plan.gate_in_force.gated[0].metric) == (3, "f1")


def test_no_gate_is_in_force_on_selected_items(task: Task, gold: Path) -> None:
    plan = make_plan(task, ["a"], evalset_sources=[gold], selection=Selection(("i1", "i3")))

    assert [example.id for example in plan.evalsets[0].examples] == ["i1", "i3"]
    assert (plan.gate_in_force, plan.remarks) == (GateConfig(), ("2 of 4 items were selected; no gate is computed on a selected subset",))
    with pytest.raises(UsageError, match="no item 'i9' in the evalset"):
        make_plan(task, ["a"], evalset_sources=[gold], selection=Selection(("i9",)))


def test_a_partial_file_of_replies_restricts_the_items(task: Task, gold: Path, tmp_path: Path) -> None:
    some = replies(tmp_path / "some.jsonl", "i0", "i2")

    plan = make_plan(task, [], evalset_sources=[gold], replies=some, partial=True)

    assert ([example.id for example in plan.evalsets[0].examples], plan.gate_config.partial) == (["i0", "i2"], True)
    with pytest.raises(DataError, match="no reply to 'i1'"):
        make_plan(task, [], evalset_sources=[gold], replies=some)
    whole = replies(tmp_path / "whole.jsonl", "i0", "i1", "i2", "i3")
    assert not make_plan(task, [], evalset_sources=[gold], replies=whole, partial=True).gate_config.partial


def test_a_missing_baseline_is_refused_unless_it_is_allowed(task: Task, gold: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "base.jsonl")
    with pytest.raises(NotComparableError, match="no baseline"):
        make_plan(task, ["a"], evalset_sources=[gold], baseline=missing)

    plan = make_plan(task, ["a"], evalset_sources=[gold], baseline=missing, gate_options=GateOptions(allow_missing_baseline=True))

    assert (plan.baseline, len(plan.remarks)) == (None, 1)


def test_a_limit_must_not_leave_out_required_items(task: Task, gold: Path) -> None:
    with pytest.raises(UsageError, match="'i3' are not among the first 2 of --limit"):
        make_plan(task, ["a"], evalset_sources=[gold], limit=2, gate_options=GateOptions(must_pass=("i3",)))
    with pytest.raises(NotComparableError, match="--limit compares 2 of the 4 items"):
        make_plan(task, ["a"], evalset_sources=[gold], limit=2, baseline="b", gate_options=GateOptions(strict=True))


def test_failing_items_of_an_earlier_evaluation_are_found_by_its_replies(tmp_path: Path) -> None:
    rows = [{"id": "i0", "errors": []}, {"id": "i1", "errors": ["missing"]}, {"id": "i2", "error": "server gone"}]
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = {"results": [{"replies": "../elsewhere/replies.jsonl"}], "comparisons": [{"broken": ["i1"]}]}
    (tmp_path / "report.json").write_text(json.dumps(document))

    assert past_ids("failing", tmp_path) == {"i1", "i2"}
    assert past_ids("newly-broken", tmp_path) == {"i1"}
    with pytest.raises(UsageError, match="already holds a report"):
        check_output(tmp_path, overwrite=False)
    check_output(tmp_path, overwrite=True)
