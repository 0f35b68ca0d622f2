"""``sftchat.train``: rows in memory, and the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sftchat
from sftchat import DataError, UsageError

ROWS = [{"question": f"say {word}", "answer": word} for word in ("yes", "no", "maybe", "never")] * 4
COLUMNS = {"prompt": "question", "completion": "answer"}


def test_rows_in_memory_are_trained_on_and_the_run_is_a_model(tmp_path: Path) -> None:
    run = sftchat.train(data=ROWS, columns=COLUMNS, output=tmp_path / "run", max_steps=2)

    assert (run.manifest.steps, run.manifest.task, run.manifest.data[0]["file"]) == (2, "general", "rows in memory")
    with run.load() as model:
        assert model.reply("say yes", max_new_tokens=2).completion_tokens <= 2
    report = sftchat.evaluate(
        run, ROWS[:4], columns={"prompt": "question", "gold": "answer"}, scorer="exact", sampling={"max_new_tokens": 4}, ledger=False
    )
    assert report.results[0].model == str(tmp_path / "run")


def test_a_task_file_brings_system_prompt_files_and_settings(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" + "say yes,yes\nsay no,no\n" * 8, encoding="utf-8")
    file = tmp_path / "words.toml"
    file.write_text(
        'system = "Repeat."\nprompt = "Word: {text}"\ndata = ["rows.csv"]\nscorer = { name = "exact" }\ntraining = { batch_size = 4 }\n',
        encoding="utf-8",
    )

    run = sftchat.train(file, output=tmp_path / "run", max_steps=1)

    assert (run.manifest.task, run.manifest.config["batch_size"]) == ("words", 4)
    assert run.manifest.data[0]["rows_read"] == {"keep_turns": True, "prompt": "Word: {text}"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, UsageError, "give a task, or rows with data=…"),
        ({"data": ROWS, "columns": COLUMNS, "epohcs": 1}, UsageError, "unknown hyper-parameter 'epohcs'; did you mean 'epochs'"),
        ({"data": ROWS, "columns": COLUMNS, "rows": 3}, UsageError, "rows in memory are trained on alone"),
        ({"data": ROWS, "columns": {"nosuch": "a"}}, UsageError, "unknown name of a column 'nosuch'"),
        ({"data": [{"a": 1}]}, DataError, "row 1: unknown shape of row"),
    ],
)
def test_a_wrong_argument_is_refused_before_a_folder_is_made(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sftchat.train(output=tmp_path / "run", **arguments)

    assert not (tmp_path / "run").exists()
