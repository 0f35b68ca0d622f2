"""Running out of memory reduces speed and not the effective batch; a dry run reports it in advance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sftchat import EngineError
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.training.run import TrainingListener, train
from sftchat.training.trainer import Trainer
from tests.training.killed import REGISTRY, job


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int, after: int = 0) -> list[int]:
    """Make forward passes of more rows fail after their loss; returns the sizes of the successful ones."""
    real, sizes = Trainer.compute_loss, []

    def compute_loss(self: Trainer, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        loss = real(self, model, inputs, *rest, **more)
        rows = len(inputs["lengths"])
        if rows > most and len(sizes) >= after:
            (loss * 0.5).backward()  # some gradients exist when memory runs out
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        sizes.append(rows)
        return loss

    monkeypatch.setattr(Trainer, "compute_loss", compute_loss)
    return sizes


@pytest.mark.parametrize("after", [0, 3])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_effective_batch(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    given = {"max_steps": 3, "eval_steps": 0, "save_steps": 0, "lora_dropout": 0.0, "logging_steps": 1}
    expected = train(job(str(tiny_checkpoint), tmp_path / "plenty", **given))
    heard: list[str] = []
    sizes = short_of_memory(monkeypatch, most=1, after=after)

    manifest = train(job(str(tiny_checkpoint), tmp_path / "little", **given), TrainingListener(on_message=heard.append))

    assert manifest.final_loss == pytest.approx(expected.final_loss, rel=1e-5)
    assert heard == [f"out of memory: {rows} rows at once from here on, the effective batch as before" for rows in (2, 1)]
    assert sizes[after:] == [1] * (24 - 4 * (after // 2 * 2))


def test_one_row_that_does_not_fit_is_an_error_with_the_options_to_change(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, most=0)

    with pytest.raises(EngineError, match=r"^training failed at step 0: CUDA out of memory\..*lower --batch-size, --max-length"):
        train(job(str(tiny_checkpoint), tmp_path / "run", eval_steps=0))


def rehearse(model: Path, tmp_path: Path, *words: str) -> int:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "say {n}", "completion": "{"red " * n}"}}\n' for n in range(1, 13)), encoding="utf-8")
    return main(
        [
            "train",
            "colours",
            "--model",
            str(model),
            "--data",
            str(rows),
            "-o",
            str(tmp_path / "run"),
            "--batch-size",
            "4",
            "--dry-run",
            *words,
        ],
        obj=Session(given_registry=REGISTRY),
    )


def test_a_dry_run_reports_memory_speed_and_time_and_writes_nothing(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rehearse(tiny_checkpoint, tmp_path) == 0

    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("the longest batch (4 rows, up to ")
    assert " tokens each) fits; peak memory " in first
    assert first.endswith(" GiB")
    assert " tokens/s; 9 steps would take about 0:0" in second
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_dry_run_reports_how_many_rows_fit(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, most=2)

    assert rehearse(tiny_checkpoint, tmp_path) == 0
    assert " does not fit at once; 2 rows at a time do; " in capsys.readouterr().out


def test_a_dry_run_that_fits_nothing_names_the_options_to_change(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, most=0)

    assert rehearse(tiny_checkpoint, tmp_path) == 3
    assert "tokens does not fit into memory: lower --max-length or --batch-size" in capsys.readouterr().err
