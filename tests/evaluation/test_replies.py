"""``replies.jsonl``: written completely, read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import DataError, Example, Reply, Score, Task
from sftchat._util.files import write_atomically
from sftchat.evaluation.evaluate import Scorer, score_stored
from sftchat.evaluation.replies import check_replies_match, outcome_line, read_replies
from sftchat.evaluation.scored import Failure, Item, Outcome
from sftchat.types import FinishReason

FINISHES: tuple[FinishReason, ...] = ("stop", "length")
Make = Callable[..., Example]


def test_a_line_holds_the_reply_and_its_score(task: Task, example: Make) -> None:
    line = outcome_line(Scorer(task)(example("a"), Reply("甲-乙:恋人", "length", 7, 5)))

    assert line == (
        '{"id": "a", "reply": "甲-乙:恋人", "finish_reason": "length", "prompt_tokens": 7, "completion_tokens": 5, "answer": "甲-乙:恋人", '
        '"errors": ["missing", "spurious"], "stats": {"exact": 0, "gold": 1, "n": 1, "pred": 1, "tp": 0}}\n'
    )


def test_written_replies_score_the_same_when_read_again(task: Task, example: Make, tmp_path: Path) -> None:
    outcomes: list[Outcome] = [
        Scorer(task)(example("a"), Reply("甲-乙:夫妻", "stop", 3, 4)),
        Failure(example("b"), "server gone"),
        Scorer(task)(example("c"), Reply("", "length")),
    ]
    path = tmp_path / "replies.jsonl"

    write_atomically(path, map(outcome_line, outcomes))

    again = score_stored(task, [example("a"), example("b"), example("c")], [read_replies(path)])[0]
    assert list(again.outcomes.values()) == outcomes
    assert [file.name for file in tmp_path.iterdir()] == ["replies.jsonl"]


@given(text=st.text(st.characters(exclude_categories=())), finish=st.sampled_from(FINISHES))
def test_any_reply_survives_the_file(tmp_path_factory: pytest.TempPathFactory, text: str, finish: FinishReason) -> None:
    path = tmp_path_factory.mktemp("replies") / "replies.jsonl"
    item = Item(Example((), "", "甲"), Reply(text, finish), Score({"n": 1}))

    write_atomically(path, outcome_line(item))

    assert read_replies(path) == {"甲": item.reply}


def test_only_id_and_reply_are_required(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text('\ufeff{"id": 1, "reply": "无", "model": "other"}\n\n', encoding="utf-8")

    assert read_replies(path) == {"1": Reply("无")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": the file has no replies"),
        ("[]\n", ":1: not a JSON object but list"),
        ('{"reply": "x"}\n', ":1: 'id' must be a text that is not empty"),
        ('{"id": "a", "text": "b"}\n', ":1: item 'a' has no 'reply'; it has the keys \"id\", \"text\""),
        ('{"id": "a", "reply": 1}\n', ":1: 'reply' of item 'a' is 1, must be a text"),
        ('{"id": "a", "reply": "x"}\n{"id": "a", "reply": "y"}\n', ":2: id 'a' has two replies"),
        (
            '{"id": "a", "reply": "x", "finish_reason": 7}\n',
            ":1: 'finish_reason' of item 'a' is 7, must be a text such as stop or length",
        ),
        ('{"id": "a", "reply": "x", "prompt_tokens": -1}\n', ":1: 'prompt_tokens' of item 'a' is -1, must be a whole number from 0"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(DataError) as caught:
        read_replies(path)

    assert str(caught.value) == f"{path}{message}"


def test_a_line_that_is_not_json_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text("{", encoding="utf-8")

    with pytest.raises(DataError, match=r"replies.jsonl:1: not a JSON object: "):
        read_replies(path)
    with pytest.raises(DataError, match=r"gone.jsonl: cannot read replies: No such file or directory$"):
        read_replies(tmp_path / "gone.jsonl")


def test_missing_and_unknown_ids_are_listed_and_the_rest_counted() -> None:
    asked = [str(number) for number in range(8)]

    with pytest.raises(DataError) as caught:
        check_replies_match({"0": Reply(""), "x": Reply("")}, asked, "r.jsonl")

    assert str(caught.value) == "r.jsonl: no reply to '1', '2', '3', '4', '5' and 2 more of the 8 items; 'x' not in the evalset"


def test_ids_beyond_the_limit_are_not_unknown() -> None:
    check_replies_match({"0": Reply(""), "1": Reply("")}, ["0"], "r.jsonl", other_ids={"0", "1"})


def test_an_error_instead_of_a_reply_is_an_unanswered_item(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text('{"id": "a", "error": "timed out"}\n{"id": "b", "reply": "c"}\n')

    assert read_replies(path) == {"a": "timed out", "b": Reply("c")}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('"eos_token"', Reply("x")),
        ('"STOP"', Reply("x")),
        ('"end_turn"', Reply("x")),
        ('""', Reply("x")),
        ("null", Reply("x")),
        ('"max_tokens"', Reply("x", "length")),
        ('"content_filter"', "the server ended the reply with 'content_filter'"),
        ('"abort"', "the server ended the reply with 'abort'"),
        ('"tool_calls"', "the server ended the reply with 'tool_calls'"),
        ('"cancelled"', "the request ended as 'cancelled'"),
    ],
)
@pytest.mark.parametrize(
    "row",
    [
        '{"id": "a", "reply": "x", "finish_reason": FINISH}',
        '{"custom_id": "a", "error": null, "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "x"}, "finish_reason": FINISH}]}}}',
    ],
    ids=["ours", "batch"],
)  # fmt: skip
def test_a_finish_reason_means_the_same_in_a_file_and_from_a_server(tmp_path: Path, row: str, said: str, found: Reply | str) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(row.replace("FINISH", said) + '\n{"id": "b", "reply": "y"}\n')

    assert read_replies(path) == {"a": found, "b": Reply("y")}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('"response": {"status_code": 400, "body": {"error": {"message": "too long"}}}, "error": null', "HTTP 400: too long"),
        ('"response": {"status_code": 429, "body": {"object": "error", "message": "slow down"}}', "HTTP 429: slow down"),
        ('"response": {"status_code": 500, "body": null}, "error": {"code": "x", "message": "gone"}', "HTTP 500: gone"),
        ('"response": null, "error": {"code": "batch_expired", "message": "not in time"}', "not in time"),
        ('"response": null, "error": {"code": "batch_expired"}', "batch_expired"),
        ('"response": null, "error": null', "the request has neither a response nor an error"),
    ],
)
def test_an_error_in_a_batch_file_keeps_its_message(tmp_path: Path, row: str, words: str) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(f'{{"custom_id": "a", {row}}}\n')

    assert read_replies(path) == {"a": words}


def test_another_encoding_is_reported_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_bytes('{"id": "a", "reply": "b"}\n'.encode("utf-16"))

    with pytest.raises(DataError, match="not UTF-8 at byte 0 of the line; convert it, such as with: iconv -f UTF-16 -t UTF-8$"):
        read_replies(path)


def sample(identity: str, said: str, filter: str) -> str:
    row = {"doc_id": 0, "doc": {"id": identity}, "resps": [[said]], "filtered_resps": [said], "filter": filter}
    return json.dumps(row) + "\n"


def test_a_sample_of_lm_evaluation_harness_counts_once_for_any_number_of_filters(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(sample(name, f"is {name}", filter) for filter in ("strict", "flexible", "none") for name in "ab"))

    assert read_replies(path) == {"a": Reply("is a"), "b": Reply("is b")}


@pytest.mark.parametrize("again", [sample("a", "x", "strict"), sample("a", "y", "flexible"), '{"id": "a", "reply": "x"}\n'])
def test_two_samples_of_one_item_are_refused(tmp_path: Path, again: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(sample("a", "x", "strict") + again)

    with pytest.raises(DataError, match=r"samples.jsonl:2: id 'a' has two replies$"):
        read_replies(path)


def test_a_reply_with_a_repeated_key_is_refused_with_its_line_like_a_gold_row(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"id": "a", "reply": "x"}\n{"id": "b", "reply": "wrong", "reply": "right"}\n', encoding="utf-8")

    with pytest.raises(DataError, match=r'r.jsonl:2: not a JSON object: key "reply" stands twice in one object; remove one$'):
        read_replies(path)


CALLED = '<tool_call>\n{"name": "now", "arguments": {"utc": true}}\n</tool_call>'


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (
            {"content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "now", "arguments": '{"utc": true}'}}]},
            CALLED,
        ),
        ({"content": "Wait.", "tool_calls": [{"function": {"name": "now", "arguments": {"utc": True}}}]}, f"Wait.\n{CALLED}"),
        ({"content": "", "function_call": {"name": "now", "arguments": '{"utc": true}'}}, CALLED),
    ],
)
def test_tool_calls_of_a_stored_response_are_part_of_the_reply(tmp_path: Path, message: dict[str, Any], found: str) -> None:
    body = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    path = tmp_path / "replies.jsonl"
    path.write_text(json.dumps({"custom_id": "a", "error": None, "response": {"status_code": 200, "body": body}}))

    assert read_replies(path) == {"a": Reply(found)}
