"""Local folders are loaded without the Hub, and a base on the Hub is used only from the local cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import OfflineModeIsEnabled

from sftchat.errors import ModelError
from sftchat.inference.adapters import same_weights
from sftchat.inference.open import EnginePool
from sftchat.models.hub import cached_folder, hub_access
from sftchat.models.loading import load_model
from sftchat.models.reference import ModelReference, resolve
from sftchat.testing import ScriptedEngine
from tests.models.test_reference import adapter, checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache on this machine, empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def snapshot(cache: Path, branch: str = "main") -> Path:
    """A model of the Hub in its cache."""
    home = cache / "models--org--base"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / branch).write_text(COMMIT)
    return checkpoint(home / "snapshots" / COMMIT)


def message(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        resolve(str(folder))
    return str(error.value)


def test_nothing_contacts_the_hub_while_a_local_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with hub_access(local=True), hub_access(local=False), hub_access(local=True), pytest.raises(OfflineModeIsEnabled):
        HfApi().model_info("org/name")
    with pytest.raises(ZeroDivisionError), hub_access(local=True):
        1 / 0  # noqa: B018 - whatever happens inside

    assert constants.HF_HUB_OFFLINE is False
    assert "HF_HUB_OFFLINE" not in __import__("os").environ


def test_a_base_on_the_hub_is_the_local_snapshot(cache: Path, tmp_path: Path) -> None:
    folder, lora = snapshot(cache), adapter(tmp_path / "lora", "org/base")
    found = resolve(str(lora))

    assert found == ModelReference(str(lora), str(lora), base=ModelReference("org/base", str(folder)))
    assert found.base is not None
    assert found.base.argument == str(folder)
    assert same_weights(found.base, resolve("org/base"))
    assert not same_weights(found.base, resolve("org/other"))


def test_the_revision_in_the_config_of_an_adapter_is_used(cache: Path, tmp_path: Path) -> None:
    folder, lora = snapshot(cache, "v2"), adapter(tmp_path / "lora", "org/base")

    assert "needs its base 'org/base', which is not on this machine" in message(lora)
    for revision in ("v2", COMMIT):
        (lora / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base", "revision": revision}))
        assert resolve(str(lora)).base == ModelReference(f"org/base@{revision}", str(folder))


def test_an_incomplete_snapshot_or_an_adapter_is_reported(cache: Path, tmp_path: Path) -> None:
    folder, lora = snapshot(cache), adapter(tmp_path / "lora", "org/base")
    (folder / "model.safetensors").unlink()
    assert message(lora).startswith(f"base 'org/base' of adapter '{lora}' cannot be used as it lies in the cache of the Hub: checkpoint ")
    shutil.copy(lora / "adapter_config.json", folder)

    assert "has an adapter as its base" in message(lora)


def test_shared_models_are_opened_from_the_local_snapshot(cache: Path, tmp_path: Path) -> None:
    folder, lora = snapshot(cache), adapter(tmp_path / "lora", "org/base")
    asked: list[str] = []

    def load(model: str, **_: object) -> ScriptedEngine:
        asked.append(model)
        return ScriptedEngine([])

    EnginePool(load)(str(lora))

    assert asked == [str(folder)]


def test_a_model_of_the_hub_is_checked_before_it_is_loaded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = snapshot(cache)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text('{"metadata": {}, "weight_map": {"a": "w.bin"}}')
    with pytest.raises(ModelError, match="names pickled weights \\('w.bin'\\), which can run code"):
        load_model(resolve("org/base"))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(
        ModelError, match="'org/base' is an adapter on the Hub; fetch it first \\(hf download org/base --local-dir FOLDER\\)"
    ):
        load_model(resolve("org/base"))


@pytest.mark.parametrize("name", ["org/base", "../..", "org/" + "x" * 300])
def test_an_empty_cache_has_no_folder(cache: Path, name: str) -> None:
    assert cached_folder(name, "") is cached_folder(name, "../../../etc") is None
