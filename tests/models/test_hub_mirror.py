"""``HF_ENDPOINT``: models and GGUF files of the Hub come from a mirror, here a server on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sftchat.models.fingerprint import file_hash
from sftchat.models.manifest import read_manifest
from tests.models.hub_servers import COMMIT, hugging_face_server
from tests.models.test_dequantize import write
from tests.models.test_gguf_write import tiny


def run(home: Path, endpoint: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run sftchat in a new process, because huggingface_hub reads its variables when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint}
    return subprocess.run(
        [sys.executable, "-m", "sftchat", *words], env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.slow
def test_a_model_of_the_hub_comes_from_the_mirror(tmp_path: Path, tiny_checkpoint: Path) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "published")
    with hugging_face_server(tmp_path / "published") as mirror:
        expected = run(tmp_path / "home", mirror.address, "ask", str(tiny_checkpoint), "the user", "--max-new-tokens", "5")
        assert mirror.requests == []

        answered = run(tmp_path / "home", mirror.address, "ask", "org/tiny", "the user", "--max-new-tokens", "5")

        assert (answered.returncode, answered.stdout, answered.stderr) == (0, expected.stdout, "")
        assert any(line.startswith("GET") and line.endswith(f"{COMMIT}/model.safetensors") for line in mirror.downloaded)


@pytest.mark.slow
def test_a_gguf_file_of_the_hub_comes_from_the_mirror(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "tiny.gguf").write_bytes(b"GGUF")
    with hugging_face_server(tmp_path / "published") as mirror:
        asked = run(tmp_path / "home", mirror.address, "ask", "hf://org/tiny/tiny.gguf", "the user")

    assert (asked.returncode, len(mirror.downloaded)) == (3, 1)
    assert "tiny.gguf' is no usable GGUF file: it ends within the version" in asked.stderr


@pytest.mark.slow
def test_a_training_from_a_gguf_file_of_the_hub_records_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    file = write(*tiny("LlamaForCausalLM"), tmp_path / "published" / "tiny.gguf", "q8_0")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "the user", "completion": "talk"}\n' * 4, encoding="utf-8")
    words = ["train", "--data", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "run"), "--method", "lora", "--max-steps", "2", "-q"]
    with hugging_face_server(tmp_path / "published") as mirror:
        trained = run(tmp_path / "home", mirror.address, *words, "--model", "hf://org/tiny/tiny.gguf")

    assert (trained.returncode, trained.stderr) == (0, "")
    manifest = read_manifest(tmp_path / "run")
    assert manifest is not None
    assert manifest.base_file == {"file": "hf://org/tiny/tiny.gguf", "sha256": file_hash(file), "type": "Q8_0"}
