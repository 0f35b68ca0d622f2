"""`sftchat data check`: policies, lengths in tokens and mixed shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftchat.cli import main
from sftchat.templates.named import TEMPLATES


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> int:
    return main(["data", *words])


def write(*rows: dict[str, object], name: str = "f") -> None:
    Path(name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


PASSAGE = "雪下了一夜，周远山背着药箱翻过山梁，赶到村口时，徒弟何小满已经在老槐树底下等了半个时辰。"
ROWS: list[dict[str, object]] = [
    {"prompt": PASSAGE, "completion": "无"},
    {"prompt": "谁？", "completion": "甲", "level": 2},
    {"prompt": PASSAGE.replace("何小满", "何小雨"), "completion": "无"},
    {"prompt": "谁？", "completion": "乙"},
    {"instruction": "谁？", "output": "甲"},
]


def test_every_class_is_counted_with_its_policy_and_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    write(*ROWS)
    assert run("check", "f") == 1
    out, err = capsys.readouterr()
    assert out == (
        "f:3: nearly the same row as line 1 (similarity about 0.81)\n"
        "f:4: the same prompt as line 2 with another reply; keep one of them\n"
        "f:5: the same row as line 2; remove one\n"
    )
    assert err == (
        "f: 5 rows (4 prompt-completion, 1 alpaca), 5 with a reply: 3 problems\n"
        '  note: columns kept as metadata and not used: "level" (1)\n'
        "  mixed shapes: prompt-completion from line 1, alpaca from line 5\n"
        "  keep 1 near-duplicate, first at line 3\n"
        "  fail 1 conflict, first at line 4\n"
        "  fail 1 duplicate, first at line 5\n"
    )


def test_rows_to_drop_are_left_out_and_rows_to_keep_are_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    write(*ROWS)
    policies = ("--policy", "duplicate=drop", "--policy", "near-duplicate=drop", "--policy", "conflict=keep")
    assert run("check", "f", "-o", "out", *policies) == 0
    assert [json.loads(line) for line in Path("out").read_text(encoding="utf-8").splitlines()] == [ROWS[0], ROWS[1], ROWS[3]]
    assert capsys.readouterr().err.endswith("wrote 3 rows to out\n")


def test_nothing_is_written_while_a_problem_fails_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    write(*ROWS)
    assert run("check", "f", "-o", "out", "--policy", "duplicate=drop") == 1
    assert capsys.readouterr().err.endswith("out is not written\n")
    assert not Path("out").exists()


def test_impossible_outputs_are_refused_before_a_row_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "f", "g", "-o", "out") == 2
    assert run("check", "-", "-o", "out") == 2
    assert run("check", "f", "--max-length", "9") == 2
    assert capsys.readouterr().err.splitlines() == [
        "sftchat: error: -o takes the rows of one FILE, not of 2; check them one by one",
        "sftchat: error: -o reads FILE a second time, which standard input cannot; give a file",
        "sftchat: error: --max-length needs --model, whose tokenizer counts the tokens",
    ]


def test_near_duplicates_can_be_errors_or_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    write(ROWS[0], ROWS[2])
    assert run("check", "f", "-q") == 0
    assert run("check", "f", "-q", "--policy", "near-duplicate=fail") == 1
    assert run("check", "f", "-q", "--near", "0", "--policy", "near-duplicate=fail") == 0
    assert capsys.readouterr().out.count("\n") == 2


def test_with_a_model_rows_are_measured_in_tokens(capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path) -> None:
    write({"prompt": "a" * 30, "completion": "b" * 9}, {"prompt": "c", "completion": "d" * 60}, {"prompt": "e", "completion": "f"})
    assert run("check", "f", "--model", str(tiny_checkpoint), "--max-length", "40", "-q") == 1
    assert capsys.readouterr().out == (
        "f:1: the row has 51 tokens, 11 over --max-length 40; cut there, nothing of its reply would be left\n"
        "f:2: the row has 73 tokens, 33 over --max-length 40; cut there, it would lose the stop token of its reply, and teach never to stop\n"
    )


def test_the_longest_row_counts_where_a_template_makes_several_rows_of_one_conversation(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forgets = TEMPLATES["chatml"].source.replace(
        "message['content']", "(message['content'] if loop.last else message['content'] | trim('!'))"
    )
    Path("forgets.jinja").write_text(forgets, encoding="utf-8")
    turns = [("user", "a"), ("assistant", "b!"), ("user", "c" * 30), ("assistant", "d!")]
    write({"messages": [{"role": role, "content": content} for role, content in turns]})

    assert run("show", "f", "--model", str(tiny_checkpoint), "--template", "forgets.jinja", "--json") == 0
    lengths = [len(row["ids"]) for row in json.loads(capsys.readouterr().out)]
    assert run("check", "f", "--model", str(tiny_checkpoint), "--template", "forgets.jinja", "--max-length", str(lengths[0]), "-q") == 1

    assert lengths == sorted(set(lengths))
    assert capsys.readouterr().out.startswith(
        f"f:1: the row has {lengths[1]} tokens, {lengths[1] - lengths[0]} over --max-length {lengths[0]}; "
    )


def test_a_model_behind_a_server_has_no_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    write({"text": "a"})
    assert run("check", "f", "--model", "http://localhost:1/v1#m") == 2
    assert capsys.readouterr().err == (
        "sftchat: error: model 'http://localhost:1/v1#m' is behind a server, which does not show its tokenizer; "
        "give the Hub id or the folder of the model\n"
    )


def test_show_prints_what_a_model_would_be_trained_on(capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path) -> None:
    write({"prompt": "谁", "completion": "甲"})
    assert run("show", "f", "--model", str(tiny_checkpoint)) == 0
    assert capsys.readouterr() == (
        "f:1: 17 tokens, 3 of them trained\n<|im_start|>user\n谁<|im_end|>\n<|im_start|>assistant\n〖甲<|im_end|>〗\n\n",
        "template chatml\n",
    )
    assert run("show", "f", "--template", "chatml") == 2
    assert capsys.readouterr().err == "sftchat: error: --template needs --model, for which the rows are rendered\n"


def test_show_and_check_accept_template_arguments(capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path) -> None:
    opening = "{{ '<|im_start|>assistant\\n' }}{% if short is defined and short %}short: {% endif %}"
    Path("short.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'assistant' %}" + opening + "{% else %}{{ '<|im_start|>' + m.role + '\\n' }}{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}" + opening + "{% endif %}",
        encoding="utf-8",
    )
    write({"prompt": "a", "completion": "b"})
    model = ("--model", str(tiny_checkpoint), "--template", "short.jinja")

    assert run("show", "f", *model, "--template-argument", "short=true", "-q") == 0
    assert "short: 〖b<|im_end|>〗" in capsys.readouterr().out
    assert run("check", "f", *model, "--template-argument", "long=true") == 2
    assert capsys.readouterr().err == "sftchat: error: unknown argument of chat template 'short.jinja': 'long' (available: short)\n"
    assert run("check", "f", "--template-argument", "short=true") == 2
    assert capsys.readouterr().err == "sftchat: error: --template-argument needs --model, whose tokenizer counts the tokens\n"
