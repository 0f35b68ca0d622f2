"""`sftchat data` from the command line: arguments in, files and exit codes out."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pluggy
import pytest

from sftchat import Example, Message, Metric, Score, Task, rate
from sftchat.cli import main
from sftchat.cli.session import Session
from sftchat.plugins.manager import Registry


def generate(
    n: int, seed: int, *, word: str = "甲", share: float = 0.5, loud: bool = False, times: int = 1, names: tuple[str, ...] = ()
) -> Iterator[Example]:
    """Yield rows that show their options; some options make the generator misbehave."""
    if share > 1:
        raise ValueError(f"share is {share}, must be from 0 to 1")
    for index in range(n + (word == "more") - (word == "fewer")):
        if word == "break" and index == 2:
            raise KeyError("gone")
        id = "same" if word == "same" and index else ""
        yield Example((Message(role="user", content=f"{seed}.{index} {word * times}"),), "!" if loud else "，".join(names) or "无", id=id)


def required(n: int, seed: int, *, book: str) -> Iterator[Example]:
    """Generator with a required option."""
    yield from (Example((), f"{book} {index}") for index in range(n))


METRICS: tuple[Metric, ...] = (rate("exact_match", "correct"),)


def score(example: Example, reply: object) -> Score:
    return Score({"n": 1, "correct": 0})


TASKS = {
    "echo": Task("echo", "says it again", generate, score, METRICS, validate_row=lambda example: ["shouts"] if example.gold == "!" else []),
    "book": Task("book", "reads a book", required, score, METRICS, row_format="text"),
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> int:
    return main(["data", *words], obj=Session(given_registry=Registry(pluggy.PluginManager("sftchat"), TASKS)))


def error(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    """Return the error line of a command."""
    assert run(*words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sftchat: error: ")
    return captured.err.removeprefix("sftchat: error: ").removesuffix("\n")


def test_generate_writes_rows_in_the_tasks_own_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "echo", "-n", "2", "--seed", "7", "-o", "f") == 0
    assert [json.loads(line) for line in Path("f").read_text(encoding="utf-8").splitlines()] == [
        {"messages": [{"role": "user", "content": "7.0 甲"}, {"role": "assistant", "content": "无"}]},
        {"messages": [{"role": "user", "content": "7.1 甲"}, {"role": "assistant", "content": "无"}]},
    ]
    told = "wrote 2 rows of task echo to f (seed=7, word=甲, share=0.5, loud=False, times=1, names=())\n"
    assert capsys.readouterr() == ("", told)


def test_generate_gives_the_same_bytes_for_the_same_seed() -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run("generate", "echo", "-n", "5", "--seed", seed, "-o", name) == 0
    assert Path("a").read_bytes() == Path("b").read_bytes()
    assert Path("a").read_bytes() != Path("c").read_bytes()


def test_generate_takes_a_format_and_options_of_the_types_of_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("word=乙", "share=1", "times=2", "names=甲, 丙", "loud=no")
    flags = [part for option in options for part in ("--option", option)]
    assert run("generate", "echo", "-n", "1", "-o", "-", "--format", "evalset", "--quiet", *flags) == 0
    row = '{"id": "row-000001", "messages": [{"role": "user", "content": "0.0 乙乙"}], "gold": "甲，丙"}\n'
    assert capsys.readouterr() == (row, "")


def test_generate_refuses_options_that_the_generator_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*pairs: str) -> str:
        return error(capsys, 2, "generate", "echo", "-n", "1", "-o", "f", *[part for pair in pairs for part in ("--option", pair)])

    assert refused("wrod=a") == "unknown option of task echo 'wrod'; did you mean 'word'? (available: loud, names, share, times, word)"
    assert refused("word") == "option 'word' has no '='; write it as NAME=VALUE"
    assert refused("word=a", "word=b") == "option 'word' is given twice; give it once"
    assert refused("loud=maybe") == "option 'loud' is 'maybe', must be true or false"
    assert refused("times=1.5") == "option 'times' is '1.5', must be a whole number, such as 1"
    assert refused("share=half") == "option 'share' is 'half', must be a number, such as 0.5"
    assert refused("share=2") == "task 'echo': share is 2.0, must be from 0 to 1"
    assert list(Path().iterdir()) == []


def test_generate_requires_an_option_that_has_no_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert error(capsys, 2, "generate", "book", "-n", "1", "-o", "f") == "task 'book' needs the option 'book'; give --option book=VALUE"
    assert run("generate", "book", "-n", "1", "-o", "-", "-q", "--option", "book=红楼梦") == 0
    assert capsys.readouterr() == ('{"text": "红楼梦 0"}\n', "")


def test_generate_refuses_an_impossible_task_count_or_place(capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("old")
    unknown = error(capsys, 2, "generate", "ecko", "-n", "1", "-o", "f")
    assert unknown == "unknown task 'ecko'; did you mean 'echo'? (available: book, echo)"
    count = error(capsys, 2, "generate", "echo", "-n", "0", "-o", "f")
    assert count == "invalid value for '-n': 0 is not in the range x>=1; see 'sftchat data generate --help'"
    taken = error(capsys, 2, "generate", "echo", "-n", "1", "-o", "taken")
    assert taken == "output 'taken' exists; give --overwrite to replace it, or another name"
    assert run("generate", "echo", "-n", "1", "-o", "taken", "--overwrite", "-q") == 0


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("break", f"the generator of task 'echo' failed after 2 rows, in {__file__}:28: KeyError: 'gone'"),
        ("fewer", "the generator of task 'echo' gave 2 rows, 3 were asked for"),
        (
            "same",
            "the generator of task 'echo' gave the id 'same' to row 2 and to row 3; give every row its own, such as f'{seed}-{index}'",
        ),
        ("more", "the generator of task 'echo' gave more than the 3 rows it was asked for"),
    ],
)
def test_a_generator_that_breaks_the_contract_leaves_the_output_untouched(
    capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    Path("f").write_text("old")
    assert error(capsys, 3, "generate", "echo", "-n", "3", "-o", "f", "--overwrite", "--option", f"word={word}") == message
    assert [(path.name, path.read_text()) for path in Path().iterdir()] == [("f", "old")]


def test_show_fits_eighty_columns_and_escapes_control_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    prompt = "从以下小说内容中提取人物关系:\n" + "林远山收了陈昭为徒，两人在青石镇住下。" * 3
    Path("f").write_text(
        json.dumps({"prompt": prompt, "completion": "林远山-陈昭:师徒"})
        + "\n"
        + json.dumps({"text": "\x1b[31mred [bold]\x9b\u202e"})
        + "\n{}\n"
    )
    assert run("show", "f", "-n", "2") == 0
    captured = capsys.readouterr()
    assert [line.rstrip() for line in captured.out.splitlines()] == [
        "line  turns  prompt                                 gold",
        "",
        "   1      2  从以下小说内容中提取人物关系:          林远山-陈昭:师徒",
        "             林远山收了陈昭为徒，两人在青石镇住下",
        "             。林远山收了陈昭为徒，两人在青石镇住",
        "             下。林远山收了陈昭为徒，两人在青石镇",
        "             住下。",
        "",
        "   2      1                                         ␛[31mred [bold]\\x9b\\u202e",
    ]
    assert captured.err == "the first 2 rows of f; all of a row: --json\n"


def test_show_prints_whole_rows_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("f").write_text('[{"instruction": "a", "output": "b", "id": 1, "level": 2}]')
    assert run("show", "f", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {"messages": [{"role": "user", "content": "a"}], "gold": "b", "id": "1", "metadata": {"level": 2}, "source": "f:1"}
    ]


def test_check_prints_problems_to_stdout_and_counts_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Path("good").write_text('{"text": "a"}\n')
    Path("bad").write_text('{"text": "!"}\n{"text": ""}\n')
    assert run("check", "good", "bad", "--task", "echo") == 1
    assert capsys.readouterr() == (
        "bad:1: shouts\nbad:2: text is empty; fill it or remove the row\n",
        "good: 1 rows (1 text), 1 with a reply: no problems\n"
        "bad: 2 rows (1 text), 1 with a reply: 2 problems\n  fail 1 task, first at line 1\n  fail 1 invalid, first at line 2\n",
    )
    assert run("check", "good", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_check_reports_rows_that_are_in_training_data_too(capsys: pytest.CaptureFixture[str]) -> None:
    passage = "雪下了一夜，周远山背着药箱翻过山梁，赶到村口时，何小满已经等了半个时辰。"
    Path("gold").write_text(json.dumps({"prompt": passage, "completion": "无"}) + '\n{"text": ""}\n')
    Path("train").write_text("".join(json.dumps({"prompt": p, "completion": "是"}) + "\n" for p in ("别的", passage.replace("满", "雨"))))
    assert run("check", "gold", "--against", "train", "-q") == 1
    assert (
        capsys.readouterr().out
        == "gold:1: nearly the same prompt as train:2 (similarity 0.82)\ngold:2: text is empty; fill it or remove the row\n"
    )
    assert run("check", "train", "--against", "train", "-q") == 1
    assert capsys.readouterr().out == "train:1: the same prompt as train:1\ntrain:2: the same prompt as train:2\n"


def test_check_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("f").write_text('{"text": "a"}\n{"text": "a"}\n')
    assert run("check", "f", "--json", "-q") == 1
    assert json.loads(capsys.readouterr().out) == [
        {
            "path": "f",
            "rows": 2,
            "replies": 2,
            "formats": {"text": 2},
            "shapes": {"text": "1"},
            "counts": {"duplicate": 1},
            "problems": [{"class": "duplicate", "policy": "fail", "source": "f:2", "message": "the same row as line 1; remove one"}],
            "notes": [],
        }
    ]


def test_check_of_a_missing_file_is_wrong_usage_and_not_a_data_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert error(capsys, 2, "check", "no") == "no: no such file in folder '.'"


def test_convert_detects_every_shape_and_writes_the_one_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    Path("f").write_text('[{"instruction": "a", "output": "b", "level": 1},\n {"prompt": "c", "completion": "d"}]')
    assert run("convert", "f", "out", "--to", "sharegpt") == 0
    assert capsys.readouterr() == ("", "wrote 2 rows as sharegpt to out\n")
    assert Path("out").read_text() == (
        '{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "level": 1}\n'
        '{"conversations": [{"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}]}\n'
    )


def test_convert_reads_stdin_and_writes_stdout(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    row = b'{"conversations": [{"from": "bo", "value": "a"}, {"from": "al", "value": "b"}]}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(row)))
    assert run("convert", "-", "-", "--to", "alpaca", "-q", "--role-map", "bo=user", "--role-map", "al=assistant") == 0
    assert capsys.readouterr() == ('{"instruction": "a", "input": "", "output": "b"}\n', "")


def test_convert_writes_nothing_when_one_row_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    Path("f").write_text('{"prompt": "a", "completion": "b"}\n{"text": "c"}\n')
    assert error(capsys, 2, "convert", "f", "out", "--to", "messages") == (
        "f:2: a text row has no turns, which messages needs; choose the format text"
    )
    assert [path.name for path in Path().iterdir()] == ["f"]


def test_convert_in_place_reads_the_old_file_to_its_end_first() -> None:
    Path("f").write_text('{"prompt": "a", "completion": "b"}\n')
    assert run("convert", "f", "f", "--to", "alpaca", "--overwrite", "-q") == 0
    assert Path("f").read_text() == '{"instruction": "a", "input": "", "output": "b"}\n'


def test_convert_refuses_role_maps_that_map_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("convert", "f", "out", "--to", "messages", "--role-map")
    assert error(capsys, 2, *words, "bo") == "role map 'bo' must be NAME=ROLE, such as narrator=user"
    assert error(capsys, 2, *words, "bo=usr") == "unknown role 'usr'; did you mean 'user'? (available: assistant, system, tool, user)"


@pytest.mark.parametrize("words", [(), ("generate",), ("show",), ("check",), ("convert",), ("filter",), ("best-of",), ("distill",)])
def test_help_holds_an_example(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert run(*words, "--help") == 0
    assert f"\n  sftchat data {' '.join(words)}" in capsys.readouterr().out
