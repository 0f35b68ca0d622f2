"""``export --gguf`` and ``--smallest``: the file runs, is compared with the model, and is kept under another name when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftchat.cli import main
from sftchat.cli.export import TYPES, _choose, _keep
from sftchat.engine import Request, collect
from sftchat.evaluation.gguf_export import ExportedFile
from sftchat.models.gguf import read_header
from sftchat.models.gguf_types import FILE_TYPES
from sftchat.types import Reply


@pytest.fixture(scope="module")
def evalset(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evalset that the tiny model answers without an error: its gold is what the model replies."""
    from sftchat.inference.open import load_engine
    from sftchat.plugins.manager import load_plugins

    sampling = load_plugins().tasks["general"].sampling
    prompts = [f"the user {number}" for number in range(10)]
    requests = [Request(prompt, ({"role": "user", "content": prompt},), sampling=sampling) for prompt in prompts]
    replies = dict(collect(load_engine(str(tiny_checkpoint), {}), requests))
    path = tmp_path_factory.mktemp("evalset") / "gold.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": prompt}], "gold": reply.text}
        for prompt, reply in replies.items()
        if isinstance(reply, Reply)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def export(model: Path, tmp_path: Path, evalset: Path, *words: str) -> int:
    return main(["export", str(model), "-o", str(tmp_path / "out"), "--task", "general", "--evalset", str(evalset), *words])


def test_a_file_is_written_run_and_compared_with_the_model(
    tiny_checkpoint: Path, tmp_path: Path, evalset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tiny_checkpoint, tmp_path, evalset, "--gguf", "f32") == 0

    output = capsys.readouterr()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["out-f32.gguf"]
    assert read_header(tmp_path / "out" / "out-f32.gguf").architecture == "qwen3"
    assert "accuracy" in output.out
    assert "kept" in output.out
    assert f"saved {tmp_path / 'out' / 'out-f32.gguf'}; next: sftchat chat" in output.err


def test_a_broken_conversion_is_kept_under_another_name(
    tiny_checkpoint: Path, tmp_path: Path, evalset: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sftchat.models.gguf_write._read_array", lambda architecture, name, weights, config: weights.float().cpu().numpy()[::-1].copy()
    )

    assert export(tiny_checkpoint, tmp_path, evalset, "--gguf", "f32", "--margin", "2") == 1

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["out-f32.failed.gguf"]
    assert "no file is proved not worse by more than 2 points" in capsys.readouterr().err


def test_an_unusable_evalset_is_reported_before_anything_is_written(tiny_checkpoint: Path, tmp_path: Path) -> None:
    words = ["export", str(tiny_checkpoint), "-o", str(tmp_path / "out"), "--task", "general", "--gguf", "f16"]

    assert main([*words, "--evalset", str(tmp_path / "none.jsonl")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "say what to export for: --ollama, --gguf TYPE or --smallest"),
        (["--ollama", "--smallest"], "say what to export for"),
        (["--ollama", "--margin", "2"], "--margin score a GGUF file"),
        (["--smallest"], "does not say which task it was trained on; name the task that scores with --task"),
        (["--gguf", "q9"], "'q9' is not one of"),
        (["--gguf", "f16", "--margin", "0"], "0.0 is not in the range"),
    ],
)
def test_wrong_options_are_one_line(
    words: list[str], reason: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tiny_checkpoint), "-o", str(tmp_path / "out"), *words]) == 2
    assert reason in capsys.readouterr().err


def test_the_types_of_the_option_are_those_that_can_be_written() -> None:
    assert set(TYPES) == set(FILE_TYPES)


class Judged(ExportedFile):
    """A file with a given outcome."""

    outcome: Any = None
    is_proved: Any = False


def judged(tmp_path: Path, file_type: str, size: int, outcome: str) -> ExportedFile:
    path = tmp_path / f"m-{file_type}.gguf"
    path.touch()
    file = Judged(file_type, path, size)
    object.__setattr__(file, "outcome", outcome)
    object.__setattr__(file, "is_proved", outcome == "fine")
    return file


def test_a_search_keeps_the_smallest_proved_file(tmp_path: Path) -> None:
    outcomes = [("q8_0", 80, "fine"), ("q6_k", 60, "inconclusive"), ("q5_k_m", 50, "fine"), ("q4_k_m", 40, "regressed")]
    files = [judged(tmp_path, *entry) for entry in outcomes]

    chosen = _choose(files, is_search=True, needs_proof=True)
    assert chosen is files[2]
    assert _keep(files, chosen) == tmp_path / "m-q5_k_m.gguf"
    assert [path.name for path in tmp_path.iterdir()] == ["m-q5_k_m.gguf"]


def test_a_search_without_a_proved_file_keeps_the_largest_under_another_name(tmp_path: Path) -> None:
    files = [judged(tmp_path, "q8_0", 80, "inconclusive"), judged(tmp_path, "q6_k", 60, "regressed")]

    assert _choose(files, is_search=True, needs_proof=True) is None
    assert _keep(files, None) == tmp_path / "m-q8_0.failed.gguf"
    assert [path.name for path in tmp_path.iterdir()] == ["m-q8_0.failed.gguf"]


def test_one_file_fails_when_it_is_worse_or_when_a_proof_is_missing(tmp_path: Path) -> None:
    undecided, worse = judged(tmp_path, "q8_0", 80, "inconclusive"), judged(tmp_path, "q6_k", 60, "regressed")

    assert _choose([undecided], is_search=False, needs_proof=False) is undecided
    assert _choose([undecided], is_search=False, needs_proof=True) is None
    assert _choose([worse], is_search=False, needs_proof=False) is None
