"""The contract of a task: first-party tasks keep it, and each violation is one message."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat import Example, Message, Metric, PluginError, Reply, Score, Task, TrainingDefaults, hookimpl, rate, ratio
from sftchat.plugins.manager import load_plugins
from sftchat.testing import BrokenContract, check_task, contract_faults, plugin_manager_with


def generate(n: int, seed: int) -> Iterator[Example]:
    for index in range(n):
        rng = random.Random(f"{seed}-{index}")
        word = "".join(rng.choices("abcdefgh", k=5))
        yield Example((Message(role="user", content=f"say {word}"),), word, id=f"{seed}-{index}")


def score(example: Example, reply: Reply) -> Score:
    right = reply.text.strip() == example.gold
    return Score({"n": 1, "right": float(right)}, reply.text.strip(), () if right else ("wrong",))


GOOD = Task("say", "says a word", generate, score, (rate("accuracy", "right"),))


def faults(task: Task = GOOD, **changes: Any) -> list[str]:
    return list(contract_faults(replace(task, **changes)))


def test_a_task_that_keeps_the_contract_has_no_errors() -> None:
    check_task(GOOD)

    assert faults() == []


@pytest.mark.parametrize("name", sorted(load_plugins().tasks))
def test_every_installed_task_keeps_the_contract(name: str) -> None:
    check_task(load_plugins().task(name))


def test_every_failed_clause_is_a_line_of_the_error() -> None:
    with pytest.raises(BrokenContract) as broken:
        check_task(replace(GOOD, score=lambda example, reply: Score({"n": 1, "right": 1})))

    assert str(broken.value) == (
        "task 'say' breaks its contract:\n- metric 'accuracy', the primary one, is 1 for gold replies and for garbage alike: it cannot tell them apart"
    )
    assert len(broken.value.faults) == 1


def changed(**fields: Any) -> Any:
    """The generator with some fields of its rows replaced."""
    return lambda n, seed: (replace(example, **fields) for example in generate(n, seed))


def by_state(n: int, seed: int) -> Iterator[Example]:
    for index in range(n):
        word = str(random.random())
        yield Example((Message(role="user", content=word),), word, id=f"{seed}-{index}")


def deaf(n: int, seed: int) -> Iterator[Example]:
    return (replace(example, id=f"{seed}-{index}") for index, example in enumerate(generate(n, 0)))


def divides(n: int, seed: int) -> Iterator[Example]:
    return 1 / 0  # type: ignore[return-value]


def line_in(function: Any) -> int:
    """Return the line number of the only statement of a function."""
    return int(function.__code__.co_firstlineno) + 1


def short(n: int, seed: int) -> Iterator[Example]:
    return generate(n - 1, seed)


@pytest.mark.parametrize(
    ("generator", "fault"),
    [
        (by_state, "the same seed gives other rows (row 0 differs); draw from random.Random(f'{seed}-{index}') and from nothing else"),
        (deaf, "seeds 0 and 1 give the same rows; make them depend on the seed"),
        (short, "does not generate: the generator of task 'say' gave 99 rows, 100 were asked for"),
        (lambda n, seed: [{}] * n, "does not generate: the generator of task 'say' gives a dict, must give sftchat.Example (after 0 rows)"),
        (
            changed(messages=({"role": "user", "content": 3},)),
            "does not generate: the generator of task 'say' gives the turn {'role': 'user', 'content': 3}, must have a role and a content that are text "
            "(after 0 rows)",
        ),
        (
            divides,
            f"does not generate: the generator of task 'say' failed after 0 rows, in {__file__}:{line_in(divides)}: ZeroDivisionError: division by zero",
        ),
        (
            changed(id="one"),
            "does not generate: the generator of task 'say' gave the id 'one' to row 1 and to row 2; give every row its own, such as f'{seed}-{index}'",
        ),
        (changed(gold=None), "row 0: has no gold reply, so there is nothing to learn from it"),
        (changed(gold=""), "row 0: has an empty gold reply, so there is nothing to learn from it"),
        (changed(messages=()), "row 0: has no messages"),
        (
            changed(messages=({"role": "assistant", "content": "hi"},)),
            "row 0: ends with the role 'assistant'; the turn before the gold reply is the user's",
        ),
    ],
)
def test_a_generator_that_breaks_the_contract_is_reported(generator: Any, fault: str) -> None:
    assert fault in faults(generate=generator)


def grudging(example: Example, reply: Reply) -> Score:
    return Score({"n": 1, "right": float(reply.text == example.gold)}, errors=("late",))


def fragile(example: Example, reply: Reply) -> Score:
    json.loads(f'"{reply.text}"')
    return score(example, reply)


def moody(example: Example, reply: Reply) -> Score:
    return Score({"n": 1, "right": float(reply.text == example.gold)}, answer=str(random.random()))


def leaving(example: Example, reply: Reply) -> Score:
    raise SystemExit(0)


def sparing(example: Example, reply: Reply) -> Score:
    return Score({"n": 1, "right": 1}) if reply.text == example.gold else Score({"n": 1})


def slow(example: Example, reply: Reply) -> Score:
    sum(range(100_000 if reply.text == example.gold else 1))
    return score(example, reply)


@pytest.mark.parametrize(
    ("scorer", "fault"),
    [
        (grudging, "the gold reply of row 0-0 against itself has the faults late"),
        (fragile, "the scorer raises JSONDecodeError: Invalid control character at: line 1 column 2 (char 1) (on the reply '\\n\\n\\n')"),
        (moody, "the scorer scores the reply '' differently the second time"),
        (sparing, "the scorer counts n, right for gold replies and n for others"),
        (lambda example, reply: 1.0, "the scorer returns float, must return sftchat.Score (on the gold reply of row 0-0)"),
        (
            lambda example, reply: Score({"n": 1, "right": float("nan")}),
            "the scorer counts nan as 'right' of stats; counts are finite numbers (on the gold reply of row 0-0)",
        ),
        (
            lambda example, reply: Score({"n": 1, "right": -1}),
            "the scorer counts -1 as 'right' of stats; counts are finite numbers from 0 (on the gold reply of row 0-0)",
        ),
        (
            lambda example, reply: Score({"n": 1, "right": 1}, errors="wrong"),  # type: ignore[arg-type]
            "the scorer gives the errors 'wrong', must be a tuple of names (on the gold reply of row 0-0)",
        ),
        (leaving, "the scorer raises SystemExit: 0 (on the gold reply of row 0-0)"),
    ],
)
def test_a_scorer_that_breaks_the_contract_is_reported(scorer: Any, fault: str) -> None:
    assert fault in faults(score=scorer)


def test_a_scorer_that_is_too_slow_for_a_chat_is_reported() -> None:
    (fault,) = contract_faults(replace(GOOD, score=slow), milliseconds=0.1)

    assert fault.startswith("scoring a gold reply takes ")
    assert fault.endswith(" ms of CPU time; 0.1 ms is the most for a score that is shown in a chat")


def largest(sums: Any) -> Any:
    return max(sums["right"], 0.5)


@pytest.mark.parametrize(
    ("metric", "fault"),
    [
        (rate("m", "good"), "metric 'm' reads 'good', which its scorer does not count (it counts: n, right)"),
        (
            rate("m", "n"),
            "metric 'm', the primary one, is 1 for gold replies and for garbage alike: it cannot tell them apart",
        ),
        (
            Metric("m", lambda sums: ratio(sums["right"], sums["n"]), higher_is_better=False),
            "metric 'm' is better for empty replies (0) than for gold replies (1); is higher_is_better right?",
        ),
        (
            Metric("m", lambda sums: sums["right"] / sums["n"]),
            "metric 'm' has no finite value for some counts; divide with sftchat.ratio, which defines 0/0",
        ),
        (
            Metric("m", largest),
            f"metric 'm' failed for sums of n, right, in {__file__}:{line_in(largest)}: ValueError: The truth value of an array with more than one element is ambiguous. Use a.any() or a.all()",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_metric_that_breaks_the_contract_is_reported(metric: Metric, fault: str) -> None:
    assert fault in faults(metrics=(metric,))


def test_an_unknown_template_is_reported_with_the_nearest() -> None:
    assert faults(template="chatlm") == [
        "unknown template 'chatlm'; did you mean 'chatml'? (available: alpaca, chatml, instruction, llama3, plain, prompt)"
    ]


def test_rows_that_training_would_leave_out_are_counted() -> None:
    (fault,) = faults(training_defaults=lambda method, parameters: TrainingDefaults(max_length=4))

    assert fault.startswith("100 of 100 rows are longer than max_length=4 of training_defaults and would be left out; the longest has ")


def test_an_evalset_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"

    assert faults(evalsets={"gold": gold}) == [f"evalset 'gold' cannot be read: {gold}: no such evalset"]


def test_an_evalset_whose_gold_the_scorer_does_not_accept_is_reported(tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text(json.dumps({"id": "g", "messages": [{"role": "user", "content": "say x"}], "gold": " x"}) + "\n")

    assert faults(evalsets={"gold": gold}) == ["the gold reply of row g against itself has the faults wrong"]


def test_a_task_that_prints_is_reported() -> None:
    def loud(example: Example, reply: Reply) -> Score:
        sys.stdout.write("scoring")
        return score(example, reply)

    (fault,) = faults(score=loud)

    assert fault.startswith("prints to standard output, where results of commands go: 'scoringscoring")


class Plugin:
    """Plugin that registers the given objects."""

    def __init__(self, *tasks: Any) -> None:
        self.tasks = tasks

    @hookimpl
    def sftchat_register_tasks(self) -> Any:
        return self.tasks


def test_a_registry_for_tests_has_the_plugins_it_is_given_and_no_others() -> None:
    assert dict(plugin_manager_with(Plugin(GOOD)).tasks) == {"say": GOOD}
    assert dict(plugin_manager_with().tasks) == {}


def test_a_plugin_that_breaks_the_rules_is_an_error_in_a_test() -> None:
    with pytest.raises(PluginError, match="sftchat_register_tasks must return Task objects, got str"):
        plugin_manager_with(Plugin("say"))
