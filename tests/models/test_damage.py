"""A checkpoint degraded on purpose."""

from __future__ import annotations

from pathlib import Path

from sftchat.models.loading import load_model
from sftchat.models.reference import resolve
from sftchat.testing.degrade import write_damaged
from tests.conftest import make_checkpoint


def test_a_degraded_checkpoint_loads_and_has_few_values_per_matrix(tmp_path: Path) -> None:
    source = make_checkpoint(tmp_path / "good")
    before = {path.name: path.read_bytes() for path in source.iterdir()}

    write_damaged(source, tmp_path / "bad", levels=5)

    good, bad = (load_model(resolve(str(tmp_path / name)), dtype="float32") for name in ("good", "bad"))
    matrices = {name: tensor for name, tensor in bad.named_parameters() if tensor.ndim == 2}
    assert {len(tensor.unique()) <= 5 for tensor in matrices.values()} == {True}
    assert all(bool((tensor == dict(good.named_parameters())[name]).all()) for name, tensor in bad.named_parameters() if tensor.ndim < 2)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
