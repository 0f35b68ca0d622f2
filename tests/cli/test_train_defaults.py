"""The defaults in ``train --help`` are those of a run."""

from __future__ import annotations

import re

from sftchat.cli.train import command
from sftchat.plugins.manager import load_plugins
from sftchat.training.config import TrainingConfig, configure

FROM_THE_TASK = ("epochs", "batch_size", "max_length", "lora_rank")


def test_each_default_that_a_task_may_set_is_given_as_the_tasks() -> None:
    shown = {option.name: getattr(option, "help", None) or "" for option in command.params}

    found = {name: re.search(r"\[default: the task's, else (\d+)\]", shown[name]) for name in FROM_THE_TASK}

    assert {name: float(match[1]) for name, match in found.items() if match} == {
        name: float(getattr(TrainingConfig(), name)) for name in FROM_THE_TASK
    }
    assert {name: configure(task, 10**8, {"method": "lora"}).lora_rank for name, task in load_plugins().tasks.items()} == {
        "general": 32,
        "relation": 32,
    }
