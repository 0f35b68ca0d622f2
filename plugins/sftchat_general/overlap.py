"""ROUGE-L: F1 of the longest common subsequence of gold and reply (Lin 2004), for Chinese and English.

The tokens are those of ``sftchat.text``: the tokenizer of the package rouge-score drops all non-ASCII characters, so that identical Chinese texts
would score 0.0. A test holds the result to rouge-score's on the same tokens; rouge-score itself imports nltk and scipy, which takes seconds. Scores
are not comparable with those of tools that segment Chinese by a dictionary.
"""

from __future__ import annotations

from sftchat.text import tokens
from sftchat_general.reading import plain_form

MAX_TOKENS = 2000
"""Maximum number of tokens compared, because time grows with the product of both lengths."""


def rouge_l(gold: str, reply: str) -> float:
    """Return the overlap of two texts, from 0 to 1; texts without tokens are compared for equality.

    Args:
        gold: The gold reply.
        reply: The model's reply.
    """
    from rapidfuzz.distance import LCSseq  # here, because the verbs data and plugins do not need it

    gold_tokens, reply_tokens = tokens(gold)[:MAX_TOKENS], tokens(reply)[:MAX_TOKENS]
    if not gold_tokens and not reply_tokens:
        return float(plain_form(gold) == plain_form(reply))
    return 2 * LCSseq.similarity(gold_tokens, reply_tokens) / (len(gold_tokens) + len(reply_tokens))
