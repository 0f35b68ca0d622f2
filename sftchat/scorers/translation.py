"""The scorer ``bleu``, with the tokenizers of sacrebleu (extra ``overlap``)."""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from typing import Any

from sftchat.errors import MissingExtraError, UsageError
from sftchat.scorers.base import Scorer
from sftchat.scorers.overlap import elementwise, overlap_scorer
from sftchat.task import Metric

TOKENIZERS = ("13a", "intl", "zh", "char", "none")
"""Tokenizers of sacrebleu that need no further package or download."""
_ORDERS = range(1, 5)
_KEYS = ("pred", "gold", *(f"match{n}" for n in _ORDERS), *(f"pred{n}" for n in _ORDERS))


def bleu(*, extract: str = "whole", tokenize: str = "13a", ignore_case: bool = False, threshold: float = 0.3) -> Scorer:
    """Score n-grams of tokens by BLEU (Papineni et al. 2002), from 0 to 1.

    The value of several items is that of sacrebleu's ``BLEU(effective_order=True).corpus_score``, divided by 100, a function of the summed n-gram
    counts; it is sacrebleu's default BLEU as soon as one reply has four tokens. ``{"gold": "The cat sat on the mat."}`` with the reply
    ``The cat sat on a mat.`` is 0.489.

    Args:
        extract: Where the answer stands, see ``EXTRACTIONS``.
        tokenize: One of ``TOKENIZERS``: ``13a`` for languages with spaces, ``zh`` for Chinese.
        ignore_case: Whether case does not matter.
        threshold: Value of one reply below which it has the error class ``low_overlap``.

    Raises:
        UsageError: When an argument is invalid.
        MissingExtraError: When sacrebleu is not installed.
    """
    if tokenize not in TOKENIZERS:
        raise UsageError(f"tokenize is '{tokenize}', must be one of {', '.join(TOKENIZERS)}")
    if importlib.util.find_spec("sacrebleu") is None:
        raise MissingExtraError("scorer 'bleu'", "overlap")

    def count(gold: str, answer: str) -> dict[str, float]:
        result = _sacrebleu(tokenize, ignore_case).corpus_score([answer], [[gold]])
        return dict(zip(_KEYS, (result.sys_len, result.ref_len, *result.counts, *result.totals), strict=True))

    metric = Metric("bleu", elementwise(_bleu, _KEYS), "BLEU of all replies together", stats=_KEYS)
    return overlap_scorer("bleu", count, metric, extract, threshold, {"tokenize": tokenize, "ignore_case": ignore_case})


@cache
def _sacrebleu(tokenize: str, ignore_case: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU  # a quarter of a second

    return BLEU(tokenize=tokenize, lowercase=ignore_case, effective_order=True)


def _bleu(counts: list[float]) -> float:
    """Compute BLEU from lengths and n-gram counts, with sacrebleu's exponential smoothing; orders that no reply reaches are left out."""
    length, gold_length, *ngrams = counts
    matches, totals = ngrams[:4], ngrams[4:]
    if not any(matches):
        return 0.0
    logs, halvings = [], 1.0
    for match, total in zip(matches, totals, strict=True):
        if total == 0:
            break
        if match == 0:
            halvings *= 2
        logs.append(math.log(100.0 * match / total if match else 100.0 / (halvings * total)))
    penalty = math.exp(1 - gold_length / length) if length < gold_length else 1.0
    return min(1.0, penalty * math.exp(sum(logs) / len(logs)) / 100)  # rounding can give 1.0000000000000004
