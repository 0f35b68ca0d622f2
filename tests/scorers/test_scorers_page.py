"""docs/scorers.md: every scorer has a section with its arguments and rows that are scored as the page says."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sftchat.scorers
from sftchat import Example, Reply, Task
from sftchat.scorers import NAMES, make_scorer
from sftchat.scorers.base import EXTRACTIONS
from sftchat.scorers.consent import code_allowed
from sftchat.task import metric_value

PAGE = (Path(__file__).parents[2] / "docs" / "scorers.md").read_text(encoding="utf-8")
SECTIONS = {match[1]: match[2] for match in re.finditer(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)}


def table(text: str, header: str) -> list[list[str]]:
    """The rows of the table with a header, as cells."""
    match = re.search(rf"^\| {re.escape(header)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    assert match is not None, header
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in match[1].splitlines()]


def code(cell: str) -> str:
    """The text of a cell: what stands between backticks, with line breaks."""
    return cell.removeprefix("`").removesuffix("`").replace("⏎", "\n").replace("\\|", "|")


def metadata_of(name: str) -> dict[str, Any]:
    """The metadata of the rows of a section: its JSON, if there is any."""
    match = re.search(r"```json\n(.*?)```", SECTIONS[name], flags=re.DOTALL)
    found: dict[str, Any] = json.loads(match[1]).get("metadata", {}) if match else {}
    return found


def worked_rows() -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    for name, section in SECTIONS.items():
        for toml, rest in re.findall(r"```toml\n(.*?)```\n(.*?)(?=```toml|\Z)", section, flags=re.DOTALL):
            for row in table(rest, "gold"):
                yield name, tomllib.loads(toml)["scorer"], row


def test_every_scorer_has_a_section_with_a_right_and_a_wrong_reply() -> None:
    shown = {name: {not row[3] for shown_name, _, row in worked_rows() if shown_name == name} for name in NAMES}

    assert shown == {name: {True, False} for name in NAMES}


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_the_page_lists_the_arguments_with_their_defaults(name: str) -> None:
    parameters = inspect.signature(getattr(sftchat.scorers, name)).parameters
    listed = {code(argument): default for argument, default, _ in table(SECTIONS[name], "argument")}

    assert list(listed) == list(parameters)
    for argument, default in listed.items():
        value = parameters[argument].default
        if default == "required":
            assert value is inspect.Parameter.empty
        elif default == "none":
            assert value in (None, ())
        else:
            found = tomllib.loads(f"value = {code(default)}")["value"]
            assert (tuple(found) if isinstance(found, list) else found) == value


@pytest.mark.parametrize(
    ("name", "arguments", "row"), [*worked_rows()], ids=lambda value: None if isinstance(value, dict) else str(value)[:60]
)
def test_a_row_of_the_page_is_scored_as_shown(name: str, arguments: dict[str, Any], row: list[str]) -> None:
    with code_allowed():
        scorer = make_scorer(arguments["name"], {key: value for key, value in arguments.items() if key != "name"})
    gold, reply, value, errors = row
    example = Example(({"role": "user", "content": "?"},), code(gold), "i", metadata_of(name))
    task = Task("page", "", lambda n, seed: [], scorer.score, scorer.metrics)
    score = scorer.score(example, Reply(code(reply)))

    assert arguments["name"] == name
    assert list(scorer.validate_row(example)) == []
    assert f"{task.metric.name} {metric_value(task.metric, score.stats):.3g}" == value
    assert " ".join(f"`{error}`" for error in score.errors) == errors


def test_the_page_lists_the_ways_to_extract_an_answer() -> None:
    assert {code(name): meaning.replace("`", "") for name, meaning in table(PAGE, "`extract`")} == {
        name: meaning.replace("`", "") for name, meaning in EXTRACTIONS.items()
    }
