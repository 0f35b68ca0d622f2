"""Fuzz targets: files of rows, questions and samples; conversations written as text."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import strategies as st

from sftchat.data.check import check
from sftchat.data.formats import FORMATS, read_examples, serialize, to_example
from sftchat.data.samples import SampleFile
from sftchat.data.transcripts import TRANSCRIPT_STYLES, from_transcript, parse_transcript, to_transcript
from sftchat.data.turns import tools_of
from sftchat.errors import SftchatError
from sftchat.inference.ask import read_questions
from sftchat.types import Example
from tests.fuzz.inputs import DEEP, json_like, lines_like, values, words_of, written
from tests.fuzz.target import Room, Target, refused, text_of

TURNS = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
]
SHAPES = (
    {"messages": TURNS, "id": "1", "tools": "[]"},
    {"messages": TURNS[:1], "gold": "b", "id": 1, "metadata": {"a": 1}},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"prompt": "a", "completion": "b"},
    {"prompt": TURNS[:1], "chosen": TURNS[:1], "rejected": "b"},
    {"instruction": "a", "input": "b", "output": "c", "history": [["a", "b"]], "system": "s"},
    {"text": "User: a\nAssistant: b\n"},
)
ROWS = lines_like(*SHAPES) | st.lists(st.sampled_from(SHAPES) | values, max_size=3).map(written) | st.binary(max_size=200) | DEEP


def formats(content: bytes, room: Room) -> None:
    """Any bytes are rows that can be checked, written in some shape and read back unchanged, or an error."""
    path = room.file(content)
    check(path)
    for example in read_examples(path):
        with refused():
            tools_of(example)
        for shape in FORMATS:
            try:
                row = serialize(example, shape)
            except SftchatError:
                continue
            back = to_example(row)
            assert shape == "text" or (back.conversation, back.id) == (example.conversation, example.id), shape


def transcripts(content: bytes, room: Room) -> None:
    """Any text is a conversation or not; a written conversation is read back."""
    example = Example((), text_of(content))
    turns = parse_transcript(text_of(content))
    assert (turns is None) == (from_transcript(example) is example)
    for name in TRANSCRIPT_STYLES if turns else ():
        with refused():
            assert parse_transcript(to_transcript(Example(turns or ()), name).gold or "") == turns


def questions(content: bytes, room: Room) -> None:
    """Any bytes are questions, as lines or as rows."""
    for name in ("q.txt", "q.jsonl"):
        with refused():
            assert read_questions(room.file(content, name), "system")


def samples(content: bytes, room: Room) -> None:
    """Any bytes are samples, or are refused."""
    found = SampleFile(room.file(content, "samples.jsonl"))
    assert len(found) >= 0
    with suppress(KeyError):
        found.replies_to([{"role": "user", "content": "a"}])


SAMPLE = {"prompt": "ab", "sample": 0, "reply": "x", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1}
MARKS = ("<|im_start|>", "<|im_end|>\n", "user\n", "assistant\n", "system\n", "### Instruction:\n", "### Input:\n", "### Response:\n", "User: ", "Assistant: ", "System: ", "\n", "\n\n", "a")  # fmt: skip

TARGETS = {
    "formats": Target(formats, ROWS, ('"messages"', '"role"', '"content"', '"user"', '"assistant"', '"gold"', '"prompt"', '"completion"')),
    "transcripts": Target(transcripts, words_of(*MARKS), MARKS),
    "questions": Target(questions, ROWS | st.text(max_size=60).map(str.encode)),
    "samples": Target(samples, lines_like({"sftchat_samples": 1, "model": "m"}, SAMPLE).map(lambda text: text + b"\n") | json_like(SAMPLE)),
}
