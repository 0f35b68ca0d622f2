"""Baselines and evalsets with any single change: a much worse model never passes unnoticed, an unchanged one never fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftchat import Example, Reply, Score
from sftchat.engine import Request
from tests.cli.conftest import Desk

N = 16
BROKEN = (3, 8)
"""Items that are wrong in the baseline."""
Rows = list[Any]
Text = list[str]
MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def by_the_rules(example: Example, reply: Reply) -> Score:
    """Score by all data of the item: a reply is right when the item's rules allow it."""
    right = reply.text in (example.gold, *example.metadata.get("allowed", ()))
    return Score({"n": 1, "right": int(right), "length": len(str(example.gold))}, reply.text, () if right else ("wrong",))


def answered(request: Request) -> str:
    """Return the reply of the baseline's model; it replies only to prompts of the evalset."""
    found = re.fullmatch(r"question (\d+)", request.messages[-1]["content"])
    return f"answer {found[1]}" if found and int(found[1]) not in BROKEN else "?"


@pytest.fixture
def gated(desk: Desk) -> Desk:
    """Folder with an evalset of items with rules, and the baseline of a model with two wrong items."""
    rows = [
        {
            "id": f"i{k:02}",
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"question {k}"}],
            "gold": f"answer {k}",
            "metadata": {"allowed": [f"ANSWER {k}"], "limits": {"words": 2}},
        }
        for k in range(N)
    ]
    write(Path("gold.jsonl"), rows)
    task = replace(desk.registry.tasks["quiz"], score=by_the_rules)
    desk.registry = replace(desk.registry, tasks={"quiz": task})
    desk.engines |= {"s:same": answered, "s:worse": lambda request: "x"}
    assert desk.run("s:same", "--update-baseline", "base.jsonl", "--quiet")[0] == 0
    return desk


def write(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Yield the path to every value within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, one in inner for found in ((*path, key), *places(one, (*path, key)))]


def nearby(value: Any) -> st.SearchStrategy[Any]:
    """Yield replacements of a value: slightly larger or smaller, and other types."""
    near: list[Any] = [None, "", "x", 0, 1, -1, 0.5, True, False, [], {}, ["x"], {"x": 1}, "i00", "answer 3", 10**400]
    if isinstance(value, (int, float)):
        near += [value + 1, value - 1, not value, str(value), float(value)]
    if isinstance(value, str):
        near += [value + "x", value[:-1], value.upper(), value.replace("3", "4")]
    if isinstance(value, list):
        near += [[*value, "x"], value[1:], value * 2]
    if isinstance(value, dict):
        near += [{**value, "x": 1}, dict(list(value.items())[1:])]
    return st.sampled_from(near)


@st.composite
def changed(draw: st.DrawFn, rows: Rows) -> Text:
    """Yield the lines of rows with one change: a value, a key, or lines."""
    rows = json.loads(json.dumps(rows))
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    some = st.integers(0, len(rows) - 1)
    kind = draw(
        st.sampled_from(["value", "value", "value", "delete", "rename", "add", "twice", "swap", "lines", "cut", "keep", "drop", "again"])
    )
    place = draw(some)
    path = draw(st.sampled_from(places(rows[place])))
    holder = rows[place]
    for step in path[:-1]:
        holder = holder[step]
    key = path[-1]
    if kind == "value":
        holder[key] = draw(nearby(holder[key]))
    elif kind == "delete":
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif kind == "add" and isinstance(holder, dict):
        holder["extra"] = draw(nearby(None))
    elif kind == "swap":
        other = draw(some)
        if path[0] in rows[other]:
            rows[place][path[0]], rows[other][path[0]] = rows[other][path[0]], rows[place][path[0]]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    if kind == "twice":
        lines[place] = f"{lines[place][:-1]}, {json.dumps(path[0])}: {json.dumps(draw(nearby(rows[place][path[0]])))}}}"
    elif kind == "lines":
        lines = draw(st.permutations(lines))
    elif kind == "cut":
        lines[place] = lines[place][: draw(st.integers(0, len(lines[place]) - 1))]
    elif kind == "keep":
        lines = lines[: draw(some) + 1]
    elif kind == "drop":
        del lines[place]
    elif kind == "again":
        lines.insert(draw(some), lines[place])
    return lines


@st.composite
def loosened(draw: st.DrawFn, rows: Rows) -> Text:
    """Yield the lines of an evalset in which some or all items allow any reply, by their rules or gold reply."""
    rows = json.loads(json.dumps(rows))
    where = draw(st.sampled_from(["allowed", "gold"]))
    for place in draw(st.sets(st.integers(0, len(rows) - 1), min_size=1)):
        if where == "gold":
            rows[place]["gold"] = "x"
        else:
            rows[place]["metadata"]["allowed"].append("x")
    return [json.dumps(row) for row in rows]


def judge(desk: Desk, lines: Text, file: str) -> None:
    """Check the guarantee for a changed file."""
    path = Path(file)
    before = path.read_bytes()
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    try:
        for strict in ((), ("--strict",)):
            words = ("--baseline", "base.jsonl", "--quiet", *strict)
            code, _, err = desk.run("s:same", *words)
            assert code != 1, f"an unchanged model fails: {err}"
            assert code in (0, 2, 4), err
            code, _, err = desk.run("s:worse", *words)
            assert code in (0, 1, 2, 4), err
            if code == 0:
                share = re.search(rf"compared on (\d+) of the baseline's {N} items; since the baseline .*removed", err)
                assert share is not None, f"a much worse model passes: {err}"
                assert int(share[1]) < N
                assert not strict
    finally:
        path.write_bytes(before)


def rows_of(file: str) -> Rows:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def mutations(file: str, how: Callable[[Rows], st.SearchStrategy[Text]]) -> Callable[[st.DataObject], Text]:
    """Hypothesis strategy for one change of a file."""
    rows = rows_of(file)
    return lambda data: data.draw(how(rows))


@given(data=st.data())
@MANY
def test_no_change_of_a_row_or_header_field_of_a_baseline_changes_a_verdict_unnoticed(gated: Desk, data: st.DataObject) -> None:
    judge(gated, mutations("base.jsonl", changed)(data), "base.jsonl")


@given(data=st.data())
@MANY
def test_no_change_of_a_field_of_an_evalset_changes_a_verdict_unnoticed(gated: Desk, data: st.DataObject) -> None:
    judge(gated, mutations("gold.jsonl", changed)(data), "gold.jsonl")


@given(data=st.data())
@settings(MANY, max_examples=15)
def test_rules_that_were_loosened_after_the_baseline_are_detected(gated: Desk, data: st.DataObject) -> None:
    before = Path("gold.jsonl").read_bytes()
    lines = mutations("gold.jsonl", loosened)(data)
    judge(gated, lines, "gold.jsonl")

    Path("gold.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    code, _, err = gated.run("s:worse", "--baseline", "base.jsonl", "--quiet")
    Path("gold.jsonl").write_bytes(before)
    assert (code, err.startswith("sftchat: error: baseline base.jsonl is of another evalset: prompt, gold reply or metadata of 'i")) == (
        4,
        True,
    )


def test_the_unchanged_files_pass_and_fail_correctly(gated: Desk) -> None:
    assert gated.run("s:same", "--baseline", "base.jsonl", "--strict", "--quiet")[0] == 0
    assert gated.run("s:worse", "--baseline", "base.jsonl", "--strict", "--quiet")[0] == 1


@pytest.mark.parametrize("kept", [1, 2, N - 1])
def test_a_baseline_cut_to_some_of_its_rows_is_refused_by_its_counts(gated: Desk, kept: int) -> None:
    lines = Path("base.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("base.jsonl").write_text("".join(lines[: kept + 1]), encoding="utf-8")

    assert gated.run("s:worse", "--baseline", "base.jsonl") == (
        2,
        "",
        f"sftchat: error: base.jsonl: the header counts {N} items and the file has {kept}; restore it, or write it again with --update-baseline\n",
    )
    Path("base.jsonl").write_text("".join([lines[0].replace(f'"size": {N}', f'"size": {kept}'), *lines[1 : kept + 1]]), encoding="utf-8")
    code, _, err = gated.run("s:worse", "--baseline", "base.jsonl")
    assert (code, f"lacks {N - kept} of the {N} items of gold.jsonl, which has not changed since: " in err) == (4, True)
    assert gated.opened == ["s:same"]
