"""Adapters of every kind, precision by hardware, trackers, and refusals of what the machine does not support before anything loads."""

from __future__ import annotations

import ast
import inspect
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftchat import MissingExtraError, UsageError
from sftchat.engine import Request, collect
from sftchat.inference.open import load_engine
from sftchat.models.manifest import read_manifest
from sftchat.training import prepare as methods
from sftchat.training import prepare as precision
from sftchat.training.config import TrainingConfig
from sftchat.training.prepare import Precision, bfloat16_unit, choose_precision, cpu_unit
from sftchat.training.run import train
from sftchat.types import Reply, SamplingParams
from tests.training.killed import ROWS, job

PLAIN = {"eval_steps": 0, "save_steps": 0, "accumulation": 1, "lora_dropout": 0.0}


def test_a_dora_run_is_an_adapter_with_magnitudes_that_replies(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"

    train(job(str(tiny_checkpoint), output, **PLAIN, method="dora", max_steps=240, learning_rate=2e-2))

    settings = json.loads((output / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["use_dora"]
    assert {name.rpartition(".")[2] for name in settings["target_modules"]} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    engine = load_engine(str(output), {})
    reply = dict(collect(engine, [Request("r", ROWS[2].messages, sampling=SamplingParams(max_new_tokens=8))]))["r"]
    assert isinstance(reply, Reply)
    assert reply.text == ROWS[2].gold


@pytest.mark.parametrize("base", ["sftchat:smollm2", "org/name"])
def test_an_adapter_names_its_base_as_the_user_did_and_is_saved_without_a_look_at_the_hub(
    base: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    adapted = methods.create_adapter(AutoModelForCausalLM.from_pretrained(tiny_checkpoint), TrainingConfig(method="lora"), base)

    adapted.save_pretrained(tmp_path)  # peft warns when it cannot reach the Hub, and warnings are errors

    assert json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"] == base
    assert (tmp_path / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("method", "optimizer", "what"), [("qlora", "", "--method qlora"), ("full", "paged_adamw_8bit", "--optimizer paged_adamw_8bit")]
)
def test_a_missing_bitsandbytes_is_reported_before_anything_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, optimizer: str, what: str
) -> None:
    """The folder has no loadable weights."""
    monkeypatch.setattr(methods, "find_spec", lambda name: None)

    with pytest.raises(MissingExtraError) as error:
        methods.check_method(method, "cpu", optimizer)

    assert str(error.value) == f"{what} needs packages that are not installed: pip install 'sftchat[quant]'"


def test_an_optimizer_in_eight_bits_is_refused_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "find_spec", lambda name: name)

    with pytest.raises(UsageError, match="^--optimizer adamw_8bit keeps its state on a CUDA device; on a CPU use adamw_torch_fused$"):
        methods.check_method("full", "cpu", "adamw_8bit")


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="the extra quant is not installed")
def test_a_qlora_run_trains_over_four_bits_and_replies(tiny_checkpoint: Path, tmp_path: Path) -> None:
    manifest = train(job(str(tiny_checkpoint), tmp_path / "run", **PLAIN, method="qlora", max_steps=4))

    assert manifest.method == "qlora"
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()


def test_precision_is_decided_by_the_processor_and_the_width_of_the_model() -> None:
    names = {
        (device, unit, width): choose_precision("auto", device, unit, width).name
        for device in ("cpu", "cuda", "mps")
        for unit in ("", "AMX")
        for width in (256, 2048)
    }

    assert {case for case, name in names.items() if name == "bfloat16"} == {
        ("cpu", "AMX", 2048),
        ("cuda", "AMX", 256),
        ("cuda", "AMX", 2048),
        ("mps", "AMX", 256),
        ("mps", "AMX", 2048),
    }
    assert choose_precision("bfloat16", "cpu", "", 64) == Precision("bfloat16", "--precision bfloat16")


@given(st.dictionaries(st.sampled_from(["amx_bf16", "avx512_bf16", "avx2", "amx_int8", "avx512_f"]), st.booleans()))
def test_only_amx_and_avx512_bf16_multiply_bfloat16_on_a_cpu(capabilities: dict[str, bool]) -> None:
    assert bool(cpu_unit(capabilities)) == (capabilities.get("amx_bf16", False) or capabilities.get("avx512_bf16", False))


def test_the_choice_of_precision_does_not_depend_on_time() -> None:
    """The decision must not depend on the load of the machine."""
    names = {node.id for node in ast.walk(ast.parse(inspect.getsource(precision))) if isinstance(node, ast.Name)}

    assert "time" not in names
    assert {choose_precision("auto", "cpu", bfloat16_unit("cpu"), 2048) for _ in range(10)} == {
        choose_precision("auto", "cpu", bfloat16_unit("cpu"), 2048)
    }


def test_the_choice_of_precision_is_in_the_manifest_with_its_reason(tiny_checkpoint: Path, tmp_path: Path) -> None:
    manifest = train(job(str(tiny_checkpoint), tmp_path / "run", **PLAIN, precision="auto", max_steps=1))

    assert Precision(manifest.config["precision"], manifest.precision_reason) == choose_precision("auto", "cpu", bfloat16_unit("cpu"), 32)
    assert read_manifest(tmp_path / "run") == manifest


def test_tensorboard_gets_loss_and_score_under_runs(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    output = tmp_path / "run"

    manifest = train(job(str(tiny_checkpoint), output, save_steps=0, max_steps=4, report_to=("tensorboard",)))

    events = EventAccumulator(str(output / "runs"))
    events.Reload()
    told = {event.step: event.value for event in events.Scalars("eval/right")}
    assert told == pytest.approx({int(step): values["right"] for step, values in manifest.scores.items()})
    assert "train/loss" in events.Tags()["scalars"]


def test_noise_on_embeddings_trains_without_packing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    plain = train(job(str(tiny_checkpoint), tmp_path / "plain", **PLAIN, max_steps=2))
    noisy = train(job(str(tiny_checkpoint), tmp_path / "noisy", **PLAIN, max_steps=2, neftune_alpha=50.0))

    assert noisy.final_loss != plain.final_loss


def test_training_on_every_token_gives_another_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    reply = train(job(str(tiny_checkpoint), tmp_path / "reply", **PLAIN, max_steps=1))
    every = train(job(str(tiny_checkpoint), tmp_path / "every", **PLAIN, max_steps=1, train_on="all"))

    assert every.tokens_hash != reply.tokens_hash
