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
# each with a positive and a negative adjective
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
        first, second = rng.sample(sorted(SUBJECTS), 2)
        adjectives = {subject: dict(zip(LABELS, SUBJECTS[subject], strict=True)) for subject in (first, second)}
        if rng.random() < 0.25:
            other_label = LABELS[1 - LABELS.index(label)]
            body = f"The {first} was {adjectives[first][other_label]}, but what counts is the {second}, and that was {adjectives[second][label]}."
        else:
            body = f"The {first} was {adjectives[first][label]} and the {second} {adjectives[second][label]}."
        review = f"{body} {rng.choice(CLOSINGS[label])}".strip()
        prompt = f"Review: {review}\nSentiment (positive or negative):"
        yield Example((Message(role="user", content=prompt),), label, id=f"{seed}-{index}")


def score(example: Example, reply: Reply) -> Score:
    """Score the label in the reply; a reply with none or both has no answer."""
    labels = [label for label in LABELS if label in tokens(strip_thinking(reply.text))]
    answer = labels[0] if len(labels) == 1 else ""
    gold = example.gold or ""
    is_right = answer == gold
    error = f"{gold} taken for {answer}" if answer else "no label"
    stats = {"n": 1.0, "right": float(is_right), "answered": float(bool(answer))}
    for label in LABELS:
        stats |= {
            f"{label}_tp": float(answer == gold == label),
            f"{label}_pred": float(answer == label),
            f"{label}_gold": float(gold == label),
        }
    groups = {gold: {"n": 1.0, "right": float(is_right)}} if gold else {}
    return Score(stats, answer, () if is_right else (error,), groups)


def macro_f1(sums: Any) -> Any:
    """Return the mean over the labels of 2·tp / (pred + gold)."""
    f1_by_label = [ratio(2 * sums[f"{label}_tp"], sums[f"{label}_pred"] + sums[f"{label}_gold"]) for label in LABELS]
    return sum(f1_by_label) / len(LABELS)


F1_STATS = tuple(f"{label}_{count}" for label in LABELS for count in ("tp", "pred", "gold"))
METRICS = (
    rate("accuracy", "right", "share of reviews with the right label"),
    Metric("macro_f1", macro_f1, "mean of the labels' F1", stats=F1_STATS),
    rate("answered", "answered", "share of replies that name one label"),
)


def training_defaults(method: str, parameters: int) -> TrainingDefaults:
    """Return higher learning rates for small models and adapters."""
    learning_rate = 2e-5 if method == "full" else 2e-4
    if parameters < 50_000_000:
        learning_rate = 1e-3
    return TrainingDefaults(learning_rate=learning_rate, epochs=1.0, rows=2000)


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
