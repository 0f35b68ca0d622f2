"""Logits that are not finite end the request that met them with an error, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.engine import Request, collect
from sftchat.errors import EngineError
from sftchat.inference.local import TransformersEngine
from sftchat.inference.sequence import Sampler, most_likely_tokens
from sftchat.models.loading import load
from sftchat.models.reference import resolve
from sftchat.types import Message, Reply, SamplingParams
from tests.conftest import make_checkpoint

PROMPTS = ["hi", "你好", "a longer prompt with words", "why?", "x" * 40, "y"]
BAD = "Q"
"""A prompt with this character gives NaN."""


class Spoiled:
    """Hook on the embedding that replaces its output for some tokens by a number."""

    def __init__(self, token: int, number: float) -> None:
        self.token, self.number = token, number

    def __call__(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        return torch.where((args[0] == self.token)[..., None], self.number, output)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[TransformersEngine]:
    loaded = load(resolve(str(make_checkpoint(tmp_path / "model"))))
    (token,) = loaded.renderer.tokenizer.encode(BAD)
    hook = loaded.model.get_input_embeddings().register_forward_hook(Spoiled(token, float("nan")))
    yield TransformersEngine("tiny", loaded, batch_size=3)
    hook.remove()


def request(text: str, **sampling: Any) -> Request:
    return Request(text, (Message(role="user", content=text),), sampling=SamplingParams(**({"max_new_tokens": 12} | sampling)))


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 3}, {"repetition_penalty": 1.2}])
def test_only_the_request_that_met_nan_fails_and_the_others_are_unchanged(engine: TransformersEngine, sampling: dict[str, Any]) -> None:
    """Other requests take the slots of failed ones, and their padding would contain the remaining NaN."""
    alone = {text: dict(collect(engine, [request(text, **sampling)]))[text] for text in PROMPTS}
    bad = [f"{BAD}{text}" * 3 for text in PROMPTS]

    found = dict(collect(engine, [request(text, **sampling) for pair in zip(bad, PROMPTS, strict=True) for text in pair]))

    assert {text: found[text] for text in PROMPTS} == alone
    assert all(isinstance(reply, Reply) for reply in alone.values())
    assert {str(found[text]) for text in bad} == {"the model's logits are not finite (NaN) at token 1 of the reply"}


def test_a_conversation_continues_after_a_failed_reply(engine: TransformersEngine) -> None:
    before = dict(collect(engine, [request("hi")]))

    assert isinstance(dict(collect(engine, [request(f"hi{BAD}")]))[f"hi{BAD}"], EngineError)
    assert dict(collect(engine, [request("hi")])) == before


def test_the_position_of_the_token_is_reported_also_with_prompt_lookup(engine: TransformersEngine) -> None:
    """A reply with a bad token gets NaN at the next one; the text before it is kept."""
    loaded = engine.loaded
    said = tuple(token for chunk in engine.generate([request("a b a b a b", max_new_tokens=40)]) for token in chunk.token_ids)
    token = next(token for place, token in enumerate(said) if place > 3 and token not in said[:place])
    place = said.index(token)
    prompt = loaded.renderer.prompt_ids([Message(role="user", content="a b a b a b")])
    assert token not in prompt, "the prompt is read without harm"
    hook = loaded.model.get_input_embeddings().register_forward_hook(Spoiled(token, float("nan")))

    chunks = list(TransformersEngine("tiny", loaded).generate([request("a b a b a b", max_new_tokens=40)]))
    hook.remove()

    assert chunks[-1].error == f"the model's logits are not finite (NaN) at token {place + 2} of the reply"
    assert tuple(token for chunk in chunks for token in chunk.token_ids) == said[: place + 1]
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["error"]


def test_a_reply_that_cannot_be_scored_reports_the_reason(engine: TransformersEngine) -> None:
    with pytest.raises(EngineError, match="logits are not finite at token 1 of the reply"):
        engine.choices(request(BAD), "a")


NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=1, max_size=3))
def test_the_largest_logit_of_a_row_decides_whether_a_token_can_be_chosen(rows: list[list[float]]) -> None:
    logits = torch.tensor(rows)
    tokens, best = most_likely_tokens(logits)

    for row, token, value in zip(logits, tokens, best, strict=True):
        usable = not bool(row.isnan().any()) and bool(row.max().isfinite())
        assert usable == bool(torch.tensor(value).isfinite())
        if usable:
            assert row[token] == row.max()
            assert row.isfinite()[Sampler(SamplingParams(temperature=1.0, seed=1), []).choose(row)]


def test_the_lowest_temperature_gives_the_most_likely_token() -> None:
    logits = torch.tensor([1.0, 30.0, 29.9])

    assert {Sampler(SamplingParams(temperature=1e-45, seed=seed), []).choose(logits) for seed in range(5)} == {1}
