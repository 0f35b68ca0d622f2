"""Tasks in TOML files, and changes to a task."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftchat import DataError, Example, Reply, SamplingParams, UsageError
from sftchat.data.few_shot import FewShot
from sftchat.data.formats import to_example
from sftchat.data.row_options import RowOptions, guess_columns, options_for_task, render_prompt
from sftchat.data.task_file import load_task_file, make_task
from sftchat.data.task_overrides import TaskOverrides
from sftchat.scorers import contains, exact
from sftchat.task import prompt_messages, score_reply, training_defaults

TICKETS = """
system = "Sort the ticket."
prompt = "Ticket: {text}"
columns = { gold = "queue" }
evalset = "gold.csv"
data = ["train.csv"]
samples = 2
must_pass = ["row-000001"]
[scorer]
name = "contains"
ignore_case = false
[sampling]
temperature = 0.5
max_new_tokens = 8
[few_shot]
k = 1
rows = [{ text = "no ink", queue = "printer" }]
[training]
epochs = 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Support tickets.toml"
    path.write_text(TICKETS, encoding="utf-8")
    return path


def test_a_task_file_has_everything_of_a_task(file: Path) -> None:
    task = load_task_file(file)
    row = to_example({"text": "paper jam", "queue": "printer"}, options=RowOptions(**task.row_options))

    assert (task.name, task.samples, task.must_pass, task.training_files) == (
        "support-tickets", 2, ("row-000001",), (str(file.parent / "train.csv"),),
    )  # fmt: skip
    assert task.evalsets == {"gold": file.parent / "gold.csv"}
    assert task.sampling == SamplingParams(max_new_tokens=8, temperature=0.5)
    assert training_defaults(task, "full", 0).epochs == 2
    assert task.settings == {"scorer": {"name": "contains", "extract": "whole", "ignore_case": False, "alternatives": ""}}
    assert (row.gold, row.metadata) == ("printer", {"text": "paper jam"})
    assert [message["content"] for message in prompt_messages(task, row)] == [
        "Sort the ticket.",
        "Ticket: no ink",
        "printer",
        "Ticket: paper jam",
    ]
    assert score_reply(task, row, Reply("the printer")).errors == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a task: key 'scorer' is missing"),
        ('scorer = { name = "exact" }\nnosuch = 1', "not a task: unknown key 'nosuch'"),
        ('scorer = { name = "exact" }\nsamples = "two"', "not a task: samples is 'two', must be a whole number"),
        ("scorer = [", "cannot be read as a task"),
    ],
)
def test_a_malformed_file_is_refused_with_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "task.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=message):
        load_task_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scorer = { ignore_case = true }", r'\[scorer\] has no name; write for example name = "exact"'),
        ('scorer = { name = "exakt" }', "unknown scorer 'exakt'; did you mean 'exact'"),
        ('scorer = { name = "exact", nosuch = 1 }', "scorer 'exact': unknown argument 'nosuch'"),
        ('scorer = { name = "exact" }\ncolumns = { nosuch = "a" }', "unknown name of a column 'nosuch'"),
        ('scorer = { name = "exact" }\nfew_shot = { k = 0 }', "k is 0, must be at least 1"),
        ('name = "Große Aufgabe"\nscorer = { name = "exact" }', "task name 'Große Aufgabe' must be lower-case letters"),
    ],
)
def test_a_wrong_value_is_refused_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "task.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(UsageError, match=message):
        load_task_file(path)


def test_a_prompt_template_fills_columns_and_keeps_written_braces() -> None:
    assert render_prompt("{{json}} of {a b} and {n}", {"a b": "{x}", "n": [1, "二"]}) == '{json} of {x} and [1, "二"]'


@pytest.mark.parametrize(("template", "message"), [("{c}", 'there is no column "c"'), ("{", "single '{'"), ("}", "single '}'")])
def test_a_prompt_template_names_what_it_lacks(template: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        render_prompt(template, {"a": "x"})


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"text": "a", "label": "b"}, {"prompt": "text", "gold": "label"}),
        ({"Question": "a", "Answer": "b"}, {"prompt": "Question", "gold": "Answer"}),
        ({"input": "a", "output": "b", "id": "1"}, {"prompt": "input", "gold": "output"}),
        ({"text": "a"}, {}),
        ({"label": "b", "id": "1"}, {}),
    ],
)
def test_columns_are_guessed_only_when_both_are_found(row: dict[str, str], columns: dict[str, str]) -> None:
    assert guess_columns(row) == columns


def test_prompt_and_gold_make_a_row_and_numbers_are_text() -> None:
    row = to_example({"question": "2 + 2", "sum": 4}, options=RowOptions(columns={"prompt": "question", "gold": "sum"}))

    assert row == Example(({"role": "user", "content": "2 + 2"},), "4")


def test_the_options_of_the_user_precede_those_of_the_task() -> None:
    task = make_task("quiz", exact(), row_options={"columns": {"prompt": "a", "gold": "b"}, "prompt": "{a}"})

    merged = options_for_task(task, RowOptions(columns={"gold": "c"}))

    assert merged == RowOptions(columns={"prompt": "a", "gold": "c"}, prompt="{a}")


def test_rows_with_turns_are_read_as_they_are() -> None:
    task = make_task("quiz", exact(), row_options={"columns": {"gold": "b"}, "prompt": "{a}", "keep_turns": True})
    options = options_for_task(task, RowOptions())

    rows = [
        to_example(row, options=options) for row in ({"a": "x", "b": "y"}, {"messages": [{"role": "user", "content": "x"}], "gold": "y"})
    ]

    assert [(row.messages, row.gold) for row in rows] == [(({"role": "user", "content": "x"},), "y")] * 2


def test_overrides_change_only_what_is_given() -> None:
    task = make_task("quiz", exact(), system="old")

    assert TaskOverrides().apply(task) == task
    changed = TaskOverrides(system="", samples=3, thinking="keep", sampling={"temperature": 0.5}, scorer=contains()).apply(task)
    assert (changed.system, changed.samples, changed.thinking, changed.sampling.temperature) == ("", 3, "keep", 0.5)
    assert changed.settings["scorer"]["name"] == "contains"


def test_few_shot_examples_come_from_the_file_the_task_or_the_evalset(tmp_path: Path) -> None:
    shots = tmp_path / "shots.csv"
    shots.write_text("prompt,gold\na,b\nc,d\n", encoding="utf-8")
    own = make_task("quiz", exact(), few_shot=FewShot(2).with_pool(()))

    from_file = TaskOverrides(few_shot_file=shots).apply(own).few_shot
    assert isinstance(from_file, FewShot)
    assert (from_file.k, from_file.choose, [shot.gold for shot in from_file.pool or ()]) == (2, "first", ["b", "d"])
    assert TaskOverrides(few_shot=5).apply(own).few_shot == FewShot(5).with_pool(())
    assert TaskOverrides(few_shot=5).apply(make_task("quiz", exact())).few_shot == FewShot(5, "nearest")


def test_a_sampling_parameter_out_of_its_range_is_refused() -> None:
    with pytest.raises(UsageError, match="temperature is 3"):
        TaskOverrides(sampling={"temperature": 3}).apply(make_task("quiz", exact()))
