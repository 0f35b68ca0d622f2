"""ROUGE-L, chrF and BLEU, which equal those of rouge-score and sacrebleu."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from sftchat import Example, MissingExtraError, Reply, UsageError
from sftchat.scorers import Scorer, bleu, chrf, rouge_l, rouge_l_f1
from sftchat.text import tokens

TEXT = st.text(alphabet="ab cdé.,(! 我爱北京天安门\n", max_size=30)
PAIRS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6)


def sums_of(scorer: Scorer, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    scores = [scorer.score(Example(({"role": "user", "content": "?"},), gold, "i"), Reply(reply)) for reply, gold in pairs]
    return {key: sum(score.stats[key] for score in scores) for key in scores[0].stats}


def value(scorer: Scorer, pairs: Sequence[tuple[str, str]]) -> float:
    return float(scorer.metrics[0].function(sums_of(scorer, pairs)))


def stripped(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[list[str]]]:
    """The texts as the scorer gets them, in sacrebleu's order."""
    return [reply.strip() for reply, _ in pairs], [[gold.strip() for _, gold in pairs]]


@given(PAIRS, st.sampled_from([0, 1, 2]), st.sampled_from([1, 2, 3]), st.booleans())
def test_chrf_of_several_replies_is_sacrebleus(pairs: list[tuple[str, str]], word_order: int, beta: int, ignore_case: bool) -> None:
    reference = CHRF(word_order=word_order, beta=beta, lowercase=ignore_case).corpus_score(*stripped(pairs))

    assert 100 * value(chrf(word_order=word_order, beta=beta, ignore_case=ignore_case), pairs) == reference.score


@given(PAIRS, st.sampled_from(["13a", "zh", "char", "intl", "none"]), st.booleans())
def test_bleu_of_several_replies_is_sacrebleus(pairs: list[tuple[str, str]], tokenize: str, ignore_case: bool) -> None:
    reference = BLEU(tokenize=tokenize, lowercase=ignore_case, effective_order=True).corpus_score(*stripped(pairs))

    assert value(bleu(tokenize=tokenize, ignore_case=ignore_case), pairs) == min(1.0, reference.score / 100)


@given(PAIRS)
def test_bleu_is_sacrebleus_default_as_soon_as_a_reply_has_four_tokens(pairs: list[tuple[str, str]]) -> None:
    with_long_reply = [*pairs, ("a b c d e", "a b c d")]

    assert value(bleu(), with_long_reply) == min(1.0, BLEU().corpus_score(*stripped(with_long_reply)).score / 100)


@given(PAIRS, st.sampled_from([chrf(), bleu(), rouge_l()]))
def test_a_metric_of_arrays_is_that_of_numbers(pairs: list[tuple[str, str]], scorer: Scorer) -> None:
    rows = [sums_of(scorer, [pair]) for pair in pairs]
    columns = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}

    assert scorer.metrics[0].function(columns).tolist() == [scorer.metrics[0].function(row) for row in rows]


@pytest.mark.parametrize(("make", "threshold"), [(rouge_l, 0.5), (chrf, 0.5), (bleu, 0.3)])
def test_a_reply_below_the_threshold_has_an_error_class(make: Any, threshold: float) -> None:
    example = Example(({"role": "user", "content": "?"},), "the cat sat on the mat", "i")
    for reply in ("the cat sat on the mat", "the cat sat on a mat", "the cat", "a dog ran", "on mat the"):
        score = make().score(example, Reply(reply))
        assert score.errors == (() if make().metrics[0].function(score.stats) >= threshold else ("low_overlap",))


@pytest.mark.parametrize("scorer", [rouge_l(threshold=1.0), chrf(threshold=1.0), bleu(threshold=1.0)], ids=lambda scorer: scorer.name)
@given(gold=st.text(min_size=1, max_size=30))
def test_the_gold_reply_of_a_valid_row_is_right_at_any_threshold(scorer: Scorer, gold: str) -> None:
    example = Example(({"role": "user", "content": "?"},), gold, "i")
    if not list(scorer.validate_row(example)):
        assert scorer.score(example, Reply(gold)).errors in ((), ("empty",))
        assert scorer.metrics[0].function(scorer.score(example, Reply(gold)).stats) == pytest.approx(1)


def test_a_gold_reply_without_characters_is_a_problem_of_its_row() -> None:
    assert [list(scorer.validate_row(Example((), " \n"))) for scorer in (chrf(), bleu())] == [
        ["the gold reply has nothing to compare with"]
    ] * 2


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (rouge_l, {"threshold": 0.0}, "threshold is 0, must be above 0 and at most 1"),
        (chrf, {"beta": 0}, "beta is 0, must be at least 1"),
        (chrf, {"word_order": 5}, "word_order is 5, must be from 0 to 4"),
        (bleu, {"tokenize": "ja-mecab"}, "tokenize is 'ja-mecab', must be one of 13a, intl, zh, char, none"),
    ],
)
def test_invalid_arguments_are_refused(make: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(**arguments)

    assert str(caught.value) == message


def test_bleu_without_sacrebleu_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(MissingExtraError, match="pip install 'sftchat\\[overlap\\]'"):
        bleu()


def test_words_of_every_script_are_tokens_of_rouge_l() -> None:
    assert [rouge_l_f1("Привет, 42", reply) for reply in ("привет 42", "Пока 42")] == [1.0, 0.5]
    assert rouge_l_f1("Привет, 42", "Пока 42", tokens) == 1.0  # ASCII words only


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="ab 你好，1.", max_size=40), st.text(alphabet="ab 你好，1.", max_size=40))
def test_rouge_l_is_that_of_rouge_score_on_the_same_tokens(gold: str, reply: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    class Tokenizer:
        def tokenize(self, text: str) -> list[str]:
            return tokens(text)

    if tokens(gold) or tokens(reply):
        assert rouge_l_f1(gold, reply, tokens) == pytest.approx(
            RougeScorer(["rougeL"], tokenizer=Tokenizer()).score(gold, reply)["rougeL"].fmeasure
        )


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("王小明在河边", "王小明在河边", 1.0),
        ("王小明在河边", "王小明在山上", 4 / 6),
        ("张三 2020 年", "李四 2020 年", 2 / 4),
        ("the cat sat", "the cat", 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        ("甲乙", "丙丁", 0.0),
        # Why it is not the primary metric: the first of these means the same as the gold, the others do not.
        ("王小明-李小红:夫妻", "李小红-王小明:夫妻", 5 / 8),
        ("王小明-李小红:夫妻", "王小明-李小红:兄妹", 6 / 8),
        ("王小明-李小红:夫妻", "王小明-李小芳:夫妻", 7 / 8),
        ("。", "。", 1.0),
        ("!", "。", 1.0),
        ("？", "cat", 0.0),
        ("cat", "", 0.0),
    ],
)
def test_rouge_l_counts_chinese_characters_and_latin_words(one: str, other: str, overlap: float) -> None:
    assert rouge_l_f1(one, other, tokens) == pytest.approx(overlap)
