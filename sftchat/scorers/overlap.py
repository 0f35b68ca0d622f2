"""Scorers of longer texts by their overlap with the gold reply: ``rouge_l`` and ``chrf``; and ``rouge_l_f1`` for the scorers of plugins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sftchat.errors import UsageError
from sftchat.scorers.base import Answers, Scorer, answer_form, with_reply_errors
from sftchat.task import Metric, ratio
from sftchat.text import words
from sftchat.types import Example, Reply, Score

MAX_TOKENS = 2000
"""Maximum number of tokens that ROUGE-L compares, because time grows with the product of both lengths."""
TOLERANCE = 1e-9
"""Values that are lower than a threshold by less are equal to it: a perfect overlap may be 1 only up to rounding."""
CHARACTER_ORDER = 6
"""Length of the longest n-grams of characters in chrF."""

Counts = Mapping[str, float]


def rouge_l(*, extract: str = "whole", threshold: float = 0.5) -> Scorer:
    """Score the longest common subsequence of answer and gold answer by ROUGE-L, from 0 to 1; the value of several items is their mean.

    ``{"gold": "the cat sat"}`` with the reply ``The cat sits.`` has two of three tokens in common: 0.667.

    Args:
        extract: Where the answer stands, see ``EXTRACTIONS``.
        threshold: Value below which a reply has the error class ``low_overlap``.

    Raises:
        UsageError: When an argument is invalid.
    """
    metric = Metric("rouge_l", lambda sums: ratio(sums["rouge_l"], sums["n"]), "mean ROUGE-L with the gold replies", stats=("rouge_l", "n"))
    return overlap_scorer("rouge_l", lambda gold, answer: {"rouge_l": rouge_l_f1(gold, answer)}, metric, extract, threshold, {})


def rouge_l_f1(gold: str, reply: str, split: Callable[[str], list[str]] = words) -> float:
    """Return ROUGE-L: F1 of the longest common subsequence of two texts (Lin 2004), from 0 to 1, for Chinese and English.

    The tokenizer of the package rouge-score drops all non-ASCII characters, so that identical Chinese texts would score 0. A test compares the
    result with rouge-score's on the same tokens; rouge-score itself imports nltk and scipy, which takes seconds. Values are not comparable with
    those of tools that segment Chinese by a dictionary.

    Args:
        gold: The gold reply.
        reply: The model's reply.
        split: Splits a text into tokens; by default each Chinese, Japanese and Korean character, and each word of other scripts. Texts without
            tokens are compared for equality.
    """
    from rapidfuzz.distance import LCSseq  # here, because the verbs data and plugins do not need it

    gold_tokens, reply_tokens = split(gold)[:MAX_TOKENS], split(reply)[:MAX_TOKENS]
    if not gold_tokens and not reply_tokens:
        return float(answer_form(gold) == answer_form(reply))
    return 2 * LCSseq.similarity(gold_tokens, reply_tokens) / (len(gold_tokens) + len(reply_tokens))


def chrf(*, extract: str = "whole", word_order: int = 0, beta: int = 2, ignore_case: bool = False, threshold: float = 0.5) -> Scorer:
    """Score n-grams of characters, and with ``word_order`` of words, by chrF or chrF++ (Popović 2015, 2017), from 0 to 1.

    The value of several items is that of sacrebleu's ``CHRF().corpus_score``, divided by 100: a function of the summed n-gram counts.
    ``{"gold": "我爱北京"}`` with the reply ``我爱南京`` is 0.271.

    Args:
        extract: Where the answer stands, see ``EXTRACTIONS``.
        word_order: Length of the longest n-grams of words, from 0 (none, chrF) to 4; 2 is chrF++.
        beta: Weight of recall against precision, at least 1.
        ignore_case: Whether case does not matter.
        threshold: Value of one reply below which it has the error class ``low_overlap``.

    Raises:
        UsageError: When an argument is invalid.
    """
    if beta < 1:
        raise UsageError(f"beta is {beta}, must be at least 1")
    if not 0 <= word_order <= 4:
        raise UsageError(f"word_order is {word_order}, must be from 0 to 4")
    orders = [f"{kind}{n}" for kind, longest in (("char", CHARACTER_ORDER), ("word", word_order)) for n in range(1, longest + 1)]
    keys = tuple(f"{order}:{count}" for order in orders for count in ("pred", "gold", "match"))

    def count(gold: str, answer: str) -> Counts:
        texts = [text.lower() if ignore_case else text for text in (answer, gold)]
        counts: dict[str, float] = {}
        for order in orders:
            found, wanted = (_ngrams(text, order[:-1], int(order[-1])) for text in texts)
            # as in sacrebleu, n-grams longer than the gold reply do not count
            counts[f"{order}:pred"] = found.total() if wanted else 0
            counts[f"{order}:gold"] = wanted.total()
            counts[f"{order}:match"] = (found & wanted).total()
        return counts

    function = elementwise(lambda counts: _chrf(counts, beta), keys)
    settings = {"word_order": word_order, "beta": beta, "ignore_case": ignore_case}
    return overlap_scorer("chrf", count, Metric("chrf", function, "chrF of all replies together", stats=keys), extract, threshold, settings)


def _ngrams(text: str, kind: str, n: int) -> Counter[str]:
    """Count n-grams: of characters without white space, or of words, from which one punctuation mark at an end is separated."""
    if kind == "char":
        joined = "".join(text.split())
        return Counter(joined[start : start + n] for start in range(len(joined) - n + 1))
    tokens: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in _PUNCTUATION:
            tokens += word[:-1], word[-1]
        elif len(word) > 1 and word[0] in _PUNCTUATION:
            tokens += word[0], word[1:]
        else:
            tokens.append(word)
    return Counter(" ".join(tokens[start : start + n]) for start in range(len(tokens) - n + 1))


_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def _chrf(counts: list[float], beta: int) -> float:
    """Compute chrF from the counts of answer, gold and common n-grams of each order; orders that one side lacks are left out."""
    precision = recall = 0.0
    orders = 0
    for found, wanted, common in zip(counts[::3], counts[1::3], counts[2::3], strict=True):
        if found > 0 and wanted > 0:
            precision += common / found
            recall += common / wanted
            orders += 1
    if not orders or not precision + recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def elementwise(function: Callable[[list[float]], float], keys: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Any]:
    """Return the metric function that applies a function of numbers to sums that are numbers, or arrays of one shape.

    Args:
        function: Takes the sums in the order of ``keys``.
        keys: The count keys that it needs.
    """

    def value(sums: Mapping[str, Any]) -> Any:
        columns = [sums[key] for key in keys]
        if all(isinstance(column, int | float) for column in columns):
            return function(columns)
        import numpy as np

        return np.vectorize(lambda *counts: function([*counts]), otypes=[float])(*columns)

    return value


def overlap_scorer(
    name: str,
    count: Callable[[str, str], Counts],
    metric: Metric,
    extract: str,
    threshold: float,
    settings: Mapping[str, Any],
) -> Scorer:
    """Return a scorer of a metric that has no notion of right: a reply is wrong, with ``low_overlap``, when its own value is below a threshold.

    Args:
        name: Name of the scorer.
        count: Returns the counts that the metric needs, of a gold answer and an answer.
        metric: The primary metric.
        extract: Where the answer stands.
        threshold: Lowest value of a right reply, above 0.
        settings: Further arguments of the scorer.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold is {threshold:g}, must be above 0 and at most 1")
    answers = Answers(extract)

    def score(example: Example, reply: Reply) -> Score:
        answer, marked = answers.of(reply.text)
        stats = {"n": 1, **count(answers.gold(example), answer)}
        errors = () if metric.function(stats) >= threshold - TOLERANCE else ("low_overlap",)
        return with_reply_errors(Score(stats, answer_form(answer), errors), reply, marked=marked)

    def validate_row(example: Example) -> Iterable[str]:
        gold = answers.gold(example)
        if metric.function({"n": 1, **count(gold, gold)}) < 1 - TOLERANCE:
            yield "the gold reply has nothing to compare with"

    return Scorer(name, score, (metric,), validate_row, {"extract": extract, **settings, "threshold": threshold})
