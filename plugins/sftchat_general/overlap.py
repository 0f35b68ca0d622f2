"""ROUGE-L: how much of the gold stands in the reply in the same order (Lin 2004), for Chinese as for English.

The F1 of the longest common subsequence by rouge-score, with precision and recall weighed alike. Its own tokenizer drops every character
that is not ASCII, so that identical Chinese texts score 0.0; with the tokens of ``sftchat.text`` they score 1.0. Figures are not comparable with
those of tools that segment Chinese by a dictionary.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sftchat.text import tokens
from sftchat_general.reading import plain_form

MAX_TOKENS = 2000
"""Tokens of a reply that are looked at; the table of the subsequence grows with the product of both lengths."""


class _Tokenizer:
    """What rouge-score asks for tokens."""

    def tokenize(self, text: str) -> list[str]:
        """The tokens that overlap is counted in."""
        return tokens(text)[:MAX_TOKENS]


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # here because it brings nltk and scipy, which data and plugins must not pay for

    return RougeScorer(["rougeL"], tokenizer=_Tokenizer())


def rouge_l(gold: str, reply: str) -> float:
    """The overlap of two texts, from 0 to 1; texts without a single token overlap when they are the same.

    Args:
        gold: The reply wanted.
        reply: The reply given.
    """
    if not tokens(gold) and not tokens(reply):
        return float(plain_form(gold) == plain_form(reply))
    return float(_scorer().score(gold, reply)["rougeL"].fmeasure)
