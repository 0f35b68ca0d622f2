"""Two processes under torchrun train as one does with the same global batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sftchat.models.manifest import read_manifest
from sftchat.training.run import train
from tests.training.killed import REGISTRY, job

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from killed import REGISTRY, job
from sftchat.training.run import train
train(job(sys.argv[1], Path(sys.argv[2]), batch_size=2, save_steps=4, lora_dropout=0.0, max_steps=6), REGISTRY)
"""


@pytest.mark.slow
def test_two_processes_give_the_losses_scores_and_weights_of_one(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(folder=str(Path(__file__).parent)), encoding="utf-8")

    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29613", str(program)]
    done = subprocess.run([*words, str(tiny_checkpoint), str(tmp_path / "two")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one = train(job(str(tiny_checkpoint), tmp_path / "one", batch_size=4, save_steps=4, lora_dropout=0.0, max_steps=6), REGISTRY)

    two = read_manifest(tmp_path / "two")
    assert two is not None
    assert two.final_loss == pytest.approx(one.final_loss, abs=1e-5)
    assert (two.scores, two.steps, two.chosen_step) == (one.scores, one.steps, one.chosen_step)
    mine, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    for name, weight in mine.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-4)
