"""The gate with a faulty plugin: never exit code 0 for a worse model, never 1 for an unchanged one."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import pluggy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftchat import Example, Metric, NotComparableError, PluginError, Reply, Score, SftchatError, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins import spec as hookspecs
from sftchat.plugins.manager import Registry

N = 20
Scorer = Callable[[Example, Reply], Any]


def honest(example: Example, reply: Reply) -> Score:
    right = reply.text == example.gold
    return Score({"n": 1, "right": int(right)}, reply.text, () if right else ("wrong",))


TASK = Task("quiz", "a quiz", lambda n, seed: (), honest, (rate("accuracy", "right"),))


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("sftchat: error: ")]


def run(*words: object, task: Task = TASK, listeners: tuple[object, ...] = ()) -> Outcome:
    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)
    for number, listener in enumerate(listeners):
        manager.register(listener, name=f"{type(listener).__name__}-{number}")
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["eval", *map(str, words)], obj=Session(given_registry=Registry(manager, {"quiz": task})))
    return Outcome(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Files:
    """Write an evalset, two files of replies and the baseline of the good one."""

    gold: Path
    good: Path
    worse: Path
    baseline: Path

    def gate(self, replies: Path, task: Task, *words: object, listeners: tuple[object, ...] = ()) -> Outcome:
        given = ("--evalset", self.gold, "--replies", replies, "--baseline", self.baseline)
        return run(*given, *words, task=task, listeners=listeners)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Write replies: two of twenty wrong in the good file, sixteen in the worse one, the last ones in both."""
    folder = tmp_path_factory.mktemp("gate")
    gold, good, worse = (folder / f"{name}.jsonl" for name in ("gold", "good", "worse"))
    rows = [
        {"id": f"i{k:02}", "messages": [{"role": "user", "content": f"question {k}"}], "gold": f"answer {k}", "metadata": {"rule": [k]}}
        for k in range(N)
    ]
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for path, right in ((good, 18), (worse, 4)):
        replies = [{"id": f"i{k:02}", "reply": f"answer {k}" if k < right else "no idea"} for k in range(N)]
        path.write_text("".join(json.dumps(row) + "\n" for row in replies), encoding="utf-8")
    baseline = folder / "baseline.jsonl"
    made = run("--evalset", gold, "--replies", good, "--update-baseline", baseline)
    assert made.code == 0, made.err
    return Files(gold, good, worse, baseline)


def with_scorer(scorer: Scorer) -> Task:
    return replace(TASK, score=scorer)


def check(files: Files, scorer: Scorer, *words: object) -> tuple[int, int]:
    """Check the exit codes of the worse and the unchanged model: the right verdict, or 3 with one line that names the plugin."""
    codes = []
    for replies, verdict in ((files.worse, 1), (files.good, 0)):
        found = files.gate(replies, with_scorer(scorer), *words)
        assert found.code in (verdict, 3), found
        if found.code == 3:
            (complaint,) = found.complaints
            assert "task 'quiz'" in complaint
            assert found.err.splitlines()[-1] == complaint
        else:
            assert found.complaints == []
        codes.append(found.code)
    return codes[0], codes[1]


# --- scorers


class Sly(SftchatError):
    exit_code = 0


class Slyer(PluginError):
    exit_code = 1


class Mute(BaseException):
    def __str__(self) -> str:
        raise SystemExit(0)


RAISED: tuple[Callable[[], BaseException], ...] = (
    SystemExit,
    lambda: SystemExit(0),
    lambda: SystemExit(1),
    lambda: SystemExit("bye"),
    GeneratorExit,
    StopIteration,
    MemoryError,
    RecursionError,
    BrokenPipeError,
    lambda: OSError(28, "No space left on device", "/x"),
    lambda: UnicodeEncodeError("ascii", "é", 0, 1, "no"),
    lambda: click.exceptions.Exit(0),
    lambda: click.exceptions.Exit(1),
    click.Abort,
    lambda: click.ClickException("no"),
    lambda: NotComparableError("no"),
    lambda: Sly("no"),
    lambda: Slyer("no"),
    lambda: KeyError("a\nb"),
    lambda: ExceptionGroup("both", [ValueError("a")]),
    Mute,
)
KEPT: tuple[Callable[[int], Any], ...] = (int, float, bool, Decimal, Fraction, np.int64, np.float32, np.float64, np.bool_, np.array)
REFUSED: tuple[Any, ...] = (None, "1", b"1", float("nan"), float("inf"), Decimal("nan"), 1j, 10**400, {}, [1], np.array([1, 1]), object())


def raises(make: Callable[[], BaseException]) -> Scorer:
    def scorer(example: Example, reply: Reply) -> Score:
        raise make()

    return scorer


def counts(make: Callable[[int], Any]) -> Scorer:
    def scorer(example: Example, reply: Reply) -> Score:
        given = honest(example, reply)
        return replace(given, stats={key: make(int(count)) for key, count in given.stats.items()})

    return scorer


def changed(**parts: Any) -> Scorer:
    return lambda example, reply: replace(honest(example, reply), **parts)


def refilled() -> Scorer:
    """Reuse one dictionary for counts, one for slices and one list for error classes for all items."""
    stats: dict[str, float] = {}
    groups: dict[str, dict[str, float]] = {}
    errors: list[str] = []

    def scorer(example: Example, reply: Reply) -> Score:
        given = honest(example, reply)
        stats.clear()
        stats.update(given.stats)
        groups["all"] = stats
        errors[:] = given.errors
        return Score(stats, given.answer, errors, groups)  # type: ignore[arg-type]

    return scorer


def vandal(example: Example, reply: Reply) -> Score:
    """Score correctly, then change all arguments."""
    given = honest(example, reply)
    for name, value in (("id", "i00"), ("gold", reply.text), ("source", "x")):
        object.__setattr__(example, name, value)
    example.messages[0]["content"] = "1 + 1"
    example.metadata["rule"].append(0)
    example.metadata.clear()  # type: ignore[attr-defined]
    object.__setattr__(example, "metadata", {})
    object.__setattr__(reply, "text", "answer 0")
    object.__setattr__(reply, "finish_reason", "error")
    return given


class Late(Score):
    """Score whose counts are computed when they are read."""

    @property  # type: ignore[override]
    def stats(self) -> Mapping[str, float]:
        raise SystemExit(0)

    @stats.setter
    def stats(self, value: object) -> None:
        pass


ODD: dict[str, Scorer] = {
    "no score": lambda example, reply: None,
    "a dictionary": lambda example, reply: {"n": 1},
    "late": lambda example, reply: Late({"n": 1}),
    "nothing counted": changed(stats={}),
    "stats none": changed(stats=None),
    "key of no text": changed(stats={"n": 1, "right": 1, 3: 1}),
    "errors none": changed(errors=None),
    "errors of two types": changed(errors=("wrong", 3)),
    "errors one text": changed(errors="wrong"),
    "answer none": changed(answer=None),
    "groups none": changed(groups=None),
    "group of text": changed(groups={"a": "n"}),
    "group of nan": changed(groups={"a": {"n": float("nan")}}),
    "no arguments": lambda: None,  # type: ignore[misc]
}


def from_item(first: int, scorer: Scorer) -> Scorer:
    """Correct at first, wrong from some item on."""
    return lambda example, reply: (honest if int(example.id[1:]) < first else scorer)(example, reply)


SCORERS = st.builds(
    from_item,
    st.integers(0, N - 1),
    st.one_of(
        st.builds(raises, st.sampled_from(RAISED)),
        st.builds(counts, st.sampled_from(KEPT)),
        st.builds(lambda value: counts(lambda count: value), st.sampled_from(REFUSED)),
        st.sampled_from(tuple(ODD.values())),
        st.builds(refilled),
        st.just(vandal),
        st.builds(lambda key: changed(stats={"n": 1, "right": 1, key: 1}), st.text(max_size=3)),
        st.builds(lambda key: changed(stats={key: 1}), st.sampled_from(("n", "right", "x"))),
    ),
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(scorer=SCORERS)
def test_any_faulty_scorer_gives_a_right_verdict_or_one_line_that_names_the_plugin(files: Files, scorer: Scorer) -> None:
    for replies, wrong in ((files.worse, 0), (files.good, 1)):
        found = files.gate(replies, with_scorer(scorer))
        assert found.code != wrong, found
        assert found.code in (0, 1, 3, 4), found  # 4 where all counts differ from the baseline
        assert len(found.complaints) == (found.code in (3, 4)), found


@pytest.mark.parametrize("make", RAISED)
def test_a_scorer_that_raises_exits_with_3_and_names_the_item(files: Files, make: Callable[[], BaseException]) -> None:
    found = files.gate(files.worse, with_scorer(from_item(3, raises(make))))

    (complaint,) = found.complaints
    assert (found.code, found.err.count("\n"), found.out) == (3, 1, "")
    assert complaint.startswith(f"sftchat: error: the scorer of task 'quiz' failed on item 'i03', in {__file__}:")
    assert type(make()).__name__ in complaint


@pytest.mark.parametrize("make", KEPT)
def test_every_kind_of_number_is_accepted_and_the_baseline_keeps_its_bytes(
    files: Files, make: Callable[[int], Any], tmp_path: Path
) -> None:
    scorer = counts(make)
    given = ("--update-baseline", tmp_path / "new.jsonl", "-o", tmp_path / "out", "--overwrite")

    assert check(files, scorer, *given) == (1, 0)
    if make not in (float, Decimal, Fraction, np.float32, np.float64):  # those are written as 1.0
        assert (tmp_path / "new.jsonl").read_bytes() == files.baseline.read_bytes()
    again = run("--evalset", files.gold, "--replies", files.good, "--baseline", tmp_path / "new.jsonl")
    assert (again.code, again.complaints) == (0, [])


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: "object" if type(value) is object else repr(value)[:20])
def test_a_count_that_is_not_a_finite_number_is_named_with_its_item_and_value(files: Files, value: Any) -> None:
    found = files.gate(files.worse, with_scorer(from_item(5, counts(lambda count: value))))

    (complaint,) = found.complaints
    assert found.code == 3
    assert complaint.startswith("sftchat: error: the scorer of task 'quiz' counts ")
    assert complaint.endswith(" as 'n' of stats; counts are finite numbers (on item 'i05')")


@pytest.mark.parametrize("name", ODD)
def test_a_return_value_that_is_not_a_score_is_refused_with_the_item(files: Files, name: str) -> None:
    assert check(files, from_item(7, ODD[name])) == (3, 3)
    assert "on item 'i07'" in files.gate(files.good, with_scorer(from_item(7, ODD[name]))).err


def test_an_item_with_other_keys_than_earlier_ones_is_named(files: Files) -> None:
    found = files.gate(files.good, with_scorer(from_item(2, changed(stats={"n": 1, "good": 1}))))

    assert (found.code, found.complaints) == (
        3,
        [
            "sftchat: error: the scorer of task 'quiz' counts good, n on item 'i02' and n, right on item 'i00'; "
            "it must count the same for every item"
        ],
    )


@pytest.mark.parametrize("scorer", [refilled(), vandal], ids=["one dictionary", "changes what it is given"])
def test_a_scorer_that_keeps_or_changes_objects_changes_no_result(files: Files, scorer: Scorer, tmp_path: Path) -> None:
    assert check(files, scorer, "-o", tmp_path / "out", "--overwrite") == (1, 0)

    run("--evalset", files.gold, "--replies", files.good, "--update-baseline", tmp_path / "new.jsonl", task=with_scorer(scorer))
    assert (tmp_path / "new.jsonl").read_bytes() == files.baseline.read_bytes()


def test_a_scorer_that_runs_generated_code_does_not_end_the_gate(files: Files, tmp_path: Path) -> None:
    def executes(example: Example, reply: Reply) -> Score:
        exec(reply.text, {})
        return honest(example, reply)

    said = [{"id": f"i{k:02}", "reply": "raise SystemExit(0)"} for k in range(N)]
    path = tmp_path / "said.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in said), encoding="utf-8")

    found = run("--evalset", files.gold, "--replies", path, "--min", "accuracy=0.5", task=with_scorer(executes))

    assert found.code == 3
    assert found.complaints == ["sftchat: error: the scorer of task 'quiz' failed on item 'i00', in <string>:1: SystemExit: 0"]


METRICS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "leaves": lambda sums: sys.exit(0),
    "text": lambda sums: "0.9",
    "none": lambda sums: None,
    "nan": lambda sums: float("nan"),
    "complex": lambda sums: 1j,
    "another shape": lambda sums: np.ones(7),
    "a list of lists": lambda sums: [[1, 2], [3]],
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_without_a_finite_value_is_named(files: Files, name: str) -> None:
    task = replace(TASK, metrics=(Metric("accuracy", METRICS[name], stats=("n", "right")),))

    for replies in (files.worse, files.good):
        found = files.gate(replies, task)
        assert (found.code, len(found.complaints)) == (3, 1)
        assert "metric 'accuracy'" in found.complaints[0]


def test_a_metric_that_changes_its_sums_changes_nothing(files: Files) -> None:
    def greedy(sums: Mapping[str, Any]) -> Any:
        value = sums["right"] / sums["n"]
        for key in sums:
            if isinstance(sums[key], np.ndarray):
                sums[key][...] = 1
        sums.clear()  # type: ignore[attr-defined]
        return value

    task = replace(TASK, metrics=(Metric("accuracy", greedy, stats=("n", "right")),))

    assert [files.gate(replies, task).code for replies in (files.worse, files.good)] == [1, 0]


# --- listeners


class Leaves:
    @hookspecs.hookimpl
    def sftchat_eval_finished(self) -> None:
        raise SystemExit(0)


class Breaks:
    @hookspecs.hookimpl
    def sftchat_eval_finished(self) -> None:
        raise ValueError("no network")


class Forges:
    @hookspecs.hookimpl
    def sftchat_eval_finished(self, report: Any) -> None:
        for result in report.results:
            object.__setattr__(result, "metrics", ())
            object.__setattr__(result.items[0].example, "id", "forged")
            result.items.arrays.table.rows[:] = 1
        object.__setattr__(report, "gates", ())


class Hears:
    def __init__(self) -> None:
        self.reports: list[Any] = []

    @hookspecs.hookimpl
    def sftchat_eval_finished(self, report: Any) -> None:
        self.reports.append(report)


@pytest.mark.parametrize(("replies", "code"), [("worse", 1), ("good", 0)])
@pytest.mark.parametrize("listener", [Leaves, Breaks], ids=["leaves", "breaks"])
def test_a_listener_that_fails_is_named_and_changes_no_verdict(
    files: Files, listener: type[Any], replies: str, code: int, tmp_path: Path
) -> None:
    hears = Hears()

    found = files.gate(getattr(files, replies), TASK, "-o", tmp_path / "out", listeners=(hears, listener(), hears_too := Hears()))

    assert found.code == code
    assert [len(hears.reports), len(hears_too.reports)] == [1, 1]
    (warning,) = [line for line in found.err.splitlines() if line.startswith("sftchat: warning: ")]
    assert warning.startswith(f"sftchat: warning: hook sftchat_eval_finished of plugin '{listener.__name__}-1' failed, in {__file__}:")
    assert warning.endswith("; the verdict is not affected")
    assert (tmp_path / "out" / "report.json").is_file()


def test_strict_treats_a_failing_listener_as_an_error_only_after_a_pass(files: Files) -> None:
    codes = [files.gate(replies, TASK, "--strict", listeners=(Breaks(),)).code for replies in (files.worse, files.good)]

    assert codes == [1, 3]


def test_a_listener_that_changes_its_report_affects_nothing_else(files: Files, tmp_path: Path) -> None:
    hears, hears_too = Hears(), Hears()

    found = files.gate(files.worse, TASK, "--json", "-o", tmp_path / "out", listeners=(hears, Forges(), hears_too))

    assert (found.code, found.complaints) == (1, [])
    assert found.out == (tmp_path / "out" / "report.json").read_text(encoding="utf-8") == hears.reports[0].to_json()
    assert hears_too.reports[0].to_json() == found.out
    assert [item.example.id for item in hears_too.reports[0].results[0].items] == [f"i{k:02}" for k in range(N)]


@pytest.fixture(autouse=True)
def no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
