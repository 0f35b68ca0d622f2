"""The identity of a model: everything that affects its replies changes it, nothing else does, and computing it loads nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sftchat import EngineType, ModelError, UsageError
from sftchat.inference.identity import device_signature, identify
from sftchat.models.reference import NANO
from sftchat.testing import ScriptedEngine


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Folder with the files of a checkpoint, which are never loaded."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name, text in {
        "config.json": '{"name": "of some length"}',
        "generation_config.json": '{"eos_token_id": 11111111}',
        "model.safetensors": "weights",
        "tokenizer.json": "{}",
        "tokenizer_config.json": '{"name": "of some length"}',
        "chat_template.jinja": "{{ messages }}",
        "README.md": "a card",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def adapter(tmp_path: Path, checkpoint: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(checkpoint)}), encoding="utf-8")
    (folder / "adapter_model.safetensors").write_bytes(b"adapter")
    return folder


def flip(path: Path) -> None:
    """Change one bit of a file; its size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def of(model: object, **options: Any) -> str:
    return identify(str(model), {}, **options)


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"],
)
def test_one_bit_of_any_file_that_is_read_makes_another_model(checkpoint: Path, name: str) -> None:
    before = of(checkpoint)
    flip(checkpoint / name)

    assert len(before) == 64
    assert of(checkpoint) != before


def test_one_bit_of_an_adapter_or_its_base_makes_another_model(adapter: Path, checkpoint: Path) -> None:
    found = [of(adapter)]
    for path in (adapter / "adapter_model.safetensors", checkpoint / "model.safetensors"):
        flip(path)
        found.append(of(adapter))

    assert len({*found, of(checkpoint)}) == 4


def test_a_byte_of_real_weights_is_a_byte(tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    same = of(copy)
    flip(copy / "model.safetensors")

    assert same == of(tiny_checkpoint) != of(copy)


def test_other_files_next_to_weights_do_not_change_the_model(checkpoint: Path) -> None:
    before = of(checkpoint)
    for name in ("README.md", "report.json", "replies.jsonl", "trainer_state.json", "training_args.bin", "optimizer.pt", ".x.json"):
        (checkpoint / name).write_text("later", encoding="utf-8")

    assert of(checkpoint) == before


def test_the_template_arguments_of_the_manifest_are_part_of_the_model_and_other_entries_are_not(checkpoint: Path) -> None:
    facts: dict[str, Any] = {"task": "t", "base": "b", "base_identity": "", "method": "full", "config": {}, "data": [], "rows": 1}
    found = []
    for more in ({}, {"seconds": 3.0}, {"template_arguments": {"enable_thinking": False}}):
        row = facts | {"tokens_hash": "", "template": "", "template_hash": ""} | more
        (checkpoint / "sftchat.json").write_text(json.dumps(row), encoding="utf-8")
        found.append(of(checkpoint))

    assert found[0] == found[1] != found[2]


def test_every_option_is_part_of_the_model(checkpoint: Path, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("one", encoding="utf-8")
    options: list[Mapping[str, Any]] = [
        {},
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"device": "cpu"},
        {"device": "cuda"},
        {"template": "chatml"},
        {"preferred": "plain"},
        {"template": str(template)},
        {"allow_pickle": True},
        {"quantize": "int8"},
    ]
    found = {of(checkpoint, **given) for given in options}
    template.write_text("two", encoding="utf-8")

    assert len(found | {of(checkpoint, template=str(template))}) == len(options) + 1
    assert of(checkpoint, device="cuda:1") == of(checkpoint, device="cuda")


def test_a_template_is_identified_by_its_text_and_not_its_path(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path.home()
    monkeypatch.chdir(tmp_path)
    (home / "t.jinja").write_text("one", encoding="utf-8")
    (tmp_path / "other.jinja").write_text("one", encoding="utf-8")
    before = of(checkpoint, template="~/t.jinja")

    assert before == of(checkpoint, template=str(home / "t.jinja")) == of(checkpoint, template="other.jinja")
    (home / "t.jinja").write_text("two", encoding="utf-8")
    assert of(checkpoint, template="~/t.jinja") == of(checkpoint, template=str(home / "t.jinja")) != before
    named = of(checkpoint, template="chatml")
    (tmp_path / "chatml").write_text("one", encoding="utf-8")  # a built-in name takes precedence, as in the loader
    assert of(checkpoint, template="chatml") == named != of(checkpoint, template="./chatml") == before
    with pytest.raises(UsageError, match="unknown chat template 'chatmll'; did you mean 'chatml'"):
        of(checkpoint, template="chatmll")


def test_an_automatic_device_depends_on_the_visible_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    every = device_signature("auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert device_signature("auto") == f"{every} CUDA_VISIBLE_DEVICES="
    assert device_signature("cpu") == "cpu"


def test_versions_of_libraries_are_part_of_the_model(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(checkpoint)
    monkeypatch.setattr("sftchat.inference.identity.VERSIONED_PACKAGES", ("torch",))

    assert of(checkpoint) != before


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_model_that_may_change_has_no_identity(adapter: Path, checkpoint: Path) -> None:
    assert of("org/name") == of("org/name@main") == of(adapter, base="org/name") == ""
    assert of(checkpoint, trust_remote_code=True) == ""
    assert of(f"org/name@{COMMIT}") != of(f"org/other@{COMMIT}") != ""
    assert of(adapter, base=f"org/name@{COMMIT}") != ""


def test_offline_a_branch_is_the_cached_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    refs = tmp_path / "models--org--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT, encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert of("org/name") == of(f"org/name@{COMMIT}") != ""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert of("org/name") == ""


def test_an_engine_of_a_plugin_has_an_identity_or_is_not_cached() -> None:
    def scheme(name: str, say: Callable[[str, Mapping[str, Any]], str] | None) -> EngineType:
        return EngineType(name, "", lambda rest, options: ScriptedEngine([]), say)

    named = [scheme("a", lambda rest, options: f"{rest}{options['dtype']}"), scheme("b", lambda rest, options: f"{rest}{options['dtype']}")]
    silent = [scheme("c", None), scheme("d", lambda rest, options: "")]
    engine_types = {one.scheme: one for one in (*named, *silent)}

    found = {identify(model, engine_types, dtype=dtype) for model in ("a:x", "a:y", "b:x") for dtype in ("auto", "float32")}

    assert {len(one) for one in found} == {64}
    assert len(found) == 6
    assert [identify(model, engine_types) for model in ("c:x", "d:x")] == ["", ""]


def test_an_unreadable_file_is_reported_in_one_line(checkpoint: Path) -> None:
    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    with pytest.raises(ModelError, match=r"^cannot read '.*' of model '.*': Permission denied$"):
        of(checkpoint, hashed=denied)


def test_the_identity_needs_no_model_library() -> None:
    program = (
        "import sys; from sftchat.inference.identity import identify; "
        f"print(len(identify('{NANO}', {{}})), "
        "sorted({'torch', 'transformers', 'tokenizers', 'peft', 'numpy'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "64 []\n"


def test_options_that_change_no_reply_are_not_part_of_the_identity(checkpoint: Path) -> None:
    asked = [identify(str(checkpoint), {}, concurrency=many, timeout=seconds) for many, seconds in ((1, 10.0), (64, 120.0))]
    assert asked[0] == asked[1] != ""
