"""``json_fields`` and ``find_json``: what is read, what is right, and what is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import Example, Reply, Score
from sftchat.scorers import json_fields
from sftchat.scorers.json_text import find_json
from sftchat.scorers.json_values import count_fields

LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=12
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, min_size=1, max_size=4)


def scored(gold: Any, reply: Any, **arguments: Any) -> Score:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in (gold, reply)]
    return json_fields(**arguments).score(Example((), texts[0]), Reply(texts[1]))


def counts(gold: Any, reply: Any, **arguments: Any) -> tuple[float, float, float, tuple[str, ...]]:
    """tp, pred, gold and the error classes."""
    score = scored(gold, reply, **arguments)
    return score.stats["tp"], score.stats["pred"], score.stats["gold"], score.errors


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("  [1, 2]\n", [1, 2]),
        ("7", 7),
        ('Here it is:\n```json\n{"a": 1}\n```\nFine?', {"a": 1}),
        ('```\nno\n```\n```\n{"a": 2}\n```', {"a": 2}),
        ('first {x}, then {"a": {"b": "}"}} and [1].', {"a": {"b": "}"}}),
        ('{"a": [1, 2,], // two\n "b": True,}', {"a": [1, 2], "b": True}),
        ('{"a": "x, ] // y", }', {"a": "x, ] // y"}),
        ("{'a': 'it\\'s', 'b': None, 'c': -1.5}", {"a": "it's", "b": None, "c": -1.5}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
    ],
)
def test_json_is_found_alone_in_a_fence_or_in_text_and_repaired(text: str, value: Any) -> None:
    assert find_json(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "no", '{"a": 1', '{"a": 1, "a": 2}', "{1: 2}", "{'a': {1, 2}}", '{"a": NaN}', "{'a': 1, 'a': 2}", "[" * 3000, "[" * 150 + "]" * 150],
)  # fmt: skip
def test_what_would_need_a_guess_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|no text|deep|twice"):
        find_json(text)


def test_the_example_of_the_docstring() -> None:
    assert scored({"name": "Anna", "age": 30}, {"name": "anna", "age": "30"}) == Score(
        {"n": 1, "tp": 1, "pred": 2, "gold": 2, "exact": 0, "valid": 1},
        '{"age": "30", "name": "anna"}',
        ("wrong_type",),
        {
            "name": {"n": 1, "tp": 1, "pred": 1, "gold": 1, "exact": 1, "valid": 1},
            "age": {"n": 1, "tp": 0, "pred": 1, "gold": 1, "exact": 0, "valid": 1},
        },
    )


@pytest.mark.parametrize(
    ("gold", "reply", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, (1, 1, 2, ("missing_field",))),
        ({"a": 1}, {"a": 1, "b": 2}, (1, 2, 1, ("extra_field",))),
        ({"a": 1}, {"a": 2}, (0, 1, 1, ("wrong_value",))),
        ({"a": 1}, {"a": 1.0}, (1, 1, 1, ())),
        ({"a": 1}, {"a": True}, (0, 1, 1, ("wrong_type",))),
        ({"a": None}, {"a": "null"}, (0, 1, 1, ("wrong_type",))),
        ({"a": {"b": 1, "c": 2}}, {"a": "b"}, (0, 1, 2, ("wrong_type",))),
        ({"a": {}}, {"a": []}, (0, 1, 1, ("wrong_type",))),
        ({"a": [1, 2, 2]}, {"a": [2, 1, 2]}, (3, 3, 3, ())),
        ({"a": [1, 2, 2]}, {"a": [2, 1, 1]}, (2, 3, 3, ("wrong_value",))),
        ({"a": [1, 2]}, {"a": [2]}, (1, 1, 2, ("missing_field",))),
        ([{"x": 1, "y": 2}, {"x": 3, "y": 4}], [{"x": 3, "y": 5}, {"x": 1, "y": 2}], (3, 4, 4, ("wrong_value",))),
        ("null", "nothing", (0, 0, 1, ("unparsable",))),
        ("not JSON", "null", (0, 1, 1, ("wrong_value",))),
        ({"a": "Rome"}, "", (0, 0, 1, ("empty",))),
    ],
)
def test_differences_are_counted_and_named(gold: Any, reply: Any, expected: tuple[Any, ...]) -> None:
    assert counts(gold, reply) == expected


def test_objects_in_a_list_are_matched_for_the_most_right_fields() -> None:
    gold = [{"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 2}]
    greedy_would_take = [{"a": 1, "b": 2, "c": 2}, {"a": 1, "b": 9, "c": 9}]

    assert counts(gold, greedy_would_take) == (3, 6, 6, ("wrong_value",))


def test_arguments_relax_types_and_tighten_strings() -> None:
    assert counts({"a": 30, "b": True, "c": None}, {"a": "30.0", "b": "true", "c": "null"}, ignore_types=True) == (3, 3, 3, ())
    assert counts({"a": "Rome"}, {"a": "rome."}) == (1, 1, 1, ())
    assert counts({"a": "Rome"}, {"a": "rome."}, exact_text=True) == (0, 1, 1, ("wrong_value",))


def test_long_lists_are_scored_in_a_second() -> None:
    gold = [{"x": number} for number in range(20_000)]

    assert counts(gold, [*gold[1:], {"x": -1}]) == (19_999, 20_000, 20_000, ("wrong_value",))


@given(value=OBJECTS)
def test_the_order_of_keys_and_list_items_changes_nothing(value: Any) -> None:
    def reverse(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: reverse(part[key]) for key in reversed(part)}
        return [reverse(item) for item in reversed(part)] if isinstance(part, list) else part

    fields = count_fields(value)

    assert counts(value, reverse(value), exact_text=True) == (fields, fields, fields, ())


@given(value=OBJECTS, data=st.data())
def test_a_dropped_field_lowers_the_right_ones_by_one(value: Any, data: st.DataObject) -> None:
    paths = list(leaf_paths(value))
    if not paths:  # only empty objects and lists
        return
    *path, last = data.draw(st.sampled_from(paths))
    dropped = json.loads(json.dumps(value))
    holder = dropped
    for step in path:
        holder = holder[step]
    del holder[last]
    fields = count_fields(value)

    tp, _, gold, errors = counts(value, dropped, exact_text=True)

    assert (tp, gold, bool(errors)) == (fields - 1, fields, True)


def leaf_paths(value: Any) -> Any:
    for step, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, dict | list):
            yield from ((step, *rest) for rest in leaf_paths(item))
        else:
            yield (step,)
