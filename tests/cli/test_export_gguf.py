"""``export --gguf`` and ``--smallest``: the file runs, is compared with the model, and is kept under another name when it fails."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from sftchat.cli import main
from sftchat.cli.export import TYPES
from sftchat.engine import Request, collect
from sftchat.errors import ModelError
from sftchat.evaluation.gguf_export import ExportedFile, export_gguf, keep_smallest
from sftchat.evaluation.gguf_table import describe_failure, describe_file, table_of
from sftchat.evaluation.report.view import Unsettled
from sftchat.models.gguf import read_header
from sftchat.models.gguf_types import FILE_TYPES, SMALLER_TYPES
from sftchat.models.loading import load
from sftchat.models.reference import resolve
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
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "out-f32.failed.gguf is significantly worse than the model"
    assert lines[-1] == f"it is kept as {tmp_path / 'out' / 'out-f32.failed.gguf'}"


def test_the_model_is_asked_with_the_template_that_is_written_to_the_file(tiny_checkpoint: Path, tmp_path: Path, evalset: Path) -> None:
    assert export(tiny_checkpoint, tmp_path, evalset, "--gguf", "f32", "--template", "plain") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["out-f32.gguf"]


def test_a_file_with_an_unanswered_item_is_not_judged_and_fails(
    tiny_checkpoint: Path, tmp_path: Path, evalset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    too_long = {"id": "long", "messages": [{"role": "user", "content": "12 " * 200}], "gold": "x"}
    longer = tmp_path / "longer.jsonl"
    longer.write_text(evalset.read_text(encoding="utf-8") + json.dumps(too_long) + "\n", encoding="utf-8")

    assert export(tiny_checkpoint, tmp_path, longer, "--gguf", "f32") == 3

    output = capsys.readouterr()
    assert "not judged" in output.out
    assert "out-f32.failed.gguf could not be judged: 2 items were not answered, the first 'long' by" in output.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["out-f32.failed.gguf"]


def test_an_unusable_evalset_is_reported_before_anything_is_written(tiny_checkpoint: Path, tmp_path: Path) -> None:
    words = ["export", str(tiny_checkpoint), "-o", str(tmp_path / "out"), "--task", "general", "--gguf", "f16"]

    assert main([*words, "--evalset", str(tmp_path / "none.jsonl")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "say what to export for: --ollama, --gguf TYPE or --smallest"),
        (["--ollama", "--smallest"], "does not say which task it was trained on"),
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


def test_an_evalset_can_be_given_by_name(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(tiny_checkpoint), "-o", str(tmp_path / "out"), "--task", "general", "--gguf", "f16", "--evalset", "none-en"]

    assert main(words) == 2
    assert "task 'general' has no evalset of that name (it has: general, general-en)" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ModelError("the disk is on fire"), KeyboardInterrupt()])
def test_an_error_or_an_interrupt_while_a_file_is_judged_leaves_nothing(
    error: BaseException, tiny_checkpoint: Path, tmp_path: Path, evalset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def evaluate(*_: Any) -> None:
        seen.extend(path.name for path in (tmp_path / "out").iterdir())
        raise error

    monkeypatch.setattr("sftchat.evaluation.pipeline.Evaluation.run", evaluate)

    assert export(tiny_checkpoint, tmp_path, evalset, "--gguf", "f32") != 0
    assert seen == ["out-f32.partial.gguf"]
    assert not (tmp_path / "out").exists()


def test_a_search_that_is_interrupted_keeps_the_files_that_were_judged(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def judge(path: Path, title: str) -> Any:
        if title == "m-q5_k_m.gguf":
            raise KeyboardInterrupt
        return scripted_report("fine" if title == "m-q8_0.gguf" else "inconclusive")

    files = export_gguf(load(resolve(str(tiny_checkpoint))), tmp_path, "m", SMALLER_TYPES, judge, lambda _: nullcontext(), needs_proof=True)
    with pytest.raises(KeyboardInterrupt):
        list(files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m-q6_k.failed.gguf", "m-q8_0.gguf"]


def scripted_report(outcome: str) -> Any:
    """A report with this outcome of the gate."""
    return SimpleNamespace(
        failures=(),
        gates=[SimpleNamespace(outcome=outcome)],
        verdict=SimpleNamespace(exit_code=0 if outcome == "fine" else 1),
        comparisons=(),
    )


def judged(tmp_path: Path, file_type: str, size: int, outcome: str, *, needs_proof: bool = True) -> ExportedFile:
    path = tmp_path / f"m-{file_type}.gguf"
    path.touch()
    return ExportedFile(file_type, path, size, scripted_report(outcome), needs_proof)


def test_a_search_keeps_the_smallest_proved_file(tmp_path: Path) -> None:
    outcomes = [("q8_0", 80, "fine"), ("q6_k", 60, "inconclusive"), ("q5_k_m", 50, "fine"), ("q4_k_m", 40, "regressed")]
    files = [judged(tmp_path, *entry) for entry in outcomes]

    assert keep_smallest(files) is files[2]
    assert [path.name for path in tmp_path.iterdir()] == ["m-q5_k_m.gguf"]


def test_a_search_without_a_proved_file_keeps_the_largest(tmp_path: Path) -> None:
    files = [judged(tmp_path, "q8_0", 80, "inconclusive"), judged(tmp_path, "q6_k", 60, "regressed")]

    assert keep_smallest(files) is files[0]
    assert files[0].failed
    assert [path.name for path in tmp_path.iterdir()] == ["m-q8_0.gguf"]


def test_one_file_fails_when_it_is_worse_or_when_a_proof_is_missing(tmp_path: Path) -> None:
    entries: list[tuple[str, bool]] = [("inconclusive", False), ("inconclusive", True), ("regressed", False), ("fine", True)]

    assert [judged(tmp_path, "q8_0", 80, outcome, needs_proof=needs_proof).failed for outcome, needs_proof in entries] == [
        False,
        True,
        True,
        False,
    ]


def test_the_reason_of_a_failure_says_how_many_items_would_settle_it(tmp_path: Path) -> None:
    worse, undecided = judged(tmp_path, "q8_0", 80, "regressed"), judged(tmp_path, "q8_0", 80, "inconclusive")
    cast(Any, undecided.report).verdict.unsettled = Unsettled("accuracy", 9.5, 2.0, 42, 500)

    assert describe_failure(worse, 2.0) == "m-q8_0.gguf is significantly worse than the model"
    assert describe_failure(undecided, 2.0) == (
        "no file is proved not worse by more than 2 points: a drop of 9.5 points of accuracy cannot be excluded, the margin is 2; "
        "about 500 items would settle it, here are 42"
    )


@dataclass(frozen=True)
class Measured(ExportedFile):
    """A file with given figures."""

    difference: Any = None
    tokens_per_second: Any = 1234.5


def measured(file_type: str, size: int, drop: float, outcome: str) -> ExportedFile:
    score = SimpleNamespace(name="accuracy", baseline=0.8, candidate=0.8 - drop, difference=-drop, low=-drop - 0.01, high=0.02 - drop)
    return Measured(file_type, Path(f"m-{file_type}.gguf"), size, scripted_report(outcome), needs_proof=True, difference=score)


def test_the_table_has_80_columns_and_marks_the_file_that_is_kept() -> None:
    files = [
        measured("q8_0", 145_000_000, 0.0, "fine"),
        measured("q6_k", 111_900_000, 0.002, "fine"),
        measured("q5_k_m", 98_000_000, 0.013, "inconclusive"),
        measured("q4_k_m", 9_400_000, 0.125, "regressed"),
    ]
    console = Console(file=StringIO(), width=80)
    console.print(table_of(files, files[1]))

    assert [describe_file(file) for file in files[1:3]] == [
        "m-q6_k.gguf: 111.9 MB, accuracy 0.798 (-0.002), not worse",
        "m-q5_k_m.gguf: 98.0 MB, accuracy 0.787 (-0.013), not proved",
    ]
    assert [line.rstrip() for line in cast(StringIO, console.file).getvalue().splitlines()] == [
        "type       MB  accuracy  difference     95 % interval  tokens/s  verdict",
        "─" * 80,
        "model             0.800",
        "q8_0    145.0     0.800      -0.000  [-0.010, +0.020]     1,234  not worse",
        "q6_k    111.9     0.798      -0.002  [-0.012, +0.018]     1,234  not worse, kept",
        "q5_k_m   98.0     0.787      -0.013  [-0.023, +0.007]     1,234  not proved",
        "q4_k_m    9.4     0.675      -0.125  [-0.135, -0.105]     1,234  worse",
    ]
