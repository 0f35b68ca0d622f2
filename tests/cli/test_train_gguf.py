"""``train --model FILE.gguf``: the file is dequantized once, and the run refers to the folder that is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftchat.cli import main
from sftchat.models.dequantize import dequantized_folder
from sftchat.models.fingerprint import file_hash
from sftchat.models.manifest import read_manifest
from tests.models.test_dequantize import write
from tests.models.test_gguf_write import tiny


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(*tiny("Qwen3ForCausalLM"), tmp_path_factory.mktemp("gguf") / "tiny.gguf", "q8_0")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "the user", "completion": "talk"}\n' * 4, encoding="utf-8")
    return path


def train(model: Path, rows: Path, output: Path, *words: str) -> int:
    return main(["train", "--data", str(rows), "--model", str(model), "-o", str(output), "--max-steps", "2", "--batch-size", "2", *words])


def test_an_adapter_is_trained_on_the_dequantized_folder_and_answers(
    gguf_file: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(gguf_file, rows, run, "--method", "lora") == 0
    first = capsys.readouterr().err
    folder = dequantized_folder(gguf_file, lambda line: None).folder
    assert f"tiny.gguf is dequantized to bfloat16 for training (the rounding of Q8_0 stays), in {folder}\n" in first

    manifest = read_manifest(run)
    assert manifest is not None
    assert manifest.base == str(folder)
    assert manifest.base_file == {"file": str(gguf_file), "sha256": file_hash(gguf_file), "type": "Q8_0"}

    assert main(["ask", str(run), "the user", "--max-new-tokens", "3"]) == 0
    assert main(["merge", str(run), "-o", str(tmp_path / "merged")]) == 0
    capsys.readouterr()
    assert main(["inspect", str(run)]) == 0
    assert f"  base dequantized from: {gguf_file}, Q8_0 ({file_hash(gguf_file)[:12]})\n" in capsys.readouterr().out


def test_all_weights_are_trained_in_a_second_training_without_another_conversion(
    gguf_file: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dequantized_folder(gguf_file, lambda line: None).folder
    written = (folder / "model.safetensors").stat().st_mtime_ns

    assert train(gguf_file.parent, rows, tmp_path / "run", "--method", "full") == 0

    assert "tiny.gguf has been dequantized to bfloat16 for training" in capsys.readouterr().err
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert main(["ask", str(tmp_path / "run"), "the user", "--max-new-tokens", "3"]) == 0


def test_a_dry_run_dequantizes_and_writes_no_run(gguf_file: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(gguf_file, rows, tmp_path / "run", "--dry-run") == 0

    output = capsys.readouterr()
    assert "tiny.gguf is dequantized to bfloat16" in output.err
    assert "peak memory" in output.out
    assert not (tmp_path / "run").exists()


def test_a_file_that_cannot_be_dequantized_is_refused_before_the_rows_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")

    assert train(tmp_path / "model.gguf", tmp_path / "none.jsonl", tmp_path / "run") == 3
    assert capsys.readouterr().err.endswith("model.gguf' is no usable GGUF file: it ends within the version; copy or download it again\n")
    assert not (tmp_path / "run").exists()


def test_an_adapter_whose_folder_is_gone_says_how_to_make_it_again(
    gguf_file: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SFTCHAT_CACHE_DIR", str(tmp_path / "cache"))
    assert train(gguf_file, rows, tmp_path / "run", "--method", "lora", "-q") == 0
    (tmp_path / "cache").rename(tmp_path / "elsewhere")

    assert main(["ask", str(tmp_path / "run"), "the user"]) == 3
    assert f"make it again from its GGUF file: sftchat train general --model {gguf_file} -o DIR --dry-run" in capsys.readouterr().err
