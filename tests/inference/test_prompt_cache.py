"""The prompt cache: only new tokens are prefilled after any change of the conversation, and replies equal those of a fresh model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from sftchat.engine import Request, collect
from sftchat.inference.kv_cache import Prefix, PromptCache
from sftchat.inference.local import TransformersEngine
from sftchat.types import Message, SamplingParams
from tests.inference.test_identity import RECURRENT, loaded

LENGTH = 12


@dataclass
class Asker:
    """Sends requests to one engine, counts prefilled tokens, and compares each reply with that of a fresh engine."""

    shape: str
    read: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = TransformersEngine("tiny", loaded(self.shape))

    def __call__(self, *said: str) -> tuple[str, list[int], int]:
        """Return the reply, the tokens that the model has read, and the number of prefilled tokens."""
        messages = tuple(Message(role="assistant" if place % 2 else "user", content=text) for place, text in enumerate(said))
        request = Request("r", messages, sampling=SamplingParams(max_new_tokens=LENGTH))
        self.read.clear()
        handle = loaded(self.shape).model.register_forward_pre_hook(self._count, with_kwargs=True)
        try:
            chunks = list(self.engine.generate([request]))
        finally:
            handle.remove()
        fresh = dict(collect(TransformersEngine("tiny", loaded(self.shape)), [request]))["r"]
        text = "".join(chunk.text for chunk in chunks)
        assert text == getattr(fresh, "text", None)
        last = chunks[-1]
        assert self.read[0] == last.prompt_tokens - last.cached_tokens
        return text, [*self.tokens(*said), *(token for chunk in chunks for token in chunk.token_ids)], self.read[0]

    def _count(self, _model: Any, _args: Any, given: dict[str, Any]) -> None:
        self.read.append(given["input_ids"].numel())

    def tokens(self, *said: str) -> list[int]:
        """Return the prompt ids of a conversation."""
        messages = [Message(role="assistant" if place % 2 else "user", content=text) for place, text in enumerate(said)]
        return loaded(self.shape).renderer.prompt_ids(messages)


def alike(one: list[int], other: list[int]) -> int:
    """Return the number of common tokens at the beginning of two prompts."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@pytest.fixture(params=["llama", "qwen3", "gemma2", "mistral", "gpt2", "bloom"])
def ask(request: pytest.FixtureRequest) -> Asker:
    """A conversation of one turn, longer than the windows of the sliding shapes."""
    return Asker(request.param)


def test_every_continuation_prefills_only_new_tokens(ask: Asker) -> None:
    question = "hi, who talks to the user?"

    def only_new(read: int, known: list[int], *said: str) -> bool:
        """Return whether only uncached tokens were prefilled; the last token of a reply is often not cached."""
        asked = ask.tokens(*said)
        return len(asked) - alike(known, asked) <= read <= len(asked) - alike(known[:-1], asked)

    first, known, read = ask(question)
    assert read == len(ask.tokens(question))  # nothing was cached

    # regenerate: all is cached except the prompt's last token, whose logits are needed again
    assert ask(question)[::2] == (first, 1)

    # the next message
    _, longer, read = ask(question, first, "and why?")
    assert only_new(read, known, question, first, "and why?")

    # undo, and another message
    _, _, read = ask(question, first, "so what?")
    assert only_new(read, longer, question, first, "so what?")

    # edit the first message
    _, edited, read = ask("hi, who is there?")
    assert only_new(read, longer, "hi, who is there?")

    # a branch from there, and back to the previous branch
    _, _, read = ask("hi, who is there?", "me", "you?")
    assert only_new(read, edited, "hi, who is there?", "me", "you?")
    _, _, read = ask(question, first, "and why?", "so", "?")
    assert only_new(read, longer, question, first, "and why?", "so", "?")


def test_a_state_that_cannot_be_cut_is_prefilled_again() -> None:
    ask = Asker(RECURRENT)
    ask("hi")
    _, _, read = ask("hi")

    assert read == len(ask.tokens("hi"))


@pytest.mark.parametrize(("columns_of_work", "prefilled"), [(0, 16), (20, 20)])
def test_a_stopped_reply_leaves_its_tokens_in_the_cache(columns_of_work: int, prefilled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Asker("llama")
    parameters = ask.engine.loaded.model.num_parameters()
    monkeypatch.setattr("sftchat.inference.scheduler.MIN_PREFILL_COLUMNS", 16)
    monkeypatch.setattr("sftchat.inference.scheduler.PREFILL_WORK", columns_of_work * parameters)
    text = "the user and the assistant talk " * 4
    request = Request("r", (Message(role="user", content=text),), sampling=SamplingParams(max_new_tokens=LENGTH))

    stream = ask.engine.generate([request])
    chunk = next(stream)
    stream.close()  # type: ignore[attr-defined]

    assert (chunk.text, chunk.token_ids, chunk.finish_reason) == ("", (), None)  # an empty chunk, so that prefill could be stopped
    ids = ask.tokens(text)
    stream = ask.engine.generate([request])
    last = list(stream)[-1]
    assert (last.prompt_tokens, last.cached_tokens) == (len(ids), prefilled)


def test_an_evaluation_caches_no_prompts() -> None:
    ask = Asker("llama")
    requests = [Request(str(n), prompt=f"item {n}", sampling=SamplingParams(max_new_tokens=2)) for n in range(20)]

    list(ask.engine.generate(requests))

    assert len(ask.engine.prompt_cache) == 0


def test_the_cache_is_bounded_and_the_least_recently_used_entry_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def row(*tokens: int, adapter: str = "") -> Prefix:
        return Prefix(tokens, ((torch.zeros(1, 1, len(tokens), 8), torch.zeros(1, 1, len(tokens), 8)),), adapter)

    size = row(1, 2, 3).bytes
    monkeypatch.setattr("sftchat.inference.kv_cache.free_bytes", lambda device: size)
    kept = PromptCache(share=0.5)
    kept.add(row(1, 2, 3))
    kept.add(row(4, 5, 6))  # half of free and cached memory is one and a half prompts
    found = kept.find("", [[4, 5, 9]])
    assert (len(kept), kept.bytes) == (1, size)
    assert found is not None
    assert found.tokens == (4, 5)
    assert kept.find("other adapter", [[4, 5, 9]]) is None
    assert kept.find("", [[1, 2, 3, 4]]) is None

    monkeypatch.setattr("sftchat.inference.kv_cache.free_bytes", lambda device: 1000 * size)
    for place in range(40):
        kept.add(row(7, place))
    assert len(kept) == 16
    kept.add(row(7, 39, 1))
    assert len(kept) == 16  # it replaced the prefix that it extends
