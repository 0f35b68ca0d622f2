"""Valid values of MODEL, and the errors for invalid ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftchat.errors import ModelError, SftchatError, UsageError
from sftchat.models.reference import ModelReference, embedded_folder, expand_patterns, resolve, step_of


def checkpoint(folder: Path, weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / weights).write_bytes(b"")
    return folder


def adapter(folder: Path, base: str | None, weights: str = "adapter_model.safetensors") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / weights).write_bytes(b"")
    return folder


def message(text: str, **options: object) -> str:
    with pytest.raises(SftchatError) as error:
        resolve(text, **options)  # type: ignore[arg-type]
    return str(error.value)


def test_the_embedded_model_has_a_name() -> None:
    assert resolve("sftchat:nano") == ModelReference("sftchat:nano", str(embedded_folder()))


def test_an_adapter_needs_the_weights_of_its_base_and_not_a_server(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", "org/base")

    assert message(str(folder), base="http://h/v1") == (
        f"adapter '{folder}' needs the weights of its base, and 'http://h/v1' is behind an engine; let that engine load the adapter"
    )


def test_a_hub_id_may_have_a_revision() -> None:
    assert resolve("org/name@v1.0") == ModelReference("org/name@v1.0", "org/name", "v1.0")


def test_a_checkpoint_folder_is_a_model(tmp_path: Path) -> None:
    folder = str(checkpoint(tmp_path / "ckpt"))

    assert resolve(folder) == ModelReference(folder, folder)


def test_an_adapter_finds_its_base(tmp_path: Path) -> None:
    base = str(checkpoint(tmp_path / "base"))
    folder = str(adapter(tmp_path / "adapter", base))

    assert resolve(folder).base == ModelReference(base, base)
    assert resolve(folder, base="sftchat:nano").base == resolve("sftchat:nano")


def test_a_run_resolves_to_its_last_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run" / "checkpoint-9")
    last = str(checkpoint(tmp_path / "run" / "checkpoint-10"))

    assert resolve(str(tmp_path / "run")).source == last


def test_an_engine_of_a_plugin_is_chosen_by_its_scheme() -> None:
    assert resolve("echo:a:b", schemes=["echo"]) == ModelReference("echo:a:b", "a:b", scheme="echo")


def test_a_mistyped_folder_suggests_the_nearest_one(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run")

    assert message(str(tmp_path / "rnu")) == (
        f"no folder '{tmp_path / 'rnu'}'; did you mean '{tmp_path / 'run'}'?; the embedded model is sftchat:nano, a Hub model is written org/name, a server http://HOST:PORT/v1#MODEL"
    )


def test_an_unknown_scheme_suggests_the_embedded_model() -> None:
    assert message("sftchat:nan") == "unknown model 'sftchat:nan'; did you mean 'sftchat:nano'? (available: sftchat:nano, sftchat:smollm2)"


def test_a_checkpoint_without_weights_is_reported_with_the_missing_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    assert message(str(tmp_path)) == f"checkpoint '{tmp_path}' has no weights; expected model.safetensors or model.safetensors.index.json"


def test_pickled_weights_are_loaded_only_when_allowed(tmp_path: Path) -> None:
    folder = str(checkpoint(tmp_path / "old", "pytorch_model.bin"))

    assert message(folder).endswith("has only pickled weights, which can run code; convert them to safetensors or add --allow-pickle")
    assert resolve(folder, allow_pickle=True).source == folder


def test_an_adapter_without_a_base_requires_one(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", None)

    assert message(str(folder)) == f"adapter '{folder}' does not name its base model; give it with --base MODEL"


def test_a_base_that_is_not_on_this_machine_is_named_with_the_remedy(tmp_path: Path) -> None:
    away, gone = adapter(tmp_path / "away", "org/base"), adapter(tmp_path / "gone", "/content/base")

    assert message(str(away)) == (
        f"adapter '{away}' needs its base 'org/base', which is not on this machine; give a folder with --base FOLDER, "
        "or fetch it from the Hub with --base org/base"
    )
    assert message(str(gone)) == f"adapter '{gone}' needs its base '/content/base', which is not on this machine; give it with --base MODEL"
    assert resolve(str(away), base="org/base").base == ModelReference("org/base", "org/base")


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_adapters_that_lead_back_to_themselves_are_one_line(tmp_path: Path, length: int) -> None:
    for number in range(length):
        adapter(tmp_path / str(number), str(tmp_path / str((number + 1) % length)))
    first, second = tmp_path / "0", tmp_path / "1"

    assert message(str(first)) == (
        f"adapter '{first}' names itself as its base; give its base with --base MODEL"
        if length == 1
        else f"adapter '{first}' has an adapter as its base, '{second}'; merge that one first (sftchat merge {second} -o FOLDER) and give --base FOLDER"
    )


def test_an_adapter_cannot_be_a_base_by_any_name(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    inner = adapter(tmp_path / "run" / "checkpoint-2", str(base))
    other = adapter(tmp_path / "other", "../run")
    (tmp_path / "link").symlink_to(other)

    for folder, given in ((other, None), (other, str(inner)), (tmp_path / "link", str(inner)), (inner, str(other))):
        assert message(str(folder), base=given).startswith(f"adapter '{folder}' has an adapter as its base, ")


def test_a_manifest_cannot_make_a_run_its_own_checkpoint(tmp_path: Path) -> None:
    run = checkpoint(tmp_path / "run" / "checkpoint-1").parent
    facts = '"base": "b", "base_identity": "", "method": "full", "config": {}, "data": [], "rows": 1, "tokens_hash": "", "template": ""'
    for name in (".", "..", "checkpoint-1/..", str(run)):
        (run / "sftchat.json").write_text(f'{{"task": "t", {facts}, "template_hash": "", "best_checkpoint": {json.dumps(name)}}}')

        assert resolve(str(run)).source == str(run / "checkpoint-1")


def test_a_folder_that_is_not_a_model_is_reported_with_the_expected_files(tmp_path: Path) -> None:
    assert (
        message(str(tmp_path))
        == f"folder '{tmp_path}' is no model: it has neither config.json nor adapter_config.json nor checkpoint-* folders nor a GGUF file"
    )


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")

    assert message(str(path)) == f"model '{path}' is a file; give the folder that holds it, or a GGUF file"


def test_a_broken_adapter_config_is_named(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", "x")
    (folder / "adapter_config.json").write_text("{")

    assert message(str(folder)).startswith(f"{folder / 'adapter_config.json'} is not a JSON object: ")


def test_a_name_that_is_invalid_on_every_system_is_not_a_folder(tmp_path: Path) -> None:
    assert message("x" * 5000).startswith("no folder 'xxx")
    long = f"org/{'x' * 300}"
    assert message(str(adapter(tmp_path / "lora", long))).startswith(
        f"adapter '{tmp_path / 'lora'}' needs its base '{long}', which is not on"
    )


def test_wrong_names_are_wrong_usage_and_missing_weights_are_not() -> None:
    assert (UsageError.exit_code, ModelError.exit_code) == (2, 3)


def test_an_unexpanded_pattern_names_the_checkpoints_by_step(tmp_path: Path) -> None:
    for step in (5, 20, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-notes.txt").touch()
    found = expand_patterns(["sftchat:nano", f"{tmp_path}/checkpoint-*", "org/name"])
    assert found == ("sftchat:nano", *(f"{tmp_path}/checkpoint-{step}" for step in (5, 20, 100)), "org/name")
    with pytest.raises(UsageError, match="no folder matches"):
        expand_patterns([f"{tmp_path}/none-*"])
    assert expand_patterns(["http://host/v1#a*"]) == ("http://host/v1#a*",)


def test_a_checkpoint_and_a_finished_run_have_their_step(tmp_path: Path) -> None:
    (tmp_path / "sftchat.json").write_text('{"task": "t", "base": "b", "base_identity": "", "method": "full", "config": {}, "data": [], "rows": 1, '
                                           '"tokens_hash": "", "template": "", "template_hash": "", "steps": 7}')  # fmt: skip
    assert (step_of("run/checkpoint-12"), step_of(str(tmp_path)), step_of("sftchat:nano"), step_of("org/checkpoint-x")) == (
        12,
        7,
        None,
        None,
    )
