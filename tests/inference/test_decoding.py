"""Missing features of a newer torch, transformers or peft make a model slower, never wrong, and cause no failure."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import masking_utils

from sftchat._util.fallback import report_fallback
from sftchat.engine import Request, collect
from sftchat.errors import EngineError, ModelError, SftchatWarning
from sftchat.inference import adapters
from sftchat.inference import cpu as decoding
from sftchat.inference.cpu import optimize_for_inference
from sftchat.inference.kv_cache import BatchCache
from sftchat.inference.local import TransformersEngine
from sftchat.inference.open import load_engine
from sftchat.models.lazy_imports import deferred_imports
from sftchat.models.loading import load
from sftchat.models.reference import resolve
from sftchat.types import Reply, SamplingParams
from tests.inference.adapters_kit import make_adapter

PROMPTS = ("一", "二三 四五六", "one two three four")


@pytest.fixture(autouse=True)
def _report_again() -> Iterator[None]:
    report_fallback.cache_clear()
    adapters.adapted_layer_types.cache_clear()
    yield
    report_fallback.cache_clear()
    adapters.adapted_layer_types.cache_clear()


def gone(*_: Any, **__: Any) -> Any:
    raise AttributeError("it is gone")


def replies(
    folder: Path, dtype: str = "float32", *, int8: bool = False, prepared: bool = True
) -> tuple[dict[str, Reply | EngineError], list[str]]:
    """Return the replies to prompts of one batch, and the warnings."""
    loaded = load(resolve(str(folder)), dtype=dtype)
    asked = [Request(text, ({"role": "user", "content": text},), sampling=SamplingParams(max_new_tokens=6)) for text in PROMPTS]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        merges = optimize_for_inference(loaded.model, int8=int8) if prepared else True
        answered = dict(collect(TransformersEngine("m", loaded, batch_size=2, merges=merges), asked))
    return answered, [str(warning.message) for warning in caught if issubclass(warning.category, SftchatWarning)]


def test_nothing_is_reported_where_everything_works(tiny_checkpoint: Path) -> None:
    assert replies(tiny_checkpoint)[1] == []


@pytest.mark.parametrize(
    ("owner", "name", "what"),
    [
        (torch.ops.mkldnn, "_reorder_linear_weight", "the packed copy of the weights"),
        (torch.ops.mkldnn, "_linear_pointwise", "the packed copy of the weights"),
        (transformers.AttentionInterface, "register", "the attention of one token"),
        (transformers.AttentionMaskInterface, "register", "the attention of one token"),
        (BatchCache, "insert", "the cache whose rows are merged"),
        (BatchCache, "get_seq_length", "the cache whose rows are merged"),
    ],
)
def test_a_model_gives_the_same_replies_without_missing_library_features(
    owner: Any, name: str, what: str, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = replies(tiny_checkpoint)
    monkeypatch.setattr(owner, name, gone)

    found, reported = replies(tiny_checkpoint)

    assert found == expected
    assert [line for line in reported if "its replies are made in batches" not in line] == [
        f"{what} does not work with the installed libraries (AttributeError: it is gone); a slower way with the same results is used"
    ]


def test_a_name_that_cannot_be_imported_is_not_needed(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = replies(tiny_checkpoint)
    monkeypatch.delattr(masking_utils, "sdpa_mask")

    found, (reported,) = replies(tiny_checkpoint)

    assert found == expected
    assert reported.startswith("the attention of one token does not work with the installed libraries (ImportError: ")


def test_an_optimization_that_changes_the_logits_is_undone(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = replies(tiny_checkpoint)
    monkeypatch.setattr(decoding, "packed_weight", lambda product: lambda states: 2 * product.compute_plain(states))

    found, reported = replies(tiny_checkpoint)

    assert found == expected
    assert reported == [
        "the packed copy of the weights does not work with the installed libraries (its results differ); a slower way with the same results is used"
    ]


@pytest.mark.parametrize("name", ["fbgemm_pack_quantized_matrix", "fbgemm_linear_int8_weight_fp32_activation"])
def test_int8_uses_another_implementation_where_torch_lacks_one(name: str, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = replies(tiny_checkpoint, "bfloat16", int8=True)
    monkeypatch.setattr(torch, name, gone)

    found, _ = replies(tiny_checkpoint, "bfloat16", int8=True)

    assert found == expected


def test_a_cache_that_fails_later_is_replaced_without_losing_a_token(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = replies(tiny_checkpoint)
    monkeypatch.setattr(BatchCache, "compact", gone)
    monkeypatch.setattr(BatchCache, "advance", gone)

    found, reported = replies(tiny_checkpoint, prepared=False)

    assert found == expected
    assert reported[0].startswith("continuous batching does not work with the installed libraries")


@contextmanager
def _broken_imports() -> Iterator[None]:
    raise ImportError("cannot import name 'is_gone'")
    yield


def test_whole_libraries_are_imported_where_partial_imports_fail(tiny_checkpoint: Path) -> None:
    with pytest.warns(SftchatWarning, match="importing the model libraries in parts does not work"):
        engine = load_engine(str(tiny_checkpoint), {}, importing=_broken_imports)

    assert engine.name == str(tiny_checkpoint)


def test_a_model_that_cannot_be_loaded_is_not_blamed_on_imports(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")

    with pytest.raises(ModelError):  # and no warning, because warnings are errors in tests
        load_engine(str(tmp_path), {}, importing=deferred_imports)


def test_sequences_of_several_adapters_run_separately_where_peft_has_other_layers(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (make_adapter(tmp_path / name, tiny_checkpoint, seed) for seed, name in enumerate(("one", "two"), 1))
    asked = [
        Request(f"{text}/{adapter}", ({"role": "user", "content": text},), sampling=SamplingParams(max_new_tokens=4), adapter=adapter)
        for text in PROMPTS
        for adapter in ("", "other")
    ]

    def answers() -> dict[str, Reply | EngineError]:
        engine = TransformersEngine("m", load(resolve(str(first)), dtype="float32"))
        engine.add_adapter("other", str(second))
        return dict(collect(engine, asked))

    expected = answers()
    monkeypatch.delattr("peft.tuners.lora.LoraLayer")
    adapters.adapted_layer_types.cache_clear()

    with pytest.warns(SftchatWarning, match="a batch of several adapters does not work"):
        found = answers()

    assert found == expected
