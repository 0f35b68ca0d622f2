"""Turns, tools and tool calls of any form are converted to one form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import DataError, Example
from sftchat.data.formats import serialize, to_example
from sftchat.data.row_options import ReadingNotes, RowOptions
from sftchat.data.turns import normalize_tools, tools_of

PARAMETERS = {"type": "object", "properties": {"lake": {"type": "string"}}}
FUNCTION = {"name": "depth", "description": "How deep a lake is.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"type": "function", "function": {"name": "depth", "arguments": {"lake": "Garda"}}}
ASK = {"role": "user", "content": "How deep is Garda?"}
ANSWER = {"role": "tool", "content": "346"}
LAST = {"role": "assistant", "content": "346 metres."}


def turns(*given: dict[str, Any], options: RowOptions = RowOptions()) -> list[Any]:  # noqa: B008 - frozen
    return list(to_example({"messages": list(given)}, options=options).conversation)


def refused(row: dict[str, Any], options: RowOptions = RowOptions()) -> str:  # noqa: B008 - frozen
    with pytest.raises(DataError) as caught:
        to_example(row, options=options)
    return caught.value.message


@pytest.mark.parametrize("row", [{"tools": [TOOL]}, {"tools": [FUNCTION]}, {"tools": json.dumps([FUNCTION])}, {"tools": json.dumps([TOOL])}, {"functions": [FUNCTION]}, {"tools": [{"type": "function", **FUNCTION}]}, {"metadata": {"tools": [FUNCTION]}}])  # fmt: skip
def test_tools_of_any_form_are_converted_to_one(row: dict[str, Any]) -> None:
    example = to_example({"messages": [ASK, LAST], **row})

    assert example.metadata == {"tools": [TOOL]}
    assert tools_of(example) == (TOOL,)


@pytest.mark.parametrize("nothing", [None, [], "", "[]", " "])
def test_no_tools_give_none(nothing: Any) -> None:
    assert to_example({"messages": [ASK, LAST], "tools": nothing}).metadata == {}
    assert tools_of(Example((), metadata={"tools": nothing})) == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tools": "["}, 'tools is "[", which is no JSON: Expecting value: line 1 column 2 (char 1)'),
        ({"tools": [{"function": {}}]}, 'tools[0] is {"function": {}}, which names no function'),
        ({"functions": {"a": 1}}, 'functions is {"a": 1}, must be a list of JSON schemas'),
        ({"functions": [FUNCTION], "tools": [TOOL]}, "the row has both tools and functions; remove one"),
    ],
)
def test_invalid_tools_are_refused_when_the_row_is_read(row: dict[str, Any], message: str) -> None:
    assert refused({"messages": [ASK, LAST], **row}) == message


CALLS = [
    {"tool_calls": [CALL]},
    {"tool_calls": [{"function": {"name": "depth", "arguments": '{"lake": "Garda"}'}}]},
    {"tool_calls": [{"name": "depth", "arguments": {"lake": "Garda"}}]},
    {"tool_calls": CALL["function"]},
    {"function_call": {"name": "depth", "arguments": '{"lake":"Garda"}'}, "tool_calls": None},
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
@pytest.mark.parametrize("role", ["tool", "function"])
def test_calls_of_any_form_are_converted_to_one(call: dict[str, Any], content: dict[str, Any], role: str) -> None:
    called = {"role": "assistant", **content, **call}

    assert turns(ASK, called, {**ANSWER, "role": role}, LAST) == [
        ASK, {"role": "assistant", "content": "", "tool_calls": [CALL]}, ANSWER, LAST,
    ]  # fmt: skip


def test_a_call_without_a_name_is_refused() -> None:
    assert refused({"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]}) == (
        'messages[1].tool_calls[0] is {"id": "1"}, must be a call such as {"type": "function", "function": {"name": "weather", "arguments": {}}}'
    )
    both = {"role": "assistant", "content": "", "tool_calls": [CALL], "function_call": CALL["function"]}
    assert refused({"messages": [ASK, both]}) == "messages[1] has both tool_calls and function_call; remove one"


def test_sharegpt_calls_join_the_text_before_them_and_one_another() -> None:
    call = json.dumps(CALL["function"])
    row = [
        {"from": "human", "value": "How deep is Garda?"},
        {"from": "gpt", "value": "I measure."},
        {"from": "function_call", "value": call},
        {"from": "function_call", "value": call},
        {"from": "observation", "value": ""},
        {"from": "gpt", "value": "Nobody knows."},
    ]

    example = to_example({"conversations": row})

    assert list(example.conversation) == [
        ASK, {"role": "assistant", "content": "I measure.", "tool_calls": [CALL, CALL]}, {"role": "tool", "content": ""},
        {"role": "assistant", "content": "Nobody knows."},
    ]  # fmt: skip


def test_null_members_that_arrow_added_are_removed_and_reported() -> None:
    notes = ReadingNotes()
    call = {"type": "function", "function": {"name": "depth", "arguments": {"lake": "Garda", "river": None}}}
    tool = {**FUNCTION, "strict": None, "parameters": {"type": "object", "properties": {**PARAMETERS["properties"], "river": None}}}  # type: ignore[dict-item]
    row = {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [call]}, ANSWER, LAST], "tools": [tool]}

    example = to_example(row, notes=notes)

    assert example.messages[1]["tool_calls"] == [CALL]
    assert example.metadata == {"tools": [TOOL]}
    assert notes.lines() == [
        "1 row: members that are null in turns, tools or calls of tools are left out; Arrow adds them where other rows have a value"
    ]


def test_null_members_of_turns_are_reported_once_for_each_row_that_has_any() -> None:
    notes = ReadingNotes()
    padded: list[Any] = [{**turn, "name": None, "tool_calls": None, "function_call": None} for turn in (ASK, LAST)]
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}

    examples = [to_example({"messages": messages}, notes=notes) for messages in (padded, padded, [ASK, called, ANSWER, LAST])]

    assert [list(example.conversation) for example in examples[:2]] == [[ASK, LAST]] * 2
    assert notes.lines() == [
        "2 rows: members that are null in turns, tools or calls of tools are left out; Arrow adds them where other rows have a value"
    ]


def test_null_arguments_that_the_author_wrote_as_text_stay() -> None:
    call = {"function": {"name": "depth", "arguments": '{"lake": null}'}}

    (found,) = turns(ASK, {"role": "assistant", "content": "", "tool_calls": [call]})[1]["tool_calls"]

    assert found["function"]["arguments"] == '{"lake": null}'


def test_content_in_parts_of_text_is_joined() -> None:
    parts = [{"type": "text", "text": "How deep "}, "is ", {"type": "input_text", "text": "Garda?", "image_url": None}]

    assert turns({"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}, {"role": "user", "content": parts}, LAST) == [
        {"role": "system", "content": "Be brief."}, ASK, LAST,
    ]  # fmt: skip


@pytest.mark.parametrize("row", [{"messages": json.dumps([ASK, LAST])}, {"conversations": json.dumps([ASK, LAST])}])
def test_turns_in_json_text_are_read_as_json_and_that_is_reported(row: dict[str, Any]) -> None:
    notes = ReadingNotes()

    assert list(to_example(row, notes=notes).conversation) == [ASK, LAST]
    assert notes.lines() == [f"1 row: {next(iter(row))} is JSON text and is read as JSON"]


@pytest.mark.parametrize(
    ("key", "unlearned", "learned"), [("train", False, True), ("loss", False, True), ("weight", 0, 1), ("loss", 0.0, 1.0)]
)
def test_replies_that_are_not_to_be_learned_have_weight_0(key: str, unlearned: Any, learned: Any) -> None:
    assert turns(ASK, {**LAST, key: unlearned}, ASK, {**LAST, key: learned}) == [ASK, {**LAST, "weight": 0}, ASK, LAST]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([ASK, {**LAST, "train": "no"}], 'messages[1].train is "no", must be 1 or true for a reply to learn, 0 or false for one that is only read'),
        ([{**ASK, "train": True}, LAST], "messages[0].train is true, but only assistant turns are learned; remove it"),
        (
            [ASK, {**LAST, "train": False, "weight": 1}],
            "messages[1] is to be learned and not to be learned: weight is 1, train is false",
        ),
    ],
)  # fmt: skip
def test_contradictory_weights_are_refused(given: list[Any], message: str) -> None:
    assert refused({"messages": given}) == message


def test_consecutive_turns_are_joined_on_request() -> None:
    said = [{**ASK, "content": "Hi."}, ASK, {"role": "assistant", "content": "I measure."}, {"role": "assistant", "content": None, "tool_calls": [CALL]}, ANSWER, ANSWER, LAST]  # fmt: skip

    assert turns(*said, options=RowOptions(merge_turns=True)) == [
        {"role": "user", "content": "Hi.\n\nHow deep is Garda?"}, {"role": "assistant", "content": "I measure.", "tool_calls": [CALL]}, ANSWER,
        ANSWER, LAST,
    ]  # fmt: skip


def test_turns_of_which_only_one_is_learned_are_not_joined() -> None:
    assert refused({"messages": [ASK, {**LAST, "weight": 0}, LAST]}, RowOptions(merge_turns=True)) == (
        "messages[2] and the turn before it differ in weight, so they cannot be joined; make them alike"
    )


@pytest.mark.parametrize("before", [[], [{"role": "system", "content": "Be brief."}]])
def test_assistant_turns_before_the_first_user_turn_are_dropped_on_request(before: list[dict[str, Any]]) -> None:
    said = [*before, LAST, ASK, LAST]

    assert refused({"messages": said}).endswith("; --leading-assistant drop leaves out those before the first user turn")
    assert turns(*said, options=RowOptions(leading_assistant="drop")) == [*before, ASK, LAST]


def test_a_row_of_assistant_turns_only_is_refused_without_a_useless_remedy() -> None:
    assert refused({"messages": [LAST]}).endswith("then user and assistant by turns")
    assert refused({"messages": [LAST]}, RowOptions(leading_assistant="drop")) == "messages has no user turn; a row needs at least one"


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "a", "{}", '{"a": null}', '{"a": 1}']),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "function", "arguments", "type", "id"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
a_turn = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
    optional={"content": anything, "tool_calls": anything, "function_call": anything, "train": anything, "weight": anything},
)
OPTIONS = st.builds(RowOptions, merge_turns=st.booleans(), leading_assistant=st.sampled_from(["refuse", "drop"]))


@settings(database=None, deadline=None)
@given(st.lists(a_turn | st.sampled_from([ASK, LAST, ANSWER]), min_size=1, max_size=5), anything, OPTIONS)
def test_any_row_is_refused_with_a_message_or_normalised_to_a_stable_form(given_turns: list[Any], tools: Any, options: RowOptions) -> None:
    try:
        example = to_example({"messages": given_turns, "tools": tools}, options=options)
    except DataError:
        return

    again = to_example(json.loads(json.dumps(serialize(example, "messages"))))

    assert again == example
    assert to_example(json.loads(json.dumps(serialize(example, "sharegpt")))) == example
    assert list(tools_of(example)) == normalize_tools(example.metadata.get("tools")) == example.metadata.get("tools", [])
