"""Reliability of a score in `sftchat eval`: leaked items, replies that vary, and checkpoints that tie."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from sftchat.models.fingerprint import file_hash
from sftchat.models.manifest import Manifest, write_manifest
from tests.cli.conftest import ROWS, Desk


def test_training_items_are_listed_and_the_score_is_reported_without_them(desk: Desk) -> None:
    training = desk.folder / "train.jsonl"
    training.write_text("".join(json.dumps({"prompt": row["messages"][0]["content"], "completion": "x"}) + "\n" for row in ROWS[:2]))  # type: ignore[index]
    run = desk.folder / "run"
    run.mkdir()
    write_manifest(run, Manifest("quiz", "b", "", "full", {}, ({"file": str(training), "sha256": file_hash(training)},), 2, "", "", ""))
    (run / "config.json").write_text("{}")
    (run / "model.safetensors").write_bytes(b"")
    desk.engines[str(run)] = desk.engines["s:half"]

    code, _, err = desk.run(run, "--quiet", "-o", "out")

    line = f"{run} on gold.jsonl: 2 of 8 items stand in its training data, or nearly (the first 'i0', {training}:1); without them accuracy is 0.333"
    assert (code, err) == (0, line + "\n")
    (result,) = json.loads(Path("out/report.json").read_text())["results"]
    assert [leak["id"] for leak in result["leak_check"]["leaks"]] == ["i0", "i1"]


def test_replies_that_vary_raise_the_smallest_regression(desk: Desk) -> None:
    seen: dict[str, int] = {}

    def moody(request: object) -> str:
        words = request.messages[-1]["content"]  # type: ignore[attr-defined]
        seen[words] = seen.get(words, 0) + 1
        return f"answer {words.split()[1]}" if seen[words] % 2 else "x"

    desk.engines["s:moody"] = moody

    code, _, err = desk.run("s:moody", "--quiet", "--self-check", "--fresh")

    assert (code, err) == (
        0,
        "s:moody on gold.jsonl: 8 of 8 replies changed when generated again, accuracy by up to 100.0 points; no drop up to that is called a regression\n",
    )


def test_a_drop_within_run_to_run_variation_is_not_a_regression(desk: Desk) -> None:
    asked: dict[str, int] = {}

    def tired(request: object) -> str:
        words = request.messages[-1]["content"]  # type: ignore[attr-defined]
        asked[words] = asked.get(words, 0) + 1
        return "x" if asked[words] == 1 else f"answer {words.split()[1]}"

    desk.engines["s:tired"] = tired

    assert desk.run("s:tired", "--baseline", "s:good", "--quiet", "--fresh")[0] == 1
    asked.clear()
    code, _, err = desk.run("s:tired", "--baseline", "s:good", "--quiet", "--fresh", "--self-check")
    assert (code, "inconclusive" in err) == (0, True)


def test_a_deterministic_model_is_reported(desk: Desk) -> None:
    assert (
        desk.run("s:good", "--quiet", "--self-check")[2]
        == "s:good on gold.jsonl: 8 replies were the same when generated again, alone and in other batches\n"
    )


def test_checkpoints_are_shown_by_step_with_the_best_and_what_ties(desk: Desk) -> None:
    for step, engine in ((10, "s:bad"), (20, "s:good"), (30, "s:flaky")):
        folder = desk.folder / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(str(step).encode())
        desk.engines[f"run/checkpoint-{step}"] = desk.engines["s:good" if engine == "s:flaky" else engine]

    code, out, _ = desk.run("run/checkpoint-*", "--task", "quiz", "--quiet", "-o", "out")

    rows = [line.split() for line in out.splitlines() if "checkpoint-" in line and "error class" not in line]
    assert code == 0
    assert [(row[0], row[1], *(word for word in row if word in ("best", "as"))) for row in rows] == [
        ("run/checkpoint-10", "10"),
        ("run/checkpoint-20", "20", "best"),
        ("run/checkpoint-30", "30", "as"),
    ]
    assert "the value of the best is too good on average" in " ".join(out.split())
    (ranking,) = json.loads(Path("out/report.json").read_text())["rankings"]
    assert [(ranked["step"], ranked["best"], ranked["tied"]) for ranked in ranking] == [
        (10, False, False),
        (20, True, True),
        (30, False, True),
    ]


def test_a_manifest_without_data_gives_no_remark(desk: Desk) -> None:
    run = desk.folder / "run"
    run.mkdir()
    write_manifest(run, replace(Manifest("quiz", "b", "", "full", {}, (), 0, "", "", ""), steps=3))
    (run / "config.json").write_text("{}")
    (run / "model.safetensors").write_bytes(b"")
    desk.engines[str(run)] = desk.engines["s:good"]
    assert desk.run(run, "--quiet")[2] == ""
