"""Regression tests of fuzzing: every target over its corpus; ``scripts/fuzz`` runs the targets for minutes on new input."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fuzz.everything import CORPUS, TARGETS, add_to_corpus, corpus_of
from tests.fuzz.target import Room, Target, TooSlow, attempt

SLOW = {"weights", "checkpoints"}
"""Targets that load a model for every input."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in TARGETS])
def test_every_input_of_the_corpus_gives_a_value_or_a_named_error(name: str) -> None:
    corpus = corpus_of(name)
    attempt(TARGETS[name], b"", seconds=0)

    assert len(corpus) >= 4
    for content in corpus.values():
        attempt(TARGETS[name], content)


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {f"{name}.jsonl" for name in TARGETS}
    assert sum(len(content) for name in TARGETS for content in corpus_of(name).values()) < 200_000


def test_an_input_is_read_from_the_corpus_unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.fuzz.everything.CORPUS", tmp_path)
    inputs = {"text": "行\r\n\x00".encode(), "bytes": b"\xff\n\xfe"}

    for name, content in inputs.items():
        add_to_corpus("ids", name, content)

    assert corpus_of("ids") == inputs


def _run(content: bytes, room: Room) -> None:
    """Target that executes its input."""
    path = room.file(b"given")
    if content == b"writes":
        path.write_bytes(b"other")
    elif content == b"leaves":
        (room.folder / "more").touch()
    elif content == b"hangs":
        time.sleep(5)
    elif content == b"fails":
        raise KeyError


@pytest.mark.parametrize(
    ("content", "fault"), [(b"writes", AssertionError), (b"leaves", AssertionError), (b"hangs", TooSlow), (b"fails", KeyError)]
)
def test_a_target_that_writes_hangs_or_fails_is_detected(content: bytes, fault: type[BaseException]) -> None:
    target = Target(_run, TARGETS["texts"].inputs)

    with pytest.raises(fault):
        attempt(target, content, seconds=1)
    assert attempt(target, b"") == ""
