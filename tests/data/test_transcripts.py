"""Conversations written as text and read back; other texts stay texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import DataError, Example, Message
from sftchat.cli import main
from sftchat.data.transcripts import TRANSCRIPT_STYLES, from_transcript, parse_transcript, to_transcript

SYSTEM = Message(role="system", content="Be brief.")
USER = Message(role="user", content="谁？\n在哪？")
ASSISTANT = Message(role="assistant", content="甲")
TALK = Example((SYSTEM, USER, ASSISTANT, USER), "乙", id="1", metadata={"level": 2}, source="f:1")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n谁？\n在哪？<|im_end|>\n<|im_start|>assistant\n甲<|im_end|>\n"
            "<|im_start|>user\n谁？\n在哪？<|im_end|>\n<|im_start|>assistant\n乙<|im_end|>\n",
        ),
        (
            "alpaca",
            "Be brief.\n\n### Instruction:\n谁？\n在哪？\n\n### Response:\n甲\n\n### Instruction:\n谁？\n在哪？\n\n### Response:\n乙",
        ),
        ("plain", "System: Be brief.\nUser: 谁？\n在哪？\nAssistant: 甲\nUser: 谁？\n在哪？\nAssistant: 乙\n"),
    ],
)
def test_a_conversation_is_written_out_and_read_back(name: str, text: str) -> None:
    written = to_transcript(TALK, name)
    assert written == Example((), text, id="1", metadata={"level": 2}, source="f:1")
    assert from_transcript(written) == TALK


@pytest.mark.parametrize("style", TRANSCRIPT_STYLES)
def test_the_input_of_an_alpaca_row_is_written_as_part_of_its_turn(style: str) -> None:
    question = Message(role="user", content="Sum up.\n\nA text.")
    row = Example((Message(role="user", content=question["content"], context="A text."),), "No.")
    assert from_transcript(to_transcript(row, style)) == Example((question,), "No.")


def test_the_spellings_of_well_known_data_sets_are_read() -> None:
    assert parse_transcript("### Human: 你好### no heading\n### Assistant: Hi!") == (
        Message(role="user", content="你好### no heading"),
        Message(role="assistant", content="Hi!"),
    )
    assert parse_transcript("Below is an instruction.\n\n### Instruction:\nSum up.\n\n### Input:\nA text.\n\n### Response:\nNo.") == (
        Message(role="system", content="Below is an instruction."),
        Message(role="user", content="Sum up.\n\nA text."),
        Message(role="assistant", content="No."),
    )


@pytest.mark.parametrize(
    "text",
    [
        "Once upon a time.",
        "<|im_start|>user\nhi<|im_end|>\nand more",
        "<|im_start|>user\nhi",
        "Assistant: first\nUser: second",
        "User: hi\nUser: hi",
        "### Response:\nno question",
        "He said:\nUser: hi\nAssistant: hi",
        "User: \nAssistant: hi",
        "### Input:\na\n\n### Response:\nb",
    ],
)
def test_other_texts_stay_texts(text: str) -> None:
    example = Example((), text)
    assert parse_transcript(text) is None
    assert from_transcript(example) == example


def test_a_text_that_could_not_be_read_back_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        to_transcript(Example((Message(role="user", content="a\nAssistant: b"),), "c", source="f:2"), "plain")
    assert str(caught.value) == (
        "f:2: a turn holds the marks of plain, or begins or ends with blanks, so it could not be read back; choose another --template"
    )
    with pytest.raises(DataError) as caught:
        to_transcript(Example((USER, Message(role="assistant", content="", tool_calls=[{}])), source="f:3"), "chatml")
    assert str(caught.value) == "f:3: messages[1] also holds tool_calls, for which text has no place; choose the format messages"


words = st.text(st.sampled_from("a好 \n#:<|>") | st.characters(codec="utf-8")).filter(str.strip) | st.sampled_from(
    ["### Input:", "\nUser:"]
)


@settings(database=None, deadline=None)
@given(st.lists(words, min_size=2, max_size=6), st.booleans(), st.sampled_from(TRANSCRIPT_STYLES))
def test_every_written_conversation_is_read_back_equal(said: list[str], system: bool, name: str) -> None:
    turns = [Message(role="user" if index % 2 == 0 else "assistant", content=content) for index, content in enumerate(said)]
    messages = (*([SYSTEM] if system else []), *turns)
    gold = messages[-1]["content"] if messages[-1]["role"] == "assistant" else None
    example = Example(messages[:-1] if gold is not None else messages, gold)
    try:
        written = to_transcript(example, name)
    except DataError:
        return
    assert from_transcript(written) == example


def test_convert_goes_to_text_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"id": "1", "messages": [SYSTEM, USER, ASSISTANT], "level": 2}
    Path("f").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert main(["data", "convert", "f", "t", "--to", "text", "--template", "alpaca", "-q"]) == 0
    assert main(["data", "convert", "t", "g", "--to", "messages", "-q"]) == 0
    assert json.loads(Path("g").read_text(encoding="utf-8")) == row
    assert capsys.readouterr() == ("", "")
    assert main(["data", "convert", "f", "x", "--to", "text"]) == 2
    assert main(["data", "convert", "f", "x", "--to", "alpaca", "--template", "plain"]) == 2
    assert capsys.readouterr().err == (
        "sftchat: error: f:1: a conversation becomes text only by a template; say which with --template, or choose the format messages\n"
        "sftchat: error: --template writes conversations as text, which --to alpaca does not; leave it out\n"
    )
    assert not Path("x").exists()
