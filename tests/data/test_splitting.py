"""Rows for training and for testing: groups stay whole, strata have equal shares, and no prompt is in both."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat import DataError, Example, Message
from sftchat.cli import main
from sftchat.data.leakage import find_leaks
from sftchat.data.split import split

WORDS = "stone river cloud garden winter table engine paper candle mirror bridge forest island market harbour window".split()


def example(number: int, *, near: bool = False) -> Example:
    """Return a row; an odd number's prompt differs only in its last word from that of the even number below."""
    base = number - number % 2 if near else number
    said = [WORDS[(base * step) % 16] + str(base * step % 7919) for step in range(1, 40)] + ["last" + str(number)]
    return Example((Message(role="user", content=" ".join(said)),), f"reply {number}", str(number))


@settings(database=None, deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.booleans()), min_size=4, max_size=30),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
    st.booleans(),
)
def test_groups_stay_whole_and_nothing_leaks_for_any_rows(rows: list[tuple[int, str, bool]], test: float, seed: int, grouped: bool) -> None:
    examples = [example(number, near=near) for number, (_, _, near) in enumerate(rows)]
    groups = [f"{name}{stratum}" for name, stratum, _ in rows] if grouped else []
    strata = [stratum for _, stratum, _ in rows]
    try:
        chosen = split(examples, test, seed, groups=groups, strata=strata)
    except DataError:
        return

    assert chosen == split(examples, test, seed, groups=groups, strata=strata)
    parts = [[place for place in range(len(rows)) if (place in chosen.test) == of_test] for of_test in (False, True)]
    assert all(parts)
    assert find_leaks([examples[place] for place in parts[1]], [examples[place] for place in parts[0]]) == ()
    if grouped:
        assert not {groups[place] for place in parts[0]} & {groups[place] for place in parts[1]}
    asked = Counter(strata)
    assert (
        all(count <= round(test * asked[stratum]) for stratum, count in Counter(strata[place] for place in chosen.test).items()) or grouped
    )


def test_every_stratum_has_the_same_share() -> None:
    strata = ["rare"] * 20 + ["common"] * 180

    chosen = split([example(number) for number in range(200)], 0.1, 7, strata=strata)

    assert (Counter(strata[place] for place in chosen.test), chosen.moved) == ({"rare": 2, "common": 18}, 0)
    assert len(split([example(number) for number in range(200)], 30, 7).test) == 30


def test_another_seed_chooses_other_rows() -> None:
    examples = [example(number) for number in range(50)]

    assert split(examples, 0.2, 1).test != split(examples, 0.2, 2).test


def test_rows_nearly_the_same_as_training_rows_go_to_training() -> None:
    examples = [example(number, near=True) for number in range(40)]

    chosen = split(examples, 0.5, 0)

    assert chosen.moved > 0
    assert all(place ^ 1 in chosen.test for place in chosen.test)


@pytest.mark.parametrize(
    ("test", "groups", "message"),
    [
        (4, [], "--test is 4 of 4 rows, so none would be for training; give less"),
        (0.25, ["a", "a", "b", "b"], "--test 0.25 of 4 rows is less than the smallest group, which has 2; give more"),
    ],
)
def test_a_part_without_rows_is_refused(test: float, groups: list[str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        split([example(number) for number in range(4)], test, 0, groups=groups)

    assert caught.value.message == message


def test_identical_rows_cannot_be_split() -> None:
    alike = [Example((Message(role="user", content=" ".join([*WORDS, *WORDS[::-1], str(number)])),), "x") for number in range(6)]

    with pytest.raises(DataError, match="^no row is left for testing: "):
        split(alike, 0.5, 0)


def rows_of(name: str) -> list[Any]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_split_writes_the_rows_unchanged_and_the_same_bytes_for_the_same_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"q": f"{number} {WORDS[number % 16]}", "a": f"reply {number}", "document": f"d{number // 4}"} for number in range(40)]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = [
        "data",
        "split",
        "in.jsonl",
        "train",
        "test",
        "--test",
        "0.2",
        "--by",
        "document",
        "--map",
        "prompt=q",
        "--map",
        "completion=a",
    ]

    assert main([*words, "--seed", "3"]) == 0

    assert capsys.readouterr() == ("", "32 rows in train, 8 in test, in 10 groups\n")
    train, test = rows_of("train"), rows_of("test")
    assert [row for row in rows if row in test] == test
    assert [row for row in rows if row not in test] == train
    assert {row["document"] for row in train} & {row["document"] for row in test} == set()
    written = {name: Path(name).read_bytes() for name in ("train", "test", "train.provenance.json", "test.provenance.json")}
    assert main([*words, "--seed", "3", "--overwrite", "-q"]) == 0
    assert {name: Path(name).read_bytes() for name in ("train", "test")} == {name: written[name] for name in ("train", "test")}
    assert json.loads(written["test.provenance.json"])["settings"]["by"] == "document"
    assert main(["data", "check", "test", "--against", "train", "--map", "prompt=q", "--map", "completion=a", "-q"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("in", "train", "train"), "IN, TRAIN and TEST must be three files"),
        (("-", "train", "test"), "split writes two files and a sidecar beside each, and hashes IN; give files"),
        (("in", "train", "test", "--test", "1.5"), "--test is 1.5, must be a share below 1 or a whole number of rows"),
        (("in", "train", "test", "--by", "page"), 'in:1: there is no column "page"; the row has the keys "prompt", "completion"'),
    ],
)
def test_an_impossible_split_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")

    assert main(["data", "split", *words]) == 2

    assert capsys.readouterr().err == f"sftchat: error: {message}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
