"""``--config FILE``: equal to the flags, flags take precedence, and misspelt keys are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sftchat import DataError, UsageError
from sftchat.cli import program
from sftchat.cli.config_file import apply_config, read_config
from sftchat.cli.train import command

TOML = """
task = "relation"
model = "org/name"
data = ["a.jsonl", "b.jsonl"]
output = "run"
learning-rate = 8e-5
epochs = 1
gradient_checkpointing = true
report_to = "tensorboard"
"""
YAML = """
task: relation
model: org/name
data: [a.jsonl, b.jsonl]
output: run
learning_rate: 8e-5
epochs: 1
gradient-checkpointing: true
report-to: tensorboard
"""
FLAGS = "relation --model org/name --data a.jsonl --data b.jsonl -o run --learning-rate 8e-5 --epochs 1 --gradient-checkpointing --report-to tensorboard"


def parsed(*words: str) -> dict[str, Any]:
    """Return the arguments of the command."""
    root = click.Context(program, info_name="sftchat", **program.context_settings)
    with command.make_context("train", list(words), parent=root) as context:
        return dict(context.params)


@pytest.mark.parametrize(("name", "text"), [("run.toml", TOML), ("run.yaml", YAML), ("run.yml", YAML)])
def test_a_config_file_is_equal_to_its_flags_and_flags_win(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")

    assert parsed("--config", str(path)) == parsed(*FLAGS.split())
    assert parsed("--config", str(path), "--epochs", "3", "-o", "other") == {
        **parsed(*FLAGS.split()), "epochs": 3.0, "output": Path("other"),
    }  # fmt: skip


def test_options_of_the_generator_may_be_a_table(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('task = "relation"\noutput = "run"\n[option]\nnames = "test"\nclosed = true\n', encoding="utf-8")

    assert parsed("--config", str(path))["options"] == ("names=test", "closed=true")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rat = 1", "unknown key 'learning_rat'; did you mean 'learning-rate'? (available: accumulation, "),
        ("config = 'x.toml'", "unknown key 'config'"),
        ("epochs = [1, 2]", "key 'epochs' must have one value, not a list"),
        ("epochs = ", "is not TOML: "),
    ],
)
def test_errors_in_a_config_file_are_reported(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises((UsageError, DataError)) as error:
        parsed("--config", str(path))

    assert str(error.value).startswith(f"{path}: {words}")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run.json", b"{}", "config 'FILE' must end in .toml, .yaml or .yml"),
        ("run.yaml", b"- a\n- b\n", "FILE: is no table of keys and values"),
        ("run.yaml", b"a: [", "FILE: is not YAML: "),
        ("run.toml", b"\xff\xfe", "FILE: cannot be read: not UTF-8"),
    ],
)
def test_a_file_that_is_not_a_config_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises((UsageError, DataError)) as error:
        read_config(path)

    assert str(error.value).startswith(words.replace("FILE", str(path)))


@pytest.mark.parametrize("word", ["on", "off", "auto"])
@pytest.mark.parametrize("flag", ["on", "yes", "true", "True"])
def test_words_in_yaml_need_no_quotes(tmp_path: Path, word: str, flag: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"output: run\ndata: f\npacking: {word}\ngradient-checkpointing: {flag}\nforce: no\n", encoding="utf-8")

    found = parsed("--config", str(path))

    assert (found["packing"], found["gradient_checkpointing"], found["force"]) == (word, True, False)


def test_a_name_that_looks_like_a_number_or_a_date_in_yaml_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("task: 7\noutput: 2026-01-02\nmodel: true\nresume:\n", encoding="utf-8")

    taken = parsed("--config", str(path))

    assert (taken["task_name"], taken["output"], taken["model"], taken["resume"]) == ("7", Path("2026-01-02"), "true", None)


def test_a_value_of_another_type_is_refused_like_that_of_a_flag(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('task = "relation"\noutput = "run"\nepochs = "many"\n', encoding="utf-8")

    result = CliRunner().invoke(program, ["train", "--config", str(path)])

    assert result.exit_code == 2
    assert "Invalid value for '--epochs': 'many' is not a valid float" in result.output


def test_train_accepts_the_config_on_the_page(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    path = tmp_path / "run.toml"
    path.write_text(page.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")

    taken = parsed("--config", str(path))

    assert (taken["task_name"], taken["method"], taken["learning_rate"], taken["eval_steps"], taken["report_to"]) == (
        "relation", "lora", 2e-4, 200, ("tensorboard",),
    )  # fmt: skip


def test_without_a_config_nothing_changes() -> None:
    context = click.Context(command)

    assert apply_config(context, command.params[0], None) is None
    assert context.default_map is None
