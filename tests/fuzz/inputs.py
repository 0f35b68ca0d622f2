"""Hypothesis strategies for the targets: bytes that mostly look like what the target expects."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

KEYS = (
    "messages role content gold id metadata prompt completion instruction input output conversations from value text system tool_calls tools "
    "function name arguments format version task items header stats right errors reply finish_reason prompt_tokens custom_id response sampling "
    "doc_id doc resps choices delta message usage sftchat_baseline sftchat_samples evalsets metrics base method config data rows scores"
).split()

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["stop", "user", "assistant", "1", ""])
)
keys = st.sampled_from(KEYS)
values = st.recursive(scalars, lambda below: st.lists(below, max_size=4) | st.dictionaries(keys, below, max_size=4), max_leaves=12)


def written(value: Any) -> bytes:
    """A value as a line of JSON."""
    return json.dumps(value).encode()


def like(example: Any) -> st.SearchStrategy[Any]:
    """Values with the shape of an example, with occasional other values."""
    if isinstance(example, dict):
        kept = {key: like(value) for key, value in example.items()}
        whole = st.fixed_dictionaries(kept)
        return st.one_of(whole, whole, st.fixed_dictionaries({}, optional={**kept, "other": values}), values)
    if isinstance(example, list):
        below = st.one_of([like(value) for value in example]) if example else values
        return st.one_of(st.just(example), st.lists(below, max_size=3), values)
    return st.one_of(st.just(example), st.just(example), scalars)


def lines_like(*examples: Any) -> st.SearchStrategy[bytes]:
    """Files of lines like the examples, the first line mostly like the first example."""
    any_line = st.one_of([like(example) for example in examples]).map(written) | st.binary(max_size=30)
    first = like(examples[0]).map(written)
    return st.tuples(st.lists(first, max_size=1), st.lists(any_line, max_size=4)).map(lambda parts: b"\n".join([*parts[0], *parts[1]]))


def words_of(*words: str) -> st.SearchStrategy[bytes]:
    """Texts of some words and occasional other characters."""
    return st.lists(st.sampled_from(words) | st.text(max_size=6), max_size=14).map(lambda parts: "".join(parts).encode("utf-8", "replace"))


DEEP = st.sampled_from(
    [b"[" * 5000, b'{"a":' * 5000, b"[" * 5000 + b"]" * 5000, b"1" * 5000, b"1e999", b'"\\ud800"', b"\xef\xbb\xbf{}", b"NaN"]
)
"""Values that JSON readers often handle wrongly."""


def json_like(*examples: Any) -> st.SearchStrategy[bytes]:
    """A value like one of the examples, or one that JSON readers often handle wrongly."""
    return st.one_of([like(example).map(written) for example in examples] * 3 + [DEEP, st.binary(max_size=60)])
