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
COUNTED = ("sys_len", "ref_len", *(f"{kind}_{n}" for kind in ("counts", "totals") for n in range(1, 5)))


def generate(n: int, seed: int) -> Iterator[Example]:
    """Yield ``n`` sentences with their translations."""
    for index in range(n):
        english, chinese = random.Random(f"translation-{seed}-{index}").choice(ROWS)
        yield Example((Message(role="user", content=f"Translate into Chinese: {english}"),), chinese, id=f"{seed}-{index}")


@cache
def sacrebleu() -> Any:
    """Return BLEU over Chinese characters; sacrebleu is imported at the first score, to keep `sftchat plugins` fast."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize="zh", effective_order=True)


def score(example: Example, reply: Reply) -> Score:
    """Return the counts of corpus BLEU."""
    said, gold = strip_thinking(reply.text).strip(), example.gold or ""
    counted = sacrebleu().corpus_score([said], [[gold]])
    stats = {"n": 1.0, "exact": float(said == gold), "sys_len": float(counted.sys_len), "ref_len": float(counted.ref_len)}
    for n in range(4):
        stats |= {f"counts_{n + 1}": float(counted.counts[n]), f"totals_{n + 1}": float(counted.totals[n])}
    fault = () if said == gold else ("empty",) if not said else ("differs",)
    return Score(stats, said, fault)


def bleu(sums: Any) -> Any:
    """Compute corpus BLEU from 0 to 1 from summed counts (Papineni et al. 2002), as sacreBLEU does; for numbers and arrays."""
    import numpy as np

    def single(*row: float) -> float:
        system, reference, *grams = map(round, row)  # sacreBLEU prints its counts as whole numbers
        return (
            float(sacrebleu().compute_bleu(grams[:4], grams[4:], system, reference, smooth_method="exp", effective_order=True).score) / 100
        )

    return np.vectorize(single, otypes=[float])(*(sums[key] for key in COUNTED))


METRICS = (
    Metric("bleu", bleu, "corpus BLEU over characters, sacreBLEU's with the tokenizer zh, from 0 to 1", stats=COUNTED),
    rate("exact", "exact", "share of translations that are the reference"),
)


def training_defaults(method: str, parameters: int) -> TrainingDefaults:
    """Return higher learning rates for small models and adapters."""
    return TrainingDefaults(learning_rate=1e-3 if parameters < 50_000_000 else 2e-5 if method == "full" else 2e-4, epochs=1.0, rows=4000)


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
