"""The sizes that files of a model claim are compared with their contents before anything is allocated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftchat.errors import ModelError
from sftchat.models.adapters import check_adapter
from sftchat.models.load_checks import check_tokenizer, run_in_subprocess
from sftchat.models.model_files import check_claims, check_config, check_sizes
from sftchat.models.reference import embedded_folder, resolve
from tests.inference.adapters_kit import make_adapter

HUGE = 10**9


def edited(source: Path, folder: Path, name: str = "config.json", **values: Any) -> Path:
    """Copy a folder and change keys of a JSON file."""
    shutil.copytree(source, folder)
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return folder


def sparse(path: Path, size: int) -> None:
    """Write a sparse file."""
    with path.open("ab") as file:
        file.truncate(size)


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"],
)
def test_a_file_that_is_too_large_for_its_name_is_not_read(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, model := tmp_path / "model")
    sparse(model / name, 5 << 30)

    with pytest.raises(ModelError, match=rf"'.*/{name}' has 5,368,709,120 bytes, more than the [\d,]+ that are read of such a file"):
        resolve(str(model))


def test_a_pipe_and_a_broken_link_are_not_read(tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, model := tmp_path / "model")
    os.mkfifo(model / "special_tokens_map.json")

    with pytest.raises(ModelError, match="special_tokens_map.json' is no file: it is a pipe or a device"):
        resolve(str(model))

    (model / "special_tokens_map.json").unlink()
    (model / "vocab.json").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelError, match="vocab.json' cannot be read"):
        resolve(str(model))


@pytest.mark.parametrize(
    "key",
    ["num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "num_key_value_heads", "head_dim", "num_experts", "n_layer"],
)
def test_no_config_claims_what_its_files_do_not_hold(key: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"claims ({key} {HUGE}, and|about .* numbers, and the files of the model hold)"):
        check_claims(edited(tiny_checkpoint, tmp_path / "model", **{key: HUGE}))


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_labels"])
def test_objects_made_while_a_config_is_read_are_limited(key: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    for number, values in enumerate(({key: HUGE}, {"text_config": {key: HUGE}})):
        with pytest.raises(ModelError, match=rf"config.json' claims {key} {HUGE}, and at most"):
            check_config(edited(tiny_checkpoint, tmp_path / str(number), **values))


def test_complete_models_claim_what_they_hold(tiny_checkpoint: Path) -> None:
    for folder in (tiny_checkpoint, embedded_folder()):
        check_sizes(folder)
        check_config(folder)
        check_claims(folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"r": HUGE}, f"claims rank {HUGE}, and the largest tensor of its file has"),
        ({"rank_pattern": {"q_proj": HUGE}}, f"claims rank {HUGE}, and"),
        ({"layer_replication": [[0, 100_000]]}, "claims 100000 layers by layer_replication, and its file holds 28 tensors"),
        ({"layer_replication": [[0, 2]] * 100_000}, "claims 200000 layers by layer_replication"),
        ({"layer_replication": [["a", 2]]}, "layer_replication that is no list of pairs of whole numbers"),
        ({"target_modules": "(.+)+x"}, r"names its layers by a regular expression that takes more than 1 seconds: '\(\.\+\)\+x'"),
        ({"exclude_modules": "(.*)*x"}, "regular expression that takes more than 1 seconds"),
        ({"modules_to_save": ["(.*)*x"]}, "regular expression that takes more than 1 seconds"),
        ({"alpha_pattern": {"(.*)*x": 1}}, "regular expression that takes more than 1 seconds"),
        ({"target_modules": "("}, "names its layers by an expression that cannot be used: '\\(' is no regular expression"),
    ],
)
def test_an_adapter_that_claims_too_much_or_matches_too_slowly_is_refused(
    values: dict[str, Any], words: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftchat.models.adapters.PATTERN_SECONDS", 1)
    adapter = edited(make_adapter(tmp_path / "whole", tiny_checkpoint, seed=1), tmp_path / "adapter", "adapter_config.json", **values)

    with pytest.raises(ModelError, match=words):
        check_adapter(adapter, [f"model.layers.{layer}.self_attn.q_proj" for layer in range(30)])


def test_usual_expressions_of_adapters_are_matched_fast(tiny_checkpoint: Path, tmp_path: Path) -> None:
    adapter = edited(
        make_adapter(tmp_path / "whole", tiny_checkpoint, seed=1), tmp_path / "adapter", "adapter_config.json",
        target_modules=r"^(?!.*patch_embed).*\.(q_proj|k_proj|up_proj)$", modules_to_save=["lm_head"],
    )  # fmt: skip

    check_adapter(adapter, [f"model.layers.{layer}.self_attn.q_proj" for layer in range(200)])


def test_a_subprocess_is_stopped_after_processor_time_not_while_it_waits() -> None:
    waiting = run_in_subprocess("import json, sys, time; time.sleep(1.5); print(json.load(sys.stdin), sys.argv[1:])", [1], 1, "a")

    assert waiting is not None
    assert (waiting.returncode, waiting.stdout) == (0, "[1] ['a']\n")
    assert run_in_subprocess("while True: pass", [], 1) is None


def split(expression: str) -> dict[str, Any]:
    """A tokenizer that cuts text at an expression."""
    return {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}}


def replaced(pattern: str, content: str, times: int = 1) -> dict[str, Any]:
    """A tokenizer that replaces text several times."""
    step = {"type": "Replace", "pattern": {"String": pattern}, "content": content}
    return {"normalizer": {"type": "Sequence", "normalizers": [step] * times}}


PADDED = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (split("(a+)+$"), "cannot be used for a text of 2,000 characters: .*retry-limit"),
        (replaced("a", "aa", 40), r"(takes more than 2 GiB|makes more than 64 times as much|takes more than 2 seconds)"),
        (replaced("a", "a" * 1000), "makes more than 64 times as much of a text as it is long"),
        ({"decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}]}}, "makes more than 64 times"),
        ({"normalizer": {"type": "Prepend", "prepend": "b" * 10}, **split("(b|b)+$")}, "cannot be used"),
        ({"padding": PADDED}, r"takes more than 2 GiB"),
    ],
    ids=["nested", "doubling", "long", "decoding", "another text", "padding"],
)  # fmt: skip
def test_a_tokenizer_that_never_ends_or_fills_the_memory_is_refused(
    values: dict[str, Any], words: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sftchat.models.load_checks.TOKENIZER_SECONDS", 2)

    with pytest.raises(ModelError, match=rf"tokenizer.json' {words}"):
        check_tokenizer(edited(tiny_checkpoint, tmp_path / "model", "tokenizer.json", **values))


WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.mark.parametrize(
    "values",
    [
        {}, split(WORDS), split(r"[一-龥]+|[\p{L}\p{M}]+|\s+$"), replaced(" ", "▁"),
        {"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}}, {"padding": {**PADDED, "strategy": "BatchLongest"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Prepend", "prepend": "▁"}]}},
        {"decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}},
    ],
    ids=["plain", "words", "scripts", "marks", "spaces", "padded", "prepended", "decoded"],
)  # fmt: skip
def test_usual_tokenizers_are_accepted(values: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path) -> None:
    check_tokenizer(edited(tiny_checkpoint, tmp_path / "model", "tokenizer.json", **values))


PROGRAM = """
import resource, sys
from sftchat.cli import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"\\n{code} {used.ru_utime + used.ru_stime:.1f} {used.ru_maxrss >> 10}")
"""


def looped(folder: Path) -> None:
    """A template that does not end."""
    (folder / "chat_template.jinja").write_text("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")


def config(**values: Any) -> Callable[[Path], None]:
    """Changes keys of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")

    return change


def tokenizer(folder: Path, **values: Any) -> None:
    """Changes parts of tokenizer.json."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


HOSTILE: dict[str, Callable[[Path], None]] = {
    "loop": looped,
    "product": lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0].content * 10**9 }}"),
    "sparse": lambda folder: sparse(folder / "config.json", 5 << 30),
    "layers": config(num_hidden_layers=HUGE),
    "width": config(hidden_size=HUGE),
    "labels": config(num_labels=HUGE),
    "expression": lambda folder: tokenizer(folder, **split("(a+)+$")),
    "doubling": lambda folder: tokenizer(folder, **replaced("a", "aa", 40)),
}
"""Changes of the files of a model, by name."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "change"),
    [*(("ask", name) for name in HOSTILE), ("inspect", "loop"), ("inspect", "layers"), ("train", "loop"), ("train", "layers")],
)
def test_a_hostile_folder_is_one_line_and_fast_in_every_command(command: str, change: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Limits of 30 seconds and 2 GB, including the libraries; on a busy machine processor time is about half of the elapsed time."""
    shutil.copytree(tiny_checkpoint, model := tmp_path / "model")
    HOSTILE[change](model)
    arguments = {
        "inspect": ["inspect", str(model)],
        "ask": ["ask", str(model), "hi"],
        "train": ["train", "general", "-n", "32", "--max-steps", "1", "--model", str(model), "-o", str(tmp_path / "run"), "-q"],
    }[command]

    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=300, check=False)

    code, seconds, memory = done.stdout.split()[-3:]
    assert (code, len(done.stderr.splitlines())) == ("3", 1), done.stderr
    assert float(seconds) < 60
    assert int(memory) < 2000
