"""docs/tickets.md: its files are those of examples/tickets, and its commands have the exit codes and the output shown."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import Request
from tests.cli.conftest import Desk
from tests.distributions import ROOT
from tests.pages import Command, blocks, commands, environment, follow

PAGE = (ROOT / "docs" / "tickets.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "tickets"
SHOWN = [command for block in blocks(PAGE) if not block.language for command in commands(block) if command.runs_here]
RIGHT = (1, 2, 4, 9, 10, 13)
"""Numbers of the tickets that the scripted model sorts right."""
GIVEN = dict(os.environ)
"""The environment before the fixtures isolate the tests from the user's caches."""


@pytest.fixture
def tickets(desk: Desk) -> Desk:
    """The desk with the page's files; ``s:clerk`` sorts as many tickets right as the model of the page."""
    for path in EXAMPLE.iterdir():
        (desk.folder / path.name).write_bytes(path.read_bytes())
    rows = list(csv.DictReader((EXAMPLE / "tickets.csv").read_text(encoding="utf-8").splitlines()))

    def clerk(numbers: tuple[int, ...]) -> Callable[[Request], str]:
        labels = {rows[number - 1]["text"]: rows[number - 1]["label"] for number in numbers}
        return lambda request: f"The team is {labels.get(request.messages[-1]['content'], 'unclear')}."

    desk.engines |= {"s:clerk": clerk(RIGHT), "s:tired": clerk(RIGHT[1:2]), "s:none": clerk(())}
    return desk


def run(desk: Desk, command: Command, **models: str) -> tuple[int, str, str]:
    """Run a command of the page with scripted models; returns exit code, standard output and standard error."""
    line = command.line.replace("sftchat:smollm2", models.get("smollm2", "s:clerk")).replace("sftchat:nano", "s:none")
    code = main(shlex.split(line)[1:], obj=Session(desk.open, desk.registry))
    return code, *desk.capsys.readouterr()


def test_the_files_of_the_page_are_those_of_the_example() -> None:
    assert {block.title: block.text for block in blocks(PAGE) if block.title} == {
        path.name: path.read_text(encoding="utf-8") for path in EXAMPLE.iterdir()
    }


def test_three_commands_give_a_number_with_an_interval_a_confusion_table_and_a_gate_in_ci(tickets: Desk) -> None:
    measured, stored, written, passed, failed, _ = [run(tickets, command) for command in SHOWN]
    (job,) = yaml.safe_load(Path(".github/workflows/gate.yml").read_text(encoding="utf-8"))["jobs"].values()

    assert [done[0] for done in (measured, stored, written, passed, failed)] == [0, 0, 0, 0, 1]
    assert "accuracy    0.400   [0.198, 0.643]" in measured[1]
    assert "gold ↓ answer →" in measured[1]
    assert stored[2].endswith("baseline baseline.jsonl: written, 15 items of s:clerk\n")
    gate = next(step["run"] for step in job["steps"] if step.get("name") == "Gate")
    assert shlex.split(gate.replace("\\\n", " "))[:-6] == shlex.split(SHOWN[3].line.replace("sftchat:smollm2", "s:clerk"))[:-1]
    for done, block in zip((passed, failed), [block.text for block in blocks(PAGE) if "verdict: " in block.text], strict=True):
        shown = block.replace("sftchat:smollm2", "s:clerk").replace("sftchat:nano", "s:none").splitlines()
        assert done[2].splitlines()[-2:] == shown[-2:]


def test_five_lost_tickets_are_inconclusive_as_the_page_says(tickets: Desk) -> None:
    run(tickets, SHOWN[1])

    code, out, err = run(tickets, SHOWN[3], smollm2="s:tired")

    assert (code, "5 newly broken" in out, "verdict: inconclusive" in err) == (0, True, True)


def test_the_task_file_asks_what_the_options_ask(tickets: Desk) -> None:
    def asked() -> list[Any]:
        return [(request.messages, request.sampling) for engine in tickets.closed for request in engine.requests]  # type: ignore[attr-defined]

    run(tickets, SHOWN[0])
    by_options = asked()
    tickets.closed.clear()

    code, out, _ = run(tickets, SHOWN[-1])

    assert (code, "accuracy    0.400   [0.198, 0.643]" in out) == (0, True)
    assert asked() == by_options


@pytest.mark.slow
def test_the_commands_have_the_output_shown_with_the_real_model(tmp_path: Path) -> None:
    given = Path(GIVEN.get("SFTCHAT_CACHE_DIR", tmp_path)) / "models"
    if not (given / "smollm2").is_dir():
        pytest.skip("set SFTCHAT_CACHE_DIR to a cache folder with SmolLM2")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "models").symlink_to(given)
    (tmp_path / "work").mkdir()

    follow(
        PAGE,
        tmp_path / "work",
        {**environment(tmp_path / "venv"), "SFTCHAT_CACHE_DIR": str(tmp_path / "cache"), "COLUMNS": "100", "NO_COLOR": "1"},
    )
