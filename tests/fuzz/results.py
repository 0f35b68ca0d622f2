"""Fuzz targets: evalsets, stored replies, baselines, folders of earlier evaluations."""

from __future__ import annotations

from sftchat.evaluation.baseline import check_comparable, is_baseline, read_baseline
from sftchat.evaluation.evalset import check_examples, parse_ids, read_evalset
from sftchat.evaluation.replies import read_replies
from sftchat.evaluation.selection import PAST_PROBLEMS, past_ids
from sftchat.plugins.manager import load_plugins
from sftchat.types import SamplingParams
from tests.fuzz.inputs import json_like, lines_like
from tests.fuzz.rows import ROWS, SHAPES
from tests.fuzz.target import Room, Target, refused

REPLY = {"id": "1", "reply": "x", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 2, "errors": ["wrong"]}
FOREIGN = (
    {
        "custom_id": "1",
        "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1}}},
    },
    {"doc_id": 1, "doc": {"id": "1"}, "resps": [["x"]]},
)
HEADER = {
    "sftchat_baseline": 2, "task": "general", "metrics": ["accuracy"], "model": "m", "identity": "", "template_hash": "",
    "evalsets": [{"name": "gold.jsonl", "sha256": "", "size": 1}], "sampling": {"temperature": 0.0},
}  # fmt: skip
ITEM = {
    "id": "1",
    "reply": "x",
    "finish_reason": "stop",
    "prompt_tokens": 1,
    "completion_tokens": 2,
    "stats": {"n": 1, "correct": 1.0},
    "right": True,
    "content": "abc",
}
REPORT = {"comparisons": [{"broken": ["1"]}], "results": [{"replies": "replies.jsonl"}]}
TASK = load_plugins().tasks["general"]


def replies(content: bytes, room: Room) -> None:
    """Any bytes are stored replies, or refused."""
    with refused():
        read_replies(room.file(content))


def baseline(content: bytes, room: Room) -> None:
    """Any bytes are a baseline that is comparable or not, or refused."""
    path = room.file(content)
    is_baseline(path)
    gold = room.file(b'{"id": "1", "messages": [{"role": "user", "content": "a"}], "gold": "b"}', "gold.jsonl")
    with refused():
        check_comparable(read_baseline(path), TASK, read_evalset(gold).examples, SamplingParams())


def evalset(content: bytes, room: Room) -> None:
    """Any bytes are an evalset, or refused."""
    with refused():
        check_examples(read_evalset(room.file(content)).examples)


def earlier(content: bytes, room: Room) -> None:
    """Any folder of an earlier evaluation gives items, and no file outside of it is read."""
    report, _, rest = content.partition(b"\n\n")
    room.file(b'{"id": "outside", "errors": ["x"]}', "outside.jsonl")
    room.file(report, "folder/report.json")
    room.file(rest, "folder/replies.jsonl")
    for kind in PAST_PROBLEMS:
        with refused():
            assert "outside" not in past_ids(kind, room.folder / "folder") or b"outside" in rest + report.replace(b"outside.jsonl", b"")
    with refused():
        past_ids("failing", room.file(content, "base.jsonl"))


def ids(content: bytes, room: Room) -> None:
    """Any bytes are ids, one per line."""
    assert parse_ids([str(room.file(content, "ids"))], ["1", "甲"], "--ids") <= {"1", "甲"}


WORDS = ('{"id": "1", "reply": "x"}', '"stats": {}', '"right": true', '"content": ""', '{"sftchat_baseline": 2', '"evalsets": []', "\n")

TARGETS = {
    "replies": Target(replies, lines_like(REPLY, *FOREIGN) | json_like(REPLY), WORDS),
    "baseline": Target(baseline, lines_like(HEADER, ITEM) | json_like(HEADER), WORDS),
    "evalset": Target(evalset, lines_like(*SHAPES[:2]) | ROWS),
    "earlier": Target(
        earlier, json_like(REPORT).flatmap(lambda report: lines_like(REPLY).map(lambda rows: report + b"\n\n" + rows)), WORDS
    ),
    "ids": Target(ids, lines_like("1", 1, "甲")),
}
