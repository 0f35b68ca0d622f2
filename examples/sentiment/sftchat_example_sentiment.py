"""The task ``sentiment``: is a review positive or negative?

A row: ``Review: The soup was cold and the waiter rude.\\nSentiment (positive or negative):`` → ``negative``
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from sftchat import Example, Message, Metric, Reply, SamplingParams, Score, Task, TrainingDefaults, hookimpl, rate, ratio
from sftchat.text import strip_thinking, tokens

LABELS = ("positive", "negative")
SUBJECTS = {"soup": ("delicious", "cold"), "waiter": ("friendly", "rude"), "room": ("bright", "dirty"), "bed": ("comfortable", "broken"),
            "film": ("moving", "boring"), "battery": ("reliable", "weak"), "screen": ("sharp", "dim"), "service": ("quick", "slow")}  # fmt: skip
CLOSINGS = {
    "positive": ("I would come back any time.", "Highly recommended!", "Worth every penny.", ""),
    "negative": ("Never again.", "I want my money back.", "Stay away!", ""),
}


def generate(n: int, seed: int) -> Iterator[Example]:
    """Yield ``n`` reviews, on average half of them positive; in one of four, the part after a "but" decides."""
    for index in range(n):
        rng = random.Random(f"sentiment-{seed}-{index}")
        label = rng.choice(LABELS)
        side, (one, other) = LABELS.index(label), rng.sample(sorted(SUBJECTS), 2)
        if rng.random() < 0.25:
            body = f"The {one} was {SUBJECTS[one][1 - side]}, but what counts is the {other}, and that was {SUBJECTS[other][side]}."
        else:
            body = f"The {one} was {SUBJECTS[one][side]} and the {other} {SUBJECTS[other][side]}."
        review = f"{body} {rng.choice(CLOSINGS[label])}".strip()
        prompt = f"Review: {review}\nSentiment (positive or negative):"
        yield Example((Message(role="user", content=prompt),), label, id=f"{seed}-{index}")


def score(example: Example, reply: Reply) -> Score:
    """Score the label in the reply; a reply with none or both has no answer."""
    named = [label for label in LABELS if label in tokens(strip_thinking(reply.text))]
    answer = named[0] if len(named) == 1 else ""
    gold = example.gold or ""
    right = answer == gold
    fault = () if right else (f"{gold} taken for {answer}",) if answer else ("no label",)
    counted = {"n": 1.0, "right": float(right), "answered": float(bool(answer))}
    for label in LABELS:
        counted |= {
            f"{label}_tp": float(answer == gold == label),
            f"{label}_pred": float(answer == label),
            f"{label}_gold": float(gold == label),
        }
    return Score(counted, answer, fault, groups={gold: {"n": 1.0, "right": float(right)}} if gold else {})


def macro_f1(sums: Any) -> Any:
    """Return the mean over the labels of 2·tp / (pred + gold)."""
    parts = [ratio(2 * sums[f"{label}_tp"], sums[f"{label}_pred"] + sums[f"{label}_gold"]) for label in LABELS]
    return sum(parts) / len(parts)


COUNTED = tuple(f"{label}_{kind}" for label in LABELS for kind in ("tp", "pred", "gold"))
METRICS = (
    rate("accuracy", "right", "share of reviews with the right label"),
    Metric("macro_f1", macro_f1, "mean of the labels' F1", stats=COUNTED),
    rate("answered", "answered", "share of replies that name one label"),
)


def training_defaults(method: str, parameters: int) -> TrainingDefaults:
    """Return higher learning rates for small models and adapters."""
    return TrainingDefaults(learning_rate=1e-3 if parameters < 50_000_000 else 2e-5 if method == "full" else 2e-4, epochs=1.0, rows=2000)


@hookimpl
def sftchat_register_tasks() -> Iterable[Task]:
    """Register the task."""
    sampling = SamplingParams(max_new_tokens=8)
    return [
        Task(
            "sentiment",
            "is a review positive or negative",
            generate,
            score,
            METRICS,
            sampling=sampling,
            training_defaults=training_defaults,
        )
    ]
