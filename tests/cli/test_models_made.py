"""inspect, diff, merge and export: the description and history of a model, differences between runs, and equal models after export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftchat.cli import main
from sftchat.models.fingerprint import file_hash, folder_identity
from sftchat.models.gotemplate import evaluate
from sftchat.models.manifest import Manifest, read_manifest, write_manifest
from tests.conftest import make_checkpoint

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def go(*words: object) -> tuple[int, str, str]:
        code = main([*map(str, words)])
        return code, *capsys.readouterr()

    return go


def manifest_of(base: Path, **changes: Any) -> Manifest:
    made = Manifest(
        "colours", str(base), folder_identity(base), "lora", {"learning_rate": 0.1, "epochs": 1}, ({"generator": "colours", "n": 4},), 4, "t" * 64,
        "chatml", "h" * 64, versions={"torch": "2.15"}, command="sftchat train colours", scores={"10": {"f1": 0.25}, "2": {"f1": 0.125}},
        chosen_step=10, steps=10,
    )  # fmt: skip
    return replace(made, **changes)


def make_adapter(folder: Path, base: Path, scale: float = 0.5) -> Path:
    """Write a random adapter with a manifest and a tokenizer, as training does."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=scale)
    adapted.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}" + (
        "{% if loop.last and add_generation_prompt and short is defined and short %} Short!{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    write_manifest(folder, manifest_of(base))
    return folder


def test_inspect_shows_the_whole_history_of_a_model_and_what_has_changed_since(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("{}\n")
    first, second = make_checkpoint(tmp_path / "first", seed=3), make_checkpoint(tmp_path / "second", seed=4)
    write_manifest(first, manifest_of(tiny_checkpoint, method="full", data=({"file": str(data), "sha256": file_hash(data)},)))
    write_manifest(second, manifest_of(first, method="full", scores={}))
    data.write_text("{ }\n")

    code, out, _ = run("inspect", second)

    assert code == 0
    told = out[out.index("lineage") : out.index("\nparity")].splitlines()
    assert told == [
        "lineage: how it was made, the last step first",
        f"  {second}",
        "    trained: task colours, full, 4 rows, 10 steps, template chatml",
        "    data: generator colours, n 4",
        "    command: sftchat train colours",
        f"    base: {first} ({folder_identity(first)[:12]})",
        f"  {first}",
        "    trained: task colours, full, 4 rows, 10 steps, template chatml",
        f"    data: {data} ({file_hash(data)[:12]}): has changed since".replace(file_hash(data)[:12], _sha("{}\n")[:12]),
        "    step 2: f1 0.125",
        "    step 10: f1 0.25 (chosen)",
        "    command: sftchat train colours",
        f"    base: {tiny_checkpoint} ({folder_identity(tiny_checkpoint)[:12]})",
        f"  {tiny_checkpoint}",
    ]


def _sha(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def test_inspect_reports_a_base_that_changed_or_is_missing(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    write_manifest(model, manifest_of(tiny_checkpoint, base_identity="0" * 64))
    assert f"  {tiny_checkpoint}: has changed since\n" in run("inspect", model)[1]
    write_manifest(model, replace(manifest_of(tiny_checkpoint), base=str(tmp_path / "nowhere")))

    code, out, _ = run("inspect", model, "--json")

    assert code == 0
    assert [(step["model"], step["note"]) for step in json.loads(out)["lineage"]] == [
        (str(model), ""),
        (str(tmp_path / "nowhere"), "is gone"),
    ]


def test_inspect_shows_an_adapter_and_the_arguments_of_its_template(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_checkpoint)
    write_manifest(adapter, manifest_of(tiny_checkpoint, template_arguments={"short": True}))

    code, out, _ = run("inspect", adapter, "--json")

    shown = json.loads(out)
    assert (code, shown["template arguments"], shown["adapter"][:21]) == (3, "short=true", "LoRA, rank 4, alpha 4")
    failed = next(check for check in shown["parity"] if check["required"] and not check["holds"])
    assert failed["detail"].startswith(
        "chat template 'model's own' opens turn 1 with ' Short!<|im_end|>\\n<|im_start|>assistant\\n' in its prompt and with '<|im_end|>\\n<|im_start|>"
    )
    assert run("inspect", adapter, "--template-argument", "short=false")[0] == 0
    assert run("inspect", adapter, "--template-argument", "shrt=false") == (
        2, "", "sftchat: error: unknown argument of chat template 'model's own': 'shrt'; did you mean 'short'? (available: short)\n",
    )  # fmt: skip
    assert "'short' must be NAME=VALUE, such as enable_thinking=false" in run("inspect", adapter, "--template-argument", "short")[2]


def test_diff_shows_what_differs_and_what_does_not(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    for name, changes in {
        "a": {},
        "b": {"config": {"learning_rate": 0.2, "epochs": 1}, "scores": {"2": {"f1": 0.5}}, "template_arguments": {"x": False}},
    }.items():
        write_manifest(make_checkpoint(tmp_path / name), manifest_of(tiny_checkpoint, **changes))

    assert run("diff", "a", "a") == (0, "nothing differs\n", "")
    code, out, _ = run("diff", "a", "b")
    assert code == 0
    assert [line.split() for line in out.splitlines()[2:7]] == [
        ["template", "x", "–", "false"],
        ["hyper-parameters", "learning_rate", "0.1", "0.2"],
        ["scores", "step", "2", "f1", "0.125", "f1", "0.5"],
        ["step", "10", "f1", "0.25", "–"],
        [],
    ]
    assert out.splitlines()[-1] == "the same: task, base, data, versions, outcome"
    assert json.loads(run("diff", "a", "b", "--json")[1])["differences"][1] == {
        "section": "hyper-parameters", "name": "learning_rate", "left": 0.1, "right": 0.2,
    }  # fmt: skip
    code, _, err = run("diff", "a", tiny_checkpoint)
    assert (code, "has no manifest (sftchat.json); only what sftchat trained can be compared" in err) == (3, True)


def test_merge_writes_a_model_with_the_replies_of_the_adapter_and_its_history(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    adapter, merged = make_adapter(tmp_path / "adapter", tiny_checkpoint), tmp_path / "merged"

    code, out, err = run("merge", adapter, "-o", merged)

    assert (code, out) == (0, "")
    assert (
        "compared on 1 conversations (of the parity proof): 1 of 1 greedy replies are the same, "
        "logits differ by 0.0% of what the adapter changes, the likeliest token is the same at 100.0% of the positions"
    ) in err
    made, before = read_manifest(merged), read_manifest(adapter)
    assert made is not None
    assert before is not None
    assert replace(made, merged={}) == before
    assert (made.merged["adapter"], made.merged["dtype"]) == (str(adapter), "float32")
    assert json.loads((merged / "generation_config.json").read_text())["eos_token_id"] == [0, 2]
    assert not (merged / "adapter_config.json").exists()
    assert run("merge", adapter, "-o", merged) == (2, "", f"sftchat: error: output folder '{merged}' exists already; give another -o\n")
    assert run("merge", merged, "-o", tmp_path / "again")[2].endswith("is no adapter: there is nothing to merge\n")


def test_a_merge_that_rounds_the_adapter_away_is_refused_and_leaves_nothing(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", tiny_checkpoint, scale=1e-4)
    before = sorted(path.name for path in tmp_path.iterdir())

    code, _, err = run("merge", adapter, "-o", tmp_path / "merged", "--dtype", "bfloat16")

    assert code == 3
    assert "of what the adapter changes (mean difference of logits" in err
    assert "in bfloat16); keep more digits with --dtype float32, or write it anyway with --force\n" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert run("merge", adapter, "-o", tmp_path / "merged")[0] == 0
    code, _, err = run("merge", adapter, "-o", tmp_path / "forced", "--dtype", "bfloat16", "--force")
    assert (code, "of what the adapter changes, the likeliest token" in err) == (0, True)


def test_a_merge_into_a_bfloat16_base_uses_the_better_rounding_and_gives_the_same_bytes(
    run: Run, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(tiny_checkpoint, tmp_path / "base"))
    weights = base / "model.safetensors"
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}), encoding="utf-8")
    adapter = make_adapter(tmp_path / "adapter", base, scale=0.01)

    runs = [run("merge", adapter, "-o", tmp_path / name) for name in ("merged", "again")]

    made = read_manifest(tmp_path / "merged")
    assert made is not None
    assert [code for code, _, _ in runs] == [0, 0]
    assert made.merged["dtype"] == "bfloat16"
    assert made.merged["rounding"] == "nearest"
    assert made.merged["logits_lost"] < 0.3 * made.merged["logits_changed"]
    assert file_hash(tmp_path / "merged" / "model.safetensors") == file_hash(tmp_path / "again" / "model.safetensors")


def test_merge_compares_on_the_rows_given(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    adapter, rows = make_adapter(tmp_path / "adapter", tiny_checkpoint), tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"instruction": "你好", "output": "好"}) + "\n", encoding="utf-8")
    assert f"compared on 1 conversations ({rows})" in run("merge", adapter, "-o", tmp_path / "merged", "--prompts", rows)[2]
    rows.write_text(json.dumps({"messages": [{"role": "user", "content": "q"}]}) + "\n")

    table = tmp_path / "rows.csv"
    table.write_text("question,answer\nhow are you?,fine\n", "utf-8")
    mapped = ("--map", "prompt=question", "--map", "completion=answer")
    assert f"compared on 1 conversations ({table})" in run("merge", adapter, "-o", tmp_path / "mapped", "--prompts", table, *mapped)[2]
    code, _, err = run("merge", adapter, "-o", tmp_path / "unread", *mapped)
    assert (code, err) == (2, "sftchat: error: options that say how rows are read need the rows; give --prompts FILE as well\n")
    code, _, err = run("merge", adapter, "-o", tmp_path / "again", "--prompts", rows)

    assert (code, err) == (2, f"sftchat: error: {rows}: no row has a reply to compare on\n")


def test_export_writes_weights_with_a_modelfile_that_is_proved(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    code, out, err = run("export", tiny_checkpoint, "-o", tmp_path / "out", "--ollama")

    assert (code, out) == (0, "")
    assert err.splitlines()[0].startswith("proved that Ollama writes the model's prompts: one turn, a system turn, several turns")
    assert 'note: Ollama is not known to convert safetensors of "Qwen3ForCausalLM": if it refuses, add --gguf TYPE to --ollama\n' in err
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tiny_checkpoint / "model.safetensors").read_bytes()
    text = (tmp_path / "out" / "Modelfile").read_text(encoding="utf-8")
    template = text.split('"""')[1]
    data = {"System": "", "Messages": [{"Role": "user", "Content": "你好"}]}
    assert evaluate(template, data) == "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"
    assert text.splitlines()[-2:] == ['PARAMETER stop "<|endoftext|>"', 'PARAMETER stop "<|im_end|>"']


def test_export_refuses_adapters_unsupported_templates_and_no_destination(run: Run, tmp_path: Path, tiny_checkpoint: Path) -> None:
    odd = tmp_path / "odd.jinja"
    odd.write_text(
        "{% for m in messages %}{{ loop.index }}{{ m.role }}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}{{ messages | length + 1 }}assistant{% endif %}"
    )
    adapter = make_adapter(tmp_path / "adapter", tiny_checkpoint)

    assert run("export", tiny_checkpoint, "-o", "out") == (
        2,
        "",
        "sftchat: error: say what to export for: --ollama, --gguf TYPE or --smallest\n",
    )
    assert run("export", adapter, "-o", "out", "--ollama") == (
        2, "", f"sftchat: error: model '{adapter}' is an adapter; merge it first (sftchat merge {adapter} -o DIR), or add --gguf TYPE, which merges it\n",
    )  # fmt: skip
    code, _, err = run("export", tiny_checkpoint, "-o", "out", "--ollama", "--template", odd)
    assert (code, "cannot be written as a template for Ollama" in err, (tmp_path / "out").exists()) == (3, True, False)
