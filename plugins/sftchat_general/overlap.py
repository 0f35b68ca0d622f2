"""ROUGE-L: longest common subsequence of gold and reply (Lin 2004), for Chinese and English.

The F1 of the longest common subsequence by rouge-score, with equal weight of precision and recall. Its own tokenizer drops all
non-ASCII characters, so that identical Chinese texts score 0.0; with the tokens of ``sftchat.text`` they score 1.0. Figures are not comparable with
those of tools that segment Chinese by a dictionary.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sftchat.text import tokens
from sftchat_general.reading import plain_form

MAX_TOKENS = 2000
"""Maximum number of tokens compared, because time grows with the product of both lengths."""


class _Tokenizer:
    """The tokenizer interface of rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        """Return the first tokens of a text."""
        return tokens(text)[:MAX_TOKENS]


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # here because it brings nltk and scipy, which data and plugins must not pay for

    return RougeScorer(["rougeL"], tokenizer=_Tokenizer())


def rouge_l(gold: str, reply: str) -> float:
    """Return the overlap of two texts, from 0 to 1; texts without tokens are compared for equality.

    Args:
        gold: The gold reply.
        reply: The model's reply.
    """
    if not tokens(gold) and not tokens(reply):
        return float(plain_form(gold) == plain_form(reply))
    return float(_scorer().score(gold, reply)["rougeL"].fmeasure)
