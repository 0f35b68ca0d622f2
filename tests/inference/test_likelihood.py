"""Likelihoods of continuations equal those from transformers' logits of each whole sequence, whatever shares a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sftchat.inference.likelihood as likelihood_module
from sftchat.engine import OFF, Chunk, Request, collect
from sftchat.errors import EngineError, UsageError
from sftchat.inference.batch import Batch
from sftchat.inference.continuations import ScoredRequest, tokenize_request
from sftchat.inference.likelihood import LikelihoodScorer, Sharing
from sftchat.inference.local import TransformersEngine
from sftchat.inference.open import load_engine
from sftchat.likelihood import Likelihood, parse_likelihoods
from sftchat.types import Message, Reply, SamplingParams
from tests.inference.adapters_kit import make_adapter
from tests.inference.test_identity import RECURRENT, SHAPES, loaded

CHOICES = ("yes", "no, it is not", "A", "maybe the user and the assistant talk")
PROMPTS = ("hi", "the user", "a longer prompt, with several words in it", "x" * 40, "why? ", "你好", "0 1 2 3 4 5 6 7 8 9")


def chat(id: str, text: str, continuations: Sequence[str] = CHOICES, **fields: Any) -> Request:
    return Request(id, (Message(role="user", content=text),), continuations=tuple(continuations), **fields)


def raw(id: str, text: str, continuations: Sequence[str] = CHOICES, **fields: Any) -> Request:
    return Request(id, prompt=text, continuations=tuple(continuations), **fields)


def likelihoods(engine: Any, requests: Sequence[Request]) -> dict[str, tuple[Likelihood, ...]]:
    found: dict[str, tuple[Likelihood, ...]] = {}
    for id, reply in collect(engine, requests):
        assert isinstance(reply, Reply), reply
        found[id] = parse_likelihoods(reply.text) or ()
    return found


def expected(engine: TransformersEngine, request: Request) -> tuple[Likelihood, ...]:
    """The likelihoods from one forward pass of the model per continuation."""
    model, results = engine.loaded.model, []
    (prompt,) = tokenize_request(engine.renderer(request.adapter), request, engine.context_length).prompts
    for text, ids in zip(request.continuations, prompt.continuations, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt.ids, *ids]]), use_cache=False).logits[0, len(prompt.ids) - 1 : -1]
        logprobs = logits.log_softmax(-1)[range(len(ids)), ids]
        results.append(Likelihood(float(logprobs.double().sum()), len(ids), len(text.encode()), logits.argmax(-1).tolist() == ids))
    return tuple(results)


def close(found: Sequence[Likelihood], wanted: Sequence[Likelihood]) -> bool:
    """Whether likelihoods are equal, up to rounding in float32."""
    return len(found) == len(wanted) and all(
        abs(one.logprob - two.logprob) <= 1e-5 * max(1.0, abs(two.logprob)) and vars(one) | {"logprob": 0} == vars(two) | {"logprob": 0}
        for one, two in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("default:.*whose state cannot be merged")
def test_likelihoods_are_those_of_transformers_for_every_kind_of_attention(shape: str) -> None:
    engine = TransformersEngine("tiny", loaded(shape), batch_size=5)
    requests = [make(f"{make.__name__} {text}", text) for text in PROMPTS for make in (chat, raw)]

    found = likelihoods(engine, requests)

    assert {request.id for request in requests if not close(found[request.id], expected(engine, request))} == set()


@pytest.mark.parametrize("shape", ["llama", "gemma3", RECURRENT])
@settings(max_examples=8, deadline=None)
@given(
    items=st.lists(st.tuples(st.sampled_from(PROMPTS), st.lists(st.sampled_from(CHOICES), min_size=1, max_size=5)), min_size=1, max_size=7),
    rows=st.integers(1, 4),
)
def test_choices_together_have_the_likelihoods_of_each_alone(shape: str, items: list[tuple[str, list[str]]], rows: int) -> None:
    engine = TransformersEngine("tiny", loaded(shape), batch_size=rows)

    together = likelihoods(engine, [raw(str(number), text, choices) for number, (text, choices) in enumerate(items)])
    alone = likelihoods(engine, [raw(f"{n} {k}", text, [one]) for n, (text, choices) in enumerate(items) for k, one in enumerate(choices)])

    for number, (_, choices) in enumerate(items):
        assert close(together[str(number)], [alone[f"{number} {place}"][0] for place in range(len(choices))])


class CountingBatch(Batch):
    """A batch that counts the tokens that its model reads, padding included."""

    tokens = 0

    def _forward(self, ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        CountingBatch.tokens += ids.numel()
        return super()._forward(ids, *args, **kwargs)


@pytest.mark.parametrize(("choices", "least_saving"), [(CHOICES, 3.0), (("A", "B", "C", "D"), 4.0), (("yes",), 1.9)])
def test_choices_and_few_shot_prompts_share_their_prefill(
    choices: tuple[str, ...], least_saving: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftchat.inference.local.Batch", CountingBatch)
    engine = TransformersEngine("tiny", loaded("llama"))
    shots = "question and answer, " * 6
    requests = [raw(str(number), f"{shots}{number}", choices) for number in range(24)]
    whole = sum(
        len(prompt.ids) + len(ids) - 1
        for request in requests
        for prompt in tokenize_request(engine.renderer(""), request, 256).prompts
        for ids in prompt.continuations
    )
    CountingBatch.tokens = 0

    found = likelihoods(engine, requests)

    assert whole / CountingBatch.tokens >= least_saving
    assert all(close(found[request.id], expected(engine, request)) for request in requests)


def scored(batch: type[Batch], requests: Sequence[Request]) -> dict[str, Reply | EngineError]:
    """Answer requests with a kind of batch of the tiny Llama."""
    engine = TransformersEngine("tiny", loaded("llama"))

    class Scorer:
        name = "tiny"

        def generate(self, requests: Sequence[Request]) -> Iterator[Chunk]:
            def prepare(request: Request) -> ScoredRequest:
                return tokenize_request(engine.renderer(""), request, 256)

            new_batch = lambda: batch(engine.loaded.model, lambda adapters: None, None, True)  # noqa: E731
            return LikelihoodScorer("tiny", new_batch, 128, 320, Sharing()).answer(requests, prepare)

        def close(self) -> None: ...

    return dict(collect(Scorer(), requests))  # type: ignore[arg-type]


class SmallMemory(Batch):
    """A batch whose memory holds two rows of at most 60 columns."""

    def _forward(self, ids: Tensor, cache: Any, lengths: Sequence[int], width: int, *args: Any, **kwargs: Any) -> Tensor:
        if len(ids) > 4 or width > 60:
            raise torch.OutOfMemoryError("not enough memory: you tried to allocate 9 bytes")
        return super()._forward(ids, cache, lengths, width, *args, **kwargs)


def test_without_enough_memory_groups_are_halved_and_what_does_not_fit_alone_fails_alone() -> None:
    engine = TransformersEngine("tiny", loaded("llama"))
    requests = [raw(str(number), f"question {number}", ["A", "B", "no"]) for number in range(9)]

    found = scored(SmallMemory, [*requests, raw("long", "x" * 70)])

    assert str(found.pop("long")) == (
        "the memory does not hold the request, 70 tokens long: not enough memory: you tried to allocate 9 bytes"
    )
    for request in requests:
        reply = found[request.id]
        assert isinstance(reply, Reply)
        assert close(parse_likelihoods(reply.text) or (), expected(engine, request))


class Forgetful(Batch):
    """A batch whose continued prompts have other logits than whole sequences."""

    def continue_prompts(self, *args: Any) -> Tensor:
        return super().continue_prompts(*args).flip(-1)


class Changed(Batch):
    """A batch of a library that changed."""

    def continue_prompts(self, *args: Any) -> Tensor:
        raise TypeError("unexpected keyword argument")


@pytest.mark.parametrize("batch", [Forgetful, Changed])
def test_where_sharing_is_not_exact_whole_sequences_are_computed(batch: type[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[str] = []
    monkeypatch.setattr(likelihood_module, "report_fallback", lambda what, reason: reported.append(what))
    engine = TransformersEngine("tiny", loaded("llama"))
    requests = [raw(text, text) for text in PROMPTS]

    found = scored(batch, requests)

    assert reported == ["sharing the prefill of continuations"]
    for request in requests:
        reply = found[request.id]
        assert isinstance(reply, Reply)
        assert close(parse_likelihoods(reply.text) or (), expected(engine, request))


def test_a_model_that_fails_ends_the_call() -> None:
    class Failing(Batch):
        def _forward(self, *args: Any, **kwargs: Any) -> Tensor:
            raise ValueError("broken\nsecond line")

    with pytest.raises(EngineError, match="^model 'tiny' failed while computing likelihoods: broken$"):
        scored(Failing, [raw("r", "hi")])


def test_logits_that_are_not_finite_fail_the_request() -> None:
    class Broken(Batch):
        def _forward(self, *args: Any, **kwargs: Any) -> Tensor:
            return super()._forward(*args, **kwargs) * torch.nan

    assert str(scored(Broken, [raw("r", "hi", ["A", "B"])])["r"]) == "the model's logits are not finite at token 1 of the reply"


def test_logits_that_are_too_large_together_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood_module, "MAX_LOGITS_BYTES", 320 * 4 * 7)
    engine = TransformersEngine("tiny", loaded("gemma3"))
    requests = [raw("one", "the user", ["and the assistant talk 0 1 2 3 4 5"]), raw("long", "x" * 30, ["y" * 50]), raw("choices", "hi")]

    found = likelihoods(engine, requests)

    assert all(close(found[request.id], expected(engine, request)) for request in requests)


def test_padding_beyond_the_last_position_of_the_model_is_harmless() -> None:
    engine = TransformersEngine("tiny", loaded("gpt2"))
    requests = [raw("full", "x" * 251, ["0 1", "2 3 "]), raw("long", "x" * 230, ["0 1 2 3 4 5 6 7 8 9", "a b"])]

    found = likelihoods(engine, requests)

    assert all(close(found[request.id], expected(engine, request)) for request in requests)


def test_requests_for_replies_and_for_likelihoods_may_be_mixed() -> None:
    engine = TransformersEngine("tiny", loaded("llama"))
    generated = Request("reply", prompt="hi", sampling=SamplingParams(max_new_tokens=4))

    found = dict(collect(engine, [raw("a", "hi"), generated, chat("b", "hi")]))

    assert set(found) == {"a", "reply", "b"}
    reply = found["a"]
    assert isinstance(reply, Reply)
    assert (reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("stop", 2, 0)


def test_a_request_that_cannot_be_scored_fails_alone() -> None:
    engine = TransformersEngine("tiny", loaded("llama"))

    found = dict(
        collect(
            engine,
            [raw("long", "x" * 250, ["no", "y" * 20]), raw("empty", "hi", [""]), chat("adapter", "hi", adapter="x"), chat("r", "hi")],
        )
    )

    assert str(found["long"]) == "prompt and continuation have 250 and up to 20 tokens; the model's context holds 256, both together"
    assert str(found["empty"]) == "there is nothing to score: continuation 1 of request 'empty' has no tokens of its own after the prompt"
    assert "unknown adapter 'x'" in str(found["adapter"])
    assert isinstance(found["r"], Reply)


def test_each_adapter_has_its_own_likelihoods(tiny_checkpoint: Path, tmp_path: Path) -> None:
    engine = load_engine(str(tiny_checkpoint), {})
    names = [str(make_adapter(tmp_path / str(seed), tiny_checkpoint, seed)) for seed in (1, 2)]
    for name in names:
        engine.add_adapter(name, name)  # type: ignore[attr-defined]

    found = likelihoods(engine, [chat(f"{adapter} {text}", text, adapter=adapter) for text in PROMPTS for adapter in (OFF, *names)])

    alone = {adapter: load_engine(adapter if adapter != OFF else str(tiny_checkpoint), {}) for adapter in (OFF, *names)}
    for adapter, one in alone.items():
        wanted = likelihoods(one, [chat(text, text) for text in PROMPTS])
        assert all(close(found[f"{adapter} {text}"], wanted[text]) for text in PROMPTS)
    assert len({found[f"{adapter} hi"][0].logprob for adapter in alone}) == 3


def pieces(request: Request, size: int = 256) -> list[tuple[str, list[str]]]:
    """The texts of each prompt and its continuations, as they are tokenized."""
    renderer = loaded("llama").renderer
    decode = renderer.tokenizer.decode
    return [(decode(one.ids), [decode(ids) for ids in one.continuations]) for one in tokenize_request(renderer, request, size).prompts]


def test_white_space_at_the_end_of_a_raw_prompt_moves_to_the_continuation() -> None:
    assert pieces(raw("r", "the user \n", ["talk", " talk"])) == [("the user", [" \ntalk", " \n talk"])]


def test_a_raw_continuation_gets_the_tokens_after_as_many_as_the_prompt_has_alone() -> None:
    tokenizer = loaded("llama").renderer.tokenizer
    (prompt,) = tokenize_request(loaded("llama").renderer, raw("r", "th", ["e 12"]), 256).prompts

    assert prompt.ids == tokenizer.encode("th")
    assert prompt.continuations == [tokenizer.encode("the 12")[len(prompt.ids) :]]
    assert prompt.continuations != [tokenizer.encode("e 12")]


def test_a_chat_continuation_is_tokenized_as_in_training_with_or_without_its_end() -> None:
    renderer = loaded("llama").renderer
    messages = (Message(role="user", content="hi"),)
    rendered = renderer.training_ids((*messages, Message(role="assistant", content="the user")))
    trained = [label for label in rendered.labels if label >= 0]

    for ended in (True, False):
        (prompt,) = tokenize_request(renderer, Request("r", messages, continuations=("the user",), ended=ended), 256).prompts
        assert prompt.continuations == [trained if ended else trained[:-1]]
        assert (*prompt.ids, *trained) == rendered.ids[: len(prompt.ids) + len(trained)]
    (prompt,) = tokenize_request(renderer, Request("r", messages, reply_prefix="0 ", continuations=("user",)), 256).prompts
    assert renderer.tokenizer.decode(prompt.ids).endswith("\n0")
    assert renderer.tokenizer.decode(prompt.continuations[0]) == " user"


@settings(deadline=None)
@given(text=st.text(st.sampled_from("abc "), min_size=1, max_size=60), size=st.integers(2, 12))
def test_windows_of_a_long_text_count_every_token_once_and_fit_the_context(text: str, size: int) -> None:
    renderer = loaded("llama").renderer
    ids = renderer.tokenizer.encode(text)

    windows = tokenize_request(renderer, raw("r", "", [text]), size).prompts

    assert [id for window in windows for id in window.continuations[0]] == ids
    read = [renderer.tokenizer.eos_token_id, *ids]
    for window in windows:
        assert len(window.ids) + len(window.continuations[0]) - 1 == (size if len(windows) > 1 else len(ids))
        start = len(window.ids)
        assert [*window.ids, *window.continuations[0]] in [read[at : at + start + len(window.continuations[0])] for at in range(len(read))]


def test_a_long_text_after_an_empty_prompt_has_the_sum_of_its_windows() -> None:
    engine = TransformersEngine("tiny", loaded("llama"))
    text = "the user and the assistant talk " * 60
    request = raw("r", "", [text])
    windows = tokenize_request(engine.renderer(""), request, engine.context_length).prompts

    (found,) = likelihoods(engine, [request])["r"]

    assert len(windows) > 1
    with torch.inference_mode():
        total = 0.0
        for window in windows:
            logits = engine.loaded.model(input_ids=torch.tensor([[*window.ids, *window.continuations[0]]])).logits[
                0, len(window.ids) - 1 : -1
            ]
            total += float(logits.log_softmax(-1)[range(len(window.continuations[0])), window.continuations[0]].double().sum())
    assert found.logprob == pytest.approx(total, rel=1e-5)
    assert found.tokens == len(engine.renderer("").tokenizer.encode(text))


def test_without_a_token_to_begin_with_an_empty_prompt_is_refused() -> None:
    renderer = loaded("llama").renderer
    bare = SimpleNamespace(encode=renderer.tokenizer.encode, bos_token_id=None, eos_token_id=None)

    with pytest.raises(UsageError, match="no BOS and no end-of-text token"):
        tokenize_request(replace(renderer, tokenizer=bare), raw("r", "", ["a"]), 256)
