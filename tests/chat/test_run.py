"""`sftchat chat`: several models, the last conversation, and refusals before anything is loaded."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat.chat import commands as builtin
from sftchat.chat.context import Settings
from sftchat.chat.conversation import Answer, Conversation
from sftchat.chat.run import prepare_openings
from sftchat.chat.sessions import SESSIONS_FILE, SessionStore
from sftchat.chat.sessions import Session as Kept
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine
from sftchat.types import Reply, SamplingParams
from tests.chat.test_models import Adapting
from tests.cli.test_ask import TASK, Terminal


def registry() -> Registry:
    return Registry(
        pluggy.PluginManager("sftchat"), tasks={"family": TASK}, commands={command.name: command for command in builtin.BUILTINS}
    )


def run(monkeypatch: pytest.MonkeyPatch, text: str, *words: str, engine: Any = None) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    made = engine or (lambda model, **options: ScriptedEngine(lambda request: f"{model} {len(request.messages)}", chunks=99))
    return main(["chat", *words], obj=Session(made, registry()))


def weights(folder: Path, base: str = "") -> Path:
    """Write the files that identify a checkpoint or an adapter."""
    folder.mkdir()
    if base:
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / ("adapter_model.safetensors" if base else "model.safetensors")).write_bytes(b"")
    if not base:
        (folder / "config.json").write_text("{}")
    return folder


def plan(session: Session, models: Sequence[Path]) -> list[tuple[str, str, int]]:
    """Return model, adapter and engine of every pane."""
    found = prepare_openings([session.resolve(str(model)) for model in models], session.load_engine, {"base": None})
    loads = list(dict.fromkeys(opening.load for opening in found))
    return [(Path(opening.models[0]).name, Path(opening.adapters[0]).name, loads.index(opening.load)) for opening in found]


def test_adapters_of_one_base_and_the_base_itself_share_an_engine(tmp_path: Path) -> None:
    base, other = weights(tmp_path / "base"), weights(tmp_path / "other")
    first, second = weights(tmp_path / "first", str(base)), weights(tmp_path / "second", str(base))

    session = Session(given_registry=registry())
    assert plan(session, [base, first, other, second]) == [
        ("base", "", 0),
        ("first", "first", 0),
        ("other", "", 1),
        ("second", "second", 0),
    ]
    assert plan(session, [base, other]) == [("base", "", 0), ("other", "", 1)]
    assert plan(session, [first]) == [("first", "", 0)]


def test_the_shared_engine_is_the_base_with_all_adapters(tmp_path: Path) -> None:
    base = weights(tmp_path / "base")
    adapters = [weights(tmp_path / name, str(base)) for name in ("one", "two")]
    opened: list[str] = []

    class Opening(Session):
        """Opens scripted engines for real folders."""

        def load_engine(self, model: str, **options: Any) -> Any:
            opened.append(Path(model).name)
            return Adapting()

    session = Opening(given_registry=registry())
    found = prepare_openings([session.resolve(str(adapter)) for adapter in adapters], session.load_engine, {"base": None})
    engine = found[0].load()
    assert isinstance(engine, Adapting)
    assert (opened, [Path(name).name for name in engine.adapters]) == (["base"], ["one", "two"])


def test_models_that_cannot_be_compared_are_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    weights(tmp_path / "good")
    (tmp_path / "empty").mkdir()
    for second, complaint in (
        ("empty", "folder 'empty' is no model"),
        ("./good", "'good' and './good' are the same"),
        ("goood", "no folder 'goood'"),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO("x\n"))
        assert main(["chat", "good", second], obj=Session(given_registry=registry())) in (2, 3)
        assert complaint in capsys.readouterr().err


def test_two_models_answer_every_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "x\n", "a", "b") == 0
    assert {"a 1", "b 1"} <= {line.partition(": ")[2] or line for line in capsys.readouterr().out.splitlines()}


def test_without_a_model_a_pipe_gets_the_name_of_the_newest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "x\n") == 2
    assert "no MODEL given; the embedded one is sftchat:nano" in capsys.readouterr().err
    weights(tmp_path / "mine")
    assert run(monkeypatch, "x\n") == 2
    assert "no MODEL given, such as 'mine'" in capsys.readouterr().err


def test_without_a_model_a_terminal_offers_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    weights(tmp_path / "mine")
    opened: list[str] = []

    def load(model: str, **options: Any) -> ScriptedEngine:
        opened.append(model)
        return ScriptedEngine(["fine"], chunks=99)

    stdout = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal("3\nhello\n"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        assert main(["chat"], obj=Session(load, registry())) == 0
    assert opened == ["sftchat:nano"]
    assert [line.split()[:2] for line in capsys.readouterr().err.splitlines()[:3]] == [
        ["1", "mine"],
        ["2", "sftchat:smollm2"],
        ["3", "sftchat:nano"],
    ]
    assert "fine" in stdout.getvalue()


def test_without_a_model_a_chosen_model_that_is_not_here_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("sftchat.models.fetch.fetch", lambda model, say: fetched.append(model.name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdin", Terminal("1\nhello\n"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Terminal())
        main(["chat"], obj=Session(lambda model, **options: ScriptedEngine(["fine"]), registry()))

    assert fetched == ["smollm2"]
    assert "SmolLM2-135M-Instruct, 93 MB to download" in capsys.readouterr().err


@pytest.fixture
def kept() -> Path:
    """Write a session of an earlier chat to disk."""
    from platformdirs import user_data_path

    path = user_data_path("sftchat", appauthor=False) / SESSIONS_FILE
    session = Kept(SessionStore(path, print))
    conversation = Conversation("s").ask("a").answer(Answer(Reply("b")))
    session.save(conversation, Settings(SamplingParams(temperature=0.5, seed=9)), ["one"])
    return path


def test_the_last_conversation_is_resumed_with_its_model_and_settings(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = ScriptedEngine(["c", "d"], chunks=9)
    opened: list[str] = []

    def load(model: str, **options: Any) -> ScriptedEngine:
        opened.append(model)
        return engine

    assert run(monkeypatch, "more\n", "--continue", "--seed", "3", engine=load) == 0
    assert capsys.readouterr().out == "c\n"
    assert opened == ["one"]
    assert [message["content"] for message in engine.requests[0].messages] == ["s", "a", "b", "more"]
    assert engine.requests[0].sampling == SamplingParams(temperature=0.5, seed=3)

    assert run(monkeypatch, "again\n", "two", "--session", "1", "--system", "new", "--overflow", "refuse", engine=load) == 0
    assert opened == ["one", "two"]
    assert [message["content"] for message in engine.requests[1].messages] == ["new", "a", "b", "more", "c", "again"]


def test_a_piped_conversation_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    from platformdirs import user_data_path

    assert run(monkeypatch, "x\n", "a") == 0
    assert not (user_data_path("sftchat", appauthor=False) / SESSIONS_FILE).exists()


def test_an_unwritable_home_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(blocked))

    assert run(monkeypatch, "x\n", "a") == 0
    assert capsys.readouterr().out == "a 1\n"
