"""Changed items, their effect on the metric, and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import Example, Message, Reply, Task
from sftchat.evaluation.evalset import EvalsetIdentity
from sftchat.evaluation.evaluate import Scorer, compare, summarise
from sftchat.evaluation.report.view import Report
from sftchat.evaluation.results import Comparison
from sftchat.evaluation.scored import collect_outcomes
from tests.evaluation.conftest import F1_TASK
from tests.evaluation.test_evaluate import shown

GOLD = "甲-乙:夫妻\n丙-丁:同门"
SAID = (GOLD, "丙-丁:同门\n甲-乙:夫妻", "甲-乙:夫妻", "丙-丁:同门", "甲-乙:恋人", "无", "戊-己:朋友\n庚-辛:朋友\n甲-乙:夫妻")


def compared(task: Task, before: Sequence[str], after: Sequence[str]) -> Comparison:
    """Compare two models with these replies."""

    def result(name: str, said: Sequence[str]) -> object:
        examples = [Example((Message(role="user", content="?"),), GOLD, f"i{n}") for n in range(len(said))]
        outcomes = [Scorer(task)(example, Reply(text)) for example, text in zip(examples, said, strict=True)]
        return summarise(name, task, collect_outcomes(outcomes), EvalsetIdentity("gold.jsonl", size=len(said)))

    return compare(result("old", before), result("new", after), task)  # type: ignore[arg-type]


def ids(comparison: Comparison, kind: str) -> list[str]:
    return [new.example.id for _, new in getattr(comparison, kind)]


def test_every_kind_of_change_is_distinguished() -> None:
    found = compared(F1_TASK, [GOLD, GOLD, SAID[2], SAID[2], SAID[2], GOLD], [SAID[1], SAID[2], GOLD, "无", SAID[3], GOLD])

    assert [ids(found, kind) for kind in ("broken", "fixed", "score_changed", "text_changed")] == [["i1"], ["i2"], ["i3"], ["i0", "i4"]]
    assert found.differing == 5


def test_the_largest_loss_comes_first() -> None:
    found = compared(F1_TASK, [GOLD] * 4, [SAID[2], "无", SAID[6], GOLD])

    assert ids(found, "broken") == ["i2", "i1", "i0"]  # two wrong triples and one missing, two missing, one missing
    assert found.losses["i2"] > found.losses["i1"] > found.losses["i0"] > 0


@given(st.lists(st.tuples(st.sampled_from(SAID), st.sampled_from(SAID)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_changed_reply_is_in_exactly_one_kind_and_no_other_is(pairs: list[tuple[str, str]]) -> None:
    found = compared(F1_TASK, [old for old, _ in pairs], [new for _, new in pairs])
    listed = [name for kind in ("broken", "fixed", "score_changed", "text_changed") for name in ids(found, kind)]

    assert sorted(listed) == [f"i{n}" for n, (old, new) in enumerate(pairs) if old != new]
    assert len(set(listed)) == len(listed)


def test_the_report_holds_every_change_with_both_replies_and_error_classes() -> None:
    found = compared(F1_TASK, [GOLD, GOLD, GOLD], [GOLD, SAID[2], SAID[1]])
    changes = json.loads(Report("triples", (found.candidate,), (found.baseline,), (found,)).to_json())["comparisons"][0]["changes"]

    assert changes == [
        {
            "id": "i1",
            "change": "broken",
            "loss": round(1 - 10 / 11, 10),
            "gold": GOLD,
            "baseline": {"reply": GOLD, "errors": []},
            "candidate": {"reply": SAID[2], "errors": ["missing"]},
        },
        {
            "id": "i2",
            "change": "alike",
            "loss": 0.0,
            "gold": GOLD,
            "baseline": {"reply": GOLD, "errors": []},
            "candidate": {"reply": SAID[1], "errors": []},
        },
    ]


def test_the_terminal_shows_some_changes_and_counts_the_rest() -> None:
    found = compared(F1_TASK, [GOLD] * 9, [SAID[2]] * 7 + [SAID[1], GOLD])
    text = shown(Report("triples", (found.candidate,), (found.baseline,), (found,)))

    assert "(missing)" in text
    assert text.count("(missing)") == 5
    assert "… 2 more newly broken, all in the report (-o DIR)\n" in text
    assert "7 newly broken, 0 newly fixed, 1 other text, same counts; 8 of 9 replies differ\n" in text


def test_a_loss_is_positive_where_lower_is_better_and_the_item_rose(example: Callable[..., Example]) -> None:
    from dataclasses import replace

    from sftchat import Metric, ratio

    faults = Metric("faults", lambda sums: ratio(sums["pred"] - sums["tp"], sums["n"]), stats=("pred", "tp", "n"), higher_is_better=False)
    found = compared(replace(F1_TASK, metrics=(faults,)), [GOLD, SAID[4]], [SAID[6], GOLD])

    assert (found.losses["i0"] > 0, found.losses["i1"] < 0) == (True, True)
