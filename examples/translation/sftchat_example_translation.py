"""The task ``translation``: English to Chinese, scored with sacreBLEU.

A row: ``Translate into Chinese: My sister likes red apples.`` → ``我姐姐喜欢红苹果。``

Corpus BLEU is a function of sums: n-gram matches, totals and lengths of all sentences add up. A scorer that returns these counts lets the gate use
corpus BLEU itself, with an interval and a paired test; a mean of sentence BLEUs would be another metric.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import Any

from sftchat import Example, Message, Metric, Reply, SamplingParams, Score, Task, TrainingDefaults, hookimpl, rate
from sftchat.text import strip_thinking

WHO = {
    "My sister": "我姐姐",
    "My brother": "我哥哥",
    "The teacher": "老师",
    "The doctor": "医生",
    "Our neighbour": "我们的邻居",
    "The old man": "那位老人",
}
DOES = {"likes": "喜欢", "buys": "买", "sells": "卖", "eats": "吃", "washes": "洗", "paints": "画"}
COLOUR = {"red": "红", "green": "绿", "big": "大", "small": "小", "sweet": "甜", "fresh": "新鲜"}
WHAT = {"apples": "苹果", "pears": "梨", "tomatoes": "西红柿", "cherries": "樱桃", "peppers": "辣椒", "melons": "瓜"}
ROWS = [
    (f"{who} {does} {colour} {what}.", f"{WHO[who]}{DOES[does]}{COLOUR[colour]}{WHAT[what]}。")
    for who, does, colour, what in product(WHO, DOES, COLOUR, WHAT)
]
BLEU_STATS = ("sys_len", "ref_len", *(f"counts_{n}" for n in range(1, 5)), *(f"totals_{n}" for n in range(1, 5)))
"""Lengths of reply and reference; for n from 1 to 4, n-grams of the reply that the reference has, and all of the reply."""


def generate(n: int, seed: int) -> Iterator[Example]:
    """Yield ``n`` sentences with their translations."""
    for index in range(n):
        english, chinese = random.Random(f"translation-{seed}-{index}").choice(ROWS)
        yield Example((Message(role="user", content=f"Translate into Chinese: {english}"),), chinese, id=f"{seed}-{index}")


@cache
def load_bleu() -> Any:
    """Return BLEU over Chinese characters; sacrebleu is imported here, to keep `sftchat plugins` fast."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize="zh", effective_order=True)


def score(example: Example, reply: Reply) -> Score:
    """Return the counts of corpus BLEU."""
    translation, gold = strip_thinking(reply.text).strip(), example.gold or ""
    is_exact = translation == gold
    bleu_score = load_bleu().corpus_score([translation], [[gold]])
    counts = (bleu_score.sys_len, bleu_score.ref_len, *bleu_score.counts, *bleu_score.totals)
    stats = {"n": 1.0, "exact": float(is_exact), **dict(zip(BLEU_STATS, map(float, counts), strict=True))}
    error = "differs" if translation else "empty"
    return Score(stats, translation, () if is_exact else (error,))


def bleu(sums: Any) -> Any:
    """Compute corpus BLEU from 0 to 1 from summed counts (Papineni et al. 2002), as sacreBLEU does; for numbers and arrays."""
    import numpy as np

    def compute_one(*counts: float) -> float:
        reply_length, reference_length, *ngrams = map(round, counts)  # sacreBLEU prints its counts as whole numbers
        matches, totals = ngrams[:4], ngrams[4:]
        bleu_score = load_bleu().compute_bleu(matches, totals, reply_length, reference_length, smooth_method="exp", effective_order=True)
        return float(bleu_score.score) / 100

    return np.vectorize(compute_one, otypes=[float])(*(sums[key] for key in BLEU_STATS))


METRICS = (
    Metric("bleu", bleu, "corpus BLEU over characters, sacreBLEU's with the tokenizer zh, from 0 to 1", stats=BLEU_STATS),
    rate("exact", "exact", "share of translations that are the reference"),
)


def training_defaults(method: str, parameters: int) -> TrainingDefaults:
    """Return higher learning rates for small models and adapters."""
    learning_rate = 2e-5 if method == "full" else 2e-4
    if parameters < 50_000_000:
        learning_rate = 1e-3
    return TrainingDefaults(learning_rate=learning_rate, epochs=1.0, rows=4000)


@hookimpl
def sftchat_register_tasks() -> Iterable[Task]:
    """Register the task."""
    sampling = SamplingParams(max_new_tokens=48)
    return [
        Task(
            "translation",
            "English to Chinese, scored with sacreBLEU",
            generate,
            score,
            METRICS,
            sampling=sampling,
            training_defaults=training_defaults,
        )
    ]
