"""Rows of every shape become examples, examples become rows, and other rows are refused with a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import DataError, Example, Message, UsageError
from sftchat.data.formats import FORMATS, assign_ids, format_of, read_examples, serialize, to_example
from sftchat.data.row_options import RowOptions

SYSTEM = Message(role="system", content="Be brief.")
USER = Message(role="user", content="Who?")
ASSISTANT = Message(role="assistant", content="甲")
THEN = Message(role="user", content="And then?")
GOLD = "乙"
CALL = Message(role="assistant", content="", tool_calls=[{"type": "function", "function": {"name": "f", "arguments": {"城": 1}}}])


def refusal(row: dict[str, Any], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        to_example(row, "f:3", **options)
    assert str(caught.value).startswith("f:3: ")
    return str(caught.value).removeprefix("f:3: ")


def test_the_last_assistant_turn_of_a_conversation_is_its_gold() -> None:
    row = {"messages": [SYSTEM, USER, ASSISTANT, THEN, Message(role="assistant", content=GOLD)]}
    assert to_example(row, "f:1") == Example((SYSTEM, USER, ASSISTANT, THEN), GOLD, source="f:1")
    assert to_example({"messages": [USER]}) == Example((USER,))


def test_an_evalset_row_has_its_gold_beside_the_turns() -> None:
    row = {"id": 7, "messages": [USER], "gold": GOLD, "metadata": {"from": "novel"}, "level": 2}
    assert to_example(row) == Example((USER,), GOLD, "7", {"level": 2, "from": "novel"})


def test_prompt_and_completion_are_text_or_turns() -> None:
    assert to_example({"prompt": "Who?", "completion": GOLD}) == Example((USER,), GOLD)
    assert to_example({"prompt": "Who?", "completion": GOLD, "system": "Be brief."}) == Example((SYSTEM, USER), GOLD)
    turns = {"prompt": [SYSTEM, USER], "completion": [ASSISTANT, THEN, Message(role="assistant", content=GOLD)]}
    assert to_example(turns) == Example((SYSTEM, USER, ASSISTANT, THEN), GOLD)


@pytest.mark.parametrize(("given_key", "reply_key"), [("input", "output"), ("context", "response")])
def test_alpaca_joins_instruction_and_input_with_a_blank_line(given_key: str, reply_key: str) -> None:
    joined = Example((Message(role="user", content="Sum up.\n\nA text.", context="A text."),), GOLD)
    assert to_example({"instruction": "Sum up.", given_key: "A text.", reply_key: GOLD}) == joined
    assert serialize(joined, "alpaca") == {"instruction": "Sum up.", "input": "A text.", "output": GOLD}
    for nothing in ("", None):
        assert to_example({"instruction": "Who?", given_key: nothing, reply_key: GOLD}) == Example((USER,), GOLD)
    assert to_example({"instruction": "Who?", reply_key: GOLD, "system": "Be brief.", "history": []}) == Example((SYSTEM, USER), GOLD)


def test_sharegpt_roles_are_translated() -> None:
    turns = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": GOLD}]
    assert to_example({"conversations": turns}) == Example((USER,), GOLD)
    assert to_example({"system": "Be brief.", "conversations": turns}) == Example((SYSTEM, USER), GOLD)
    told = [{"from": "narrator", "value": "Who?"}, {"from": "gpt", "value": GOLD}]
    assert to_example({"conversations": told}, options=RowOptions({"narrator": "user"})) == Example((USER,), GOLD)


def test_a_sharegpt_call_is_a_separate_turn() -> None:
    turns = [{"from": "human", "value": "Who?"}, {"from": "function_call", "value": '{"name": "f", "arguments": {"城": 1}}'}]
    answered = [*turns, {"from": "observation", "value": "3"}, {"from": "gpt", "value": GOLD}]
    example = Example((USER, CALL, Message(role="tool", content="3")), GOLD)
    assert to_example({"conversations": answered, "tools": "[]"}) == example
    assert serialize(example, "sharegpt") == {"conversations": answered}


def test_the_history_of_alpaca_rows_are_the_turns_before_the_instruction() -> None:
    row = {"instruction": "And then?", "input": "", "output": GOLD, "history": [["Who?", "甲"]], "system": "Be brief."}
    assert to_example(row) == Example((SYSTEM, USER, ASSISTANT, THEN), GOLD)
    assert serialize(to_example(row), "alpaca") == row


def test_turns_are_read_by_their_own_keys_under_any_row_key() -> None:
    assert to_example({"conversations": [USER, ASSISTANT]}) == Example((USER,), "甲")
    assert to_example({"messages": [{"from": "human", "value": "Who?"}]}) == Example((USER,))


def test_text_is_gold_without_turns() -> None:
    assert to_example({"text": "Once."}) == Example((), "Once.")


def test_text_next_to_another_shape_is_metadata() -> None:
    row = {"instruction": "Who?", "input": "", "output": GOLD, "text": "### Instruction: Who?"}
    assert to_example(row) == Example((USER,), GOLD, metadata={"text": "### Instruction: Who?"})


def test_null_keys_are_treated_as_absent() -> None:
    turns = [{**USER, "tool_calls": None}, {**ASSISTANT, "name": None, "tool_calls": []}]
    row = {"messages": turns, "prompt": None, "completion": None, "id": None, "metadata": None, "level": None}
    assert to_example(row) == Example((USER,), "甲", metadata={"level": None})


def test_a_last_turn_that_calls_tools_stays_a_turn() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f"}}]}
    assert to_example({"messages": [USER, call]}) == Example((USER, {**call, "content": ""}))  # type: ignore[typeddict-item]


@pytest.mark.parametrize("weight", [1, 1.0, None], ids=str)
def test_a_reply_with_a_non_zero_weight_is_an_ordinary_reply(weight: float | None) -> None:
    assert to_example({"messages": [USER, {"role": "assistant", "content": "a", "weight": weight}]}) == Example((USER,), "a")


def test_a_reply_with_weight_0_is_no_gold() -> None:
    said = {"role": "assistant", "content": "a", "weight": 0}

    assert to_example({"messages": [USER, said]}).messages == (USER, said)
    assert (
        to_example({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 0.0}]}).messages[1] == said
    )


REFUSED = [
    (
        {"question": "a", "answer": None},
        'unknown shape of row, with the keys "question", "answer" (null); it needs one of: '
        "messages; messages, gold; prompt, completion; prompt, chosen, rejected; instruction, output; conversations; text",
    ),
    (
        {},
        "unknown shape of row, with the keys none; it needs one of: "
        "messages; messages, gold; prompt, completion; prompt, chosen, rejected; instruction, output; conversations; text",
    ),
    (
        {"messages": [USER], "prompt": "a", "completion": "b"},
        "the row has the shapes messages and prompt-completion at once; remove the keys of one",
    ),
    ({"messages": "hi"}, 'messages is "hi", must be a list of turns'),
    ({"messages": []}, "messages has no turns; a row needs at least a user turn"),
    (
        {"messages": [USER, {"role": "assistant", "content": "a", "weight": 0.5}]},
        "messages[1].weight is 0.5, must be 1 or true for a reply to learn, 0 or false for one that is only read",
    ),
    ({"messages": ["hi"]}, 'messages[0] is "hi", must be an object such as {"role": "user", "content": "..."}'),
    (
        {"messages": [{"speaker": "user", "content": "a"}]},
        'messages[0] has the keys "speaker", "content"; a turn needs role and content, or from and value',
    ),
    (
        {"messages": [{"role": "usr", "content": "a"}]},
        "messages[0].role: unknown role 'usr'; did you mean 'user'? (available: assistant, developer, function, system, tool, user); "
        "say what it is with --role-map usr=ROLE",
    ),
    (
        {"conversations": [{"from": "bing", "value": "a"}]},
        "conversations[0].from: unknown role 'bing' (available: assistant, developer, function, function_call, gpt, human, "
        "observation, system, tool, user); say what it is with --role-map bing=ROLE",
    ),
    ({"messages": [{"role": 1, "content": "a"}]}, "messages[0].role is 1, must be text"),
    ({"messages": [{"role": "user", "content": " \n"}]}, "messages[0].content is empty; fill it or remove the row"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content is null, must be text"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "b"}}]}]},
        'messages[0].content[1] is a part of type "image_url"; only parts of type "text" can be read',
    ),
    ({"conversations": [{"from": "human", "value": 3}]}, "conversations[0].value is 3, must be text"),
    (
        {"messages": [USER, USER]},
        "messages[1] is a user turn after a user turn; the order is system (at most once, first), then user and assistant by turns; "
        "--merge-turns joins consecutive turns of one role",
    ),
    (
        {"messages": [ASSISTANT]},
        "messages[0] is an assistant turn as the first turn; the order is system (at most once, first), then user and assistant by turns",
    ),
    (
        {"messages": [USER, ASSISTANT, SYSTEM]},
        "messages[2] is a system turn after an assistant turn; the order is system (at most once, first), then user and assistant by turns",
    ),
    ({"messages": [SYSTEM]}, "messages has no user turn; a row needs at least one"),
    (
        {"messages": [SYSTEM, USER], "system": "Be long."},
        "the row has a system prompt under 'system' and another as its first turn; remove one",
    ),
    ({"messages": [USER], "system": 3}, "system is 3, must be text"),
    ({"messages": [USER], "gold": 3}, "gold is 3, must be text"),
    ({"messages": [USER], "gold": None}, "gold is null, must be text"),
    ({"messages": [USER], "gold": ""}, "gold is empty; fill it or remove the row"),
    (
        {"messages": [USER, ASSISTANT], "gold": GOLD},
        "messages ends with an assistant turn and gold holds a second reply; remove one of them",
    ),
    ({"prompt": "a", "completion": 3}, "completion is 3, must be text"),
    ({"prompt": "", "completion": "a"}, "prompt is empty; fill it or remove the row"),
    (
        {"prompt": [USER], "completion": "a"},
        "prompt is a list of turns and the other half is text; write both as text or both as turns",
    ),
    ({"prompt": [SYSTEM], "completion": [USER]}, 'completion ends with the role "user", must end with an assistant turn'),
    (
        {"prompt": [USER, ASSISTANT], "completion": [ASSISTANT]},
        "prompt[2] is an assistant turn after an assistant turn; "
        "the order is system (at most once, first), then user and assistant by turns; --merge-turns joins consecutive turns of one role",
    ),
    ({"instruction": "a", "output": " "}, "output is empty; fill it or remove the row"),
    ({"instruction": "", "input": "", "output": "a"}, "instruction is empty and so is input; fill one or remove the row"),
    ({"instruction": "a", "input": 0, "output": "a"}, "input is 0, must be text"),
    ({"instruction": "a", "input": "b", "context": "c", "output": "d"}, "the row has both input and context; remove one"),
    ({"instruction": "a", "output": "b", "response": "c"}, "the row has both output and response; remove one"),
    (
        {"instruction": "a", "output": "b", "history": [["c", "d"], ["e"]]},
        'history[1] is ["e"], must be a pair of what was asked and what was answered',
    ),
    ({"instruction": "a", "output": "b", "history": [["c", ""]]}, "history[0][1] is empty; fill it or remove the row"),
    (
        {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "weather()"}]},
        'conversations[1].value is "weather()", must be the JSON of a call such as {"name": "weather", "arguments": {"city": "..."}}',
    ),
    ({"text": 3}, "text is 3, must be text"),
    ({"text": ""}, "text is empty; fill it or remove the row"),
    ({"text": "a", "id": True}, "id is true, must be text or a whole number"),
    ({"text": "a", "level": 1, "metadata": {"level": 2}}, 'key "level" is both in the row and in its metadata; remove one'),
]


@pytest.mark.parametrize(("row", "message"), REFUSED, ids=[message[:50] for _, message in REFUSED])
def test_a_row_that_cannot_be_an_example_is_refused_with_key_and_value(row: dict[str, Any], message: str) -> None:
    assert refusal(row) == message


def test_a_file_is_read_row_by_row_and_refused_where_it_breaks(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"prompt": "Who?", "completion": "乙"}\n{"text": "Once."}\n{"text": 1}\n', encoding="utf-8")
    examples = read_examples(path)
    assert [next(examples), next(examples)] == [Example((USER,), GOLD, source=f"{path}:1"), Example((), "Once.", source=f"{path}:2")]
    with pytest.raises(DataError) as caught:
        next(examples)
    assert str(caught.value) == f"{path}:3: text is 1, must be text"


def test_missing_ids_are_the_numbers_of_the_rows() -> None:
    assert [example.id for example in assign_ids([Example((USER,)), Example((USER,), id="a"), Example((USER,))])] == [
        "row-000001",
        "a",
        "row-000003",
    ]


def test_a_repeated_id_is_refused_with_both_lines() -> None:
    with pytest.raises(DataError) as caught:
        list(assign_ids([Example((USER,), id="a", source="f:1"), Example((USER,), id="a", source="f:2")]))
    assert str(caught.value) == 'f:2: id "a" is taken by f:1; give every row its own'


def test_every_format_writes_its_own_shape() -> None:
    example = Example((SYSTEM, USER), GOLD, "a", {"level": 2})
    gold = Message(role="assistant", content=GOLD)
    assert {format: serialize(example, format) for format in FORMATS if format != "text"} == {
        "messages": {"id": "a", "messages": [SYSTEM, USER, gold], "level": 2},
        "prompt-completion": {"id": "a", "prompt": [SYSTEM, USER], "completion": [gold], "level": 2},
        "alpaca": {"id": "a", "system": "Be brief.", "instruction": "Who?", "input": "", "output": GOLD, "level": 2},
        "sharegpt": {
            "id": "a",
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Who?"},
                {"from": "gpt", "value": GOLD},
            ],
            "level": 2,
        },
        "evalset": {"id": "a", "messages": [SYSTEM, USER], "gold": GOLD, "metadata": {"level": 2}},
    }
    assert serialize(Example((), "Once.", metadata={"level": 2}), "text") == {"text": "Once.", "level": 2}


def test_metadata_that_look_like_row_keys_are_kept_apart() -> None:
    assert serialize(Example((USER,), metadata={"text": "x"}), "messages") == {"messages": [USER], "metadata": {"text": "x"}}


UNWRITABLE = [
    (Example((USER,), None), "evalset", "the row has no gold reply, which evalset needs; choose the format messages"),
    (Example((USER,), None), "alpaca", "the row has no reply, which alpaca needs; choose the format messages"),
    (Example((USER,), None), "prompt-completion", "the row has no reply, which prompt-completion needs; choose the format messages"),
    (
        Example((USER, CALL, Message(role="tool", content="3")), GOLD),
        "alpaca",
        "messages[1] also holds tool_calls, for which alpaca has no place; choose the format messages",
    ),
    (
        Example((USER, ASSISTANT, Message(role="tool", content="3")), GOLD),
        "alpaca",
        "messages[2] is a tool's, for which alpaca has no place; choose the format messages",
    ),
    (
        Example((USER,), GOLD),
        "text",
        "a conversation becomes text only by a template; say which with --template, or choose the format messages",
    ),
    (Example((), "Once."), "messages", "a text row has no turns, which messages needs; choose the format text"),
    (
        Example(({**USER, "value": 1},), GOLD),  # type: ignore[typeddict-unknown-key]
        "sharegpt",
        "messages[0] also holds value, which sharegpt needs itself; choose the format messages",
    ),
]


@pytest.mark.parametrize(("example", "format", "message"), UNWRITABLE, ids=[f"{row[1]}: {row[2][:30]}" for row in UNWRITABLE])
def test_values_that_a_format_cannot_hold_are_refused(example: Example, format: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        serialize(example, format)
    assert str(caught.value) == message


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        serialize(Example((USER,)), "sharegtp")
    assert str(caught.value) == (
        "unknown format 'sharegtp'; did you mean 'sharegpt'? (available: alpaca, evalset, messages, prompt-completion, sharegpt, text)"
    )


words = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words, st.lists, max_leaves=4
)
keys = st.sampled_from(["level", "metadata", "text", "gold", "id", "prompt", "completion", "output", "来源"])


arguments = words | st.dictionaries(words, values.filter(lambda value: value is not None), max_size=2)
functions = st.fixed_dictionaries({"name": words, "arguments": arguments}, optional={"strict": st.booleans()})
calls = st.fixed_dictionaries({"type": st.just("function"), "function": functions}, optional={"id": words, "name": words})


@st.composite
def exchanges(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Strategy for a question, its tool calls and its answer."""
    turns: list[dict[str, Any]] = [{"role": "user", "content": draw(words)}]
    if draw(st.booleans()):
        call = {"role": "assistant", "content": draw(st.just("") | words), "tool_calls": draw(st.lists(calls, min_size=1, max_size=2))}
        turns += [call, {"role": "tool", "content": draw(words), **draw(st.just({}) | st.fixed_dictionaries({"tool_call_id": words}))}]
    return [*turns, {"role": "assistant", "content": draw(words), **draw(st.sampled_from([{}, {"weight": 0}]))}]


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Strategy for conversations that a file can hold."""
    turns: list[Any] = [{"role": "system", "content": draw(words)}] if draw(st.booleans()) else []
    for exchange in draw(st.lists(exchanges(), max_size=2)):
        turns += exchange
    gold = draw(st.none() | words)
    last = Message(role="user", content=draw(words))
    return Example((*turns, last), gold, draw(st.just("") | words), draw(st.dictionaries(keys, values, max_size=3)))


@settings(database=None, deadline=None)
@given(examples(), st.sampled_from(FORMATS))
def test_an_example_survives_every_format_that_can_hold_it(example: Example, format: str) -> None:
    try:
        row = serialize(example, format)
    except DataError:
        holds = {"messages": True, "sharegpt": True, "text": False}.get(format, example.gold is not None)
        assert not holds or (format == "alpaca" and any({"tool_calls", "weight"} & turn.keys() for turn in example.messages))
        return
    assert format_of(row) == format
    assert to_example(json.loads(json.dumps(row, ensure_ascii=False))) == example
