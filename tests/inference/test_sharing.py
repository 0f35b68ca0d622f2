"""Adapters of one base share it, and each replies as when it is loaded alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import Engine, Request, collect
from sftchat.errors import ModelError
from sftchat.inference.open import AdapterEngine, EnginePool, load_engine
from sftchat.types import SamplingParams
from tests.conftest import make_checkpoint
from tests.inference.adapters_kit import make_adapter


class Opener:
    """Opener that records the opened models."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def __call__(self, model: str, **options: Any) -> Engine:
        self.opened.append(model)
        return load_engine(model, {}, **options)


def said(engine: Engine) -> str:
    request = Request("r", prompt="the user", sampling=SamplingParams(max_new_tokens=12))
    return getattr(dict(collect(engine, [request]))["r"], "text", "")


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for step in (10, 20):
        make_adapter(folder / f"checkpoint-{step}", tiny_checkpoint, step)
    return folder


def test_a_base_is_opened_once_for_all_its_adapters(run: Path, tiny_checkpoint: Path) -> None:
    models = [str(run / "checkpoint-10"), str(tiny_checkpoint), str(run / "checkpoint-20"), str(run / "checkpoint-10")]
    open_once = Opener()
    sharing = EnginePool(open_once, ())

    found = [said(sharing(model)) for model in models]

    assert open_once.opened == [str(tiny_checkpoint)]
    assert found == [said(load_engine(model, {})) for model in models]
    assert len(set(found)) == 3


def test_another_base_replaces_the_previous_one(run: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    other = str(make_checkpoint(tmp_path / "other", seed=7))
    opener = Opener()
    sharing = EnginePool(opener, ())

    first = sharing(str(tiny_checkpoint))
    sharing(other)
    sharing(str(run))

    assert opener.opened == [str(tiny_checkpoint), other, str(tiny_checkpoint)]
    assert isinstance(first, AdapterEngine)
    wide = EnginePool(opener, (), max_open=2)
    assert wide(other) is not wide(str(run))
    wide(other)
    assert opener.opened[3:] == [other, str(tiny_checkpoint)]


def test_an_unusable_adapter_does_not_affect_others(run: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    idle = make_adapter(tmp_path / "idle", tiny_checkpoint, 1)
    config = json.loads((idle / "adapter_config.json").read_text())
    (idle / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 0}))
    sharing = EnginePool(Opener(), ())

    with pytest.raises(ModelError, match="changes nothing"):
        sharing(str(idle))

    assert said(sharing(str(run))) == said(load_engine(str(run), {}))


def test_checkpoints_that_are_adapters_are_evaluated_on_one_base(
    run: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = tmp_path / "gold.jsonl"
    rows = [{"id": str(n), "messages": [{"role": "user", "content": f"{n}"}], "gold": "x"} for n in range(4)]
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows))
    opener = Opener()

    code = main(
        ["eval", str(run / "checkpoint-*"), "--task", "general", "--evalset", str(gold), "-o", str(tmp_path / "out"), "--quiet", "--json"],
        obj=Session(opener),
    )

    assert code == 0
    assert opener.opened == [str(tiny_checkpoint)]
    results = json.loads(capsys.readouterr().out)["results"]
    assert [Path(result["model"]).name for result in results] == ["checkpoint-10", "checkpoint-20"]
