"""ROUGE-L: F1 of the longest common subsequence of gold and reply (Lin 2004), for Chinese and English.

Computed by rouge-score, with the tokens of ``sftchat.text``: the tokenizer of rouge-score drops all non-ASCII characters, so that identical
Chinese texts would score 0.0. Scores are not comparable with those of tools that segment Chinese by a dictionary.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sftchat.text import tokens
from sftchat_general.reading import plain_form

MAX_TOKENS = 2000
"""Maximum number of tokens compared, because time grows with the product of both lengths."""


class _Tokenizer:
    """Implements the tokenizer interface of rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, at most ``MAX_TOKENS``."""
        return tokens(text)[:MAX_TOKENS]


@cache
def _load_rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import (
        RougeScorer,  # here, because it imports nltk and scipy, which the CLI verbs data and plugins do not need
    )

    return RougeScorer(["rougeL"], tokenizer=_Tokenizer())


def rouge_l(gold: str, reply: str) -> float:
    """Return the overlap of two texts, from 0 to 1; texts without tokens are compared for equality.

    Args:
        gold: The gold reply.
        reply: The model's reply.
    """
    if not tokens(gold) and not tokens(reply):
        return float(plain_form(gold) == plain_form(reply))
    return float(_load_rouge_scorer().score(gold, reply)["rougeL"].fmeasure)
