"""Columns with other names, labels, and keys that change the meaning of a row: mapped, or refused by name with a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import DataError, Example, Message, UsageError
from sftchat.cli import main
from sftchat.data.formats import to_example
from sftchat.data.row_options import (
    COLUMN_NAMES,
    SIMILAR_NAMES,
    ReadingNotes,
    RowOptions,
    UnwantedReplyError,
    parse_column_map,
    recorded_options,
)

ASKED = Message(role="user", content="Which dog?")
REPLY = "The brown one."


def refused(row: dict[str, Any], options: RowOptions = RowOptions()) -> str:  # noqa: B008 - frozen
    with pytest.raises(DataError) as caught:
        to_example(row, "f:3", options)
    return caught.value.message


@given(st.sampled_from(SIMILAR_NAMES["prompt"]), st.sampled_from(SIMILAR_NAMES["completion"]), st.booleans())
def test_the_suggested_map_reads_a_pair_under_other_names(asked: str, answered: str, capital: bool) -> None:
    asked, answered = (name.capitalize() if capital else name for name in (asked, answered))
    row = {asked: "Which dog?", answered: REPLY}
    if {"instruction", "text"} & row.keys():
        return

    message = refused(row)

    assert message.endswith(f"; read it with --map prompt={asked} --map completion={answered}")
    assert to_example(row, options=RowOptions(columns={"prompt": asked, "completion": answered})) == Example((ASKED,), REPLY)


@pytest.mark.parametrize(
    ("row", "suggested"),
    [
        ({"dialogue": [ASKED]}, "--map messages=dialogue"),
        ({"document": "Once."}, "--map text=document"),
        ({"prompt": "a", "Model Answer": "b", "answer": "c"}, "--map completion=answer"),
    ],
)
def test_other_names_that_look_alike_are_suggested(row: dict[str, Any], suggested: str) -> None:
    assert refused(row).endswith(f"; read it with {suggested}")


def test_columns_are_mapped_one_for_another_even_when_they_change_places() -> None:
    row = {"prompt": REPLY, "completion": "Which dog?"}

    assert to_example(row, options=RowOptions(columns={"prompt": "completion", "completion": "prompt"})) == Example((ASKED,), REPLY)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "a", "answer": "b"},
            'there is no column "reply", which --map completion=reply names; the row has the keys "prompt", "answer"',
        ),
        (
            {"prompt": "a", "completion": "b", "reply": "c"},
            'the row has a column "completion" of its own; leave --map completion=reply out, or remove one',
        ),
    ],
)
def test_a_map_that_does_not_fit_the_row_is_refused(row: dict[str, Any], message: str) -> None:
    assert refused(row, RowOptions(columns={"completion": "reply"})) == message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prompt"], "map 'prompt' must be NAME=COLUMN, such as prompt=question"),
        (["promt=a"], f"unknown name of a column 'promt'; did you mean 'prompt'? (available: {', '.join(sorted(COLUMN_NAMES))})"),
        (["prompt=a", "prompt=b"], "map 'prompt=b' gives a name twice; give each once"),
        (["prompt=a", "completion=a"], "map 'completion=a' gives a column twice; give each once"),
    ],
)
def test_a_map_that_cannot_be_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_column_map(words)

    assert str(caught.value) == message


@pytest.mark.parametrize(("label", "reply"), [("billing", "billing"), (3, "3"), (0, "0"), (False, "false"), (0.5, "0.5")])
def test_a_label_column_is_learned_as_the_reply_to_the_text(label: Any, reply: str) -> None:
    row = {"text": "I paid twice", "label": label}

    assert to_example(row, options=RowOptions(label_column="label")) == Example((Message(role="user", content="I paid twice"),), reply)
    instructed = to_example(row, options=RowOptions(label_column="label", label_instruction="Which department?"))
    assert instructed == Example((Message(role="user", content="Which department?\n\nI paid twice"),), reply)


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        (
            {"text": "a", "label": 0},
            RowOptions(),
            'the row has a text and a column "label"; --label-column label makes the label the reply; to learn the text, remove the column',
        ),
        (
            {"text": "a"},
            RowOptions(label_column="label"),
            'there is no column "label", which --label-column names; the row has the keys "text"',
        ),
        (
            {"title": "a", "label": 1},
            RowOptions(label_column="label"),
            'there is no column \'text\' to be labelled; the row has the keys "title", "label"; say which it is with --map text=COLUMN',
        ),
        (
            {"text": "a", "label": [1]},
            RowOptions(label_column="label"),
            "label is [1], must be text or a number to become a reply",
        ),
        (
            {"prompt": "a", "completion": "b", "label": "c"},
            RowOptions(label_column="label"),
            'the row has a reply already, so --label-column label cannot give it one; it has the keys "prompt", "completion", "label"',
        ),
    ],
)
def test_labels_are_never_ignored(row: dict[str, Any], options: RowOptions, message: str) -> None:
    assert refused(row, options) == message


@pytest.mark.parametrize("name", ["label", "labels", "kto_tag"])
@pytest.mark.parametrize("label", [False, "False", "false"])
def test_a_reply_that_is_marked_as_one_to_avoid_is_never_learned(name: str, label: object, tmp_path: Path) -> None:
    good, bad = ({"prompt": word, "completion": REPLY, name: value} for word, value in (("a", True), ("b", label)))

    with pytest.raises(UnwantedReplyError) as caught:
        to_example(bad, "f:1")

    assert caught.value.message == (
        f"{name} is false: the reply is one to avoid, and training would learn it; leave such rows out with "
        "'sftchat data check FILE --policy unwanted=drop -o OUT'"
    )
    file, out = tmp_path / "f.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (good, bad)), encoding="utf-8")
    assert main(["data", "check", str(file), "--near", "0", "-q"]) == 1
    assert main(["data", "check", str(file), "--near", "0", "--policy", "unwanted=drop", "-o", str(out), "-q"]) == 0
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == [good]


@pytest.mark.parametrize("row", [{"chosen": [ASKED, {"role": "assistant", "content": REPLY}], "rejected": []}, {"prompt": "Which dog?", "chosen": REPLY, "rejected": "x"}])  # fmt: skip
def test_of_a_pair_the_better_reply_is_learned_and_that_is_reported(row: dict[str, Any]) -> None:
    notes = ReadingNotes()

    example = to_example(row, notes=notes)

    assert (example.messages, example.gold, example.metadata) == ((ASKED,), REPLY, {"rejected": row["rejected"]})
    assert notes.lines() == ["1 row: of chosen and rejected only chosen is learned"]


def test_a_pair_without_a_prompt_is_refused() -> None:
    assert (
        refused({"chosen": "a", "rejected": "b"})
        == "the row has chosen and rejected and no prompt; name its column with --map prompt=COLUMN"
    )


def test_an_unused_column_is_reported_once_with_its_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f.jsonl"
    rows = [{"prompt": f"{number}", "completion": REPLY, "score": 0.5, "metadata": {"level": 1}} for number in range(3)]
    rows[0]["origin"] = "book"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    assert main(["data", "check", str(file)]) == 0

    assert capsys.readouterr() == (
        "",
        f"{file}: 3 rows (3 prompt-completion), 3 with a reply: no problems\n"
        '  note: columns kept as metadata and not used: "score" (3), "origin" (1)\n',
    )


def test_non_default_options_survive_serialization() -> None:
    options = RowOptions({"bot": "assistant"}, {"prompt": "q"}, label_column="kind", merge_turns=True)

    assert options.non_default == {"roles": {"bot": "assistant"}, "columns": {"prompt": "q"}, "label_column": "kind", "merge_turns": True}
    assert recorded_options({"file": "f", "rows_read": json.loads(json.dumps(options.non_default))}) == options
    assert recorded_options({"file": "f"}) == RowOptions()
    assert RowOptions().non_default == {}


@pytest.mark.parametrize("damaged", [3, {"columns": 1}, {"roles": {"a": 1}}, {"merge_turns": "x"}, {"unheard": 1}])
def test_damaged_options_in_a_manifest_are_one_error(damaged: Any) -> None:
    with pytest.raises(DataError, match="^f: the manifest does not state how its rows were read: "):
        recorded_options({"file": "f", "rows_read": damaged})
