"""``sftchat new-task``: the written task file is evaluated unchanged, and each of its alternatives is valid."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat.cli import main
from sftchat.data.task_file import TaskFile, load_task_file
from sftchat.evaluation.evalset import read_evalset
from sftchat.scaffold.new_task import toml_value

ALTERNATIVE = re.compile(r"^# ([a-z_]+) = .*$", re.MULTILINE)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def alternatives(text: str) -> list[tuple[str, str]]:
    """Each commented key of a task file, with the text in which it stands for the key's own line."""
    found = []
    for match in ALTERNATIVE.finditer(text):
        key, line = match[1], match[0].removeprefix("# ")
        rest = text[: match.start()] + text[match.end() :]
        found.append((line, f"{re.sub(rf'^{key} = .*$', '', rest, flags=re.MULTILINE)}\n{line}\n"))
    return found


def test_the_written_task_is_evaluated_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-task", "tickets"]) == 0
    lines = capsys.readouterr().err.splitlines()

    code = main(["eval", "sftchat:nano", "--task", "tickets.toml", "--quiet", "--json"])

    report = json.loads(capsys.readouterr().out)
    assert lines == [
        "wrote tickets.toml and tickets.csv",
        "next: sftchat eval sftchat:nano --task tickets.toml   (or another MODEL)",
        "then: sftchat eval MODEL --task tickets.toml --update-baseline tickets-baseline.jsonl",
        "gate: sftchat eval NEW-MODEL --task tickets.toml --baseline tickets-baseline.jsonl",
    ]
    assert (code, report["task"], report["results"][0]["n"], report["sampling"]["max_new_tokens"]) == (0, "tickets", 9, 32)
    assert sorted(report["results"][0]["confusion"]["labels"]) == ["account", "billing", "hardware"]


def test_every_key_of_a_task_file_is_explained() -> None:
    main(["new-task", "tickets", "-q"])
    text = Path("tickets.toml").read_text(encoding="utf-8")
    keys = {*tomllib.loads(text), *(match[1] for match in ALTERNATIVE.finditer(text))}

    assert keys == {field.name for field in fields(TaskFile)}


@pytest.mark.parametrize("columns", ["text,label", "question,answer", "case id,Frage"])
def test_every_alternative_is_a_valid_task(columns: str) -> None:
    Path("gold.csv").write_text(f"{columns}\na,yes\nb,no\nc,yes\n", encoding="utf-8")
    mapped = [] if "Frage" not in columns else ["--map", "prompt=case id", "--map", "gold=Frage"]
    assert main(["new-task", "tickets", "--evalset", "gold.csv", "-q", *mapped]) == 0
    text = Path("tickets.toml").read_text(encoding="utf-8")
    found = alternatives(text)

    names = []
    for line, changed in found:
        assert tomllib.loads(changed) != tomllib.loads(text), line
        Path("changed.toml").write_text(changed, encoding="utf-8")
        names.append(load_task_file("changed.toml").name)

    assert names == ["tickets"] * len(found)
    assert len(found) > 15


@pytest.mark.parametrize(
    ("name", "rows", "keys"),
    [
        ("gold.csv", "text,label\nx,yes\ny,no\nz,no\n", {"prompt": "{text}", "scorer": {"name": "choice", "labels": ["no", "yes"]}}),
        ("gold.csv", "question,answer\nx,1\ny,2\nz,3\n", {"prompt": "{question}", "scorer": {"name": "exact"}}),
        (
            "gold.jsonl",
            '{"messages": [{"role": "user", "content": "x"}], "gold": "a \\"b\\""}\n{"messages": [{"role": "user", "content": "y"}], "gold": "c"}\n'
            '{"messages": [{"role": "user", "content": "z"}], "gold": "c"}\n',
            {"scorer": {"name": "choice", "labels": ['a "b"', "c"]}},
        ),
    ],
)
def test_prompt_and_labels_are_those_of_the_evalset(name: str, rows: str, keys: dict[str, Any]) -> None:
    Path("sub").mkdir()
    Path("sub", name).write_text(rows, encoding="utf-8")

    assert main(["new-task", "mine", "--evalset", f"sub/{name}", "-q"]) == 0

    document = tomllib.loads(Path("mine.toml").read_text(encoding="utf-8"))
    task = load_task_file("mine.toml")
    assert {key: document.get(key) for key in ("prompt", "scorer") if key in document} == keys
    assert document["evalset"] == f"sub/{name}"
    assert len(read_evalset(next(iter(task.evalsets.values()))).examples) == 3
    assert sorted(path.name for path in Path().iterdir()) == ["mine.toml", "sub"]


def test_a_table_that_is_there_is_the_evalset() -> None:
    Path("mine.csv").write_text("text,label\nx,yes\ny,no\nz,no\n", encoding="utf-8")

    assert main(["new-task", "mine", "-q"]) == 0
    assert main(["new-task", "mine", "-q", "--overwrite"]) == 0

    assert Path("mine.csv").read_text(encoding="utf-8") == "text,label\nx,yes\ny,no\nz,no\n"
    assert load_task_file("mine.toml").settings["scorer"]["labels"] == ["no", "yes"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["Bad"], "task name 'Bad' must be lower-case letters, digits, '-' and '_', starting with a letter, such as tickets"),
        (["general"], "'general' is an installed task; choose another name"),
        (["mine", "-o", "mine"], "output 'mine' must end with .toml, so that --task reads it as a file; such as mine.toml"),
        (["there"], "output 'there.toml' exists; give --overwrite to replace it, or another name"),
        (["mine", "--evalset", "missing.csv"], "missing.csv: no such evalset"),
    ],
)
def test_a_task_that_cannot_be_written_is_one_line_and_leaves_nothing(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.toml").write_text("kept", encoding="utf-8")

    assert main(["new-task", *words]) == 2

    assert capsys.readouterr() == ("", f"sftchat: error: {line}\n")
    assert [path.name for path in Path().iterdir()] == ["there.toml"]


VALUES = st.recursive(
    st.text(st.characters(exclude_categories=("Cs",))),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), values, max_size=3),
)


@given(VALUES)
def test_a_value_is_read_back_from_its_toml(value: Any) -> None:
    assert tomllib.loads(f"key = {toml_value(value)}\n") == {"key": value}


@pytest.mark.slow
def test_the_written_task_is_trained_and_the_run_evaluated_as_the_last_line_says(capsys: pytest.CaptureFixture[str]) -> None:
    main(["new-task", "tickets", "-q"])
    Path("rows.csv").write_text("text,label\nThe bill is wrong.,billing\nThe mouse is dead.,hardware\n", encoding="utf-8")

    assert main(["train", "tickets.toml", "--data", "rows.csv", "-o", "run", "--max-steps", "1"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]

    assert last == "next: sftchat eval run --task tickets.toml --baseline sftchat:nano   sftchat chat run --task tickets.toml"
    assert main(["eval", "run", "--task", "tickets.toml", "--quiet"]) == 0
