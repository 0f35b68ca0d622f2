"""``sftchat eval`` with scorers of likelihoods."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy
import pytest

from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.engine import Engine, EngineType, Request
from sftchat.inference.open import load_engine
from sftchat.plugins import spec as hookspecs
from sftchat.plugins.manager import Registry
from sftchat.testing import ScriptedEngine
from tests.conftest import make_checkpoint

ROWS = [
    {
        "id": f"i{number}",
        "messages": [{"role": "user", "content": f"the user {number}"}],
        "gold": "ABC"[number % 3],
        "choices": ["talk", "and talk", "系统"],
    }
    for number in range(9)
]


@dataclass
class Desk:
    """Program with models by name; records opened models."""

    capsys: pytest.CaptureFixture[str]
    models: dict[str, Callable[[], Engine]]
    opened: list[Engine] = field(default_factory=list)

    def run(self, *words: object) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""

        def open_model(model: str, **options: Any) -> Engine:
            self.opened.append(self.models[model]())
            return self.opened[-1]

        manager = pluggy.PluginManager("sftchat")
        manager.add_hookspecs(hookspecs)
        registry = Registry(manager, {}, {"s": EngineType("s", "scripted", lambda rest, options: ScriptedEngine([]))})
        session = Session(open_model, registry, lambda model, **options: model.encode().hex().ljust(64, "0"))
        code = main(["eval", *map(str, words)], obj=session)
        out, err = self.capsys.readouterr()
        return code, out, err

    @property
    def requests(self) -> list[Request]:
        return [request for engine in self.opened for request in engine.requests]  # type: ignore[attr-defined]


def write_rows(path: str, rows: Sequence[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> Desk:
    monkeypatch.chdir(tmp_path)
    write_rows("mc.jsonl", ROWS)
    other = make_checkpoint(tmp_path / "other", seed=1)
    scripted = lambda: ScriptedEngine([], name="s:scripted", likeliest=[{"系": 0.5, " ": 0.3}])  # noqa: E731
    return Desk(
        capsys,
        {"s:tiny": lambda: load_engine(str(tiny_checkpoint), {}), "s:other": lambda: load_engine(str(other), {}), "s:scripted": scripted},
    )


def written(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@pytest.mark.parametrize("options", [("multiple_choice",), ("perplexity", "--raw-prompt")])
def test_a_second_run_opens_no_model_and_writes_the_same_bytes(desk: Desk, options: tuple[str, ...]) -> None:
    words = ("s:tiny", "--baseline", "s:other", "--evalset", "mc.jsonl", "--scorer", *options)
    first = desk.run(*words, "-o", "one")
    assert len(desk.opened) == 2
    desk.opened.clear()

    second = desk.run(*words, "-o", "two", "--temperature", "0")

    assert desk.opened == []
    assert first[0] == second[0]
    assert written("one") == written("two")
    assert "9 of 9 replies cached" in " ".join(second[1].split())


def test_reports_show_the_chosen_text_instead_of_json(desk: Desk) -> None:
    _, out, _ = desk.run(
        "s:tiny", "--baseline", "s:other", "--evalset", "mc.jsonl", "--scorer", "multiple_choice", "--markdown", "a.md", "--html", "a.html"
    )
    pages = [out, *(Path(name).read_text(encoding="utf-8") for name in ("a.md", "a.html"))]

    assert ["(log-" in page for page in pages] == [True, False, True]  # markdown lists changed items only, of which there are none
    assert not any("logprob" in page for page in pages)


def metrics(out: str) -> dict[str, float]:
    return {metric["name"]: metric["value"] for metric in json.loads(out)["results"][0]["metrics"]}


def test_the_most_likely_choice_is_the_answer(desk: Desk) -> None:
    code, out, _ = desk.run("s:scripted", "--evalset", "mc.jsonl", "--scorer", "multiple_choice", "--quiet", "--json")

    # every other character has the probability 0.001
    assert (code, metrics(out)["accuracy"], metrics(out)["accuracy_characters"]) == (0, pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert {(request.prompt, request.continuations, request.ended) for request in desk.requests} == {
        (None, ("talk", "and talk", "系统"), False)
    }


RAW = {
    "scorer": ("--scorer", "multiple_choice", "--scorer-option", "raw=true"),
    "option": ("--scorer", "multiple_choice", "--raw-prompt"),
    "task file": ("--task", "raw.toml"),
    "task file with the option": ("--task", "chat.toml", "--raw-prompt"),
}


@pytest.mark.parametrize("words", RAW.values(), ids=RAW)
def test_choices_follow_a_raw_prompt_after_the_delimiter(desk: Desk, words: tuple[str, ...]) -> None:
    scorer = '[scorer]\nname = "multiple_choice"\nended = true\n'
    Path("raw.toml").write_text(f"raw_prompt = true\n{scorer}", encoding="utf-8")
    Path("chat.toml").write_text(scorer, encoding="utf-8")

    code, out, err = desk.run("s:scripted", "--evalset", "mc.jsonl", *words, "--quiet", "--json")

    assert code == 0, err
    request = desk.requests[0]
    assert (request.messages, request.prompt, request.continuations) == ((), "the user 0", (" talk", " and talk", " 系统"))
    assert request.ended == ("--task" in words)
    assert metrics(out)["accuracy"] == pytest.approx(1 / 3)


def test_texts_without_turns_have_a_perplexity_after_an_empty_prompt(desk: Desk) -> None:
    write_rows("texts.jsonl", [{"text": "系a"}, {"text": "ab c"}])
    words = ("s:scripted", "--evalset", "texts.jsonl", "--scorer", "perplexity", "--quiet")

    code, out, _ = desk.run(*words, "--raw-prompt", "--json")

    assert (code, [(request.prompt, request.continuations) for request in desk.requests]) == (0, [("", ("系a",)), ("", ("ab c",))])
    assert metrics(out)["perplexity"] == pytest.approx((0.5 * 0.001**5) ** (-1 / 6))
    code, _, err = desk.run(*words)
    assert (code, err.split("\n")[-2]) == (2, "sftchat: error: texts.jsonl:1: row 'row-000001' has no messages to be answered")


BAD_ROWS = {
    "none": ({"choices": None}, "the row needs 'choices': a list of at least two texts"),
    "one": ({"choices": ["talk"]}, "the row needs 'choices': a list of at least two texts"),
    "equal": ({"choices": ["talk", "talk"]}, "two choices of the row are equal"),
    "gold": ({"gold": "D"}, "the gold reply is not the text, the letter or the index of one of the choices"),
}


@pytest.mark.parametrize(("change", "problem"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_cannot_be_scored_is_named_with_its_line(desk: Desk, change: dict[str, Any], problem: str) -> None:
    write_rows("mc.jsonl", [ROWS[0], ROWS[1] | change])

    code, _, err = desk.run("s:scripted", "--evalset", "mc.jsonl", "--scorer", "multiple_choice")

    assert (code, err.split("\n")[-2], desk.opened) == (2, f"sftchat: error: mc.jsonl:2: {problem}", [])


def test_several_samples_of_likelihoods_are_refused(desk: Desk) -> None:
    words = ("s:scripted", "--evalset", "mc.jsonl", "--scorer", "multiple_choice", "-k", 3, "--temperature", 1)

    code, _, err = desk.run(*words)

    assert (code, desk.opened) == (2, [])
    assert "3 samples would have equal likelihoods: leave -k out" in err


def test_stored_replies_of_another_program_are_scored_by_text_and_letter(desk: Desk) -> None:
    replies = {"i0": "A", "i1": "and talk.", "i2": "(C)", "i3": "B", "i4": "talk", "i5": "", "i6": "I do not know", "i7": "b", "i8": "2"}
    write_rows("replies.jsonl", [{"id": id, "reply": reply} for id, reply in replies.items()])

    code, out, _ = desk.run(
        "--replies", "replies.jsonl", "--evalset", "mc.jsonl", "--scorer", "multiple_choice", "--quiet", "--json"
    )  # fmt: skip

    result = json.loads(out)["results"][0]
    assert (code, metrics(out)["accuracy"], result["errors"]) == (0, pytest.approx(4 / 9), {"wrong_choice": 4, "empty": 1})
