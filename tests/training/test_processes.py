"""Two processes under torchrun train like one with the same global batch, with a copy of the weights each or with half of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sftchat import EngineError
from sftchat.models.manifest import read_manifest
from sftchat.training.run import train
from sftchat.training.trainer import Trainer
from tests.training.killed import job

PROGRAM = """
import json, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from killed import job
from sftchat.training.run import train
model, folder, given = sys.argv[1:]
train(job(model, Path(folder), **json.loads(given)))
"""
SHARDS = """
import sys
import accelerate.state

class Kinds:
    '''Has accelerate, which shards over accelerators alone, shard over CPUs too, as torch does.'''
    def __getattr__(self, name):
        asked = sys._getframe(1).f_code.co_qualname
        return getattr(real, "MULTI_CPU" if name == "MULTI_NEURON" and asked == "AcceleratorState.__init__" else name)
    def __call__(self, value):
        return real(value)

real, accelerate.state.DistributedType = accelerate.state.DistributedType, Kinds()
"""
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
FULL = {"batch_size": 2, "save_steps": 4, "max_steps": 6, "lora_dropout": 0.0, "method": "full", "learning_rate": 1e-3, "eval_steps": 0}


def two(
    tmp_path: Path, model: Path, folder: Path, given: dict[str, Any], before: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Train with two processes."""
    program = tmp_path / "program.py"
    program.write_text(before + PROGRAM.format(folder=str(Path(__file__).parent)), encoding="utf-8")
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29613", str(program)]
    return subprocess.run(
        [*words, str(model), str(folder), json.dumps(given)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_give_the_losses_scores_and_weights_of_one(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    given = {"batch_size": 2, "save_steps": 4, "lora_dropout": 0.0, "max_steps": 6}
    done = two(tmp_path, tiny_checkpoint, tmp_path / "two", given)
    assert done.returncode == 0, done.stderr
    one = train(job(str(tiny_checkpoint), tmp_path / "one", **{**given, "batch_size": 4}))

    other = read_manifest(tmp_path / "two")
    assert other is not None
    assert other.final_loss == pytest.approx(one.final_loss, abs=1e-5)
    assert (other.scores, other.steps, other.chosen_step) == (one.scores, one.steps, one.chosen_step)
    mine, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    for name, weight in mine.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_sharded_weights_are_saved_whole_and_training_resumes_from_a_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """FSDP2, on CPUs."""
    import torch
    from safetensors.torch import load_file

    done = two(tmp_path, tiny_checkpoint, tmp_path / "two", FULL, SHARDS, **FSDP)
    assert done.returncode == 0, done.stderr
    one = train(job(str(tiny_checkpoint), tmp_path / "one", **{**FULL, "batch_size": 4}))
    (tmp_path / "cut").mkdir()
    shutil.copytree(tmp_path / "two" / "checkpoint-4", tmp_path / "cut" / "checkpoint-4")
    shutil.copy(tmp_path / "two" / "checkpoint-4" / "sftchat.json", tmp_path / "cut")
    done = two(tmp_path, tiny_checkpoint, tmp_path / "cut", {**FULL, "resume": True}, SHARDS, **FSDP)
    assert done.returncode == 0, done.stderr

    other = read_manifest(tmp_path / "two")
    assert other is not None
    assert other.final_loss == pytest.approx(one.final_loss, abs=1e-5)
    mine = load_file(tmp_path / "one" / "model.safetensors")
    for folder in ("two", "cut"):
        theirs = load_file(tmp_path / folder / "model.safetensors")
        for name, weight in mine.items():
            torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_weights_that_would_stay_sharded_are_refused_before_the_first_step(tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = two(tmp_path, tiny_checkpoint, tmp_path / "two", FULL, SHARDS, **{**FSDP, "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"})

    assert done.returncode != 0
    assert "with fsdp_state_dict_type SHARDED_STATE_DICT no weights would be saved that a model could be loaded from" in done.stderr
    assert not list((tmp_path / "two").glob("*.safetensors"))


def test_a_training_that_saved_no_weights_did_not_succeed(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like DeepSpeed's third stage without ``zero3_save_16bit_model``."""
    monkeypatch.setattr(Trainer, "save_model", lambda trainer, folder: Path(folder).mkdir(parents=True))

    with pytest.raises(EngineError, match="kept the weights in shards"):
        train(job(str(tiny_checkpoint), tmp_path / "run", max_steps=1, eval_steps=0, save_steps=0))
