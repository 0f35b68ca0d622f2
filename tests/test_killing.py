"""Killed commands, run again, end with the results of an undisturbed run and leave nothing behind."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.killing import Command, Killing, best_of, chat, chat_that_loads, distill, evaluation, served, training

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")]


@pytest.mark.parametrize(
    ("command", "kills"),
    [(evaluation, 3), (training, 2), (best_of, 1), (distill, 1), (chat, 2), (chat_that_loads, 1)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_killed_command_finishes_with_the_results_of_an_undisturbed_one(
    command: Callable[[], Command], kills: int, tmp_path: Path
) -> None:
    tally = Killing(tmp_path, random.Random()).table(command(), kills, each=kills)

    assert tally.fine, tally


def test_a_killed_evaluation_of_a_server_repeats_only_running_requests(tmp_path: Path) -> None:
    kills, items = 2, 40
    with served(items) as (command, answered):
        tally = Killing(tmp_path, random.Random()).table(command, kills, each=kills)

    assert tally.fine, tally
    assert (
        len(answered) <= items + items * tally.results + kills
    )  # the undisturbed run, the finished ones, and one running request at each kill
