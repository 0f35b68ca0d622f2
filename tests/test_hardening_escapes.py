"""Text from outside never controls the terminal, in any command: rows, manifests, names of models, replies."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sftchat import EngineType
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import load_plugins
from sftchat.testing import ScriptedEngine
from sftchat.text import sanitize_json
from tests.conftest import make_checkpoint
from tests.test_hardening import commands_in

H = "\x1b[2J\x9b\u202eX\x07\u2028\r"
ROWS = [
    {"id": f"{n}{H}", "messages": [{"role": "user", "content": f"question {n} {H}"}], "gold": f"yes{H}", f"key{H}": H} for n in range(3)
]
BAD = [{"messages": [{"role": H, "content": H}]}, {H: H}, {"instruction": H, "output": 5}]


def manifest(mark: str) -> str:
    """Manifest with hostile text in every text field."""
    said = f"{H}{mark}"
    names = ("task", "base", "base_identity", "method", "tokens_hash", "template", "template_hash", "command")
    maps = {name: {H: said} for name in ("config", "versions", "validation")}
    more = {"data": [{"file": said, "sha256": H}, {H: said}], "rows": 1, "scores": {H: {H: 0.5}}, "merged": {"adapter": said, "dtype": H}}
    return json.dumps({**dict.fromkeys(names, said), **maps, **more})


@pytest.mark.parametrize(
    "words",
    [
        "data check gold.jsonl --task general",
        "data check bad.jsonl --json",
        "data show gold.jsonl",
        "data show gold.jsonl --json",
        "data show bad.jsonl",
        "data convert bad.jsonl out.jsonl --to text",
        "data filter gold.jsonl out.jsonl",
        "diff one two",
        "diff one two --json",
        pytest.param("inspect one", marks=pytest.mark.slow),
        pytest.param("inspect one --json", marks=pytest.mark.slow),
        "ask yes:x --questions gold.jsonl --json",
        "compare yes:x yes:y --questions gold.jsonl",
        "compare yes:x yes:y --questions gold.jsonl --json",
        "eval yes:x --task general --evalset gold.jsonl",
        "data best-of general yes:x --prompts gold.jsonl -o out.jsonl",
        "train general --model one --data bad.jsonl -o run",
        "train general --data gold.jsonl -o run --resume",
    ],
)
def test_no_command_writes_text_that_controls_a_terminal(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("gold.jsonl", ROWS), ("bad.jsonl", BAD)):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("one", "two"):
        if "inspect" in words:
            make_checkpoint(Path(name))
        for file in ("config.json", "model.safetensors"):
            Path(name).mkdir(exist_ok=True)
            Path(name, file).touch()
        Path(name, "sftchat.json").write_text(manifest(name))
    engine = EngineType("yes", "says yes", lambda rest, options: ScriptedEngine(lambda request: f"yes{H}", name=f"yes:{rest}"))

    code = main(words.split(), obj=Session(given_registry=dataclasses.replace(load_plugins(), engines={"yes": engine})))

    assert code in (0, 1, 2, 3)
    shown = capsys.readouterr()
    assert shown.out + shown.err != ""
    assert [commands_in(text) for text in shown] == [[], []]


def test_escaped_json_is_the_same_json() -> None:
    value = {f"甲{H}": ["👩\u200d👧", "\U000e0001", H, "a\u3000b"]}

    assert json.loads(sanitize_json(json.dumps(value, ensure_ascii=False, indent=2))) == value
    assert sanitize_json('["甲 👩\u200d👧\u3000b"]') == '["甲 👩\u200d👧\u3000b"]'
    assert sanitize_json('["\x9b\u202e"]') == '["\\u009b\\u202e"]'
