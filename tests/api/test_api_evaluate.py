"""``sftchat.evaluate``: rows, models and scorers in memory, and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pluggy
import pytest

import sftchat
from sftchat import DataError, Example, Reply, Task, UsageError
from sftchat.api.report import TONES, EvaluationReport
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
        ({"models": "s:good", "strict": True}, "strict=True needs baseline=FILE"),
        ({"models": "s:good", "limit": 0}, "limit is 0, must be a whole number of at least 1"),
        ({"models": "s:good", "seed": "1"}, "seed is '1', must be a whole number of at least 0"),
        ({"models": "s:good", "thinking": "of"}, "thinking is 'of', must be one of None, 'drop', 'keep', 'off'"),
        ({"models": "s:good", "dtype": "float8"}, "dtype is 'float8', must be one of 'auto', 'float32', 'bfloat16', 'float16'"),
        ({"models": "s:good", "devise": "cpu"}, "unknown option of a model 'devise'; did you mean 'device'"),
        ({"models": "s:good", "samples": 4}, "4 samples would be 4 equal replies: give a temperature above 0, or samples=1"),
        ({"models": ["s:good", "s:good"]}, "two models are named 's:good'; evaluate each in a call of its own"),
        ({"models": "s:good", "baseline": "nosuch"}, "baseline 'nosuch' is no file and no MODEL"),
        ({"models": "s:good", "scorer": "python_tests"}, "allow it with allow_code=True"),
    ],
)
def test_a_wrong_argument_is_refused(session: Session, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(session, **arguments)


def test_a_column_that_is_missing_is_named_as_it_was_given(session: Session) -> None:
    with pytest.raises(DataError, match='there is no column "class", which columns={"gold": "class"} names'):
        evaluate(session, "s:good", columns={"gold": "class"})


def test_the_labels_of_choice_are_the_gold_replies_by_default(session: Session) -> None:
    report = evaluate(session, "s:even", scorer="choice")

    assert report.metrics["accuracy"].value == 0.5
    assert {result.task for result in report.results} == {"choice"}
    many = [{"text": f"question {number}", "label": str(number)} for number in range(60)]
    with pytest.raises(UsageError, match='60 different gold replies, too many for labels; give scorer={"name": "choice", "labels": '):
        evaluate(session, "s:even", many, scorer="choice")


def test_two_models_of_one_name_that_differ_are_refused(session: Session) -> None:
    plain, rounded = (sftchat.load("s:good", session=session, **options) for options in ({}, {"quantize": "int8"}))

    for models, baseline in ((rounded, plain), (plain, rounded), ("s:good", rounded), (rounded, "s:good")):
        with pytest.raises(
            UsageError, match="two different models are named 's:good'; evaluate the first one alone with update_baseline=FILE"
        ):
            evaluate(session, models, baseline=baseline)
    assert evaluate(session, plain, baseline=plain).passed
    with pytest.raises(UsageError, match="the models are loaded already; give dtype to sftchat.load"):
        evaluate(session, plain, dtype="float32")
    plain.close()
    with pytest.raises(UsageError, match="the model 's:good' is closed; load it again"):
        evaluate(session, plain)


def test_a_wrong_hint_of_the_command_line_is_not_in_the_verdict(session: Session) -> None:
    report = evaluate(session, "s:even", baseline="s:good", limit=4)

    assert report.verdict.reasons[0] == "s:even on rows: compared on 4 of 8 items (limit)"
    assert report.notes == ("rows: prompt from the column 'text', gold reply from 'label'; columns={\"NAME\": \"COLUMN\"} reads others",)


def test_the_items_of_several_models_are_one_table_with_the_same_columns(session: Session) -> None:
    def reply(request: Any) -> str | Reply:
        return Reply("", "error") if request.messages[-1]["content"] == "question 1" else "even"

    report = evaluate(session, [ScriptedEngine(reply, name="first"), "s:good"], ROWS[:2])
    frame = report.items.to_pandas()

    assert list(zip(frame["model"], frame["id"], frame["right"], strict=True)) == [
        ("first", "row-000001", True), ("first", "row-000002", None), ("s:good", "row-000001", True), ("s:good", "row-000002", True),
    ]  # fmt: skip
    assert {tuple(row) for row in report.items} == {report.items.columns}
    assert report.verdict.exit_code == 3


def test_a_table_in_a_notebook_shows_its_first_rows_escaped(session: Session) -> None:
    rows = [{"text": f"question {number} <b>", "label": "even" * 100} for number in range(12)]
    shown = evaluate(session, "s:even", rows).items._repr_html_()

    assert (shown.count("<tr>"), shown.count("&lt;b&gt;"), "<b>" in shown) == (11, 10, False)
    assert shown.endswith("<p>2 more rows; to_pandas() has them all</p>")
    assert "even" * 50 not in shown


@pytest.mark.parametrize("colour", sorted(TONES.values()))
@pytest.mark.parametrize("background", ["#ffffff", "#111111"])
def test_the_colour_of_a_verdict_can_be_read_in_light_and_dark_notebooks(colour: str, background: str) -> None:
    """The contrast of WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio; its level AA asks for 3 in large bold text."""

    def luminance(text: str) -> float:
        parts = [int(text[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(colour), luminance(background)))

    assert (lighter + 0.05) / (darker + 0.05) >= 4


def test_an_error_says_where_replies_are_kept(session: Session, tmp_path: Path) -> None:
    def reply(request: Any) -> str:
        if request.messages[-1]["content"] == "question 5":
            raise KeyboardInterrupt
        return "even"

    with pytest.raises(KeyboardInterrupt) as caught:
        evaluate(session, ScriptedEngine(reply, name="mine"), output=tmp_path / "out")

    assert "kept in" in caught.value.__notes__[0]
    assert "overwrite=True" not in (tmp_path / "out" / "replies.partial.jsonl").read_text(encoding="utf-8")


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
