"""The plugin: registers the task ``general``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sftchat import Example, Reply, SamplingParams, Score, Task, TrainingDefaults, hookimpl
from sftchat_general.generate import generate
from sftchat_general.metrics import METRICS

TINY_MODEL = 50_000_000
"""Models with fewer parameters than this need more rows."""

_PACKAGE = Path(__file__).parent


@hookimpl
def sftchat_register_tasks() -> Iterable[Task]:
    """Register the task."""
    return [
        Task(
            name="general",
            description="short instructions in Chinese and English whose answers a program can check",
            generate=generate,
            score=score,
            metrics=METRICS,
            template="chatml",
            sampling=SamplingParams(max_new_tokens=96),
            training_defaults=training_defaults,
            validate_row=validate_row,
            evalsets={"general": _evalset_path("general.jsonl"), "general-en": _evalset_path("general-en.jsonl")},
            row_format="messages",
        )
    ]


def score(example: Example, reply: Reply) -> Score:
    """Score a reply with ``sftchat_general.scorer.score``, which is imported here, so that listing plugins is fast."""
    from sftchat_general import scorer

    return scorer.score(example, reply)


def validate_row(example: Example) -> tuple[str, ...]:
    """Return the problems of a row with ``sftchat_general.checks.validate_row``, which is imported here, so that listing plugins is fast."""
    from sftchat_general import checks

    return checks.validate_row(example)


def training_defaults(method: str, parameters: int) -> TrainingDefaults:
    """Return the training defaults of the task.

    Args:
        method: ``full``, or a kind of adapter; not used, because the default learning rates fit.
        parameters: Number of parameters of the base model.
    """
    rows = 20_000 if parameters < TINY_MODEL else 5_000  # the generator has enough rows for one epoch without repetition
    return TrainingDefaults(batch_size=8, epochs=1.0, max_length=256, lora_rank=32, rows=rows)


def _evalset_path(name: str) -> Path:
    """Return the path of an evalset: an installed package contains it, and a checkout has it in ``evalsets/``."""
    packaged = _PACKAGE / "evalsets" / name
    return packaged if packaged.is_file() else _PACKAGE.parent.parent / "evalsets" / name
