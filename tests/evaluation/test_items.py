"""Generating replies with an engine and scoring them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from sftchat import DataError, EngineError, Example, PluginError, Reply, Score, Task
from sftchat.engine import Chunk, Request
from sftchat.evaluation.evaluate import generate_outcomes
from sftchat.evaluation.scored import Failure, Item, Outcome

Make = Callable[..., Example]


@dataclass
class Chunks:
    """Engine that yields the given chunks for any request."""

    chunks: Iterable[Chunk]
    name: str = "chunks"
    asked: list[Request] = field(default_factory=list)
    cancelled: bool = False

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        self.asked = list(requests)
        try:
            yield from self.chunks
        except GeneratorExit:
            self.cancelled = True
            raise

    def close(self) -> None: ...


def shown(outcomes: Iterable[Outcome]) -> list[tuple[str, str]]:
    return [(o.example.id, o.reply.text if isinstance(o, Item) else f"failed: {o.error}") for o in outcomes]


def test_items_come_in_the_order_of_the_examples_for_any_order_of_replies(task: Task, example: Make) -> None:
    engine = Chunks(
        [
            Chunk("c", "三"),
            Chunk("a", "一", (1,)),
            Chunk("c", finish_reason="stop"),
            Chunk("b", "二", finish_reason="length"),
            Chunk("a", "二", (2, 3), "stop", prompt_tokens=7),
        ]
    )
    heard: list[Outcome] = []

    items = list(generate_outcomes(engine, task, [example("a"), example("b"), example("c")], heard.append))

    assert shown(items) == [("a", "一二"), ("b", "二"), ("c", "三")]
    assert shown(heard) == [("c", "三"), ("b", "二"), ("a", "一二")]
    assert isinstance(items[0], Item)
    assert items[0].reply == Reply("一二", "stop", 7, 3)


def test_all_examples_are_requested_at_once_with_the_sampling_of_the_task(task: Task, example: Make) -> None:
    engine = Chunks([Chunk("a", finish_reason="stop"), Chunk("b", finish_reason="stop")])

    list(generate_outcomes(engine, task, [example("a"), example("b")]))

    assert engine.asked == [Request(key, example(key).messages, sampling=task.sampling) for key in ("a", "b")]


def test_a_failed_request_is_a_failure_and_never_a_score_of_zero(task: Task, example: Make) -> None:
    engine = Chunks([Chunk("a", "甲-乙:", finish_reason="error", error="out of\nmemory"), Chunk("b", finish_reason="cancelled")])

    outcomes = list(generate_outcomes(engine, task, [example("a"), example("b"), example("c")]))

    assert outcomes == [
        Failure(example("a"), "out of memory"),
        Failure(example("b"), "the request ended as 'cancelled'"),
        Failure(example("c"), "the engine stopped without answering"),
    ]


def test_an_empty_reply_is_scored(task: Task, example: Make) -> None:
    (item,) = generate_outcomes(Chunks([Chunk("a", finish_reason="stop")]), task, [example("a")])

    assert isinstance(item, Item)
    assert item.score.stats == {"n": 1, "tp": 0, "pred": 0, "gold": 1, "exact": 0}
    assert not item.right


def test_a_reply_to_an_unknown_request_is_an_error_of_the_engine(task: Task, example: Make) -> None:
    for chunks in ([Chunk("x", finish_reason="stop")], [Chunk("a", finish_reason="stop"), Chunk("a", "more")]):
        with pytest.raises(EngineError, match=r"^engine 'chunks' answered request '[xa]', which is not waiting for an answer$"):
            list(generate_outcomes(Chunks(chunks), task, [example("a")]))


def test_closing_the_iterator_cancels_running_requests(task: Task, example: Make) -> None:
    engine = Chunks([Chunk("a", finish_reason="stop"), Chunk("b", finish_reason="stop")])
    outcomes = generate_outcomes(engine, task, [example("a"), example("b")])

    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]

    assert engine.cancelled


@pytest.mark.parametrize(
    ("ids", "gold", "message"),
    [
        (("a", "a"), "无", "gold.jsonl:a: id 'a' already stands at gold.jsonl:a; ids must be unique among all evalsets"),
        (("a",), None, 'gold.jsonl:a: row \'a\' has no gold reply to be scored against; add "gold": "…" or leave the row out'),
        (("",), "无", "gold.jsonl:: the row has no id; give every row an 'id' of its own"),
    ],
)
def test_examples_that_cannot_be_scored_are_refused_before_any_request(
    task: Task, example: Make, ids: tuple[str, ...], gold: str | None, message: str
) -> None:
    engine = Chunks([])

    with pytest.raises(DataError) as caught:
        list(generate_outcomes(engine, task, [example(identity, gold) for identity in ids]))

    assert str(caught.value) == message
    assert engine.asked == []


def test_a_scorer_that_raises_is_named(task: Task, example: Make) -> None:
    def divide(example: Example, reply: Reply) -> Score:
        return Score({"n": 1 / len(reply.text)})

    broken = replace(task, score=divide)

    with pytest.raises(
        PluginError, match=r"^the scorer of task 'triples' failed on item 'a', in .*test_items.py:\d+: ZeroDivisionError: division by zero$"
    ):
        list(generate_outcomes(Chunks([Chunk("a", finish_reason="stop")]), broken, [example("a")]))
