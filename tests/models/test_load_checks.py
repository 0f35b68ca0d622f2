"""Weights that do not match their files are refused by name: missing, of another shape, left over, not finite, too few rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from sftchat.cli import main
from sftchat.errors import ModelError, SftchatWarning
from sftchat.models.load_checks import WeightCheck
from sftchat.models.loading import load, load_checked, load_model
from sftchat.models.reference import resolve
from tests.inference.adapters_kit import make_adapter

WEIGHTS = "model.safetensors"
UP = "model.layers.0.mlp.up_proj.weight"
Tensors = dict[str, Any]


def changed(checkpoint: Path, folder: Path, change: Callable[[Tensors], object], file: str = WEIGHTS) -> str:
    """A copy of a folder whose tensors were changed."""
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return str(folder)


def without(*parts: str) -> Callable[[Tensors], object]:
    """Takes away the tensors whose names contain one of some parts."""

    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if any(part in name for part in parts)]:
            del tensors[name]

    return change


def put(name: str, value: float) -> Callable[[Tensors], object]:
    """Puts one number into a tensor."""
    return lambda tensors: tensors[name].view(-1)[-1].fill_(value)


def copied(source: str, target: str) -> Callable[[Tensors], object]:
    """Adds a tensor that is like another."""
    return lambda tensors: tensors.update({target: tensors[source].clone()})


def cut(name: str) -> Callable[[Tensors], object]:
    """Takes away the last row of a tensor."""
    return lambda tensors: tensors.update({name: tensors[name][:-1].clone()})


def edit(folder: str, name: str, **values: Any) -> str:
    """Changes keys of a JSON file of a folder."""
    path = Path(folder) / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(""), r"is incomplete: 24 of 24 tensors are not in its files \(model.embed_tokens.weight, .*, …\)"),
        (without("layers.1."), r"is incomplete: 11 of 24 tensors are not in its files \(model.layers.1.input_layernorm.weight, "),
        (without(UP), rf"is incomplete: 1 of 24 tensors are not in its files \({UP}\), and random numbers would stand in their place"),
        (cut(UP), rf"the config of model '.*' does not fit its weights: {UP} is 63 × 32, the config makes it 64 × 32$"),
        (copied(UP, "model.layers.2.mlp.up_proj.weight"), r"leaves out 1 tensors of its files \(model.layers.2.mlp.up_proj.weight\)"),
        (copied("model.norm.weight", "model.layers.0.self_attn.q_proj.bias"), r"leaves out 1 tensors of its files \(.*q_proj.bias\)"),
        (put(UP, float("nan")), rf"are damaged: {UP} holds NaN; copy it again"),
        (put("model.norm.weight", float("-inf")), "are damaged: model.norm.weight holds infinity; copy it again"),
    ],
)
def test_weights_that_do_not_match_the_config_are_refused_by_name(
    change: Callable[[Tensors], object], words: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(resolve(changed(tiny_checkpoint, tmp_path / "model", change)))


def test_every_removed_tensor_is_missed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    names = sorted(load_file(tiny_checkpoint / WEIGHTS))
    for name in names:
        folder = changed(tiny_checkpoint, tmp_path / "model", without(name))
        with pytest.raises(ModelError, match=rf"1 of 24 tensors are not in its files \({name}\)"):
            load_model(resolve(folder))


def test_tensors_of_another_head_are_reported_and_left_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = changed(tiny_checkpoint, tmp_path / "model", copied("model.norm.weight", "score.weight"))

    with pytest.warns(SftchatWarning, match="leaves 1 tensors of its files unused: score.weight"):
        found = load_checked(resolve(folder))[1]

    assert (found.tensors, found.unused) == (24, ("score.weight",))


def test_a_stored_tied_head_and_frequencies_of_old_checkpoints_are_ignored(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        copied("model.embed_tokens.weight", "lm_head.weight")(tensors)
        copied("model.norm.weight", "model.layers.0.self_attn.rotary_emb.inv_freq")(tensors)

    assert load_checked(resolve(changed(tiny_checkpoint, tmp_path / "model", change)))[1].unused == ()


def test_an_untied_head_that_is_absent_is_missing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = edit(changed(tiny_checkpoint, tmp_path / "model", without()), "config.json", tie_word_embeddings=False)

    with pytest.raises(ModelError, match=r"1 of 25 tensors are not in its files \(lm_head.weight\)"):
        load_model(resolve(folder))


def test_layers_that_only_predict_further_tokens_are_left_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = changed(tiny_checkpoint, tmp_path / "model", copied(UP, "model.layers.2.mlp.up_proj.weight"))
    edit(folder, "config.json", num_nextn_predict_layers=1)

    with pytest.warns(SftchatWarning, match="model.layers.2.mlp.up_proj.weight"):
        load_model(resolve(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("layers.1."), r"adapter '.*' is incomplete: 14 of 28 tensors are not in its file \(base_model.model.model.layers.1"),
        (without(""), "adapter '.*' is incomplete: 28 of 28 tensors are not in its file"),
        (
            lambda tensors: copied(next(iter(tensors)), "base_model.model.model.layers.7.mlp.up_proj.lora_A.weight")(tensors),
            r"adapter '.*' has 1 tensors for which its base has no place \(.*layers.7",
        ),
        (
            lambda tensors: cut(next(name for name in tensors if "lora_B" in name))(tensors),
            r"adapter '.*' does not fit this base: base_model.*lora_B.* is \d+ × 4 and must be \d+ × 4; give the base",
        ),
        (
            lambda tensors: put(next(name for name in tensors if "lora_B" in name), float("nan"))(tensors),
            r"the weights of '.*' are damaged: base_model.*lora_B.* holds NaN",
        ),
    ],
)
def test_an_adapter_that_does_not_match_its_config_is_refused_by_name(
    change: Callable[[Tensors], object], words: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    whole = make_adapter(tmp_path / "whole", tiny_checkpoint, seed=1)

    with pytest.raises(ModelError, match=words):
        load_model(resolve(changed(whole, tmp_path / "adapter", change, "adapter_model.safetensors")))


def test_a_rank_that_the_file_does_not_hold_takes_no_memory(tiny_checkpoint: Path, tmp_path: Path) -> None:
    adapter = edit(str(make_adapter(tmp_path / "adapter", tiny_checkpoint, seed=1)), "adapter_config.json", r=10**8)

    with pytest.raises(ModelError, match="claims rank 100000000, and the largest tensor of its file has"):
        load_model(resolve(adapter))


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_refused_everywhere(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(tiny_checkpoint, model := tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<tool>", "</tool>"])
    tokenizer.save_pretrained(model)
    (tmp_path / "rows.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 8)
    line = (
        f"the tokenizer of '{model}' has ids up to {rows + 1} and the embedding {rows} rows: 2 tokens would have none ('<tool>', '</tool>')"
    )

    for words in (
        ["inspect", str(model)],
        ["ask", str(model), "a"],
        ["train", "general", "--model", str(model), "--data", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "run"), "-q"],
    ):
        assert (main(words), line in capsys.readouterr().err) == (3, True), words


def test_inspect_shows_that_the_weights_are_those_of_the_files(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_checkpoint, seed=1)

    for model, words in ((tiny_checkpoint, "24 of 24 tensors"), (adapter, "24 of 24 tensors, of the adapter 28 of 28")):
        assert main(["inspect", str(model)]) == 0
        assert f"yes  the weights in memory are those of the files ({words}, all finite, embedding " in capsys.readouterr().out


def test_more_rows_than_ids_are_padding(tiny_checkpoint: Path) -> None:
    proof = load(resolve(str(tiny_checkpoint))).proof

    assert proof is not None
    assert proof.passed


def test_the_proof_counts_the_tensors_that_are_not_checked() -> None:
    detail = WeightCheck(tensors=9, skipped=2).proof(rows=64, ids=60).detail

    assert detail == "9 of 9 tensors, all finite except 2 not checked (quantized), embedding 64 rows ≥ 60 tokenizer ids"
