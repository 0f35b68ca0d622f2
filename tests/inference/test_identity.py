"""A reply equals that of its request alone, for any architecture, neighbours, order and batch size, also when memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.engine import Chunk, Request, collect
from sftchat.inference.local import TransformersEngine
from sftchat.models.loading import Loaded
from sftchat.templates.renderer import choose_renderer
from sftchat.types import Reply, SamplingParams
from tests.conftest import make_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SIZES),
    "qwen3": ("Qwen3", SIZES | {"head_dim": 8}),
    "gemma2": ("Gemma2", SIZES | {"head_dim": 8, "sliding_window": 8}),
    "gemma3": ("Gemma3", SIZES | {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "mistral": ("Mistral", SIZES | {"sliding_window": 8}),
    "phi": ("Phi", SIZES),
    "gpt2": ("GPT2", {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.3, "eos_token_id": 0}),
    "bloom": ("Bloom", {"vocab_size": 320, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3, "eos_token_id": 0}),
    "falcon_h1": ("FalconH1", SIZES | {"head_dim": 8, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8}),
}  # fmt: skip
RECURRENT = "falcon_h1"
"""An architecture with layers whose state cannot be merged."""
TEXTS = ["hi", "the user", "a longer prompt, with several words in it", "x" * 40, "why?", "你好", "talk and talk", "0 1 2 3 4 5 6 7 8 9"]


@cache
def loaded(shape: str) -> Loaded:
    """A tiny random model of an architecture, in float32."""
    import transformers

    name, sizes = SHAPES[shape]
    suffix = "TextConfig" if shape == "gemma3" else "Config"
    torch.manual_seed(0)
    model_type = getattr(transformers, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")
    model = model_type(getattr(transformers, f"{name}{suffix}")(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # Gemma's norms and biases begin at 0, which would hide a wrong position
            if parameter.abs().max() == 0:
                parameter.normal_(std=0.1)
    return Loaded(model, choose_renderer(make_tokenizer(), "", "chatml", None), (0,), None)


def request(id: str, text: str, **sampling: Any) -> Request:
    return Request(id, prompt=text, sampling=SamplingParams(**({"max_new_tokens": 12} | sampling)))


def replies(engine: TransformersEngine, requests: list[Request]) -> dict[str, Reply]:
    found = dict(collect(engine, requests))
    assert all(isinstance(reply, Reply) for reply in found.values())
    return {id: reply for id, reply in found.items() if isinstance(reply, Reply)}


@cache
def alone(shape: str, text: str, length: int, seed: int | None) -> Reply:
    """Return the reply to a request alone."""
    return replies(TransformersEngine("tiny", loaded(shape), batch_size=1), [as_request("r", (text, length, seed))])["r"]


Asked = tuple[str, int, int | None]
asked = st.tuples(st.sampled_from(TEXTS), st.integers(1, 30), st.sampled_from([None, None, 1, 2]))


pytestmark = pytest.mark.filterwarnings("ignore::sftchat.errors.SftchatWarning")


def as_request(id: str, what: Asked) -> Request:
    text, length, seed = what
    return request(id, text, max_new_tokens=length, **({} if seed is None else {"temperature": 1.0, "top_p": 0.9, "seed": seed}))


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_replies_are_those_of_generate(shape: str) -> None:
    here = loaded(shape)
    found = replies(TransformersEngine("tiny", here, batch_size=3), [request(text, text, max_new_tokens=20) for text in TEXTS])

    for text in TEXTS:
        ids = torch.tensor([here.renderer.tokenizer.encode(text)])
        theirs = here.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, eos_token_id=0, pad_token_id=0
        )
        assert found[text].text == here.renderer.tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=5, deadline=None)
@given(data=st.lists(asked, min_size=1, max_size=9), places=st.integers(1, 5))
def test_any_order_and_batch_size_give_each_request_its_own_reply(shape: str, data: list[Asked], places: int) -> None:
    engine = TransformersEngine("tiny", loaded(shape), batch_size=places)

    found = replies(engine, [as_request(str(i), what) for i, what in enumerate(data)])

    assert found == {str(i): alone(shape, *what) for i, what in enumerate(data)}


class FailingOnce:
    """Model that corrupts the cache and reports out of memory once, at the given forward pass."""

    def __init__(self, model: Any, at: int, error: Exception) -> None:
        self.calls, self.at, self.error = 0, at, error
        self.handle = model.register_forward_hook(self)

    def __call__(self, *_: Any) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise self.error


@settings(max_examples=6, deadline=None)
@given(
    data=st.lists(asked, min_size=2, max_size=9),
    at=st.integers(1, 25),
    kind=st.sampled_from([torch.OutOfMemoryError, MemoryError, RuntimeError]),
)
@pytest.mark.parametrize("shape", ["qwen3", "mistral", RECURRENT])
def test_running_out_of_memory_loses_and_repeats_no_token(shape: str, data: list[Asked], at: int, kind: type[Exception]) -> None:
    engine = TransformersEngine("tiny", loaded(shape), batch_size=4)
    expected = {str(i): alone(shape, *what) for i, what in enumerate(data)}
    failing = FailingOnce(engine.loaded.model, at, kind("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    try:
        found = dict(collect(engine, [as_request(str(i), what) for i, what in enumerate(data)]))
    finally:
        failing.handle.remove()

    refused = [id for id, reply in found.items() if not isinstance(reply, Reply)]
    assert len(refused) <= 1  # a single sequence that runs out of memory must fail
    assert {id: reply for id, reply in found.items() if id not in refused} == {id: expected[id] for id in expected if id not in refused}


def test_a_request_that_memory_cannot_hold_fails_alone() -> None:
    engine = TransformersEngine("tiny", loaded("llama"), batch_size=1)
    failing = FailingOnce(engine.loaded.model, 1, torch.OutOfMemoryError("out of memory\nlong story"))
    try:
        found = dict(collect(engine, [request("a", "the user"), request("b", "hi")]))
    finally:
        failing.handle.remove()

    assert str(found["a"]).startswith("the memory does not hold the request, ")
    assert found["b"] == alone("llama", "hi", 12, None)


def test_sequences_beyond_the_budget_are_prefilled_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    here = loaded("qwen3")
    per_token = 2 * 2 * 2 * 8 * 4  # keys and values × layers × groups × size × bytes
    monkeypatch.setattr("sftchat.inference.scheduler.free_bytes", lambda _: 2 * 150 * per_token)  # 150 tokens in half of the free memory
    widths: list[int] = []
    hook = here.model.register_forward_pre_hook(lambda _, __, given: widths.append(len(given["input_ids"])), with_kwargs=True)
    try:
        found = replies(TransformersEngine("tiny", here, batch_size=8), [as_request(text, (text, 30, None)) for text in TEXTS])
    finally:
        hook.remove()

    assert found == {text: alone("qwen3", text, 30, None) for text in TEXTS}
    assert widths[0] == 8  # all are prefilled at once
    assert max(widths[20:]) < 8  # and then some were preempted


def test_a_model_whose_state_cannot_be_merged_is_reported_when_requests_wait() -> None:
    def warned(shape: str, count: int) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            replies(TransformersEngine("tiny", loaded(shape), batch_size=2), [request(str(i), "hi") for i in range(count)])
        return [str(warning.message) for warning in caught]

    words = "model 'tiny' has layers whose state cannot be merged: its replies are made in batches that no other joins"
    assert (warned(RECURRENT, 3), warned(RECURRENT, 2), warned("gemma3", 3)) == ([words], [], [])


@pytest.mark.parametrize("shape", ["llama", "qwen3", "gemma3", "gpt2", "bloom", RECURRENT])
def test_a_shared_prefix_changes_no_reply(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftchat.inference.batch.MIN_SHARED_TOKENS", 8)
    monkeypatch.setattr("sftchat.inference.local.MAX_CHAT_REQUESTS", 0)  # nothing is cached from earlier requests
    here = loaded(shape)
    texts = [f"the user and the assistant talk: {text}" for text in TEXTS]
    read: list[int] = []
    hook = here.model.register_forward_pre_hook(lambda _, __, given: read.append(given["input_ids"].numel()), with_kwargs=True)
    try:
        found = replies(TransformersEngine("tiny", here, batch_size=4), [request(text, text) for text in texts])
    finally:
        hook.remove()

    shared = len(here.renderer.tokenizer.encode("the user and the assistant talk:"))
    assert found == {text: alone(shape, text, 12, None) for text in texts}
    assert (min(read) >= 1 and shared in read) == (shape not in ("gemma3", "bloom", RECURRENT))


def test_requests_join_while_others_run() -> None:
    engine = TransformersEngine("tiny", loaded("llama"), batch_size=2)
    lengths = {"long": 30, "a": 3, "b": 3, "c": 3}

    ends = [
        chunk.request_id
        for chunk in engine.generate(request(id, "hi", max_new_tokens=n) for id, n in lengths.items())
        if chunk.finish_reason
    ]

    assert sorted(ends[:3]) == ["a", "b", "c"]


def test_every_reply_is_in_order_and_ends_once_for_any_ending() -> None:
    here = loaded("llama")
    engine = TransformersEngine("tiny", here, batch_size=3)
    whole = alone("llama", "hi", 20, None)
    stop = whole.text[2:4]
    asked = [
        request("stopped", "hi", max_new_tokens=20, stop=(stop,)),
        request("one", "the user", max_new_tokens=1),
        request("too long", "x" * 300),
        request("whole", "hi", max_new_tokens=20),
    ]

    chunks: dict[str, list[Chunk]] = {}
    for chunk in engine.generate(asked):
        chunks.setdefault(chunk.request_id, []).append(chunk)

    ids = {r.id: here.renderer.tokenizer.encode(r.prompt) for r in asked}
    assert {id: [c.finish_reason for c in parts if c.finish_reason] for id, parts in chunks.items()} == {
        "stopped": ["stop"], "one": ["length"], "too long": ["error"], "whole": [whole.finish_reason],
    }  # fmt: skip
    assert all(parts[-1].finish_reason for parts in chunks.values())
    assert {id: parts[-1].prompt_tokens for id, parts in chunks.items() if id != "too long"} == {
        id: len(tokens) for id, tokens in ids.items() if id != "too long"
    }
    assert "".join(c.text for c in chunks["stopped"]) == whole.text[: whole.text.index(stop)]
    assert "".join(c.text for c in chunks["whole"]) == whole.text
    assert sum(len(c.token_ids) for c in chunks["one"]) == 1


def test_requests_are_taken_a_window_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftchat.inference.local.WINDOW", 4)
    taken: list[int] = []

    def endless() -> Iterator[Request]:
        for number in count():
            taken.append(number)
            yield request(str(number), TEXTS[number % len(TEXTS)], max_new_tokens=5)

    stream = TransformersEngine("tiny", loaded("llama"), batch_size=2).generate(endless())
    ended = 0
    for chunk in stream:
        ended += chunk.finish_reason is not None
        assert len(taken) <= ended + 2 + 4
        if ended == 20:
            break
    stream.close()  # type: ignore[attr-defined]

    assert len(taken) <= 26
