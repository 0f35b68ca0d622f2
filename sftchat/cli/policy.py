"""``sftchat eval --policy``: the tasks of a policy file, and what the options of the command line replace in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftchat.errors import UsageError

if TYPE_CHECKING:
    from sftchat.data.task_overrides import TaskOverrides
    from sftchat.evaluation.gate_options import GateOptions
    from sftchat.evaluation.policy import Policy, PolicyTask
    from sftchat.plugins.manager import Registry
    from sftchat.task import Task


@dataclass(frozen=True)
class ChosenPolicy:
    """A policy with the tasks that are evaluated.

    Attributes:
        policy: The policy file.
        entries: Its entry of each task, by the name of the task.
        tasks: The tasks, with the changes of the policy and of the command line.
        uses_replies: Whether its files of stored replies are scored: no MODEL and no ``--replies`` is typed.
    """

    policy: Policy
    entries: dict[str, PolicyTask]
    tasks: tuple[Task, ...]
    uses_replies: bool

    def evalsets_of(self, task: Task, typed: tuple[Path, ...]) -> tuple[Path, ...]:
        """Return the typed evalsets of a task, or else those of the policy."""
        return typed or self.policy.evalsets_of(self.entries[task.name], task)

    def baseline_of(self, task: Task, typed: str | None) -> str | None:
        """Return the typed baseline of a task, or else that of the policy."""
        return typed if typed is not None else self.policy.baseline_of(self.entries[task.name])

    def replies_of(self, task: Task, typed: str | None) -> str | None:
        """Return the typed file of replies of a task, or else that of the policy."""
        return typed if typed is not None or not self.uses_replies else self.policy.replies_of(self.entries[task.name])

    def gate_options_of(self, task: Task, typed: GateOptions, baseline: str | None) -> GateOptions:
        """Return the rules of a task, see ``Policy.gate_options_of``."""
        return self.policy.gate_options_of(self.entries[task.name], typed, baseline)


def choose_policy(
    policy: Policy, registry: Registry, names: Sequence[str], overrides: TaskOverrides, *, uses_replies: bool
) -> ChosenPolicy:
    """Return the policy with its tasks; with ``--task``, those named only.

    Args:
        policy: The policy file.
        registry: Installed tasks.
        names: Words of ``--task``: names of the policy's tasks, or its words.
        overrides: Changes of the command line, applied after those of the policy.
        uses_replies: See ``ChosenPolicy``.

    Raises:
        UsageError: When a task is unknown, stands twice, or is not in the policy.
        DataError: When a task file cannot be read.
    """
    entries: dict[str, PolicyTask] = {}
    tasks: list[Task] = []
    left = list(names)
    for entry in policy.content.tasks:
        task = registry.task(policy.task_word(entry))
        if task.name in entries:
            raise UsageError(f"{policy.path}: task '{task.name}' stands twice in tasks; give its evalsets in one entry")
        entries[task.name] = entry
        named = [name for name in left if name in (task.name, entry.task, policy.task_word(entry))]
        left = [name for name in left if name not in named]
        if named or not names:
            tasks.append(overrides.apply(policy.overrides_of(entry).apply(task)))
    if left:
        raise UsageError(f"--task {left[0]} is not in {policy.path} (tasks: {', '.join(entries)})")
    return ChosenPolicy(policy, entries, tuple(tasks), uses_replies)
