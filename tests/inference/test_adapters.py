"""Several adapters of one base in one batch: each reply equals that of its adapter alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from sftchat.engine import OFF, Adapts, Request, collect
from sftchat.errors import ModelError, UsageError
from sftchat.inference.local import TransformersEngine
from sftchat.inference.open import load_engine
from sftchat.models.loading import load
from sftchat.models.reference import resolve
from sftchat.types import Message, Reply, SamplingParams
from tests.conftest import make_checkpoint
from tests.inference.adapters_kit import make_adapter

TEXTS = ("hi", "你好", "the user and the assistant talk")


@pytest.fixture(scope="module")
def folders(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("adapters")
    found = {"A": make_adapter(root / "a.v1", tiny_checkpoint, 1), "B": make_adapter(root / "b", tiny_checkpoint, 2, rank=8)}
    return {"base": str(tiny_checkpoint)} | {name: str(path) for name, path in found.items()}


def open_engine(model: str) -> TransformersEngine:
    engine = load_engine(model, {})
    assert isinstance(engine, TransformersEngine)
    return engine


def request(text: str, adapter: str = "", **sampling: object) -> Request:
    messages = (Message(role="user", content=text),)
    return Request(f"{text}|{adapter}", messages, sampling=SamplingParams(**({"max_new_tokens": 16} | sampling)), adapter=adapter)  # type: ignore[arg-type]


def replies(engine: TransformersEngine, *requests: Request) -> list[Reply]:
    found = dict(collect(engine, requests))
    assert [reply for reply in found.values() if not isinstance(reply, Reply)] == []
    return [reply for asked in requests if isinstance(reply := found[asked.id], Reply)]


@pytest.fixture(scope="module")
def alone(folders: dict[str, str]) -> dict[str, list[Reply]]:
    """Return the reply of each model when it is loaded alone."""
    return {name: replies(open_engine(folder), *map(request, TEXTS)) for name, folder in folders.items()}


def test_adapters_of_one_batch_reply_as_each_does_alone(folders: dict[str, str], alone: dict[str, list[Reply]]) -> None:
    engine = open_engine(folders["A"])
    engine.add_adapter("b", folders["B"])
    names = {"A": "", "B": "b", "base": OFF}

    found = replies(engine, *[request(text, adapter) for text in TEXTS for adapter in names.values()])

    by_text = [[alone[name][place] for name in names] for place in range(len(TEXTS))]
    assert found == [reply for replies in by_text for reply in replies]
    assert len({reply.text for reply in by_text[0]}) == 3  # the adapters differ
    assert isinstance(engine, Adapts)
    assert engine.adapters == (folders["A"], "b")


def test_an_adapter_is_put_on_a_base_that_was_loaded_without_any(folders: dict[str, str], alone: dict[str, list[Reply]]) -> None:
    engine = open_engine(folders["base"])
    before = replies(engine, *map(request, TEXTS))
    engine.add_adapter("b", folders["B"])

    asked = [*(request(text, "b") for text in TEXTS), *map(request, TEXTS)]

    assert before == alone["base"]
    assert replies(engine, *asked) == [*alone["B"], *alone["base"]]
    assert replies(engine, *asked[:3]) == alone["B"]  # a batch with a single adapter takes another code path
    assert replies(engine, *asked[3:]) == alone["base"]


def test_one_seed_gives_one_sample_for_any_adapters_in_the_batch(folders: dict[str, str]) -> None:
    engine = open_engine(folders["A"])
    engine.add_adapter("b", folders["B"])
    asked = [request("hi", adapter, temperature=1.0, seed=3) for adapter in ("", "b", OFF)]

    assert replies(engine, *asked) == [replies(engine, one)[0] for one in asked]


def test_a_sum_of_adapters_changes_the_weights_by_the_weighted_sum(folders: dict[str, str]) -> None:
    import torch

    engine = open_engine(folders["A"])
    engine.add_adapter("b", folders["B"])
    engine.mix_adapters("a and b", {folders["A"]: 0.25, "b": 0.75})
    reply = replies(engine, request("hi", "a and b"))[0]

    a, b, base = (load(resolve(folders[name])) for name in ("A", "B", "base"))
    merged = [dict(other.model.merge_and_unload().named_parameters()) for other in (a, b)]
    with torch.no_grad():
        for name, parameter in base.model.named_parameters():
            parameter += 0.25 * (merged[0][name] - parameter) + 0.75 * (merged[1][name] - parameter)
    assert reply == replies(TransformersEngine("sum", base), request("hi"))[0]


def test_keys_and_values_of_another_adapter_are_never_used(folders: dict[str, str], alone: dict[str, list[Reply]]) -> None:
    engine = open_engine(folders["A"])
    engine.add_adapter("b", folders["B"])

    for adapter, name in (("", "A"), ("b", "B"), (OFF, "base"), ("", "A")):
        assert replies(engine, request(TEXTS[2], adapter)) == [alone[name][2]]


def test_adapters_that_cannot_share_a_batch_take_turns(folders: dict[str, str], tiny_checkpoint: Path, tmp_path: Path) -> None:
    dora = str(make_adapter(tmp_path / "dora", tiny_checkpoint, 3, use_dora=True))
    expected = replies(open_engine(dora), *map(request, TEXTS))
    engine = open_engine(folders["A"])
    own = replies(engine, *map(request, TEXTS))
    engine.add_adapter("d", dora)

    found = replies(engine, *[request(text, adapter) for text in TEXTS for adapter in ("", "d")])

    assert found == [reply for pair in zip(own, expected, strict=True) for reply in pair]
    with pytest.raises(ModelError, match="cannot be mixed: only plain LoRA adapters can"):
        engine.mix_adapters("both", {folders["A"]: 1, "d": 1})


def test_an_invalid_adapter_is_refused_in_one_line_and_changes_nothing(
    folders: dict[str, str], alone: dict[str, list[Reply]], tmp_path: Path
) -> None:
    other = make_checkpoint(tmp_path / "other", seed=5)
    foreign = str(make_adapter(tmp_path / "foreign", other, 4))
    engine = open_engine(folders["A"])

    with pytest.raises(ModelError, match=r"adapter '.*foreign' was made for base '.*other'; the base here is '.*checkpoint'"):
        engine.add_adapter("f", foreign)
    with pytest.raises(ModelError, match="is no adapter; the folder of one has adapter_config.json"):
        engine.add_adapter("f", folders["base"])
    for name in ("", OFF, folders["A"]):
        with pytest.raises(UsageError, match="is taken; give another"):
            engine.add_adapter(name, folders["B"])
    with pytest.raises(UsageError, match="unknown adapter 'b'"):
        engine.mix_adapters("mixed", {folders["A"]: 1, "b": 1})
    (tmp_path / "broken").mkdir()
    for file in Path(folders["B"]).iterdir():
        (tmp_path / "broken" / file.name).write_bytes(file.read_bytes() if file.suffix != ".safetensors" else b"nothing")
    with pytest.raises(ModelError, match="could not be loaded"):
        engine.add_adapter("b", str(tmp_path / "broken"))

    assert replies(engine, *map(request, TEXTS)) == alone["A"]
    assert engine.adapters == (folders["A"],)
    engine.add_adapter("b", folders["B"])
    assert replies(engine, *[request(text, "b") for text in TEXTS]) == alone["B"]


def test_a_request_for_an_unknown_adapter_fails_alone(folders: dict[str, str]) -> None:
    found = dict(collect(open_engine(folders["A"]), [request("hi", "nobody"), request("hi")]))

    assert str(found["hi|nobody"]).startswith("unknown adapter 'nobody'")
    assert isinstance(found["hi|"], Reply)


@pytest.mark.slow
def test_an_adapter_is_loaded_when_imports_were_left_out(folders: dict[str, str]) -> None:
    import subprocess
    import sys

    words = ["compare", folders["base"], folders["A"], "-q", "hi", "--max-new-tokens", "4", "--json"]
    done = subprocess.run([sys.executable, "-m", "sftchat", *words], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count('"reply"') == 2
