"""``sftchat judge-check``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftchat.cli import main


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    """Two people and a judge: 12 items, one without a rating of the judge."""
    rows = ["id,anna,ben,judge", *(f"i{n},{1 + n % 3},{1 + n % 3},{1 + n % 3}" for n in range(10)), "i10,1,2,2", "i11,3,3,"]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["judge-check", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_prints_the_agreement_beside_that_of_the_people(ratings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, ratings, "--person", "anna", "--person", "ben")

    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines() if line.strip() and not line.startswith("─")]
    assert lines == [
        "11 items rated by 'judge' and 2 people, ordinal; 1 item without both",
        "judge with people people with each other",
        "equal ratings 0.955 [0.679, 0.995] 0.917 [0.646, 0.985]",
        lines[3], lines[4], lines[5], lines[6], lines[7], lines[8],
        "judge minus person 0.045 [0.000, 0.136]",
        "person \\ judge 1 2 3",
        "1 8 1 ·", "2 · 7 ·", "3 · · 6",
        "The judge can stand in for these people: even the lower bound of α reaches 0.8.",
    ]  # fmt: skip
    names = ["Cohen's κ", "κ, linear weights", "κ, quadratic weights", "Krippendorff's α", "Spearman's ρ", "Kendall's τ-b"]
    assert [line.rsplit(" ", 6)[0] for line in lines[3:9]] == names


def test_json_has_every_number(ratings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, ratings, "--person", "anna", "--scale", "nominal", "--json")

    printed = json.loads(out)
    assert code == 0
    assert [statistic["name"] for statistic in printed["with_people"]] == ["agreement", "kappa", "alpha"]
    assert {key: printed[key] for key in ("judge", "people", "scale", "items", "unused", "among_people", "confusion")} == {
        "judge": "judge", "people": ["anna"], "scale": "nominal", "items": 11, "unused": 1, "among_people": [],
        "confusion": [[4, 1, 0], [0, 3, 0], [0, 0, 3]],
    }  # fmt: skip


def test_few_items_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "few.jsonl"
    path.write_text('{"id": "a", "judge": "good", "person": "good"}\n{"id": "b", "judge": "bad", "person": "bad"}\n', encoding="utf-8")

    code, out, _ = run(capsys, path)

    assert code == 0
    assert out.splitlines()[-1] == "2 items are too few to say anything about this judge: rate at least 50."
