"""The options that control how rows are read, in every command that reads rows, and training on rows without a task."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from sftchat.cli import main
from sftchat.cli.data import command as data
from sftchat.cli.session import Session
from sftchat.cli.train import command as train
from sftchat.data.row_options import recorded_options
from sftchat.errors import SftchatWarning
from sftchat.evaluation.checks import _read_training_rows
from sftchat.models.manifest import Manifest, read_manifest
from sftchat.plugins.manager import Registry, load_plugins
from sftchat.training.validation import validation_from_file
from tests.cli.test_train import TASK

OPTIONS = ["--map", "--label-column", "--label-instruction", "--role-map", "--merge-turns", "--leading-assistant"]
READING = [
    train,
    *(data.get_command(click.Context(data), name) for name in ("show", "check", "convert", "filter", "split", "best-of", "distill")),
]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", READING, ids=lambda command: command.name)
def test_every_command_that_reads_rows_has_the_same_options(command: click.Command) -> None:
    flags = [flag for parameter in command.params for flag in parameter.opts]

    assert [flag for flag in flags if flag in OPTIONS] == OPTIONS


def trained(checkpoint: Path, *words: str) -> tuple[int, Manifest | None]:
    """Run a training of one step; returns exit code and manifest."""
    session = Session(given_registry=Registry(load_plugins([]).manager, {"general": replace(TASK, name="general")}))
    code = main(["train", "--model", str(checkpoint), "-o", "run", "--max-steps", "1", *words], obj=session)
    return code, read_manifest(Path("run")) if code == 0 else None


def write(name: str, *rows: Any) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_rows_are_trained_without_a_task_and_read_the_same_way_for_validation_and_leaks(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("f.csv").write_text("question,answer,page\nWho?,The cat.,1\nWhere?,At home.,2\n", encoding="utf-8")
    Path("gold.csv").write_text("question,answer\nWhen?,At noon.\n", encoding="utf-8")
    names = ("--map", "prompt=question", "--map", "completion=answer")

    code, manifest = trained(tiny_checkpoint, "--data", "f.csv", *names)

    assert code == 0
    assert manifest is not None
    assert (manifest.task, manifest.rows) == ("general", 2)
    (source,) = manifest.data
    assert source["rows_read"] == {"columns": {"prompt": "question", "completion": "answer"}}
    assert [example.gold for example in _read_training_rows([source], {}, [])] == ["The cat.", "At home."]
    read = recorded_options(source)
    assert [example.gold for example in validation_from_file("gold.csv", 1, read).examples] == ["At noon."]
    assert capsys.readouterr().err.startswith('note: columns kept as metadata and not used: "page" (2)\n')


def test_training_reports_what_reading_changed(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user, assistant = ({"role": role, "content": role} for role in ("user", "assistant"))
    write("f.jsonl", {"messages": json.dumps([user, assistant])}, {"messages": [assistant, user, user, assistant, user]})

    code, _ = trained(tiny_checkpoint, "--data", "f.jsonl", "--merge-turns", "--leading-assistant", "drop")

    assert code == 0
    assert capsys.readouterr().err.splitlines()[:4] == [
        "note: 1 row: messages is JSON text and is read as JSON",
        "note: 1 row: assistant turns before the first user turn are left out (--leading-assistant drop)",
        "note: 1 row: consecutive turns of one role are joined (--merge-turns)",
        "note: 1 row: the last turn has no reply; the row is learned up to the reply before it",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give a TASK that generates rows (general), or rows with --data FILE"),
        (
            ("general", "--merge-turns"),
            "--map, --label-column, --role-map, --merge-turns and --leading-assistant say how rows are read; give rows with --data",
        ),
        (
            ("--data", "f", "--label-instruction", "Sort."),
            "--label-instruction is put before the text of labelled rows; give --label-column as well",
        ),
    ],
)
def test_options_without_rows_to_train_on_are_wrong_usage(
    tiny_checkpoint: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(tiny_checkpoint, *words) == (2, None)
    assert capsys.readouterr().err == f"sftchat: error: {message}\n"


def test_a_max_length_beyond_the_context_is_reported_and_no_advice_exceeds_the_context(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("f.jsonl", {"prompt": "a" * 400, "completion": "b" * 400})
    beyond = "--max-length 9999 is more than the 256 tokens of the model's context; rows of up to 256 tokens are used"

    with pytest.warns(SftchatWarning, match=beyond):
        assert main(["data", "check", "f.jsonl", "--model", str(tiny_checkpoint), "--max-length", "9999"]) == 1
    assert " over --max-length 256; " in capsys.readouterr().out
    with pytest.warns(SftchatWarning, match=beyond):
        assert trained(tiny_checkpoint, "--data", "f.jsonl", "--max-length", "9999") == (2, None)
    assert capsys.readouterr().err.endswith(
        "f.jsonl:1: all 1 rows are longer than 256 tokens; shorten them, for the model's context holds 256\n"
    )


def test_a_row_that_the_template_cannot_render_is_reported_once(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool = {"name": "look", "parameters": {}}
    write("f.jsonl", {"prompt": "a", "completion": "b", "tools": [tool]})

    assert main(["data", "check", "f.jsonl", "--model", str(tiny_checkpoint), "--template", "chatml", "-q"]) == 1

    assert capsys.readouterr().out.startswith("f.jsonl:1: chat template 'chatml' leaves out tool 'look'")
