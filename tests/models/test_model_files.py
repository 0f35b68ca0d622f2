"""The files of a folder that form the model: named by an index, refused by name, or ignored."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sftchat.errors import ModelError
from sftchat.models.fingerprint import folder_identity, reply_identity
from sftchat.models.model_files import MORE_WEIGHTS, files_of, weights_of
from sftchat.models.reference import ModelReference, resolve


def model(folder: Path, *shards: object, **files: Any) -> Path:
    """Write a folder with an index and its shards inside the folder. Files are JSON or text; ``__`` in a name means a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"config.json": {}, **{name.replace("__", "."): value for name, value in files.items()}}
    if shards:
        texts["model.safetensors.index.json"] = {"metadata": {}, "weight_map": {str(place): name for place, name in enumerate(shards)}}
    for name, value in texts.items():
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    for name in shards:
        if isinstance(name, str) and ".." not in Path(name).parts and not Path(name).is_absolute():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"weights")
    return folder


def message(folder: Path, **options: Any) -> str:
    with pytest.raises(ModelError) as error:
        resolve(str(folder), **options)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


parts = st.lists(st.sampled_from(["a", ".hidden", "sub", ".", "ü b"]), min_size=1, max_size=4).map("/".join)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(parts.map(lambda name: f"{name}-x.safetensors"), min_size=1, max_size=4, unique=True))
def test_weights_are_read_where_the_index_names_them(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = model(tmp_path_factory.mktemp("model"), *names)
    reference = ModelReference("", str(folder))
    before = (reply_identity(reference), folder_identity(folder))

    assert set(weights_of(folder)) == {"model.safetensors.index.json", *(Path(name).as_posix() for name in names)} <= set(files_of(folder))
    for name in names:
        (folder / name).write_bytes(b"weighty")
        assert reply_identity(reference) != before[0]
        assert folder_identity(folder) != before[1]
        (folder / name).write_bytes(b"weights")
    assert (reply_identity(reference), folder_identity(folder)) == before


@pytest.mark.parametrize("name", ["../outside/a.safetensors", "sub/../../a.safetensors", "/tmp/a.safetensors", "..", "sub/.."])
@pytest.mark.parametrize("how", ["index", "config", "index elsewhere"])
def test_weights_outside_the_folder_are_refused_by_their_name(tmp_path: Path, name: str, how: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.safetensors").write_bytes(b"weights")
    if how == "index":
        folder = model(tmp_path / "model", "b.safetensors", name)
    elif how == "config":
        folder = model(tmp_path / "model", config__json={"transformers_weights": name})
    else:
        folder = model(tmp_path / "model", config__json={"transformers_weights": "sub/i.safetensors.index.json"})
        (folder / "sub").mkdir()
        (folder / "sub" / "i.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": name}}))

    assert f"names weights outside its folder: '{Path(name).as_posix()}'; copy them into '{folder}'" in message(folder)
    assert f"names weights outside its folder: '{Path(name).as_posix()}'" in message(folder, allow_pickle=True)


def test_a_snapshot_of_the_hub_is_a_folder_of_links_out_of_it(tmp_path: Path) -> None:
    blobs = model(tmp_path / "blobs", "one.safetensors", "two.safetensors")
    snapshot = tmp_path / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")

    assert weights_of(snapshot) == ("model.safetensors.index.json", "one.safetensors", "two.safetensors")
    assert reply_identity(ModelReference("", str(snapshot))) == reply_identity(ModelReference("", str(blobs)))


@pytest.mark.parametrize("name", ["w.bin", "w.pt", "w.safetensors.bin", "w.SAFETENSORS", "w"])
@pytest.mark.parametrize("how", ["index", "config"])
def test_pickled_weights_are_recognised_by_the_named_files(tmp_path: Path, name: str, how: str) -> None:
    if how == "index":
        folder = model(tmp_path / "model", "b.safetensors", name)
    else:
        folder = model(tmp_path / "model", config__json={"transformers_weights": name})
        (folder / name).write_bytes(pickle.dumps({}))
        (folder / "model.safetensors").write_bytes(b"")
    source = folder / ("model.safetensors.index.json" if how == "index" else "config.json")

    assert message(folder) == (
        f"'{source}' names pickled weights ('{name}'), which can run code; convert them to safetensors or add --allow-pickle"
    )
    assert name in weights_of(folder, allow_pickle=True)
    assert resolve(str(folder), allow_pickle=True).source == str(folder)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", " is not a JSON object: "),
        ("[1]", " is not a JSON object: it holds [1]"),
        ("[" * 100_000, " is not a JSON object: "),
        ('{"metadata": {}}', "' names no weights: it must have a weight_map from tensors to files"),
        ('{"metadata": {}, "weight_map": {}}', "' names no weights: it must have a weight_map from tensors to files"),
        ('{"metadata": {}, "weight_map": ["a"]}', "' names no weights: it must have a weight_map from tensors to files"),
        ('{"weight_map": {"a": "b.safetensors"}}', "' has no metadata, which transformers asks for; add \"metadata\": {}"),
        ('{"metadata": {}, "weight_map": {"a": null}}', "' names None as weights, must be the name of a file"),
        ('{"metadata": {}, "weight_map": {"a": ["x"]}}', "' names ['x'] as weights, must be the name of a file"),
        ('{"metadata": {}, "weight_map": {"a": ""}}', "' names '' as weights, must be the name of a file"),
        ('{"metadata": {}, "weight_map": {"a": "d.safetensors", "b": "c.safetensors"}}',
         "' names weights that are not there: c.safetensors, d.safetensors"),
    ],
)  # fmt: skip
def test_an_invalid_or_empty_index_is_one_line(tmp_path: Path, index: str, said: str) -> None:
    folder = model(tmp_path, model__safetensors__index__json=index)

    assert message(folder).removeprefix("'").startswith(f"{folder / 'model.safetensors.index.json'}{said}")


def test_missing_weights_are_counted_when_there_are_many(tmp_path: Path) -> None:
    folder = model(tmp_path, *(f"{number}.safetensors" for number in range(5)))
    for number in range(5):
        (folder / f"{number}.safetensors").unlink()

    assert message(folder).endswith("names weights that are not there: 0.safetensors, 1.safetensors, 2.safetensors and 2 more")


def test_a_config_of_another_version_cannot_choose_other_weights(tmp_path: Path) -> None:
    folder = model(
        tmp_path, config__json={"configuration_files": ["config.4.0.0.json"]}, config__4__0__0__json={"transformers_weights": "x.bin"}
    )
    (folder / "model.safetensors").write_bytes(b"")

    assert message(folder).endswith("and the configs in its configuration_files name different weights; leave one of them")


def test_a_file_that_a_config_names_is_part_of_the_model_at_any_path(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.4.0.0.json").write_text("{}")
    config = {
        "fast_tokenizer_files": ["../tokenizer.4.0.0.json", ".in/tokenizer.4.1.0.json", "not/there.json"],
        "merges_file": str(tmp_path / "m.txt"),
    }
    folder = model(tmp_path / "model", tokenizer_config__json=config)
    (folder / "model.safetensors").write_bytes(b"")
    (folder / ".in").mkdir()
    (folder / ".in" / "tokenizer.4.1.0.json").write_text("{}")
    (tmp_path / "m.txt").write_text("")
    reference = ModelReference("", str(folder))
    found = {reply_identity(reference)}
    for path in (tmp_path / "tokenizer.4.0.0.json", folder / ".in" / "tokenizer.4.1.0.json", tmp_path / "m.txt"):
        path.write_text("[]")
        found.add(reply_identity(reference))

    assert len(found) == 4


@pytest.mark.parametrize("key", MORE_WEIGHTS)
def test_an_adapter_that_names_further_weights_is_refused(tmp_path: Path, key: str) -> None:
    folder = model(
        tmp_path, adapter_config__json={"base_model_name_or_path": "sftchat:nano", "peft_type": "XLORA", key: {"a": "org/other"}}
    )
    (folder / "adapter_model.safetensors").write_bytes(b"")

    assert message(folder) == (
        f"'{folder / 'adapter_config.json'}' names further weights by '{key}'; only adapters of their base alone are loaded"
    )


def test_every_field_of_a_peft_config_that_may_name_a_file_is_covered() -> None:
    """A newer peft with further fields fails here, so that a person decides about them."""
    import dataclasses

    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    words = ("path", "file", "adapters", "shadow_model", "folder", "dir")
    found = {
        field.name
        for config in PEFT_TYPE_TO_CONFIG_MAPPING.values()
        for field in dataclasses.fields(config)
        if any(word in field.name.split("_") or field.name == word for word in words)
    }
    harmless = {
        "base_model_name_or_path",  # resolved by sftchat
        "tokenizer_name_or_path",  # used only in prompt tuning
        "use_trainable_adapters",  # yes or no
    }

    assert found == {*MORE_WEIGHTS, *harmless}


def test_known_other_files_are_ignored_and_unknown_ones_are_part_of_the_model(tmp_path: Path) -> None:
    folder = model(tmp_path, "model-1.safetensors", chat_template__jinja="")
    apart = ["README.md", "optimizer.pt", "events.out.tfevents.1.host", "sftchat.json", ".hidden.json", "LICENSE", "training_args.bin"]
    for name in (*apart, "bpe.codes", "source.spm", "merges.txt", ".odd.model"):
        (folder / name).write_text("{}")
    for name in ("checkpoint-1/model.safetensors", "additional_chat_templates/tools.jinja", "additional_chat_templates/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")

    assert files_of(folder) == (
        ".odd.model", "additional_chat_templates/tools.jinja", "bpe.codes", "chat_template.jinja", "config.json", "merges.txt",
        "model-1.safetensors", "model.safetensors.index.json", "source.spm",
    )  # fmt: skip
