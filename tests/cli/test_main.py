"""The whole program: its help, its exit codes, and its one-line errors."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest

from sftchat import EngineError, Example, Message, Metric, NotComparableError, Score, SftchatError, Task, UsageError
from sftchat.cli import VERBS, console_script, main, program, show_warning
from sftchat.cli.session import Session
from sftchat.errors import SftchatWarning
from sftchat.plugins.manager import PluginInfo, Registry, load_plugins
from tests.conftest import make_checkpoint

ROW = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'


def colours(n: int, seed: int) -> list[Example]:
    return [Example((Message(role="user", content=f"q{seed}-{i}"),), "a", id=str(i)) for i in range(n)]


TASK = Task("colours", "says colours", colours, lambda e, r: Score({"n": 1}), (Metric("n", lambda sums: sums["n"]),))


@pytest.fixture
def session() -> Session:
    empty = load_plugins([])
    broken = PluginInfo("broken", "dist 1.0", problem="ImportError: no module named 'nowhere'")
    return Session(
        given_registry=Registry(empty.manager, {"colours": TASK}, {}, {}, (broken, PluginInfo("good", "dist 2.0", tasks=("colours",))))
    )


def complaint(capsys: pytest.CaptureFixture[str], session: Session, *words: str) -> tuple[int, str]:
    """Exit code and the one line on stderr; nothing may be on stdout."""
    code = main(list(words), obj=session)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    return code, err.removeprefix("sftchat: error: ").rstrip("\n")


def test_the_help_lists_every_verb_and_each_has_an_example_that_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    listed = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb} " in listed
        main([verb, "--help"])
        assert f"sftchat {verb}" in capsys.readouterr().out.split("Usage:")[1].split("\n", 2)[2]


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sftchat {version('sftchat')}\n"


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["trian"], 2, "unknown command 'trian'; did you mean 'train'? (available: ask, cache, chat, ci, compare, data, demo, diff, eval, export, fetch, history, inspect, judge-check, merge, new-plugin, new-task, plugins, train); see 'sftchat --help'"),
        (["data", "genrate"], 2, "no such command 'genrate'; did you mean 'generate'?"),
        (["train", "colours", "-o", "x", "--max-step", "3"], 2, "no such option '--max-step'; did you mean '--eval-steps', '--max-steps' or '--save-steps'?"),
        (["train", "colours", "-o", "x", "--max-steps", "0"], 2, "invalid value for '--max-steps': 0 is not in the range x>=1; see 'sftchat train --help'"),
        (["train"], 2, "missing option '-o' / '--output'; see 'sftchat train --help'"),
        (["train", "colours"], 2, "missing option '-o' / '--output'; see 'sftchat train --help'"),
        (["train", "colour", "-o", "x"], 2, "unknown task 'colour'; did you mean 'colours'? (available: colours); not loaded: broken, see 'sftchat plugins'"),
        (["train", "colours", "-o", "x", "--method", "magic"], 2, "invalid value for '--method': 'magic' is not one of 'full', 'lora', 'dora', 'qlora'; see 'sftchat train --help'"),
        (["train", "colours", "-o", "x", "--model", "sftchat:nani"], 2, "unknown model 'sftchat:nani'; did you mean 'sftchat:nano'? (available: sftchat:nano, sftchat:smollm2)"),
        (["train", "colours", "-o", "x", "--data", "f", "-n", "3"], 2, "--rows and --option are for the generator; with --data give neither"),
        (["demo", "colours"], 2, "unknown demonstration 'colours' (available: none)"),
        (["demo"], 2, "no installed task has a demonstration; see 'sftchat plugins'"),
        (["inspect", "nowhere"], 2, "no folder 'nowhere'; the embedded model is sftchat:nano, a Hub model is written org/name, a server http://HOST:PORT/v1#MODEL"),
        (["ask", "nowhere", "hi"], 2, "no folder 'nowhere'; the embedded model is sftchat:nano, a Hub model is written org/name, a server http://HOST:PORT/v1#MODEL"),
        (["eval", "nowhere"], 2, "task 'colours' brings no evalset; give one with --evalset FILE"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    assert complaint(capsys, session, *words) == (code, line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"\xff\xfe\x00", "UTF-8"),
        (ROW.encode() + b'{"messages": [}\n', ":2"),
        (b'{"colour": "red"}\n', ":1"),
    ],
)
def test_unreadable_rows_are_reported_with_their_place(
    capsys: pytest.CaptureFixture[str], session: Session, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)

    code, line = complaint(capsys, session, "train", "colours", "--data", str(path), "-o", str(tmp_path / "run"))

    assert code == 2
    assert line.startswith(str(path))
    assert words.lower() in line.lower()
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_kept(capsys: pytest.CaptureFixture[str], session: Session, tmp_path: Path) -> None:
    (tmp_path / "sftchat.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")

    code, line = complaint(capsys, session, "train", "colours", "-o", str(tmp_path))

    assert (code, line) == (2, f"output folder '{tmp_path}' already holds a run; continue it with --resume, or give another -o")
    assert (tmp_path / "sftchat.json").read_text() == "{}"


def test_a_checkpoint_without_weights_could_not_be_loaded(capsys: pytest.CaptureFixture[str], session: Session, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    code, line = complaint(capsys, session, "ask", str(tmp_path), "hi")

    assert (code, line) == (3, f"checkpoint '{tmp_path}' has no weights; expected model.safetensors or model.safetensors.index.json")


def test_truncated_weights_could_not_be_loaded(capsys: pytest.CaptureFixture[str], session: Session, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    code, line = complaint(capsys, session, "ask", str(folder), "hi")

    assert code == 3
    assert line.startswith(f"model of '{folder}' could not be loaded: ")


def test_an_unreachable_hub_model_is_reported_with_what_to_check(
    capsys: pytest.CaptureFixture[str], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the Hub's client waits half a minute between attempts

    code, line = complaint(capsys, session, "ask", "nobody/nothing", "hi")

    assert code == 3
    assert line.startswith("tokenizer of 'nobody/nothing' could not be fetched from the Hub: ")
    assert line.endswith("check the name and the network, or give a local folder")


def test_a_broken_plugin_is_listed_with_its_reason(capsys: pytest.CaptureFixture[str], session: Session) -> None:
    assert main(["plugins"], obj=session) == 0

    assert capsys.readouterr().out == (
        "broken        not loaded: ImportError: no module named 'nowhere'  (dist 1.0)\ntask colours  says colours  (dist 2.0)\n"
    )


def raising(error: BaseException) -> Session:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return Session(open_engine=fail, given_registry=load_plugins([]))


@pytest.mark.parametrize(("error", "code"), [(EngineError("gone"), 3), (NotComparableError("other set"), 4), (SftchatError("no"), 3)])
def test_each_error_has_its_exit_code(capsys: pytest.CaptureFixture[str], error: SftchatError, code: int) -> None:
    assert main(["ask", "m", "hi"], obj=raising(error)) == code
    assert capsys.readouterr().err == f"sftchat: error: {error}\n"


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


class Sly(SftchatError):
    exit_code = 0


class Slyer(SftchatError):
    exit_code = 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("x"), "unexpected KeyError: 'x', in {here}; this is a bug, --traceback shows more"),
        (MemoryError(), "unexpected MemoryError:, in {here}; this is a bug, --traceback shows more"),
        (RecursionError("deep"), "unexpected RecursionError: deep, in {here}; this is a bug, --traceback shows more"),
        (SystemExit(0), "unexpected SystemExit: 0, in {here}; this is a bug, --traceback shows more"),
        (SystemExit(1), "unexpected SystemExit: 1, in {here}; this is a bug, --traceback shows more"),
        (GeneratorExit(), "unexpected GeneratorExit:, in {here}; this is a bug, --traceback shows more"),
        (Mute(), "unexpected Mute: (its message cannot be read), in {here}; this is a bug, --traceback shows more"),
        (ValueError("two\nlines"), "unexpected ValueError: two lines, in {here}; this is a bug, --traceback shows more"),
        (OSError(28, "No space left on device", "/x"), "'/x': no space left on device; the system refused it, --traceback shows where"),
        (OSError("odd"), "unexpected OSError: odd, in {here}; this is a bug, --traceback shows more"),
        (click.FileError("f", "gone"), "Could not open file 'f': gone"),
        (Sly("no"), "no"),
        (Slyer("no"), "no"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_unforeseen_error_is_one_line_and_never_0_or_1(capsys: pytest.CaptureFixture[str], error: BaseException, line: str) -> None:
    raised = raising(error).open_engine.__code__.co_firstlineno + 1  # type: ignore[union-attr]

    assert main(["ask", "m", "hi"], obj=raising(error)) == 3
    assert capsys.readouterr() == ("", f"sftchat: error: {line.format(here=f'{__file__}:{raised}')}\n")


@pytest.mark.parametrize(("error", "code"), [(KeyError("x"), 3), (UsageError("no"), 2), (KeyboardInterrupt(), 130), (SystemExit(1), 3)])
def test_an_error_keeps_its_exit_code_when_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stderr", full)
        assert main(["ask", "m", "hi"], obj=raising(error)) == code
        monkeypatch.setattr("sys.stderr", None)
        assert main(["ask", "m", "hi"], obj=raising(error)) == code
        monkeypatch.undo()
        with suppress(OSError):
            full.close()


def test_an_interruption_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "m", "hi"], obj=raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "\nsftchat: interrupted\n"


def test_a_traceback_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--traceback", "ask", "m", "hi"], obj=raising(EngineError("gone"))) == 3

    shown = capsys.readouterr().err.splitlines()
    assert (shown[0], shown[-1]) == ("Traceback (most recent call last):", "sftchat.errors.EngineError: gone")


def test_a_missing_extra_is_reported_with_the_command_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, session: Session
) -> None:
    monkeypatch.setattr("sftchat.models.loading.find_spec", lambda name: None)

    assert complaint(capsys, session, "ask", "sftchat:nano", "hi") == (
        3,
        "model 'sftchat:nano' needs packages that are not installed: pip install 'sftchat[local]'",
    )
    assert complaint(capsys, session, "train", "colours", "-o", "run")[1] == (
        "training needs packages that are not installed: pip install 'sftchat[local]'"
    )


def test_every_verb_is_a_command() -> None:
    context = click.Context(program)

    assert all(isinstance(program.get_command(context, verb), click.Command) for verb in VERBS)


def test_a_warning_of_sftchat_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_warning(SftchatWarning("two\nlines"), SftchatWarning, "file.py", 1)

    assert capsys.readouterr() == ("", "sftchat: warning: two lines\n")


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["none", "spins", "policy"],
)
def test_threads_wait_as_the_user_configured_or_else_briefly(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], spins: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "0")  # variables that the program sets are restored afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["sftchat", "--version"])
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)

    with pytest.raises(SystemExit):
        console_script()

    assert os.environ.get("GOMP_SPINCOUNT") == spins
