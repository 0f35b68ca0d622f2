"""Scorers of likelihoods instead of generated replies: multiple choice, and perplexity of the gold reply."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from sftchat.errors import DataError
from sftchat.likelihood import Likelihood, parse_likelihoods
from sftchat.scorers.base import ACCURACY, Scorer, answer_form, gold_required, with_reply_errors
from sftchat.task import Metric, rate, ratio
from sftchat.types import Example, Reply, Score

Normalise = Literal["none", "bytes", "tokens", "characters"]

_ACCURACIES = {
    "none": ACCURACY,
    "bytes": rate("accuracy_bytes", "correct_bytes", "share of items whose most likely choice per byte is right"),
    "tokens": rate("accuracy_tokens", "correct_tokens", "share of items whose most likely choice per token is right"),
    "characters": rate("accuracy_characters", "correct_characters", "share of items whose most likely choice per character is right"),
}


def multiple_choice(
    choices: tuple[str, ...] = (), *, normalise: Normalise = "none", raw: bool = False, delimiter: str = " ", ended: bool = False
) -> Scorer:
    """Score whether the right choice is the most likely one; the model generates nothing.

    ``{"gold": "Paris", "choices": ["Paris", "Lyon"]}`` is right when the model finds ``Paris`` more likely than ``Lyon`` after the prompt. The gold
    reply is the text of a choice, its letter (``A`` for the first) or its index (``0`` for the first). Long choices have smaller likelihoods, so
    there is one accuracy for the plain log-likelihood and one each for its quotient by bytes, tokens and characters of the choice. Of equally likely
    choices the first counts. A generated reply, from a file of replies, is right when it is the text or the letter of the right choice.

    Args:
        choices: Choices of all rows; empty for those under ``choices`` in each row: a list, text separated by ``|``, or ARC's object with ``text``
            and ``label``.
        normalise: Which accuracy is the primary metric: ``none`` for the plain one.
        raw: Whether the choice follows the text of the prompt after ``delimiter``, without a chat template, as in lm-evaluation-harness.
        delimiter: Text between a raw prompt and the choice.
        ended: Whether the likelihood includes the end-of-reply token's, so that the choice is the whole reply; servers do not give it.

    Raises:
        UsageError: When an argument is invalid.
    """

    def read(example: Example) -> tuple[tuple[str, ...], int | None]:
        texts, labels = (choices, ()) if choices else _row_choices(example.metadata.get("choices"))
        return texts, _index_of(example.gold or "", texts, labels)

    def score(example: Example, reply: Reply) -> Score:
        texts, gold = read(example)
        likelihoods = parse_likelihoods(reply.text)
        if likelihoods is None or len(likelihoods) != len(texts):
            chosen = dict.fromkeys(_ACCURACIES, _index_of(reply.text, texts, (), indices=False))
            is_gold = gold is None and bool(example.gold) and reply.text == example.gold
        else:
            chosen, is_gold = _most_likely(texts, likelihoods), False
        right = {kind: is_gold or (gold is not None and index == gold) for kind, index in chosen.items()}
        stats = {"n": 1} | {_stat(kind): int(is_right) for kind, is_right in right.items()}
        index = chosen[normalise]
        answer = texts[index] if index is not None else answer_form(reply.text)
        expected = texts[gold] if gold is not None and choices else ""
        return with_reply_errors(Score(stats, answer, () if right[normalise] else ("wrong_choice",), expected=expected), reply)

    def continuations(example: Example) -> Sequence[str]:
        texts, _ = read(example)
        if not texts:
            raise DataError(
                f"row '{example.id}' has no choices; give a list under 'choices', or the scorer's argument 'choices'", example.source
            )
        return [f"{delimiter}{text}" for text in texts] if raw else texts

    def validate_row(example: Example) -> Iterable[str]:
        texts, gold = read(example)
        if len(texts) < 2 or not all(texts):
            yield "the row needs 'choices': a list of at least two texts"
        elif len(set(texts)) < len(texts):
            yield "two choices of the row are equal"
        elif gold is None:
            yield "the gold reply is not the text, the letter or the index of one of the choices"

    settings = {"choices": list(choices), "normalise": normalise, "raw": raw, "delimiter": delimiter, "ended": ended}
    metrics = (_ACCURACIES[normalise], *(metric for kind, metric in _ACCURACIES.items() if kind != normalise))
    return Scorer(
        "multiple_choice", score, metrics, validate_row, settings, labels=choices, continuations=continuations, ended=ended, raw_prompt=raw
    )


def _stat(kind: str) -> str:
    return "correct" if kind == "none" else f"correct_{kind}"


def _row_choices(value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the choices of a row and their labels; both are empty when there are none or one is no text."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split("|") if part.strip()), ()
    labels: Any = ()
    if isinstance(value, Mapping):
        value, labels = value.get("text"), value.get("label", ())
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) and text for text in value):
        return (), ()
    fits = isinstance(labels, list | tuple) and len(labels) == len(value)
    return tuple(value), tuple(map(str, labels)) if fits else ()


def _index_of(answer: str, texts: Sequence[str], labels: Sequence[str], *, indices: bool = True) -> int | None:
    """Return the index of the choice that an answer names by its text, label, letter or, with ``indices``, index; None if it names none."""
    if answer in texts:
        return texts.index(answer)
    form = answer_form(answer).strip("()[]")
    for names in (texts, labels):
        forms = [answer_form(name).strip("()[]") for name in names]
        if forms.count(form) == 1:
            return forms.index(form)
    position = ord(form) - ord("a") if len(form) == 1 and "a" <= form <= "z" else None
    if position is None and indices and form.isdecimal() and len(form) < 6:
        position = int(form)
    return position if position is not None and position < len(texts) else None


def _most_likely(texts: Sequence[str], likelihoods: Sequence[Likelihood]) -> dict[str, int | None]:
    """Return the index of the most likely choice by each normalisation; bytes and characters are those of the choice without the delimiter."""
    sizes = {
        "none": [1] * len(texts),
        "bytes": [len(text.encode("utf-8", "surrogatepass")) for text in texts],
        "tokens": [likelihood.tokens for likelihood in likelihoods],
        "characters": [len(text) for text in texts],
    }
    return {
        kind: max(range(len(texts)), key=lambda index: likelihoods[index].logprob / max(1, lengths[index]))
        for kind, lengths in sizes.items()
    }


MAX_NATS = 700.0
"""Largest negative log-likelihood per token, word or byte in a metric: the perplexity of a larger one is no 64-bit float."""


def perplexity(*, raw: bool = False, delimiter: str = " ", ended: bool = False) -> Scorer:
    """Score how well the model predicts the gold reply: perplexity per token and per word, and bits per byte; lower is better.

    The perplexity is ``exp`` of the sum of negative log-likelihoods over the sum of tokens, of all items together. Perplexities per token compare
    models with one tokenizer only; bits per byte and perplexities per word compare any. With ``raw``, a row ``{"text": …}`` is the text after an
    empty prompt, as ``loglikelihood_rolling`` of lm-evaluation-harness; words are separated by white space, as there. A reply that is not a
    likelihood, from a file of replies, counts as a uniform distribution over bytes (``no_likelihood``), or as certain when it is the gold reply.

    Args:
        raw: Whether the gold reply follows the text of the prompt without a chat template.
        delimiter: Text between a raw prompt and the gold reply.
        ended: Whether the likelihood includes the end-of-reply token's; servers do not give it.
    """

    def score(example: Example, reply: Reply) -> Score:
        gold = example.gold or ""
        size, words = len(gold.encode("utf-8", "surrogatepass")), len(re.split(r"\s+", gold))
        likelihoods = parse_likelihoods(reply.text)
        errors: tuple[str, ...]
        if likelihoods is not None and len(likelihoods) == 1:
            nll, tokens, errors = -likelihoods[0].logprob, likelihoods[0].tokens, ()
        elif gold and reply.text == gold:
            nll, tokens, errors = 0.0, size, ()
        else:
            nll, tokens, errors = math.log(256) * size, size, ("no_likelihood",)
        return Score({"n": 1, "nll": nll, "tokens": tokens, "bytes": size, "words": words}, errors=errors)

    def continuations(example: Example) -> Sequence[str]:
        if not example.gold:
            raise DataError(f"row '{example.id}' has no gold reply to compute the likelihood of", example.source)
        return [delimiter + example.gold if raw and example.messages else example.gold]

    return Scorer(
        "perplexity", score, (_perplexity("perplexity", "tokens", "token"), BITS_PER_BYTE, _perplexity("word_perplexity", "words", "word")),
        gold_required, {"raw": raw, "delimiter": delimiter, "ended": ended}, continuations=continuations, ended=ended, raw_prompt=raw,
    )  # fmt: skip


def _perplexity(name: str, total: str, unit: str) -> Metric:
    def function(sums: Mapping[str, Any]) -> Any:
        nats = ratio(sums["nll"], sums[total])
        if isinstance(nats, int | float):
            return math.exp(min(nats, MAX_NATS))
        import numpy as np  # only imported for arrays, as in ``ratio``

        return np.exp(np.minimum(nats, MAX_NATS))

    return Metric(name, function, f"exp of the negative log-likelihood per {unit}", higher_is_better=False, stats=("nll", total))


BITS_PER_BYTE = Metric(
    "bits_per_byte",
    lambda sums: ratio(sums["nll"], sums["bytes"]) / math.log(2),
    "negative log-likelihood per byte, in bits",
    higher_is_better=False,
    stats=("nll", "bytes"),
)
