"""The GGUF engine: events of llama.cpp become chunks, and a real file behaves like any other model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat.engine import Chunk, Request, collect
from sftchat.errors import EngineError, ModelError, UsageError
from sftchat.inference.continuations import ScoredPrompt, ScoredRequest
from sftchat.inference.llama_cpp import LlamaCppEngine, RenderedRequest, ReplyStream, check_tokenizers, open_gguf
from sftchat.inference.llama_likelihood import score_requests
from sftchat.inference.open import load_engine
from sftchat.likelihood import Likelihood, parse_likelihoods
from sftchat.models.gguf_types import FILE_TYPES
from sftchat.models.gguf_write import write_gguf
from sftchat.models.loading import load
from sftchat.models.reference import resolve
from sftchat.templates.renderer import choose_renderer
from sftchat.types import Reply, SamplingParams
from tests.conftest import make_tokenizer

STOP = 2
"""Id of ``<|im_end|>``."""


def token_event(text: str, *ids: int) -> dict[str, Any]:
    return {"choices": [{"text": text, "finish_reason": None, "logprobs": {"content": [{"id": id} for id in ids]}}]}


def last_event(reason: str, completion_tokens: int, cached_tokens: int = 0) -> dict[str, Any]:
    usage = {"completion_tokens": completion_tokens, "prompt_tokens_details": {"cached_tokens": cached_tokens}}
    return {"choices": [{"text": "", "finish_reason": reason, "logprobs": None}], "usage": usage}


def stream(*events: dict[str, Any], stop: tuple[str, ...] = ()) -> tuple[list[Chunk], list[bool]]:
    """The chunks for some events, and what ``receive`` returned for each."""
    chunks: list[Chunk] = []
    request = Request("r", prompt="x", sampling=SamplingParams(stop=stop))
    replies = ReplyStream(RenderedRequest(request, [5, 6], 10), make_tokenizer(), (STOP,), chunks.append)
    return chunks, [replies.receive(event) for event in events]


def ids(text: str) -> list[int]:
    tokenizer: Any = make_tokenizer()
    return list(tokenizer.encode(text, add_special_tokens=False))


def test_tokens_are_chunks_and_the_end_token_is_none() -> None:
    chunks, cancelled = stream(token_event("a", *ids("a")), token_event("", STOP), last_event("stop", 2, cached_tokens=1))

    assert chunks == [Chunk("r", "a", tuple(ids("a"))), Chunk("r", "", (), "stop", prompt_tokens=2, cached_tokens=1)]
    assert cancelled == [False, False, True]


def test_generation_is_cancelled_when_llama_cpp_goes_on_after_a_stop_token() -> None:
    chunks, cancelled = stream(token_event("a", *ids("a")), token_event("", STOP), token_event("b", *ids("b")))

    assert chunks[-1] == Chunk("r", "", (), "stop", prompt_tokens=2)
    assert cancelled == [False, False, True]


def test_the_limit_is_the_reason_length() -> None:
    assert stream(token_event("a", *ids("a")), last_event("length", 1))[0][-1].finish_reason == "length"


def test_the_tokens_of_a_character_are_recovered_from_its_text() -> None:
    character = ids("é")
    assert len(character) == 2
    chunks, _ = stream(token_event("é", character[-1]), last_event("length", 2))

    assert (chunks[0].token_ids, chunks[-1].unlisted_tokens) == (tuple(character), 0)


def test_tokens_that_cannot_be_recovered_are_counted() -> None:
    chunks, _ = stream(token_event("ß", ids("é")[-1]), last_event("length", 3))

    assert (chunks[0].token_ids, chunks[-1].unlisted_tokens) == ((ids("é")[-1],), 2)


def test_a_stop_string_ends_the_reply_and_is_not_part_of_it() -> None:
    chunks, cancelled = stream(token_event("ab", *ids("ab")), token_event("X", *ids("X")), token_event("Yc", *ids("Yc")), stop=("XY",))

    assert "".join(chunk.text for chunk in chunks) == "ab"
    assert (chunks[-1].finish_reason, cancelled) == ("stop", [False, False, True])


def test_an_error_of_llama_cpp_ends_the_request() -> None:
    chunks, cancelled = stream({"error": {"code": 500, "message": "Context size has been exceeded."}})

    assert (chunks, cancelled) == ([Chunk("r", finish_reason="error", error="Context size has been exceeded.")], [True])


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppEngine]:
    """A GGUF file of the tiny checkpoint."""
    loaded = load(resolve(str(tiny_checkpoint)), dtype="float32")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(loaded.model, loaded.renderer, path, FILE_TYPES["f32"], name="tiny", pre_tokenizer="gpt-2")
    opened = open_gguf("tiny", resolve(str(path)), device="cpu")
    yield opened
    opened.close()


def request(name: str, content: str = "the user", **sampling: Any) -> Request:
    return Request(name, ({"role": "user", "content": content},), sampling=SamplingParams(**{"max_new_tokens": 12, **sampling}))


def reply_to(engine: LlamaCppEngine, asked: Request) -> Reply | EngineError:
    return dict(collect(engine, [asked]))[asked.id]


def test_greedy_replies_are_those_of_transformers(engine: LlamaCppEngine, tiny_checkpoint: Path) -> None:
    from sftchat.inference.local import TransformersEngine

    local = TransformersEngine("tiny", load(resolve(str(tiny_checkpoint)), dtype="float32"))
    requests = [request(str(number), content) for number, content in enumerate(["the user", "你好", "and talk 1 2 3", "系统"])]
    expected = dict(collect(local, requests))
    given = dict(collect(engine, requests))

    assert {
        name: (reply.text, reply.completion_tokens, reply.prompt_tokens) for name, reply in given.items() if isinstance(reply, Reply)
    } == {name: (reply.text, reply.completion_tokens, reply.prompt_tokens) for name, reply in expected.items() if isinstance(reply, Reply)}


def test_more_requests_than_slots_are_all_answered(engine: LlamaCppEngine) -> None:
    given = dict(collect(engine, [request(str(number), f"talk {number}") for number in range(20)]))

    assert set(given) == {str(number) for number in range(20)}
    assert all(isinstance(reply, Reply) for reply in given.values())


def test_the_same_seed_gives_the_same_sample(engine: LlamaCppEngine) -> None:
    def sample(seed: int) -> Any:
        return reply_to(engine, request("r", temperature=1.0, seed=seed))

    assert sample(1) == sample(1)
    assert len({sample(seed).text for seed in range(5)}) > 1


def test_closing_the_iterator_cancels(engine: LlamaCppEngine) -> None:
    chunks = engine.generate([request("long", max_new_tokens=200), request("other", max_new_tokens=200)])
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]

    assert isinstance(reply_to(engine, request("next")), Reply)


def test_a_request_that_cannot_be_answered_fails_alone(engine: LlamaCppEngine) -> None:
    given = dict(
        collect(
            engine,
            [Request("long", prompt="a" * 5000), Request("adapter", prompt="a", adapter="x"), Request("empty", prompt=""), request("r")],
        )
    )

    assert "the model's context holds 256, prompt and reply together" in str(given["long"])
    assert "is a GGUF file, which takes no adapters" in str(given["adapter"])
    assert str(given["empty"]) == "the prompt is empty"
    assert isinstance(given["r"], Reply)


def test_a_reply_of_several_bytes_per_character_is_scored(engine: LlamaCppEngine) -> None:
    choices = engine.choices(request("r"), "你é", alternatives=2)

    assert [choice.token.id for choice in choices] == [*ids("你é"), STOP]
    assert all(choice.logprob <= 0 and len(choice.alternatives) == 2 for choice in choices)
    with pytest.raises(UsageError, match="the prompt or the reply is empty"):
        engine.choices(request("r"), "", ended=False)


def test_likelihoods_are_those_of_transformers(engine: LlamaCppEngine, tiny_checkpoint: Path) -> None:
    from sftchat.inference.local import TransformersEngine

    local = TransformersEngine("tiny", load(resolve(str(tiny_checkpoint)), dtype="float32"))
    texts = ("the user", "the assistant", "你é", "0")
    requests = [
        *(replace(request(f"chat {text}", text), continuations=texts, ended=text == "talk") for text in ("hi", "talk", "系统")),
        Request("raw", prompt="the user and ", continuations=texts),
        Request("windows", prompt="", continuations=("x" * 400,)),
        *(Request(str(number), prompt=f"talk {number}", continuations=("a", "b")) for number in range(12)),
    ]
    expected = dict(collect(local, requests))

    given = dict(collect(engine, [*requests, Request("long", prompt="a" * 300, continuations=("b",))]))

    assert "300 and up to 1 tokens; the model's context holds 255, both together" in str(given.pop("long"))
    for name, reply in given.items():
        theirs, ours = (parse_likelihoods(getattr(one, "text", "")) for one in (reply, expected[name]))
        assert theirs is not None
        assert ours is not None
        assert [replace(one, logprob=0.0) for one in theirs] == [replace(one, logprob=0.0) for one in ours]
        if name != "windows":  # llama.cpp's windows are a token shorter
            assert [one.logprob for one in theirs] == pytest.approx([one.logprob for one in ours], abs=0.05)  # its cache has 16 bits


def test_equal_beginnings_are_scored_once_and_a_text_of_the_most_likely_tokens_is_greedy() -> None:
    scored: list[tuple[int, ...]] = []

    class Fixed:
        """Scores of a model for which 7 is the most likely token."""

        def score(self, prompt: list[int], token: int, alternatives: int) -> tuple[float, dict[int, float]]:
            scored.append((*prompt, token))
            return (-0.5 if token == 7 else -2.0), {7: -0.5}

    asked = Request("r", prompt="x", continuations=("a", "bc"))

    def prepare(request: Request) -> ScoredRequest:
        return ScoredRequest(request, (ScoredPrompt([1, 2], [[7, 7], [7, 7, 3]]),))

    (chunk,) = (chunk for chunk in score_requests([asked], prepare, Fixed(), 100) if chunk.finish_reason)  # type: ignore[arg-type]

    assert parse_likelihoods(chunk.text) == (Likelihood(-1.0, 2, 1, True), Likelihood(-3.0, 3, 2, False))
    assert scored == [(1, 2, 7), (1, 2, 7, 7), (1, 2, 7, 7, 3)]


def test_closing_the_iterator_of_likelihoods_leaves_a_usable_engine(engine: LlamaCppEngine) -> None:
    chunks = engine.generate([Request(str(number), prompt="", continuations=("x" * 100,)) for number in range(20)])
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]

    assert isinstance(reply_to(engine, request("next")), Reply)


def test_a_tokenizer_that_llama_cpp_reads_otherwise_is_refused(engine: LlamaCppEngine) -> None:
    renderer = engine.renderer("")

    with pytest.raises(
        ModelError, match=r"its prompts would differ \(splitting rules 'gpt-2'\): at token 2 transformers gives '.*' and llama.cpp '.*'"
    ):
        check_tokenizers(engine.header, renderer, lambda text: renderer.tokenizer.encode(text)[:1])


def test_a_file_that_llama_cpp_cannot_load_is_one_line(tmp_path: Path, engine: LlamaCppEngine) -> None:
    data = engine.header.path.read_bytes().replace(b"qwen3", b"qwenX")
    (tmp_path / "model.gguf").write_bytes(data)

    with pytest.raises(
        ModelError, match="llama.cpp cannot load '.*' \\(architecture 'qwenX'\\): .*unknown model architecture: 'qwenX'"
    ) as caught:
        open_gguf("bad", resolve(str(tmp_path / "model.gguf")))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_hostile_template_in_a_file_costs_one_line(engine: LlamaCppEngine, tmp_path: Path) -> None:
    import subprocess
    import sys

    data = engine.header.path.read_bytes()
    source = engine.renderer("").source.encode()
    loop = b"{%for m in range(999999999)%}{%endfor%}"
    assert data.count(source) == 1
    (tmp_path / "model.gguf").write_bytes(data.replace(source, loop.ljust(len(source))))

    words = ["ask", str(tmp_path / "model.gguf"), "hi"]
    done = subprocess.run([sys.executable, "-m", "sftchat", *words], capture_output=True, text=True, check=False, timeout=120)

    assert (done.returncode, done.stdout) == (3, "")
    assert "Range too big" in done.stderr
    assert done.stderr.count("\n") == 1


def sentencepiece_tokenizer() -> Any:
    """A tokenizer like Llama 2's: a space before the text, spaces as ``▁``, bytes for unknown characters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizer
    learner.train_from_iterator(
        ["the", "user", "and", "a", "talk of the user", "2 + 3"] * 2, trainers.BpeTrainer(vocab_size=60, show_progress=False)
    )
    learned = json.loads(learner.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(learned["vocab"], key=learned["vocab"].get)]
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(
        models.BPE({piece: index for index, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    wrapped.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return wrapped


@pytest.mark.parametrize("as_ids", [True, False])
def test_a_continued_reply_keeps_the_space_before_its_first_word(as_ids: bool, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = sentencepiece_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, intermediate_size=64, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=256, eos_token_id=2, bos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data.zero_()
    words = [index for text, index in tokenizer.get_vocab().items() if len(text) > 1 and text.startswith("▁")]
    model.lm_head.weight.data[words] = torch.randn(len(words), 64)  # every token that it writes begins a word
    write_gguf(model, choose_renderer(tokenizer, "chatml"), tmp_path / "m.gguf", FILE_TYPES["f32"], name="m", pre_tokenizer="default")
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    tokenizer.chat_template = choose_renderer(tokenizer, "chatml").source
    tokenizer.save_pretrained(folder)
    for engine in (open_gguf("m", resolve(str(tmp_path / "m.gguf"))), load_engine(str(folder), {}, device="cpu")):
        try:
            whole = list(engine.generate([request("whole", max_new_tokens=8)]))
            beginning = [token for chunk in whole for token in chunk.token_ids][:3]
            text = engine.decode(beginning)
            prefix: dict[str, Any] = {"reply_ids": tuple(beginning)} if as_ids else {"reply_prefix": text}
            rest = list(engine.generate([replace(request("rest", max_new_tokens=5), **prefix)]))
        finally:
            engine.close()

        continued = "".join(chunk.text for chunk in rest)
        assert (text[0] != " ", continued[0]) == (True, " ")
        if as_ids:  # a text may be split into other tokens than were generated
            assert text + continued == "".join(chunk.text for chunk in whole)
