"""Evaluation in several processes: each generates its shard and fills the reply cache; the first process then evaluates from the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from sftchat.errors import UsageError
from sftchat.evaluation.evaluate import run
from sftchat.evaluation.pipeline import OpenLate, Watch
from sftchat.evaluation.plan import Plan
from sftchat.task import Task

if TYPE_CHECKING:
    from sftchat.inference.distributed import ProcessInfo


def answer_shard(plans: Sequence[Plan], opener: Callable[[Task], OpenLate], watch: Watch, place: ProcessInfo) -> None:
    """Generate this process's shard of the replies that are not cached, for every model.

    Args:
        plans: All plans of the evaluation, the same in every process.
        opener: For a task, returns a function that opens a model by the name the user typed, as an engine with cached replies.
        watch: Shows progress.
        place: Rank and number of processes.

    Raises:
        UsageError: When a model's replies cannot be cached, and so not be shared.
        ModelError: When a model cannot be loaded.
        EngineError: When a model cannot generate any more.
        PluginError: When the task's scorer breaks its contract.
    """
    for plan in plans:
        for source in (plan.baseline, *plan.sources):
            if source is None or source.stored is not None:
                continue
            with closing(opener(plan.task)(source.name)) as engine:
                if not engine.remembers:
                    raise UsageError(
                        f"the replies of '{source.name}' are not remembered, so {place.count} processes cannot share the work; start one process"
                    )
                for evalset in plan.evalsets:
                    share = evalset.examples[place.rank :: place.count]
                    before = engine.found

                    def remembered(before: int = before) -> int:
                        return engine.found - before

                    with watch(
                        f"{source.name} on {evalset.name}, part {place.rank + 1} of {place.count}", len(share), remembered
                    ) as advance:
                        for _ in run(engine, plan.task, share, advance, sampling=plan.sampling):
                            pass
