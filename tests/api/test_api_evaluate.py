"""``sftchat.evaluate``: rows, models and scorers in memory, and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pluggy
import pytest

import sftchat
from sftchat import Example, Reply, Task, UsageError
from sftchat.api.report import EvaluationReport
from sftchat.api.session import Session
from sftchat.cli import main
from sftchat.engine import EngineType
from sftchat.plugins import spec as hookspecs
from sftchat.plugins.manager import Registry
from sftchat.scorers import contains
from sftchat.testing import ScriptedEngine

ROWS = [{"text": f"question {number}", "label": "even" if number % 2 == 0 else "odd"} for number in range(8)]
REPLIES = {
    "s:good": lambda request: "odd" if int(request.messages[-1]["content"].split()[1]) % 2 else "even",
    "s:even": lambda request: "even",
}


@pytest.fixture
def session() -> Session:
    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)
    types = {"s": EngineType("s", "scripted", lambda rest, options: ScriptedEngine([]))}
    return Session(lambda name, **_: ScriptedEngine(REPLIES[name], name=name), Registry(manager, {}, types))


def evaluate(session: Session, models: Any, evalset: Any = ROWS, **options: Any) -> EvaluationReport:
    return sftchat.evaluate(models, evalset, session=session, ledger=False, **{"scorer": "exact", **options})


def test_rows_in_memory_are_scored(session: Session) -> None:
    report = evaluate(session, "s:even")

    assert (report.passed, report.verdict.outcome, report.metrics["accuracy"].value) == (True, "not asked", 0.5)
    assert report.items[1] == {
        "model": "s:even", "task": "exact", "evalset": "rows", "id": "row-000002", "prompt": "question 1", "gold": "odd", "reply": "even",
        "answer": "even", "right": False, "errors": ["wrong_answer"], "count_n": 1, "count_correct": 0,
    }  # fmt: skip


def test_data_frames_are_rows(session: Session) -> None:
    frame = pandas.DataFrame([*ROWS, {"text": "question 8", "label": "even", "note": float("nan")}])

    assert evaluate(session, "s:good", frame).metrics["accuracy"].value == 1


def test_examples_are_rows(session: Session) -> None:
    example = Example(({"role": "user", "content": "question 1"},), "odd", "one")

    assert [row["id"] for row in evaluate(session, "s:good", [example]).items] == ["one"]


def test_a_baseline_is_compared_and_the_verdict_is_that_of_the_command(session: Session) -> None:
    report = evaluate(session, "s:even", baseline="s:good")

    assert (report.passed, report.verdict.outcome) == (True, "inconclusive")
    assert {(row["id"], row["change"], row["baseline_reply"]) for row in report.items[:2]} == {
        ("row-000001", "right", "even"), ("row-000002", "broken", "odd"),
    }  # fmt: skip
    frame = report.to_pandas()
    assert list(frame["difference"]) == [-0.5]
    assert "difference" in report._repr_html_()


@pytest.mark.parametrize(
    ("scorer", "metric"),
    [
        ("contains", "accuracy"),
        ({"name": "choice", "labels": ["odd", "even"]}, "accuracy"),
        (contains(), "accuracy"),
        (lambda example, reply: reply.text == example.gold, "score"),
    ],
)
def test_a_scorer_is_a_name_arguments_an_object_or_a_function(session: Session, scorer: Any, metric: str) -> None:
    assert evaluate(session, "s:even", scorer=scorer).metrics[metric].value == 0.5


def test_a_loaded_model_stays_open(session: Session) -> None:
    model = sftchat.load("s:good", session=session)

    report = evaluate(session, [model, "s:even"])

    assert [result.model for result in report.results] == ["s:good", "s:even"]
    assert not model.engine.closed  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="the report has 2 results"):
        _ = report.metrics


def test_an_engine_is_a_model(session: Session) -> None:
    assert evaluate(session, ScriptedEngine(lambda request: "odd", name="mine")).metrics["accuracy"].value == 0.5


def test_the_report_of_the_command_line_has_the_same_bytes(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    words = ("--evalset", "gold.jsonl", "--scorer", "exact", "--baseline", "s:even", "--min", "accuracy=0.9", "--quiet", "--json")

    code = main(["eval", "s:good", *words], obj=session)
    report = evaluate(session, "s:good", "gold.jsonl", baseline="s:even", floors={"accuracy": 0.9})

    assert (code, capsys.readouterr().out) == (report.verdict.exit_code, report.to_json())


def test_html_is_escaped_in_a_notebook(session: Session) -> None:
    report = evaluate(session, ScriptedEngine(lambda request: "x", name="<b>mine</b>"), floors={"accuracy": 0.5})

    assert "&lt;b&gt;mine" in report._repr_html_()
    assert "<b>mine" not in report._repr_html_()
    assert report.to_html().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": 3}, "model is int, must be a MODEL, a run, a loaded model or an engine"),
        ({"models": ()}, "give models to evaluate, or replies=FILE for stored replies"),
        ({"models": "s:good", "scorer": None}, "give a task or a scorer"),
        ({"models": "s:good", "scorer": "exakt"}, "unknown scorer 'exakt'; did you mean 'exact'"),
        ({"models": "s:good", "scorer": 3}, "scorer is int, must be a name"),
        ({"models": "s:good", "evalset": {"text": "a"}}, "rows are dict, must be a list of dicts"),
        ({"models": "s:good", "evalset": ["a"]}, "row 1 is str, must be a dict"),
        ({"models": "s:good", "sampling": {"temprature": 1}}, "temprature"),
        ({"models": "s:good", "strict": True}, "--strict needs --baseline FILE"),
    ],
)
def test_a_wrong_argument_is_refused(session: Session, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(session, **arguments)


def test_a_task_object_brings_its_scorer_and_evalset(session: Session, tmp_path: Path) -> None:
    gold = tmp_path / "gold.csv"
    gold.write_text("prompt,gold\nquestion 1,odd\n", encoding="utf-8")
    scorer = contains()
    task = Task("quiz", "a quiz", lambda n, seed: [], scorer.score, scorer.metrics, evalsets={"gold": gold})

    assert evaluate(session, "s:good", None, task=task, scorer=None).metrics["accuracy"].value == 1


def test_stored_replies_are_scored_without_a_model(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    file.write_text("".join(json.dumps({"id": f"row-{number:06}", "reply": "even"}) + "\n" for number in range(1, 9)), encoding="utf-8")

    assert evaluate(session, (), replies=file).metrics["accuracy"].value == 0.5


def test_a_reply_prints_as_its_text() -> None:
    assert f"{Reply('hello')}" == "hello"
