"""Fuzz targets: configuration files: TOML, YAML, manifests, configs of adapters."""

from __future__ import annotations

import json
from pathlib import Path

import click
from hypothesis import strategies as st

from sftchat.chat.export import read_conversation
from sftchat.cli import program
from sftchat.cli.inspect import _provenance_lines
from sftchat.cli.train import command
from sftchat.errors import UsageError
from sftchat.models.manifest import read_manifest
from sftchat.models.provenance import compare_manifests, format_value, trace_lineage
from sftchat.models.reference import resolve, step_of
from sftchat.models.runs import describe_checkpoint, find_runs
from sftchat.training.checkpoints import check_unchanged
from tests.fuzz.inputs import DEEP, json_like, words_of
from tests.fuzz.rows import ROWS
from tests.fuzz.target import Room, Target, refused

MANIFEST = {
    "task": "general", "base": "sftchat:nano", "base_identity": "ab", "method": "full", "config": {"seed": 1, "epochs": 1.0},
    "data": [{"file": "rows.jsonl", "sha256": "ab"}], "rows": 1, "tokens_hash": "ab", "template": "chatml", "template_hash": "ab",
    "template_arguments": {"a": True}, "versions": {"torch": "2"}, "command": "sftchat", "validation": {"metric": "f1"},
    "scores": {"0": {"f1": 0.5}, "base": {}}, "chosen_step": 0, "merged": {"adapter": "a", "dtype": "float32"}, "best_checkpoint": "", "steps": 1,
    "final_loss": 0.5, "seconds": 1.0, "version": 1,
}  # fmt: skip


def config(content: bytes, room: Room) -> None:
    """Any bytes are options of a command, or a named error."""
    for name in ("run.toml", "run.yaml"):
        path = room.file(content, name)
        root = click.Context(program, info_name="sftchat", **program.context_settings)
        with refused():
            try:
                command.make_context("train", ["--config", str(path)], parent=root).close()
            except (click.UsageError, click.exceptions.Exit):
                continue


def manifest(content: bytes, room: Room) -> None:
    """Any bytes are a manifest that can be compared, shown and searched, or a named error."""
    folder = room.file(content, "run/sftchat.json").parent
    room.file(b"{}", "run/config.json")
    room.file(b"", "run/model.safetensors")
    find_runs(room.folder)
    with refused():
        step_of(str(folder))
    with refused():
        resolve(str(folder))
    with refused():
        describe_checkpoint(str(folder / "checkpoint-0"))
    found = read_manifest(folder)
    assert found is not None
    other = read_manifest(room.file(json.dumps(MANIFEST).encode(), "other/sftchat.json").parent)
    assert other is not None
    for one in compare_manifests(found, other):
        assert isinstance(format_value(one.left), str)
    with refused():
        check_unchanged(folder, found, other)
    for step in trace_lineage(str(folder)):
        assert all(isinstance(line, str) for line in _provenance_lines(step))


def adapter(content: bytes, room: Room) -> None:
    """Any bytes are the config of an adapter, or a named error; the path of its base is never created."""
    folder = room.file(content, "lora/adapter_config.json").parent
    room.file(b"", "lora/adapter_model.safetensors")
    try:
        reference = resolve(str(folder))
    except UsageError:
        return
    assert reference.base is not None
    assert Path(reference.source) == folder


def talk(content: bytes, room: Room) -> None:
    """Any bytes are a conversation for ``/load``, or a named error."""
    path = room.file(content)
    for row in (1, 2):
        with refused():
            found, question = read_conversation(path, row)
            assert found.messages or question


TOML = ("task = ", '"relation"', "epochs = ", "1", "\n", "[option]", "[[", "]]", "a.b = ", "{a = 1}", "1979-05-27T07:32:00Z", "'''", "data = [", "nan", "-inf", "0x")  # fmt: skip
YAML = ("task: ", "relation", "\n", "- ", "option: ", "&a ", "*a", "<<: ", "!!binary ", "!!set ", "!!python/object:os.system ", "2001-99-99", "{a: 1}", "? ", "epochs: ", "data: ", "1:60", "~", ".nan", "  ")  # fmt: skip

TARGETS = {
    "config": Target(config, words_of(*TOML) | words_of(*YAML) | DEEP | st.binary(max_size=60), (*TOML, *YAML)),
    "manifest": Target(manifest, json_like(MANIFEST), tuple(f'"{key}": ' for key in MANIFEST)),
    "adapter": Target(
        adapter, json_like({"base_model_name_or_path": "sftchat:nano", "peft_type": "LORA"}), ('"base_model_name_or_path": ', '"."')
    ),
    "talk": Target(talk, ROWS),
}
