"""The plugin: registers the task ``relation``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sftchat import DemoConfig, Example, ForgettingConfig, Reply, SamplingParams, Score, Task, TrainingDefaults, hookimpl
from sftchat_relation.generate import generate
from sftchat_relation.metrics import METRICS

TINY_MODEL = 50_000_000
"""Models with fewer parameters than this train in minutes on a CPU; they get one epoch."""

_PACKAGE = Path(__file__).parent


@hookimpl
def sftchat_register_tasks() -> Iterable[Task]:
    """Register the task."""
    return [
        Task(
            name="relation",
            description="relations between the characters of Chinese or English novels, one 甲-乙:关系 or A - B: relation a line",
            generate=generate,
            score=score,
            metrics=METRICS,
            template="chatml",
            sampling=SamplingParams(max_new_tokens=128),
            training_defaults=training_defaults,
            validate_row=validate_row,
            evalsets={"relation": _evalset_path("relation.jsonl"), "relation-en": _evalset_path("relation-en.jsonl")},
            row_format="alpaca",
            demonstration=DemoConfig(
                rows=12000,
                items=250,
                held_out={"new names": {"names": "test"}, "new names and new sentences": {"names": "test", "forms": "test"}},
                forgetting=ForgettingConfig(
                    rows=240,
                    options={"language": "en"},
                    evalset="relation-en",
                    other_task="general",
                    other_evalset="general-en",
                    other_options={"language": "en"},
                    items=100,
                    settings={"method": "lora", "learning_rate": 4e-3, "batch_size": 8, "epochs": 1.0},
                    questions=(
                        "What is the capital of France?",
                        "Why is the sky blue? Answer in one sentence.",
                        "Extract the relations between the characters from this passage:\nRuth Hale had taught Daniel Moss to read; now he "
                        "taught her to use the telephone.",
                    ),
                ),
            ),
        )
    ]


def score(example: Example, reply: Reply) -> Score:
    """Score a reply with ``sftchat_relation.scorer.score``, which is imported here, so that listing plugins is fast."""
    from sftchat_relation import scorer

    return scorer.score(example, reply)


def validate_row(example: Example) -> tuple[str, ...]:
    """Return the problems of a row with ``sftchat_relation.checks.validate_row``, which is imported here, so that listing plugins is fast."""
    from sftchat_relation import checks

    return checks.validate_row(example)


def training_defaults(method: str, parameters: int) -> TrainingDefaults:
    """Return the training defaults of the task.

    Args:
        method: ``full``, or a kind of adapter; not used, because the default learning rates fit.
        parameters: Number of parameters of the base model.
    """
    return TrainingDefaults(batch_size=8, epochs=1.0 if parameters < TINY_MODEL else 3.0, max_length=512, lora_rank=32, rows=12_000)


def _evalset_path(name: str) -> Path:
    """Return the path of an evalset: an installed package contains it, and a checkout has it in ``evalsets/``."""
    packaged = _PACKAGE / "evalsets" / name
    return packaged if packaged.is_file() else _PACKAGE.parent.parent / "evalsets" / name
