"""Metrics of the general task, each a function of summed counts."""

from __future__ import annotations

from sftchat import Metric, rate, ratio

METRICS = (
    rate("accuracy", "correct", "share of replies that do what was asked"),
    Metric(
        "rouge_l",
        lambda sums: ratio(sums["rouge_l"], sums["n"]),
        "overlap with the gold by ROUGE-L over Chinese characters and Latin words, mean of the replies",
        stats=("rouge_l", "n"),
    ),
    rate("exact", "exact", "share of replies that are the gold, case and closing punctuation aside"),
)
"""The first is the primary one."""
