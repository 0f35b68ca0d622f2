"""The plugin: registers the task ``relation``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sftchat import SamplingParams, Task, TrainingDefaults, hookimpl
from sftchat_relation.checks import problems
from sftchat_relation.generate import generate
from sftchat_relation.metrics import METRICS
from sftchat_relation.scorer import score

TINY = 50_000_000
"""Models with fewer parameters than this are trained from next to nothing and bear, and need, far larger steps."""

_PACKAGE = Path(__file__).parent


@hookimpl
def sftchat_register_tasks() -> Iterable[Task]:
    """Register the task."""
    return [
        Task(
            name="relation",
            description="relations between the characters of Chinese novels, one 甲-乙:关系 a line",
            generate=generate,
            score=score,
            metrics=METRICS,
            template="chatml",
            sampling=SamplingParams(max_new_tokens=128),
            training_defaults=training_defaults,
            problems=problems,
            evalsets={"relation": _evalset("relation.jsonl")},
            row_format="alpaca",
        )
    ]


def training_defaults(method: str, parameters: int) -> TrainingDefaults:
    """What training this task wants.

    Args:
        method: ``full`` trains every weight; anything else is an adapter, which takes about ten times the learning rate.
        parameters: Number of parameters of the base model.
    """
    tiny, larger = (2e-3, 2e-5) if method == "full" else (5e-3, 2e-4)
    learning_rate = tiny if parameters < TINY else larger
    return TrainingDefaults(learning_rate=learning_rate, max_length=512, rows=6000)


def _evalset(name: str) -> Path:
    """A gold set: inside the package where it was installed from a wheel, in the repository's ``evalsets/`` in a checkout."""
    packaged = _PACKAGE / "evalsets" / name
    return packaged if packaged.is_file() else _PACKAGE.parent.parent / "evalsets" / name
