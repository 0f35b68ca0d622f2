"""Eight-bit and four-bit weights: nearly unchanged replies, equal in all implementations; refused where they are of no use."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sftchat.cli import main
from sftchat.engine import Request, collect
from sftchat.inference import open as loading
from sftchat.inference.cpu import optimize_for_inference
from sftchat.inference.linears import MAX_INT8_ROWS
from sftchat.inference.local import TransformersEngine
from sftchat.inference.open import load_engine
from sftchat.models.reference import resolve
from sftchat.types import Reply, SamplingParams
from tests.inference.adapters_kit import make_adapter


class Small(torch.nn.Sequential):
    """Return a model for ``optimize_for_inference``."""

    device = torch.device("cpu")
    config = SimpleNamespace(_attn_implementation="eager")


@torch.inference_mode()
def test_a_layer_computes_with_rounded_weights_for_few_rows_and_for_many() -> None:
    torch.manual_seed(0)
    model = Small(torch.nn.Linear(64, 96), torch.nn.Linear(96, 32, bias=False)).bfloat16()
    before = [layer.weight.detach().float() for layer in model]
    states = torch.randn(2, 40, 64).bfloat16()
    plain = model(states)

    optimize_for_inference(model, int8=True)

    for layer, weight in zip(model, before, strict=True):
        step = weight.abs().amax(1, keepdim=True) / 127
        assert bool(((layer.weight.float() - weight).abs() <= step * 1.01).all())
        assert not torch.equal(layer.weight.float(), weight)
    for found in (model(states), torch.cat([model(states[:, at : at + 1]) for at in range(40)], dim=1)):
        assert (found - plain).abs().max() < 0.02 * plain.abs().max()


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("rows", range(1, MAX_INT8_ROWS + 1))
@torch.inference_mode()
def test_one_large_state_does_not_erase_the_others(rows: int, integers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if integers and not torch.cpu._is_vnni_supported():
        pytest.skip("this CPU does not multiply eight bits by eight")
    monkeypatch.setattr("sftchat.inference.linears.MIN_INTEGER_WEIGHTS", 0 if integers else sys.maxsize)
    torch.manual_seed(0)
    model = Small(torch.nn.Linear(64, 32).bfloat16())
    states = torch.randn(rows, 64).bfloat16()
    states[0, 3] = 100

    optimize_for_inference(model, int8=True)
    layer = model[0]
    exact = states.double() @ layer.weight.double().T + layer.bias.double()  # except for the rounding of weight times scale
    error = (layer(states).double() - exact).norm(dim=1) / exact.norm(dim=1)

    assert float(error.max()) < 0.006  # bfloat16 keeps eight bits of a result


@pytest.mark.parametrize("integers", [True, False])
@torch.inference_mode()
def test_a_row_of_zeros_gives_the_bias(integers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftchat.inference.linears.MIN_INTEGER_WEIGHTS", 0 if integers else sys.maxsize)
    model = Small(torch.nn.Linear(8, 4).bfloat16())
    optimize_for_inference(model, int8=True)

    assert torch.equal(model(torch.zeros(1, 8).bfloat16())[0], model[0].bias)


def test_an_embedding_that_shares_its_weights_with_the_last_layer_stays_as_it_is(tiny_checkpoint: Path) -> None:
    whole, small = (load_engine(str(tiny_checkpoint), {}, dtype="bfloat16", quantize=q) for q in (None, "int8"))
    assert isinstance(whole, TransformersEngine)
    assert isinstance(small, TransformersEngine)

    assert torch.equal(whole.loaded.model.get_input_embeddings().weight, small.loaded.model.get_input_embeddings().weight)
    replies = dict(collect(small, [Request(str(n), prompt="the user", sampling=SamplingParams(max_new_tokens=8)) for n in range(40)]))
    assert all(isinstance(reply, Reply) and reply.completion_tokens for reply in replies.values())
    ids = torch.tensor([[5, 6, 7]])
    one, other = (engine.loaded.model(input_ids=ids).logits.float() for engine in (whole, small))
    assert 0 < float((one - other).detach().norm() / one.detach().norm()) < 0.1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--dtype", "float32"), "--quantize int8 computes in bfloat16 and --dtype is 'float32'"),
        (("--device", "meta"), "--quantize int8 is for decoding on a CPU and the device is 'meta'"),
    ],
)
def test_int8_is_refused_where_it_is_of_no_use(tiny_checkpoint: Path, capsys: Any, words: tuple[str, ...], complaint: str) -> None:
    assert main(["ask", str(tiny_checkpoint), "hi", "--quantize", "int8", *words]) == 2

    assert capsys.readouterr().err.startswith(f"sftchat: error: {complaint}")


def test_four_bits_are_refused_before_weights_are_read(tiny_checkpoint: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None if name == "bitsandbytes" else name)

    assert main(["ask", str(tiny_checkpoint), "hi", "--quantize", "nf4"]) == 3
    assert capsys.readouterr().err == "sftchat: error: --quantize nf4 needs packages that are not installed: pip install 'sftchat[quant]'\n"


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="the extra quant is not installed")
def test_four_bit_replies_are_close_also_with_an_adapter(tmp_path: Path) -> None:
    nano = resolve("sftchat:nano").folder
    assert nano is not None
    adapter = make_adapter(tmp_path / "adapter", nano, seed=1)
    ids = torch.tensor([[5, 6, 7]])
    for path in (nano, adapter):
        whole, small = (load_engine(str(path), {}, dtype="bfloat16", device="cpu", quantize=q) for q in (None, "nf4"))
        one, other = (engine.loaded.model(input_ids=ids).logits.float().detach().log_softmax(-1) for engine in (whole, small))
        kinds = {type(module).__name__ for module in small.loaded.model.modules()}

        assert "Linear4bit" in kinds
        assert 0 < float((one - other).norm() / one.norm()) < 0.3
        ((_, reply),) = collect(small, [Request("1", prompt="the user", sampling=SamplingParams(max_new_tokens=4))])
        assert reply.completion_tokens > 0
