"""Text and JSON from outside: read with limits, checked types, or a ``ValueError`` with the place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat._util import parsing
from sftchat._util.parsing import from_json, load_json, read_text


@dataclass(frozen=True)
class Inner:
    name: str
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    number: int
    real: float = 0.5
    flag: bool = False
    inner: tuple[Inner, ...] = ()
    by_name: Mapping[str, float] = field(default_factory=dict)
    maybe: Inner | None = None
    more: Any = None
    pairs: tuple[tuple[str, float], ...] = ()


def test_a_value_is_built_from_json() -> None:
    found = load_json(
        '{"number": 1, "real": 2, "inner": [{"name": "x", "kind": "b"}], "by_name": {"k": NaN}, "maybe": {"name": "y"}, "more": [1]}'
    )

    assert repr(from_json(Outer, found)) == repr(
        Outer(1, 2, False, (Inner("x", "b"),), {"k": float("nan")}, Inner("y"), [1]),
    )
    assert from_json(Outer, {"number": -1, "maybe": None}) == Outer(-1)
    assert from_json(Outer, {"number": 1, "pairs": [["a", 0.5], ["b", 1]]}) == Outer(1, pairs=(("a", 0.5), ("b", 1)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "the whole is a list, must be an object"),
        ("{}", "key 'number' is missing"),
        ('{"number": 1, "x": 2}', "unknown key 'x'"),
        ('{"number": true}', "number is True, must be a whole number"),
        ('{"number": 1.0}', "number is 1.0, must be a whole number"),
        ('{"number": 99999999999999999999}', "number is 99999999999999999999, must be a whole number"),
        ('{"number": 1, "real": "2"}', "real is '2', must be a number"),
        ('{"number": 1, "flag": 1}', "flag is 1, must be true or false"),
        ('{"number": 1, "inner": {}}', "inner is an object, must be a list"),
        ('{"number": 1, "inner": [{"name": null}]}', "inner[0].name is null, must be text"),
        ('{"number": 1, "inner": [{"name": "", "kind": "c"}]}', "inner[0].kind is 'c', must be one of 'a', 'b'"),
        ('{"number": 1, "by_name": {"k": "v"}}', "by_name.k is 'v', must be a number"),
        ('{"number": 1, "maybe": {"name": "", "y": 1}}', "unknown key 'maybe.y'"),
        ('{"number": 1, "pairs": [["a", 1], ["b"]]}', "pairs[1] has 1 values, must have 2"),
        ('{"number": 1, "pairs": [[1, 1]]}', "pairs[0][0] is 1, must be text"),
    ],
)
def test_a_mismatch_is_reported_with_its_place(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        from_json(Outer, load_json(text))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    )
)
def test_any_json_gives_a_value_or_a_value_error(value: Any) -> None:
    with suppress(ValueError):
        assert isinstance(from_json(Outer, value), Outer)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101])
def test_json_nested_too_deep_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="more than 100 deep"):
        load_json(text)
    assert load_json("[" * 100 + "]" * 100) != []


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfabc")
    monkeypatch.setattr(parsing, "MAX_BYTES", 6)

    assert read_text(path) == "abc"
    path.write_bytes(b"1234567")
    with pytest.raises(OSError, match="File too large"):
        read_text(path)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"x": [], "a": 1, "a": 2}}]', '{"a": 1, "\\u0061": 2}'])
@pytest.mark.parametrize("encoding", ["", "utf-8", "utf-8-sig", "utf-16"])
def test_a_repeated_key_is_refused_by_name(text: str, encoding: str) -> None:
    with pytest.raises(ValueError, match=r'^key "a" stands twice in one object; remove one$'):
        load_json(text.encode(encoding) if encoding else text)


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
)
def test_written_json_is_read_unchanged(value: Any) -> None:
    assert load_json(json.dumps(value)) == value
    assert load_json(json.dumps(value).encode()) == value
