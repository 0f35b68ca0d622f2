"""Checkpoint folders made of GGUF files compute what the original computes, and files that would become another model are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sftchat._util.files import cache_folder
from sftchat.errors import ModelError
from sftchat.models.dequantize import dequantize, dequantized_folder
from sftchat.models.fingerprint import file_hash
from sftchat.models.gguf import read_header
from sftchat.models.gguf_config import CONVERSIONS
from sftchat.models.gguf_types import FILE_TYPES
from sftchat.models.gguf_write import ARCHITECTURES, write_gguf
from sftchat.models.loading import load
from sftchat.models.reference import resolve
from tests.models.test_gguf import gguf, text
from tests.models.test_gguf_write import MODELS, tiny

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **MODELS,
    "Qwen2 with YaRN": ("Qwen2ForCausalLM", {"rope_parameters": YARN}),
    "Phi-3 with a sliding window": ("Phi3ForCausalLM", {"sliding_window": 8}),
}


def write(model: Any, renderer: Any, path: Path, file_type: str = "f32") -> Path:
    write_gguf(model, renderer, path, FILE_TYPES[file_type], name="tiny", pre_tokenizer="gpt-2")
    return path


def round_weights(model: Any) -> Any:
    """Round the weights of a model to bfloat16 in place, without its buffers, and return it."""
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model


@pytest.fixture(scope="module")
def llama_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(*tiny("LlamaForCausalLM"), tmp_path_factory.mktemp("llama") / "tiny.gguf", "q8_0")


@pytest.mark.parametrize("name", CASES)
def test_the_folder_computes_the_logits_of_the_original(name: str, tmp_path: Path) -> None:
    import torch

    model_class, changes = CASES[name]
    original, renderer = tiny(model_class, **changes)
    file = write(original, renderer, tmp_path / "model.gguf")
    (tmp_path / "folder").mkdir()

    dequantize(read_header(file), tmp_path / "folder")

    loaded = load(resolve(str(tmp_path / "folder")), dtype="float32")
    ids = torch.randint(len(renderer.tokenizer), (1, 120), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(loaded.model(ids).logits, round_weights(original)(ids).logits, atol=2e-3)
    assert loaded.renderer.source == renderer.source
    assert loaded.stop_ids == (0, 2)


def test_every_architecture_that_is_written_can_be_dequantized() -> None:
    assert {architecture.name for architecture in ARCHITECTURES.values()} == set(CONVERSIONS)


def test_a_folder_is_made_once_and_kept_under_the_hash_of_the_file(llama_file: Path) -> None:
    lines: list[str] = []

    first = dequantized_folder(llama_file, lines.append)
    written = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    second = dequantized_folder(llama_file, lines.append)

    assert first == second
    assert (first.sha256, first.file_type) == (file_hash(llama_file), "Q8_0")
    assert first.folder == cache_folder() / "models" / f"dequantized-1-{first.sha256}"
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == written
    assert [path.name for path in first.folder.parent.iterdir()] == [first.folder.name]  # neither a lock nor a draft
    rest = f"dequantized to bfloat16 for training (the rounding of Q8_0 stays), in {first.folder}"
    assert lines == [f"tiny.gguf is {rest}", f"tiny.gguf has been {rest}"]


def test_a_disk_without_room_is_one_line_and_nothing_is_written(llama_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("sftchat.models.dequantize.shutil.disk_usage", lambda path: usage)

    with pytest.raises(ModelError, match=r"needs 0 MB as a checkpoint folder, and .* has 0 MB free; set SFTCHAT_CACHE_DIR to a folder"):
        dequantized_folder(llama_file, lambda line: None)
    assert not (cache_folder() / "models").exists()


def test_a_truncated_file_is_one_line_and_nothing_is_written(llama_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(llama_file.read_bytes()[:-1000])

    with pytest.raises(ModelError, match=r"cut.gguf' is no usable GGUF file: it ends within tensor"):
        dequantized_folder(tmp_path / "cut.gguf", lambda line: None)
    assert not (cache_folder() / "models").exists()


def number(value: int) -> bytes:
    return (4).to_bytes(4, "little") + value.to_bytes(4, "little")


def string(value: str) -> bytes:
    return (8).to_bytes(4, "little") + text(value)


REFUSED = {
    "another architecture": ((text("general.architecture") + string("rwkv6"),), "has the architecture 'rwkv6', which cannot be dequantized; files of Llama, .*GPT-2 can"),
    "experts": ((text("llama.expert_count") + number(8),), "sets llama.expert_count to 8, which a checkpoint folder converted from it would lose"),
    "positions": ((text("llama.rope.scaling.type") + string("longrope"),), "stretches rotary positions by 'longrope', which cannot be converted"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_would_become_another_model_is_refused(name: str, tmp_path: Path) -> None:
    entries, reason = REFUSED[name]
    (tmp_path / "model.gguf").write_bytes(gguf(entries=entries))

    with pytest.raises(ModelError, match=reason):
        dequantized_folder(tmp_path / "model.gguf", lambda line: None)


def test_a_tensor_that_transformers_leaves_out_is_refused(tmp_path: Path) -> None:
    original, renderer = tiny("LlamaForCausalLM", attention_bias=True)
    file = write(original, renderer, tmp_path / "model.gguf")
    (tmp_path / "folder").mkdir()

    with pytest.raises(ModelError, match=r"has [\d,]+ weights, of which transformers makes a model of [\d,]+; train its original"):
        dequantize(read_header(file), tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []
