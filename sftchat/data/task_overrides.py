"""Changes to a task for one evaluation: its prompt, few-shot examples, sampling, samples, thoughts and scorer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sftchat.data.few_shot import Choice, FewShot
from sftchat.data.formats import read_solved_examples
from sftchat.data.row_options import RowOptions, options_for_task
from sftchat.errors import UsageError
from sftchat.scorers import for_raw_prompts, make_scorer
from sftchat.scorers.base import Scorer, task_fields
from sftchat.task import Task, Thinking, no_turns


@dataclass(frozen=True)
class TaskOverrides:
    """What to change in a task; None and empty values change nothing.

    Attributes:
        system: System prompt of the rows that have none; empty removes the task's own.
        prompt: Template of the prompt over the columns of a row.
        columns: The column to read under a name, see ``RowOptions``.
        few_shot: Number of few-shot examples; 0 removes the task's own. They come from ``few_shot_file``, or else from the task's own pool, or
            else from the other items of the evalset.
        few_shot_file: File with few-shot examples.
        choose: How they are chosen: by default the nearest from an evalset, and the first from any other pool.
        samples: Number of replies to each item.
        thinking: What the scorer gets of a reply with thoughts.
        raw_prompt: Whether prompts are sent without a chat template.
        sampling: Sampling parameters by their names in ``SamplingParams``.
        scorer: Scorer instead of the task's.
    """

    system: str | None = None
    prompt: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    few_shot: int | None = None
    few_shot_file: Path | None = None
    choose: Choice | None = None
    samples: int | None = None
    thinking: Thinking | None = None
    raw_prompt: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    scorer: Scorer | None = None

    def apply(self, task: Task) -> Task:
        """Return the changed task.

        Raises:
            UsageError: When a value is out of its range.
            DataError: When the file of few-shot examples cannot be read.
        """
        changes: dict[str, Any] = {}
        row_options = options_for_task(task, RowOptions(columns=self.columns, prompt=self.prompt))
        if self.columns or self.prompt:
            changes["row_options"] = row_options.non_default
        if self.system is not None:
            changes["system"] = self.system
        if self.few_shot is not None or self.few_shot_file is not None:
            changes["few_shot"] = self._few_shot(task, row_options)
        if self.samples is not None:
            changes["samples"] = self.samples
        if self.thinking is not None:
            changes["thinking"] = self.thinking
        scorer = self._scorer(task)
        if self.raw_prompt or (scorer is not None and scorer.raw_prompt):
            changes["raw_prompt"] = True
        if scorer is not None:
            changes |= task_fields(scorer)
            changes["settings"] = {**task.settings, "scorer": {"name": scorer.name, **scorer.settings}}
        try:
            sampling = replace(task.sampling, **self.sampling)
        except ValueError as error:
            raise UsageError(str(error)) from None
        return replace(task, **changes, sampling=sampling)

    def _scorer(self, task: Task) -> Scorer | None:
        """Return the new scorer; without a chat template also the task's own, if its texts then differ."""
        scorer = self.scorer
        if not self.raw_prompt:
            return scorer
        if scorer is None and task.continuations is not None and "scorer" in task.settings:
            arguments = dict(task.settings["scorer"])
            scorer = make_scorer(arguments.pop("name"), arguments)
        return None if scorer is None else for_raw_prompts(scorer)

    def _few_shot(self, task: Task, row_options: RowOptions) -> Any:
        if self.few_shot == 0:
            return no_turns
        own = task.few_shot if isinstance(task.few_shot, FewShot) else None
        count = self.few_shot or (own.k if own is not None else 0)
        if self.few_shot_file is not None:
            pool = read_solved_examples(self.few_shot_file, row_options)
            return FewShot(count or len(pool), self.choose or "first").with_pool(pool)
        if own is not None and own.pool is not None:
            return replace(own, k=count, choose=self.choose or own.choose)
        return FewShot(count, self.choose or "nearest")
