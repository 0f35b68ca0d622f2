"""The cached engine: cached replies are not generated again, and only equal requests share a reply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import Chunk, Engine, EngineError, Message, Reply, Request, SamplingParams
from sftchat.engine import collect
from sftchat.evaluation.cached_engine import CachedEngine, CacheOptions, request_key
from sftchat.evaluation.reply_cache import ReplyCache
from sftchat.testing import ScriptedEngine

IDENTITY = "ab" * 32


@pytest.fixture
def options(tmp_path: Path) -> Iterator[CacheOptions]:
    with closing(ReplyCache(tmp_path / "replies.sqlite", pytest.fail)) as store:
        yield CacheOptions(store, lambda name: IDENTITY)


def asks(*contents: str, **fields: Any) -> list[Request]:
    return [Request(f"r{number}", (Message(role="user", content=text),), **fields) for number, text in enumerate(contents)]


def unopened(name: str) -> Engine:
    raise AssertionError(f"'{name}' was opened")


def answers(engine: Engine, requests: Iterable[Request]) -> dict[str, Reply | str]:
    return {key: str(said) if isinstance(said, EngineError) else said for key, said in collect(engine, requests)}


def asked(engine: ScriptedEngine) -> list[str]:
    return [request.id for request in engine.requests]


def test_a_second_run_opens_no_model_and_gives_the_same_replies(options: CacheOptions) -> None:
    scripted = ScriptedEngine({"一": "甲-乙:夫妻", "二": Reply("无 无", "length")}, chunks=2)
    first = CachedEngine("m", lambda name: scripted, options)
    told = answers(first, asks("一", "二"))
    second = CachedEngine("m", unopened, options)

    assert answers(second, asks("一", "二")) == told == {"r0": Reply("甲-乙:夫妻", "stop", 19, 6), "r1": Reply("无 无", "length", 19, 3)}
    assert (first.hits, second.hits, options.kept) == (0, 2, 4)


def test_ids_and_order_do_not_matter(options: CacheOptions) -> None:
    answers(CachedEngine("m", lambda name: ScriptedEngine({"一": "1", "二": "2"}), options), asks("一", "二"))

    again = answers(CachedEngine("m", unopened, options), asks("二", "一"))

    assert {key: said.text for key, said in again.items() if isinstance(said, Reply)} == {"r0": "2", "r1": "1"}


def test_only_replies_that_are_not_cached_are_generated(options: CacheOptions) -> None:
    answers(CachedEngine("m", lambda name: ScriptedEngine({"a": "A", "c": "C"}), options), asks("a", "c"))
    scripted = ScriptedEngine({"b": "B", "d": "D"})
    engine = CachedEngine("m", lambda name: scripted, options)

    told = answers(engine, asks("a", "b", "c", "d"))

    assert [said.text for _, said in sorted(told.items()) if isinstance(said, Reply)] == ["A", "B", "C", "D"]
    assert (asked(scripted), engine.hits) == (["r1", "r3"], 2)


def test_equal_requests_are_generated_once(options: CacheOptions) -> None:
    class AllAtOnce(ScriptedEngine):
        """Consume all requests before the first reply, like an engine that decodes in batches."""

        def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
            yield from super().generate(list(requests))

    scripted = AllAtOnce({"a": "AAA", "b": "B"})

    told = answers(CachedEngine("m", lambda name: scripted, options), asks("a", "b", "a"))

    assert asked(scripted) == ["r0", "r1"]
    assert told == {"r0": Reply("AAA", "stop", 19, 3), "r1": Reply("B", "stop", 19, 1), "r2": Reply("AAA", "stop", 19, 3)}


def test_failures_are_not_cached(options: CacheOptions) -> None:
    scripts: Mapping[str, Any] = {"a": Reply("", "error"), "b": "B", "c": Reply("half", "cancelled")}
    told = answers(CachedEngine("m", lambda name: ScriptedEngine(scripts), options), asks("a", "b", "c"))
    scripted = ScriptedEngine({"a": "A", "c": "C"})

    answers(CachedEngine("m", lambda name: scripted, options), asks("a", "b", "c"))

    assert (told["r0"], told["r2"]) == ("scripted", "the request ended as 'cancelled'")
    assert asked(scripted) == ["r0", "r2"]


def test_replies_before_an_engine_failure_are_cached(options: CacheOptions) -> None:
    scripts: Mapping[str, Any] = {"a": "A", "b": ["B", EngineError("server gone")]}
    with pytest.raises(EngineError, match=r"^server gone$"):
        answers(CachedEngine("m", lambda name: ScriptedEngine(scripts), options), asks("a", "b"))
    scripted = ScriptedEngine({"b": "B"})

    answers(CachedEngine("m", lambda name: scripted, options), asks("a", "b"))

    assert asked(scripted) == ["r1"]


def test_closing_cancels_the_model_and_caches_no_partial_reply(options: CacheOptions) -> None:
    scripted = ScriptedEngine({"a": "long"})
    chunks = CachedEngine("m", lambda name: scripted, options).generate(asks("a"))
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]

    assert scripted.cancelled == ["r0"]
    assert options.cache.get(request_key(IDENTITY, asks("a")[0])) is None


def test_fresh_generates_again_and_replaces_the_reply(options: CacheOptions) -> None:
    answers(CachedEngine("m", lambda name: ScriptedEngine({"a": "old"}), options), asks("a"))
    fresh = replace(options, fresh=True)

    told = answers(CachedEngine("m", lambda name: ScriptedEngine({"a": "new"}), fresh), asks("a", "a"))

    assert [said.text for said in told.values() if isinstance(said, Reply)] == ["new", "new"]
    assert answers(CachedEngine("m", unopened, options), asks("a")) == {"r0": Reply("new", "stop", 19, 3)}


def test_another_model_is_not_served_from_the_cache(options: CacheOptions) -> None:
    answers(CachedEngine("m", lambda name: ScriptedEngine({"a": "A"}), options), asks("a"))
    retrained = ScriptedEngine({"a": "B"})
    other = replace(options, identify=lambda name: "cd" * 32)

    assert answers(CachedEngine("m", lambda name: retrained, other), asks("a")) == {"r0": Reply("B", "stop", 19, 1)}


@pytest.mark.parametrize("identity", ["", None])
def test_a_model_without_an_identity_is_not_cached(options: CacheOptions, identity: str | None) -> None:
    unknown = None if identity is None else replace(options, identify=lambda name: identity)
    for _ in range(2):
        scripted = ScriptedEngine({"a": "A"})
        engine = CachedEngine("m", lambda name, scripted=scripted: scripted, unknown)  # type: ignore[misc]
        answers(engine, asks("a"))
        assert (asked(scripted), engine.caches) == (["r0"], False)


def test_a_named_adapter_is_not_in_the_identity_and_not_cached(options: CacheOptions) -> None:
    for _ in range(2):
        scripted = ScriptedEngine({"a": "A", "b": "B"})
        told = answers(CachedEngine("m", lambda name, scripted=scripted: scripted, options), asks("a", "b", adapter="x"))  # type: ignore[misc]
        assert (asked(scripted), len(told)) == (["r0", "r1"], 2)


def test_a_model_whose_files_change_while_it_is_opened_is_refused(options: CacheOptions) -> None:
    identities = iter([IDENTITY, "cd" * 32])
    changing = replace(options, identify=lambda name: next(identities))
    engine = CachedEngine("run", lambda name: ScriptedEngine({"a": "A"}), changing)

    with pytest.raises(
        EngineError, match="^the files of model 'run' changed while it was opened; wait until they are complete and run again$"
    ):
        answers(engine, asks("a"))
    assert options.cache.get(request_key(IDENTITY, asks("a")[0])) is None


def test_a_broken_cache_is_bypassed(tmp_path: Path) -> None:
    (tmp_path / "replies.sqlite").write_bytes(b"no database" * 1000)
    said: list[str] = []
    options = CacheOptions(ReplyCache(tmp_path / "replies.sqlite", said.append), lambda name: IDENTITY)
    engine = CachedEngine("m", lambda name: ScriptedEngine({"a": "A", "b": "B"}), options)

    assert len(answers(engine, asks("a", "b", "a"))) == 3
    assert (len(said), engine.caches, options.kept) == (1, False, 0)


def test_the_model_is_opened_once_and_closed(options: CacheOptions) -> None:
    opened: list[ScriptedEngine] = []

    def open_engine(name: str) -> Engine:
        opened.append(ScriptedEngine({"a": "A", "b": "B"}))
        return opened[-1]

    engine = CachedEngine("m", open_engine, options)
    answers(engine, asks("a"))
    answers(engine, asks("b"))
    engine.close()

    assert [one.closed for one in opened] == [True]


requests = st.builds(
    Request,
    id=st.just("r"),
    messages=st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": st.text(max_size=3)})).map(tuple),
    prompt=st.none() | st.text(max_size=3),
    sampling=st.builds(
        SamplingParams,
        max_new_tokens=st.integers(1, 3),
        temperature=st.sampled_from([0.0, 0.5]),
        top_p=st.sampled_from([1.0, 0.5]),
        top_k=st.integers(0, 2),
        repetition_penalty=st.sampled_from([1.0, 1.1]),
        seed=st.integers(0, 2),
        stop=st.lists(st.text(max_size=2), max_size=2).map(tuple),
    ),
    reply_prefix=st.text(max_size=2),
)


@given(requests, requests, st.sampled_from([IDENTITY, "cd" * 32]))
def test_keys_are_equal_only_for_equal_requests(one: Request, two: Request, identity: str) -> None:
    same = one == two and identity == IDENTITY

    assert (request_key(IDENTITY, one) == request_key(identity, two)) == same


CHANGED: dict[str, Callable[[Request], Request]] = {
    "messages": lambda request: replace(request, messages=(Message(role="user", content="b"),)),
    "prompt": lambda request: replace(request, prompt=""),
    "adapter": lambda request: replace(request, adapter="x"),
    "reply_prefix": lambda request: replace(request, reply_prefix="x"),
    "reply_ids": lambda request: replace(request, reply_ids=(1, 2)),
    "template_arguments": lambda request: replace(request, template_arguments={"enable_thinking": False}),
    "tools": lambda request: replace(request, tools=({"name": "look"},)),
    "logprobs": lambda request: replace(request, logprobs=0),
    "continuations": lambda request: replace(request, continuations=("a",)),
    "ended": lambda request: replace(request, continuations=("a",), ended=True),
}
SAMPLED: dict[str, Any] = {
    "max_new_tokens": 1,
    "temperature": 0.1,
    "top_p": 0.9,
    "top_k": 1,
    "repetition_penalty": 1.1,
    "seed": 1,
    "stop": ("x",),
}


def test_every_field_of_a_request_except_its_id_is_in_the_key() -> None:
    request = asks("a")[0]
    sampling = {name: replace(request, sampling=replace(request.sampling, **{name: value})) for name, value in SAMPLED.items()}
    changed = {name: change(request) for name, change in CHANGED.items()} | sampling

    assert {field.name for field in fields(Request)} == {"id", "sampling", *CHANGED}
    assert {field.name for field in fields(SamplingParams)} == set(SAMPLED)
    assert len({request_key(IDENTITY, other) for other in (request, *changed.values())}) == len(changed) + 1
    assert request_key(IDENTITY, replace(request, id="other")) == request_key(IDENTITY, request)
