"""``tool_call`` and the formats in which models call tools."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import Example, Reply, Score
from sftchat.scorers import tool_call
from sftchat.scorers.tool_formats import Call, Calls, parse_calls

CALLS = (Call("get_weather", {"city": "Rome", "days": 3, "units": {"temp": "C"}}), Call("now", {}))


def object_of(call: Call, key: str = "arguments") -> str:
    return json.dumps({"name": call.name, key: call.arguments}, ensure_ascii=False)


def arguments_of(call: Call) -> str:
    return json.dumps(call.arguments, ensure_ascii=False)


def listed(calls: tuple[Call, ...]) -> str:
    return f"[{', '.join(map(object_of, calls))}]"


def each(form: Callable[[Call], str], between: str = "\n") -> Callable[[tuple[Call, ...]], str]:
    return lambda calls: between.join(map(form, calls))


def openai_object(call: Call) -> str:
    return json.dumps({"id": "c1", "type": "function", "function": {"name": call.name, "arguments": arguments_of(call)}})


FAMILIES: dict[str, Callable[[tuple[Call, ...]], str]] = {
    "hermes": each(lambda call: f"<tool_call>\n{object_of(call)}\n</tool_call>"),
    "hermes without the last end": lambda calls: each(lambda call: f"<tool_call>{object_of(call)}</tool_call>")(calls)[: -len("</tool_call>")],
    "hermes with text": lambda calls: "Let me look.\n" + each(lambda call: f"<tool_call>{object_of(call)}</tool_call>")(calls) + "\nDone.",
    "llama 3": each(lambda call: object_of(call, "parameters"), "; "),
    "llama 3 with tag": lambda calls: "<|python_tag|>" + each(lambda call: object_of(call, "parameters"), "; ")(calls),
    "llama 3.1 own functions": each(lambda call: f"<function={call.name}>{arguments_of(call)}</function>", ""),
    "mistral": lambda calls: f"[TOOL_CALLS] {listed(calls)}",
    "mistral without its special token": listed,
    "newer mistral": each(lambda call: f"[TOOL_CALLS]{call.name}[ARGS]{arguments_of(call)}", ""),
    "newer mistral with ids": each(lambda call: f"[TOOL_CALLS]{call.name}[CALL_ID]a1b2c3[ARGS]{arguments_of(call)}", ""),
    "mistral with braces": lambda calls: "[TOOL_CALLS]" + each(lambda call: f"{call.name}{arguments_of(call)}", "")(calls),
    "deepseek 3": lambda calls: "<｜tool▁calls▁begin｜>" + each(
        lambda call: f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call.name}\n```json\n{arguments_of(call)}\n```<｜tool▁call▁end｜>"
    )(calls) + "<｜tool▁calls▁end｜>",
    "deepseek 3.1": lambda calls: "<｜tool▁calls▁begin｜>" + each(
        lambda call: f"<｜tool▁call▁begin｜>{call.name}<｜tool▁sep｜>{arguments_of(call)}<｜tool▁call▁end｜>", ""
    )(calls) + "<｜tool▁calls▁end｜>",
    "deepseek without its special tokens": each(lambda call: f"function{call.name}\n```json\n{arguments_of(call)}\n```"),
    "kimi": lambda calls: "<|tool_calls_section_begin|>" + "".join(
        f"<|tool_call_begin|>functions.{call.name}:{number}<|tool_call_argument_begin|>{arguments_of(call)}<|tool_call_end|>"
        for number, call in enumerate(calls)
    ) + "<|tool_calls_section_end|>",
    "functionary": lambda calls: ">>>all\nOne moment.\n" + each(lambda call: f">>>{call.name}\n{arguments_of(call)}")(calls),
    "functionary 2": each(lambda call: f"<|recipient|>{call.name}\n<|content|>{arguments_of(call)}"),
    "granite": lambda calls: f"<|tool_call|>{listed(calls)}",
    "jamba": lambda calls: f"<tool_calls>{listed(calls)}</tool_calls>",
    "phi": lambda calls: f"functools{listed(calls)}",
    "fenced": lambda calls: f"I call:\n```json\n{listed(calls)}\n```",
    "fenced, each": each(lambda call: f"```json\n{object_of(call)}\n```"),
    "openai": each(openai_object),
    "in text": each(lambda call: f"I call {object_of(call)} now."),
}  # fmt: skip

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(st.characters(codec="utf-8", exclude_characters="<>`"), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text("abcxyz_", min_size=1, max_size=5), JSON_VALUES, max_size=3)
SOME_CALLS = st.lists(st.builds(Call, st.from_regex(r"[a-z][a-z_0-9]{1,6}", fullmatch=True).filter(lambda name: name != "all"), ARGUMENTS), min_size=1, max_size=4).map(tuple)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_calls_of_a_family_are_read(family: str) -> None:
    assert parse_calls(FAMILIES[family](CALLS)) == Calls(CALLS)


@given(family=st.sampled_from(sorted(FAMILIES)), calls=SOME_CALLS)
def test_any_calls_are_read_back(family: str, calls: tuple[Call, ...]) -> None:
    assert parse_calls(FAMILIES[family](calls)) == Calls(calls)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
            (Call("get_weather", {"city": "Rome", "days": 3}),),
        ),
        (
            "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
            (Call("get_weather", {"city": "Rome", "days": 3}),),
        ),
        ("[get_weather(city='Rome', days=3), clock.now()]", (Call("get_weather", {"city": "Rome", "days": 3}), Call("clock.now", {}))),
        ("<tool_call>{'name': 'now', 'arguments': {'utc': True}}</tool_call>", (Call("now", {"utc": True}),)),
        ('<tool_call>[{"name": "now"}, {"name": "now"}]</tool_call>', (Call("now", {}), Call("now", {}))),
    ],
    ids=["qwen3 coder", "glm", "pythonic", "python literals", "a list in tags"],
)  # fmt: skip
def test_formats_whose_values_are_no_json_are_read(text: str, calls: tuple[Call, ...]) -> None:
    assert parse_calls(text) == Calls(calls)


@pytest.mark.parametrize(
    ("text", "unparsable"),
    [
        ("", 0),
        ("The weather is fine.", 0),
        ('{"name": "Anna", "age": 3}', 0),
        ("[1, 2] and >>> doctest", 0),
        ('<tool_call>{"name": "now", "argum', 1),
        ("<tool_call></tool_call>", 1),
        ('<tool_call>{"arguments": {}}</tool_call>', 1),
        ('<function=now>{"a": </function>', 1),
        ("[TOOL_CALLS] soon", 1),
        ("[TOOL_CALLS]now[ARGS]{", 1),
        ("[now(3)]", 1),
    ],
)
def test_other_text_has_no_call_and_a_broken_call_is_counted(text: str, unparsable: int) -> None:
    assert parse_calls(text) == Calls((), unparsable)


ROME = '{"name": "weather", "arguments": {"city": "Rome"}}'


def scored(gold: str, reply: str, **arguments: Any) -> Score:
    return tool_call(**arguments).score(Example((), gold), Reply(reply))


def test_the_example_of_the_docstring() -> None:
    right = scored(f"[{ROME}]", f"<tool_call>{ROME.replace('Rome', 'rome')}</tool_call>")
    wrong = scored(f"[{ROME}]", ROME.replace("Rome", "Paris"))

    assert right == Score({"n": 1, "tp": 1, "pred": 1, "gold": 1, "name_tp": 1, "exact": 1}, right.answer)
    assert wrong == Score(
        {"n": 1, "tp": 0, "pred": 1, "gold": 1, "name_tp": 1, "exact": 0},
        '{"arguments": {"city": "Paris"}, "name": "weather"}',
        ("wrong_arguments",),
    )


@pytest.mark.parametrize(
    ("gold", "reply", "errors"),
    [
        ("[]", "Hello!", ()),
        ("[]", ROME, ("extra_call",)),
        (ROME, "Hello!", ("missing_call",)),
        (ROME, "", ("empty",)),
        (ROME, "I'm sorry, I can't do that.", ("refused",)),
        (ROME, ROME.replace("weather", "forecast"), ("wrong_name",)),
        (ROME, f"<tool_call>{ROME[:-5]}</tool_call>", ("unparsable",)),
        (f"[{ROME}, {ROME}]", ROME, ("missing_call",)),
        (ROME, f"[{ROME}, {ROME}]", ("extra_call",)),
        (ROME, ROME.replace("}}", ', "days": 1}}'), ("wrong_arguments",)),
        (f'[{ROME}, {{"name": "now", "arguments": {{}}}}]', f'[{ROME}, {{"name": "clock", "arguments": {{}}}}]', ("wrong_name",)),
        ('{"name": "f", "arguments": {"x": [1, 2]}}', '{"name": "f", "arguments": {"x": [2, 1]}}', ("wrong_arguments",)),
        ('{"name": "f", "arguments": {"x": 3}}', '{"name": "f", "arguments": {"x": "3"}}', ("wrong_arguments",)),
        ("<tool_call>{", "Hello!", ("missing_call",)),
    ],
)
def test_wrong_calls_have_an_error_class(gold: str, reply: str, errors: tuple[str, ...]) -> None:
    assert scored(gold, reply).errors == errors


def test_types_may_be_ignored_and_strings_be_exact() -> None:
    gold, reply = '{"name": "f", "arguments": {"x": 3, "y": "A"}}', '{"name": "f", "arguments": {"y": "a", "x": "3"}}'

    assert scored(gold, reply, ignore_types=True).errors == ()
    assert scored(gold, reply, ignore_types=True, exact_text=True).errors == ("wrong_arguments",)


@given(calls=SOME_CALLS, data=st.data())
def test_the_order_of_calls_and_arguments_never_matters(calls: tuple[Call, ...], data: st.DataObject) -> None:
    shuffled = tuple(data.draw(st.permutations([Call(call.name, dict(reversed(call.arguments.items()))) for call in calls])))

    assert scored(listed(calls), listed(shuffled), exact_text=True).errors == ()


@given(calls=SOME_CALLS, data=st.data())
def test_a_call_less_is_one_right_call_less(calls: tuple[Call, ...], data: st.DataObject) -> None:
    dropped = data.draw(st.integers(0, len(calls) - 1))
    score = scored(listed(calls), listed(calls[:dropped] + calls[dropped + 1 :]))

    assert (score.stats["tp"], score.stats["gold"]) == (len(calls) - 1, len(calls))
    assert score.errors == ("missing_call",)


def test_a_row_needs_a_gold_reply_whose_calls_can_be_read() -> None:
    problems = [
        list(tool_call().validate_row(Example((), gold))) for gold in (None, ROME, "[]", "Hello!", "<tool_call>{", '[{"name": "now"}]')
    ]

    unreadable = ["the gold reply has a tool call that cannot be read"]
    assert problems == [["the row has no gold reply to compare with"], [], [], [], unreadable, unreadable]


@pytest.mark.parametrize(
    "piece",
    ["<tool_call>", "<arg_key>", "<tool_call>a<arg_key>b</arg_key>", "<|tool_call_begin|>", "{", '{"', "[TOOL_CALLS]a{", "\n>>>a\n"],
)
def test_the_time_for_a_repeated_piece_grows_with_its_length(piece: str) -> None:
    started = time.thread_time()

    parse_calls(f"<tool_call>{piece * (60_000 // len(piece))}")

    assert time.thread_time() - started < 3
