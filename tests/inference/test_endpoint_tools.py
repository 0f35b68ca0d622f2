"""Tool calls of a server: they become the end of the reply's text when the request had tools."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from sftchat import Reply
from sftchat.engine import Request, collect
from sftchat.errors import SftchatWarning
from sftchat.scorers.tool_formats import Call, Calls, parse_calls
from sftchat.types import SamplingParams
from tests.inference.endpoint_kit import DONE, USAGE, ask, delta, desk, end, streamed

TOOLS: tuple[dict[str, Any], ...] = ({"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},)
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def part(index: int, arguments: str = "", **more: Any) -> dict[str, Any]:
    """A tool call in a delta; ``name`` and ``id`` are in the first one only."""
    name = {"name": more.pop("name")} if "name" in more else {}
    return {"index": index, **more, "function": {**name, "arguments": arguments}}


def calling(*parts: dict[str, Any]) -> str:
    return delta(None, tool_calls=list(parts))


def answer(*packets: str, request: Request | None = None) -> Reply | str:
    ((_, found),) = collect(desk(streamed(*packets)).engine, [request or ask(tools=TOOLS)])
    return found if isinstance(found, Reply) else str(found)


def test_arguments_that_arrive_in_pieces_are_joined_by_index() -> None:
    packets = (
        calling(part(0, name="weather", id="a")),
        calling(part(0, '{"city": "Ro'), part(1, '{"utc": t', name="now", id="b")),
        calling(part(1, "rue}")),
        calling(part(0, 'me"}')),
        end("tool_calls"),
        USAGE,
        DONE,
    )

    assert answer(*packets) == Reply(
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {"utc": true}}\n</tool_call>',
        "stop",
        5,
        3,
    )


def test_calls_stand_after_the_text_and_apart_from_the_thoughts() -> None:
    packets = (delta(None, reasoning="hm"), delta("Let me "), delta("look."), calling(part(0, name="now")), end("tool_calls"))

    assert answer(*packets) == Reply(f"Let me look.\n{NOW}", thoughts="hm")


def test_held_back_text_stands_before_the_calls() -> None:
    request = ask(tools=TOOLS, sampling=SamplingParams(stop=("\nQuestion:",)))

    assert answer(delta("Paris\nQuest"), calling(part(0, name="now")), end("tool_calls"), request=request) == Reply(f"Paris\nQuest\n{NOW}")


@pytest.mark.parametrize("reason", ["tool_calls", "function_call", "stop", "tool_use"])
def test_every_word_for_the_end_of_a_call_is_a_normal_end(reason: str) -> None:
    assert answer(calling(part(0, "{}", name="now")), end(reason)) == Reply(NOW)


def test_an_answer_that_is_not_streamed_and_the_older_form_are_read() -> None:
    message = {"content": None, "function_call": {"name": "now", "arguments": "{}"}}
    whole = httpx2.Response(200, json={"choices": [{"message": message, "finish_reason": "function_call"}]})

    assert dict(collect(desk(whole).engine, [ask(tools=TOOLS)])) == {"r": Reply(NOW)}


def test_calls_under_one_index_with_other_ids_are_several() -> None:
    packets = (calling(part(0, "{}", name="now", id="a")), calling(part(0, "{}", name="now", id="b")), end("tool_calls"))

    assert answer(*packets) == Reply(f"{NOW}\n{NOW}")


def test_a_call_that_was_cut_off_cannot_be_parsed() -> None:
    found = answer(calling(part(0, '{"city": "Ro', name="weather")), end("length"))

    assert found == Reply('<tool_call>\n{"name": "weather", "arguments": {"city": "Ro}\n</tool_call>', "length")
    assert parse_calls(found.text) == Calls((), 1)


def test_a_stream_of_calls_without_a_finish_reason_is_complete() -> None:
    assert answer(calling(part(0, name="now")), DONE) == Reply(NOW)


def test_a_finish_reason_of_calls_without_any_is_a_failure() -> None:
    assert answer(delta("half"), end("tool_calls")) == "the server ended the reply with 'tool_calls'"


def test_endless_arguments_are_cut() -> None:
    endless = (calling(part(0, "x" * 5000)) for _ in range(200))

    with pytest.warns(SftchatWarning, match="did not stop after max_tokens 8"):
        found = answer(calling(part(0, name="now")), *endless, request=ask(tools=TOOLS, sampling=SamplingParams(max_new_tokens=8)))

    assert isinstance(found, Reply)
    assert found.finish_reason == "length"
    assert len(found.text) < 200 * 5000


def test_the_key_is_removed_from_arguments() -> None:
    engine = desk(
        streamed(calling(part(0, json.dumps({"key": "sk-0123456789"}), name="now")), end("tool_calls")), key="sk-0123456789"
    ).engine

    assert dict(collect(engine, [ask(tools=TOOLS)])) == {"r": Reply(NOW.replace("{}", '{"key": "***"}'))}


@pytest.mark.parametrize("text", ["Let me look.", ""])
def test_the_text_of_calls_is_read_by_the_scorer(text: str) -> None:
    arguments = {"city": 'São 北京 \\ " <b>', "deep": [{"x": None}]}
    found = answer(delta(text), calling(part(0, json.dumps(arguments), name="weather")), end("tool_calls"))

    assert isinstance(found, Reply)
    assert parse_calls(found.text) == Calls((Call("weather", arguments),))
