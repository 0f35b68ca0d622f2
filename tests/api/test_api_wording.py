"""Errors name what a Python user can type."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

import sftchat
from sftchat.api.options import EngineOptions, SamplingOptions
from sftchat.api.wording import FLAGS, MAPPINGS, RENAMED, SAME_NAME, in_python
from sftchat.training.config import TrainingConfig

SOURCE = Path(sftchat.__file__).parent
PACKAGES = ("api", "data", "evaluation", "inference", "models", "scorers", "templates", "training")
COMMAND_ONLY = {
    # of commands that have no function
    "--create", "--from", "--gguf", "--ids", "--json", "--local-dir", "--ollama", "--only", "--order", "--partial", "--person", "--plan",
    "--policy", "--rater", "--save", "--scale", "--test", "--traceback", "--dry-run",
    # of a file, which a Python program can read and change by itself
    "--label-column", "--label-instruction", "--leading-assistant", "--merge-turns", "--role-map",
    # with the default of the functions
    "--allow-missing-baseline", "--require-baseline",
    # of commands in quotes, and of other programs
    "--model", "--nproc-per-node",
    "--dest", "--disable-pip-version-check", "--no-deps", "--only-binary", "--quiet", "--target", "--verify",
}  # fmt: skip


def arguments() -> set[str]:
    """Names of all arguments of the public functions."""
    names = {name for call in (sftchat.load, sftchat.evaluate, sftchat.train, sftchat.chat) for name in inspect.signature(call).parameters}
    return (
        names | set(EngineOptions.__annotations__) | set(SamplingOptions.__annotations__) | {item.name for item in fields(TrainingConfig)}
    )


def test_every_option_becomes_an_argument_of_a_function() -> None:
    same = {
        option[2:].replace("-", "_").replace("template_argument", "template_arguments").replace("argumentss", "arguments")
        for option in SAME_NAME
    }

    assert same - arguments() == set()
    assert {*MAPPINGS.values(), *RENAMED.values(), *FLAGS} - arguments() == set()


def test_every_option_that_a_message_names_is_known() -> None:
    """A new option in a message needs an argument, or a place in the list of those that no function has."""
    named: set[str] = set()
    for package in PACKAGES:
        for path in (SOURCE / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                    named |= set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", re.sub(r"(?<!\w)'[^']*'", "", node.value)))

    assert named - SAME_NAME - MAPPINGS.keys() - RENAMED.keys() - COMMAND_ONLY == set()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("--strict needs --baseline FILE", "strict=True needs baseline=FILE"),
        ("give a --temperature above 0, or -k 1", "give a temperature above 0, or samples=1"),
        ("add --overwrite, or give another folder with -o", "add overwrite=True, or give another folder with output"),
        ("which --map gold=x names", 'which columns={"gold": "x"} names'),
        ("--min accuracy=0.5 and --replay general=0.2", 'floors={"accuracy": 0.5} and replay={"general": 0.2}'),
        ("add --device cpu or take --quantize nf4", "add device='cpu' or take quantize='nf4'"),
        ("--template-argument enable_thinking=false", 'template_arguments={"enable_thinking": False}'),
        ("raise --max-length to 3, not --max-length 2", "raise max_length to 3, not max_length=2"),
        ("the model's --template; the items' --limit", "the model's template; the items' limit"),
        ("'sftchat cache prune --all' empties it; '--seed' and x--seed", "'sftchat cache prune --all' empties it; '--seed' and x--seed"),
        ("--merge-turns joins them, at a range of 1-k", "--merge-turns joins them, at a range of 1-k"),
    ],
)
def test_a_message_names_arguments_and_leaves_text_in_quotes(message: str, expected: str) -> None:
    assert in_python(message) == expected
