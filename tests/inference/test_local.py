"""The local engine: replies of transformers for any batch; streaming, stopping, cancelling, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sftchat.engine import Request, collect
from sftchat.errors import EngineError
from sftchat.inference.local import TransformersEngine
from sftchat.inference.open import load_engine
from sftchat.inference.sequence import Detokenizer
from sftchat.types import Message, Reply, SamplingParams
from tests.conftest import make_checkpoint, make_tokenizer

PROMPTS = ["hi", "你好", "a longer prompt with several words in it", "x" * 60, "why?"]


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path) -> TransformersEngine:
    loaded = load_engine(str(tiny_checkpoint), {})
    assert isinstance(loaded, TransformersEngine)
    return loaded


def request(text: str, id: str = "r", **sampling: Any) -> Request:
    return Request(id, (Message(role="user", content=text),), sampling=SamplingParams(**({"max_new_tokens": 24} | sampling)))


def answers(engine: TransformersEngine, *requests: Request) -> dict[str, Reply]:
    return {id: reply for id, reply in collect(engine, requests) if isinstance(reply, Reply)}


def test_greedy_replies_are_those_of_transformers_generate(engine: TransformersEngine) -> None:
    import torch

    ours = answers(engine, *[request(text, text) for text in PROMPTS])

    renderer = engine.loaded.renderer
    for text in PROMPTS:
        ids = torch.tensor([renderer.prompt_ids([Message(role="user", content=text)])])
        theirs = engine.loaded.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=list(engine.loaded.stop_ids),
            pad_token_id=0,
        )[0, ids.shape[1] :]
        assert ours[text].text == renderer.tokenizer.decode(theirs, skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_reply_does_not_depend_on_its_neighbours(engine: TransformersEngine, batch_size: int) -> None:
    requests = [request(text, text, max_new_tokens=5 + 4 * index) for index, text in enumerate(PROMPTS)]
    alone = {r.id: answers(engine, r)[r.id] for r in requests}

    together = TransformersEngine("tiny", engine.loaded, batch_size=batch_size)

    assert answers(together, *reversed(requests)) == alone


def test_samples_depend_on_their_seed_and_not_on_their_neighbours(engine: TransformersEngine) -> None:
    def sample(seed: int) -> Request:
        return request("hi", f"s{seed}", temperature=1.0, top_p=0.9, top_k=50, seed=seed)

    together = answers(engine, *[sample(seed) for seed in range(4)])

    assert answers(engine, sample(2)) == {"s2": together["s2"]}
    assert len({reply.text for reply in together.values()}) > 1


def test_a_repetition_penalty_changes_the_reply_as_in_transformers(engine: TransformersEngine) -> None:
    import torch

    renderer = engine.loaded.renderer
    ids = torch.tensor([renderer.prompt_ids([Message(role="user", content="hi")])])
    theirs = engine.loaded.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, repetition_penalty=1.3,
        eos_token_id=list(engine.loaded.stop_ids), pad_token_id=0,
    )[0, ids.shape[1] :]  # fmt: skip

    ours = answers(engine, request("hi", repetition_penalty=1.3))["r"].text

    assert ours == renderer.tokenizer.decode(theirs, skip_special_tokens=True)


def test_the_chunks_of_a_stream_join_up_to_the_reply(engine: TransformersEngine) -> None:
    chunks = list(engine.generate([request("你好")]))

    (whole,) = answers(engine, request("你好")).values()
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason in ("stop", "length")
    assert whole.prompt_tokens == len(engine.loaded.renderer.prompt_ids([Message(role="user", content="你好")]))


def test_the_token_limit_is_distinguished_from_the_models_own_end(engine: TransformersEngine) -> None:
    reply = answers(engine, request("hi", max_new_tokens=3))["r"]

    assert (reply.finish_reason, reply.completion_tokens) == ("length", 3)


def test_a_stop_string_ends_the_reply_and_is_not_part_of_it(engine: TransformersEngine) -> None:
    whole = answers(engine, request("hi"))["r"].text
    stop = whole[3:5]

    reply = answers(engine, request("hi", stop=(stop,)))["r"]

    assert (reply.text, reply.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_a_reply_is_continued_where_it_ended(engine: TransformersEngine) -> None:
    whole = answers(engine, request("hi"))["r"].text
    if not whole.isascii():  # a cut inside the ASCII part is always at a token boundary of a byte-level tokenizer
        whole = whole[:1]
    rest = Request("r", request("hi").messages, sampling=SamplingParams(max_new_tokens=4), reply_prefix="abc")

    prompt_ids = engine.loaded.renderer.prompt_ids(rest.messages, "abc")

    assert engine.loaded.renderer.tokenizer.decode(prompt_ids).endswith("<|im_start|>assistant\nabc")
    assert answers(engine, rest)["r"].prompt_tokens == len(prompt_ids)


def test_plain_text_is_continued_without_a_template(engine: TransformersEngine) -> None:
    reply = answers(engine, Request("r", prompt="once upon", sampling=SamplingParams(max_new_tokens=2)))["r"]

    assert reply.prompt_tokens == len(engine.loaded.renderer.tokenizer.encode("once upon"))


def test_a_prompt_over_the_context_fails_alone(engine: TransformersEngine) -> None:
    results = dict(collect(engine, [request("x " * 300, "long"), request("hi", "short")]))

    assert isinstance(results["short"], Reply)
    assert str(results["long"]).startswith("the prompt has ")
    assert str(results["long"]).endswith("tokens; the model's context holds 256, prompt and reply together")


def test_a_reply_never_runs_over_the_context(engine: TransformersEngine) -> None:
    reply = answers(engine, request("x" * 150, max_new_tokens=10_000))["r"]

    assert reply.prompt_tokens + reply.completion_tokens <= engine.context_length


def test_closing_the_stream_stops_generating(engine: TransformersEngine) -> None:
    steps = []
    model = engine.loaded.model
    handle = model.register_forward_pre_hook(lambda *_: steps.append(1))
    try:
        stream = engine.generate([request("hi", max_new_tokens=200)])
        next(stream)
        stream.close()
        seen = len(steps)
    finally:
        handle.remove()

    assert seen <= 2


def test_an_unknown_adapter_is_an_error_of_that_request(engine: TransformersEngine) -> None:
    ((_, error),) = collect(engine, [Request("r", request("hi").messages, adapter="b")])

    assert str(error) == "unknown adapter 'b' (available: off)"


def test_an_error_of_a_model_is_one_line(tmp_path: Path) -> None:
    engine = load_engine(str(make_checkpoint(tmp_path / "broken")), {})
    assert isinstance(engine, TransformersEngine)

    def fail(*_: Any) -> None:
        raise RuntimeError("shapes differ\nlong story")

    engine.loaded.model.register_forward_pre_hook(fail)

    with pytest.raises(EngineError, match="failed while generating: shapes differ$"):
        list(engine.generate([request("hi")]))


@pytest.mark.parametrize("text", ["你好🙂 world", "é️👩‍👩‍👧 x", "plain", "\n\n", "a\u2028b"])
def test_a_stream_shows_whole_characters_and_loses_nothing(text: str) -> None:
    tokenizer: Any = make_tokenizer()
    detokenizer = Detokenizer(tokenizer)

    pieces = [detokenizer.add(token) for token in tokenizer.encode(text)]

    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + detokenizer.finish() == text


def test_a_reply_cut_inside_a_character_shows_the_complete_part() -> None:
    tokenizer: Any = make_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode("a🙂")[:-1]

    text = "".join(detokenizer.add(token) for token in ids) + detokenizer.finish()

    assert text == tokenizer.decode(ids)


def test_text_that_may_begin_a_stop_string_is_held_back() -> None:
    tokenizer: Any = make_tokenizer()
    detokenizer = Detokenizer(tokenizer, ["</end>"])

    shown = []
    for token in tokenizer.encode("ab</en"):
        shown.append(detokenizer.add(token))

    assert "".join(shown) == "ab"
    assert detokenizer.finish() == "</en"


def test_a_continuation_yields_only_the_new_text() -> None:
    tokenizer: Any = make_tokenizer()
    ids = tokenizer.encode("ab。🙂 c")
    for cut in range(len(ids) + 1):
        detokenizer = Detokenizer(tokenizer, ["。!"])
        detokenizer.begin(ids[:cut])

        said = "".join(detokenizer.add(token) for token in ids[cut:]) + detokenizer.finish()

        known = tokenizer.decode(ids[:cut]).rstrip("\ufffd")
        assert known + said == "ab。🙂 c"


def test_a_stop_string_ends_a_reply_that_began_with_half_of_it_and_not_one_that_began_with_all_of_it() -> None:
    tokenizer: Any = make_tokenizer()
    for known, expected in (("a<", ""), ("a<x>", "b")):
        detokenizer = Detokenizer(tokenizer, ["<x>"])
        detokenizer.begin(tokenizer.encode(known))

        said = "".join(detokenizer.add(token) for token in tokenizer.encode("x>b" if known == "a<" else "b")) + detokenizer.finish()

        assert (said, detokenizer.stopped) == (expected, expected == "")
