"""Models on ModelScope: fetched over HTTP into its cache, checked by their hashes, and then used like a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("modelscope_hub")

from huggingface_hub import constants

from sftchat.cli import main
from sftchat.errors import DataError, MissingExtraError, ModelError, UsageError
from sftchat.inference.identity import identify
from sftchat.models import modelscope
from sftchat.models.fingerprint import folder_identity, identity
from sftchat.models.local_files import cached_gguf_file, fetched, gguf_file
from sftchat.models.manifest import read_manifest
from sftchat.models.reference import ModelReference, resolve
from tests.models.hub_servers import HubServer, modelscope_server

MODEL = "ms://org/tiny"


@pytest.fixture
def hub(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """ModelScope with a tiny model that can be changed, and an empty cache."""
    folder = tmp_path / "published"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "model.bin").write_bytes(b"a pickle")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with modelscope_server(folder) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.address)
        new_process()
        yield server
    new_process()


def new_process() -> None:
    """Forget what this process has downloaded."""
    modelscope.download_folder.cache_clear()


def test_names_are_resolved_without_network() -> None:
    assert resolve("ms://org/tiny@v1") == ModelReference("ms://org/tiny@v1", "ms://org/tiny", "v1")
    file = "ms://org/tiny/q/tiny.gguf"
    assert resolve(file) == ModelReference(file, file, scheme="gguf")
    with pytest.raises(UsageError, match=r"'ms://tiny' is malformed; write ms://org/name\[@revision\], or ms://org/name/FILE.gguf"):
        resolve("ms://tiny")


def test_a_model_is_fetched_once_and_identified_by_its_files(hub: HubServer, tiny_checkpoint: Path) -> None:
    assert identity(resolve(MODEL)) == ""

    local = fetched(resolve(MODEL))

    assert local.folder is not None
    assert (local.text, local.revision, local.folder.name) == (MODEL, "", "master")
    assert not (local.folder / "model.bin").exists()
    assert identity(resolve(MODEL)) == folder_identity(tiny_checkpoint)
    assert identify(MODEL, {}) == identify(str(tiny_checkpoint), {})
    count = len(hub.downloaded)
    new_process()
    assert fetched(resolve(MODEL)) == local
    assert len(hub.downloaded) == count


def test_a_changed_file_is_fetched_again_and_a_removed_one_is_not_used(hub: HubServer) -> None:
    folder = fetched(resolve(MODEL)).folder
    assert folder is not None
    (hub.folder / "generation_config.json").write_text('{"eos_token_id": 2}', encoding="utf-8")
    new_process()

    fetched(resolve(MODEL))
    assert (folder / "generation_config.json").read_text(encoding="utf-8") == '{"eos_token_id": 2}'

    (hub.folder / "model.safetensors").rename(hub.folder / "model-00001-of-00001.safetensors")
    new_process()
    with pytest.raises(ModelError, match=f"the cache holds 'model.safetensors' of an earlier version of the model; delete {folder}"):
        fetched(resolve(MODEL))


def test_a_model_answers_trains_and_is_the_base_of_an_adapter(
    hub: HubServer, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", str(tiny_checkpoint), "the user", "--max-new-tokens", "5"]) == 0
    expected = capsys.readouterr().out
    assert main(["ask", f"{MODEL}@v1", "the user", "--max-new-tokens", "5"]) == 0
    output = capsys.readouterr()
    assert (output.out, output.err) == (expected, "")

    rows, run = tmp_path / "rows.jsonl", tmp_path / "run"
    rows.write_text('{"prompt": "the user", "completion": "talk"}\n' * 4, encoding="utf-8")
    words = ["--method", "lora", "--max-steps", "2", "--batch-size", "2", "-q"]
    assert main(["train", "--data", str(rows), "--model", MODEL, "-o", str(run), *words]) == 0
    manifest = read_manifest(run)
    assert manifest is not None
    assert (manifest.base, manifest.base_identity) == (MODEL, folder_identity(tiny_checkpoint))

    requests = len(hub.requests)
    assert main(["ask", str(run), "the user", "--max-new-tokens", "5"]) == 0
    assert main(["inspect", str(run)]) == 0
    assert len(hub.requests) == requests  # the base is found in the cache


def test_a_gguf_file_is_fetched(hub: HubServer) -> None:
    (hub.folder / "q").mkdir()
    (hub.folder / "q" / "tiny.gguf").write_bytes(b"GGUF and more")
    reference = resolve("ms://org/tiny/q/tiny.gguf")

    assert cached_gguf_file(reference) is None
    path = gguf_file(reference)
    assert path.read_bytes() == b"GGUF and more"
    assert cached_gguf_file(reference) == path
    assert [line.rpartition("FilePath=")[2] for line in hub.downloaded] == ["q%2Ftiny.gguf"]


def test_offline_only_the_cache_is_used(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    local = fetched(resolve(MODEL))
    requests = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert fetched(resolve(MODEL)) == local
    with pytest.raises(
        ModelError, match=r"^'ms://org/other' is not in the cache of ModelScope on this machine, and HF_HUB_OFFLINE is set$"
    ):
        fetched(resolve("ms://org/other"))
    assert len(hub.requests) == requests


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("model", ["ms://org/other", "ms://org/tiny@v9", "ms://org/tiny/none.gguf"])
def test_what_does_not_exist_is_one_line(model: str) -> None:
    with pytest.raises(
        ModelError, match=rf"^'{model}' could not be fetched from ModelScope: .*; check the name and the network$"
    ) as caught:
        gguf_file(resolve(model)) if model.endswith(".gguf") else fetched(resolve(model))
    assert "\n" not in str(caught.value)


def test_a_file_outside_the_folder_is_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.extra = ("../../../../evil.json",)

    with pytest.raises(ModelError, match=r"it lists the file '../../../../evil.json', which is outside the folder of the model"):
        fetched(resolve(MODEL))
    assert hub.downloaded == []


def test_an_adapter_is_refused_with_its_folder(hub: HubServer) -> None:
    (hub.folder / "adapter_config.json").write_text("{}", encoding="utf-8")

    with pytest.raises(ModelError, match=r"'ms://org/tiny' is an adapter on ModelScope; give its folder, .*master"):
        fetched(resolve(MODEL))


def test_an_adapter_whose_base_is_not_in_the_cache_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "ms://org/none"}', encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")

    with pytest.raises(
        ModelError, match="not on this machine; give a folder with --base FOLDER, or fetch it from ModelScope with --base ms://org/none"
    ):
        resolve(str(tmp_path))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelscope, "find_spec", lambda name: None)

    with pytest.raises(
        MissingExtraError, match=r"model 'ms://org/tiny' needs packages that are not installed: pip install 'sftchat\[modelscope\]'"
    ):
        resolve(MODEL)


def test_data_sets_of_modelscope_are_refused() -> None:
    from sftchat.data.read import read_rows

    with pytest.raises(DataError, match="is a data set of ModelScope, from which no rows are read; download it and give its files"):
        list(read_rows("ms://datasets/org/rows"))
