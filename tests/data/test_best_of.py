"""The best reply by the task's scorer becomes a row, best and worst a pair, and the gold is never selected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sftchat import DataError, Example, Message, PluginError, Reply, Score, Task, ratio
from sftchat.data.best_of import ScoredSamples, Selection, check_prompts, mean_reward, score_samples, select
from sftchat.data.samples import SampleFile, SampleKey, prompt_key
from sftchat.task import Metric

EXAMPLE = Example((Message(role="user", content="a b?"),), "a b", "1", {"level": 2}, "f:1")


def overlap(example: Example, reply: Reply) -> Score:
    said, gold = set(reply.text.split()), set((example.gold or "").split())
    return Score({"hits": len(said & gold), "all": len(said) + len(gold)})


F1 = Metric("f1", lambda sums: ratio(2 * sums["hits"], sums["all"]), stats=("hits", "all"))
METRIC = F1.function.__code__.co_firstlineno
TASK = Task("words", "", lambda n, seed: (), overlap, (F1,))


def stored(path: Path, *texts: str) -> SampleFile:
    """A file of samples of the example's prompt."""
    with SampleFile(path, {}) as samples:
        for number, text in enumerate(texts):
            samples.add(SampleKey(prompt_key(EXAMPLE.messages), number), Reply(text))
    return samples


def of(*replies: str | Reply) -> ScoredSamples:
    whole = tuple(reply if isinstance(reply, Reply) else Reply(reply) for reply in replies)
    return ScoredSamples(
        EXAMPLE, whole, tuple(round(2 * len({*r.text.split()} & {"a", "b"}) / (len({*r.text.split()}) + 2), 6) for r in whole)
    )


def test_samples_are_scored_by_the_primary_metric_of_each_alone(tmp_path: Path) -> None:
    samples = stored(tmp_path / "s", "a", "a b", "c", "b a")
    other = Example((Message(role="user", content="?"),), "x")
    (found,) = score_samples(TASK, [EXAMPLE, other], samples, 3)
    assert found == ScoredSamples(EXAMPLE, (Reply("a"), Reply("a b"), Reply("c")), (2 / 3, 1.0, 0.0))
    assert found.mean == pytest.approx(5 / 9)
    lower = replace(TASK, metrics=(replace(F1, higher_is_better=False),))
    assert next(score_samples(lower, [EXAMPLE], samples, 1)).rewards == (-2 / 3,)


def test_the_best_becomes_a_row_and_best_and_worst_a_pair() -> None:
    choice = select(of("a", "b a", "c d", "a b"))
    assert choice.row == replace(EXAMPLE, gold="b a", metadata={"level": 2, "best_of": {"reward": 1.0, "mean": 0.666667, "k": 4}})
    assert choice.pair == {
        "id": "1",
        "prompt": [{"role": "user", "content": "a b?"}],
        "chosen": [{"role": "assistant", "content": "b a"}],
        "rejected": [{"role": "assistant", "content": "c d"}],
        "score_chosen": 1.0,
        "score_rejected": 0.0,
    }


def test_the_gold_is_never_selected() -> None:
    assert select(of("c", "d")) == Selection("nothing good")
    (row,) = [select(of("c", "a")).row]
    assert row is not None
    assert row.gold == "a"


def test_a_reply_that_was_cut_off_is_never_the_best_but_may_be_the_worst() -> None:
    choice = select(of(Reply("a b", "length"), "a", Reply("c", "length")))
    assert choice.row is not None
    assert choice.row.gold == "a"
    assert choice.pair is not None
    assert choice.pair["rejected"] == [{"role": "assistant", "content": "c"}]
    assert select(of(Reply("a b", "length"))) == Selection("nothing good")


def test_replies_of_equal_score_are_no_pair() -> None:
    assert select(of("a b", "b a")).pair is None


def test_prompts_that_the_model_solves_are_left_out() -> None:
    assert select(of("a b", "a b", "a"), solved=0.8) == Selection("solved")
    assert select(of("a b", "a b", "a"), solved=0.9).outcome == "kept"


def test_the_minimum_score_is_reached_or_there_is_no_row() -> None:
    assert select(of("a", "c"), min_reward=0.7) == Selection("nothing good")
    assert select(of("a", "c"), min_reward=0.6).outcome == "kept"
    assert select(of("c", "d"), min_reward=0).outcome == "kept"


def test_prompts_that_cannot_be_generated_or_scored_are_refused() -> None:
    for example, message in (
        (Example((), "text", source="f:2"), "f:2: the row is a text without a prompt to be answered"),
        (
            Example(EXAMPLE.messages, source="f:3"),
            "f:3: the row has no gold reply to score samples against; add one, or use 'sftchat data distill'",
        ),
    ):
        with pytest.raises(DataError) as caught:
            list(check_prompts([example]))
        assert str(caught.value) == message


def fails(example: Example, reply: Reply) -> Score:
    return 1 / 0  # type: ignore[return-value]


LINE = fails.__code__.co_firstlineno + 1


def test_an_error_of_a_scorer_or_metric_names_the_plugin(tmp_path: Path) -> None:
    samples = stored(tmp_path / "s", "a")
    for task, message in (
        (
            replace(TASK, score=fails),
            f"the scorer of task 'words' failed on item '1', in {__file__}:{LINE}: ZeroDivisionError: division by zero",
        ),
        (
            replace(TASK, score=lambda example, reply: Score({"n": 1})),
            f"metric 'f1' failed for n 1, in {__file__}:{METRIC}: KeyError: 'hits'",
        ),
    ):
        with pytest.raises(PluginError) as caught:
            list(score_samples(task, [EXAMPLE], samples, 1))  # type: ignore[arg-type]
        assert str(caught.value) == message


def test_the_score_of_a_row_is_that_of_its_samples_or_else_of_its_own_reply(tmp_path: Path) -> None:
    samples = stored(tmp_path / "s", "a", "a b")
    assert mean_reward(TASK, samples, EXAMPLE) == pytest.approx(5 / 6)
    assert mean_reward(TASK, None, EXAMPLE) == 1.0
    with pytest.raises(DataError) as caught:
        mean_reward(TASK, samples, Example((Message(role="user", content="?"),), "x", source="f:9"))
    assert str(caught.value) == f"f:9: no sample of this prompt is in {tmp_path / 's'}"
