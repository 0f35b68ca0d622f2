"""The second run of every way to evaluate opens no model: replies, samples, likelihoods and verdicts are cached."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import Engine, EngineType, Request
from sftchat.plugins import spec as hookspecs
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine

RUBRIC = """
name = "tone"
pass_threshold = 0.5
[[criteria]]
name = "polite"
description = "The reply is polite."
min = 0
max = 1
"""
VERDICT = '{"reason": "polite", "scores": {"polite": 1}}'
MODES = {
    "samples": ("--scorer", "exact", "-k", "4", "--temperature", "0.7"),
    "likelihoods": ("--scorer", "multiple_choice"),
    "few-shot": ("--scorer", "exact", "--few-shot", "1"),
    "raw": ("--scorer", "exact", "--raw-prompt"),
    "judge": ("--judge", "s:judge", "--rubric", "rubric.toml"),
    "pairs": ("--judge", "s:judge", "--against", "s:other"),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_second_run_opens_no_model(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFTCHAT_CACHE_DIR", str(tmp_path / "cache"))
    rows = [{"prompt": f"question {number}", "gold": "ab", "choices": ["ab", "ba"]} for number in range(3)]
    Path("gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("rubric.toml").write_text(RUBRIC, encoding="utf-8")
    opened: list[str] = []
    replies: dict[str, Callable[[Request], Any]] = {
        "s:one": lambda request: "ab" if request.sampling.seed % 2 else "ba",
        "s:other": lambda request: "other",
        "s:judge": lambda request: VERDICT if "polite" in str(request.messages) else '{"reason": "same", "winner": "tie"}',
    }

    def open_engine(name: str, **options: Any) -> Engine:
        opened.append(name)
        return ScriptedEngine(replies[name], name=name, likeliest=[{"a": 0.7, "b": 0.2}, {"b": 0.6, "a": 0.3}])

    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)
    types = {"s": EngineType("s", "scripted", lambda rest, options: ScriptedEngine([]))}
    session = Session(open_engine, Registry(manager, {}, types), lambda name, **options: name.encode().hex())
    words = ["eval", "s:one", "--evalset", "gold.jsonl", *MODES[mode], "--json", "--quiet"]

    first = (main(words, obj=session), capsys.readouterr().out)
    models = set(opened)
    opened.clear()
    second = (main(words, obj=session), capsys.readouterr().out)

    assert models == {"s:one", *(("s:judge",) if "judge" in " ".join(words) else ()), *(("s:other",) if mode == "pairs" else ())}
    assert (first[0], opened) == (0, [])
    assert second == first


def test_more_samples_ask_only_for_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SFTCHAT_CACHE_DIR", str(tmp_path / "cache"))
    Path("gold.csv").write_text("text,label\nquestion,answer\n", encoding="utf-8")
    asked: list[Request] = []

    class Listening(ScriptedEngine):
        def close(self) -> None:
            asked.extend(self.requests)
            super().close()

    manager = pluggy.PluginManager("sftchat")
    manager.add_hookspecs(hookspecs)
    types = {"s": EngineType("s", "scripted", lambda rest, options: ScriptedEngine([]))}
    session = Session(
        lambda name, **options: Listening(lambda request: "answer", name=name),
        Registry(manager, {}, types),
        lambda name, **options: "ab",
    )
    words = ["eval", "s:one", "--evalset", "gold.csv", "--scorer", "exact", "--temperature", "0.7", "--quiet"]

    for samples in ("2", "5"):
        assert main([*words, "-k", samples], obj=session) == 0
    capsys.readouterr()

    assert [request.id for request in asked] == ["0#row-000001", "1#row-000001", "2#row-000001", "3#row-000001", "4#row-000001"]
