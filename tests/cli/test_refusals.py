"""Every option of every command with an impossible value is refused in one line, before torch or transformers is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sftchat.cli import program

ROOT = Path(__file__).parents[2]
Words = tuple[str, ...]

RIGHT: dict[str, Words] = {
    "demo": ("demo", "-o", "new"),
    "plugins": ("plugins",),
    "data best-of": ("data", "best-of", "relation", "sftchat:nano", "--prompts", "rows.jsonl", "-o", "new.jsonl"),
    "data check": ("data", "check", "rows.jsonl"),
    "data convert": ("data", "convert", "rows.jsonl", "new.jsonl", "--to", "messages"),
    "data distill": ("data", "distill", "sftchat:nano", "--prompts", "rows.jsonl", "-o", "new.jsonl"),
    "data filter": ("data", "filter", "rows.jsonl", "new.jsonl"),
    "data generate": ("data", "generate", "relation", "-n", "1", "-o", "new.jsonl"),
    "data show": ("data", "show", "rows.jsonl"),
    "data split": ("data", "split", "rows.jsonl", "new.jsonl", "new-test.jsonl"),
    "train": ("train", "relation", "-o", "new"),
    "eval": ("eval", "sftchat:nano", "--task", "relation", "--evalset", "rows.jsonl"),
    "judge-check": ("judge-check", "ratings.csv"),
    "chat": ("chat", "sftchat:nano"),
    "ask": ("ask", "sftchat:nano", "hello"),
    "compare": ("compare", "sftchat:nano", "adapter", "-q", "hello"),
    "history": ("history",),
    "cache": ("cache",),
    "cache prune": ("cache", "prune", "--all"),
    "inspect": ("inspect", "sftchat:nano"),
    "diff": ("diff", "adapter", "adapter"),
    "merge": ("merge", "adapter", "-o", "new"),
    "export": ("export", "sftchat:nano", "--ollama", "-o", "new"),
    "new-task": ("new-task", "other", "-o", "new.toml"),
    "new-plugin": ("new-plugin", "other", "-o", "new"),
    "ci": ("ci", "github", "--task", "relation", "--replies", "rows.jsonl", "--min", "f1=0.1", "-o", "new"),
}
"""Valid arguments of each command; an invalid option is appended to them."""

TEXT: dict[str, tuple[str, ...]] = {
    "--task": ("nosuch", "relatoin"),
    "--device": ("nosuch", "cuda:x", "cpux", ""),
    "--template": ("nosuch", "missing.jinja", "folder"),
    "--template-name": ("folder/nosuch", "no such"),
    "--template-argument": ("nosuch", "1x=2"),
    "--extra-body": ("nosuch", "[1]", '{"messages": []}'),
    "--role-map": ("nosuch", "a=b"),
    "--map": ("nosuch", "nosuch=text", "=text", "prompt="),
    "--model": ("nosuch", "rows.jsonl", "nosuch:x", "http://"),
    "--option": ("nosuch", "nosuch=1"),
}
"""Invalid values of options without a type, in all commands."""

REFUSED: dict[str, tuple[Words, ...]] = {
    "demo": (("nosuch",), ("-o", "folder"), ("--model", "nosuch"), ("--model", "adapter")),
    "data best-of": (
        *((option, value) for option in ("--prompts",) for value in ("missing.jsonl", "folder", "broken.jsonl")),
        *((option, value) for option in ("-o", "--pairs", "--samples") for value in ("folder", "no/folder.jsonl")),
        ("-o", "-"), ("-o", "rows.jsonl"), ("--pairs", "new.jsonl"), ("--score-only", "--fresh"), ("--temperature", "0"),
        ("--solved-threshold", "x"), ("--min-score", "x"),
    ),
    "data check": (
        ("--against", "missing.jsonl"), ("--policy", "nosuch"), ("--policy", "conflict=nosuch"), ("--max-length", "100"),
        ("-o", "folder"), ("-o", "rows.jsonl"), ("rows.jsonl", "-o", "new.jsonl"),
    ),
    "data convert": (("--to", "messages", "--template", "chatml"), ("--to", "text", "--template", "nosuch")),
    "data distill": (
        *(("--prompts", value) for value in ("missing.jsonl", "folder", "broken.jsonl")),
        *((option, value) for option in ("-o", "--samples") for value in ("folder", "no/folder.jsonl")),
        ("-o", "-"), ("-o", "rows.jsonl"),
    ),
    "data filter": (
        ("--samples", "missing.jsonl"), ("--min-score", "0.5"), ("--task", "relation", "--min-score", "0.5", "--max-score", "0.1"),
        ("--max-length", "100"), ("--removed", "folder"), ("--removed", "rows.jsonl"), ("--min-score", "x"), ("--max-score", "x"),
    ),
    "data generate": (("-o", "folder"), ("-o", "rows.jsonl"), ("-o", "no/rows.jsonl")),
    "data show": (("--template", "chatml"),),
    "data split": (("--by", "nosuch"), ("--stratify", "nosuch"), ("--test", "nan"), ("--test", "1000"), ("new.jsonl",)),
    "train": (
        *((f"--{name}", value) for name in ("validation-items", "batch-size", "accumulation", "lora-rank", "save-limit", "logging-steps") for value in ("0", "-1", "x")),
        *((f"--{name}", value) for name in ("eval-steps", "patience", "save-steps", "seed") for value in ("-1", "x")),
        *((f"--{name}", value) for name in ("learning-rate", "epochs") for value in ("0", "-1", "nan", "inf", "x")),
        *((f"--{name}", value) for name in ("weight-decay", "max-grad-norm", "neftune-alpha") for value in ("-1", "nan", "inf", "x")),
        *(("--warmup", value) for value in ("-0.1", "1", "nan")), *(("--lora-dropout", value) for value in ("-0.1", "1", "nan")),
        ("--lora-alpha", "0"), ("--max-length", "7"), ("--patience", "2"), ("--packing", "on", "--neftune-alpha", "1"),
        *(("--data", value) for value in ("missing.jsonl", "folder", "broken.jsonl", "empty.jsonl")), ("--data", "rows.jsonl", "-n", "3"),
        ("--data", "rows.jsonl", "--option", "a=b"), ("--validation", "rows.jsonl"), ("--model", "adapter"), ("--resume",), ("-o", "folder"),
        ("-o", "rows.jsonl"), ("-o", "rows.jsonl/run"),
        *(("--validation", value, "--eval-steps", "1") for value in ("missing.jsonl", "folder", "broken.jsonl", "empty.jsonl")),
        *(("--config", value) for value in ("missing.toml", "rows.jsonl", "folder", "wrong.toml")), ("--seed", "4294967296"),
        *(("--replay", value) for value in ("general", "nosuch=0.2", "general=0", "general=1", "general=x", "relation=0.2", "folder=0.2")),
        ("--replay", "general=0.2", "--replay", "general=0.2"),
    ),
    "eval": (
        *(("--policy", value) for value in ("missing.toml", "folder", "wrong.toml", "rows.jsonl", "nothing.toml")), ("--policy", "policy.toml", "--ids", "a"),
        ("--policy", "policy.toml", "--task", "general"),
        ("nosuch",), ("--evalset", "missing.jsonl"), ("--evalset", "folder"), ("--evalset", "broken.jsonl"), ("--evalset", "relatoin=rows.jsonl"),
        ("--baseline", "missing.jsonl"), ("--baseline", "nosuch"), ("--baseline", "folder"), ("--baseline", "general=rows.jsonl"),
        ("--baseline", "broken.jsonl"), ("--baseline", "sftchat:nano", "--baseline", "sftchat:nano"),
        ("--baseline", "missing.jsonl", "--allow-missing-baseline", "--strict"), ("--allow-missing-baseline",), ("--require-baseline",), ("--strict",),
        ("--replies", "rows.jsonl"), ("--gate", "f1"), ("--baseline", "sftchat:nano", "--gate", "nosuch"), ("--gate", "f1=x", "--baseline", "sftchat:nano"),
        ("--min", "f1"), ("--min", "nosuch=1"), ("--min-lower", "f1=x"), ("--must-pass", "nosuch"), ("--min-drop", "nan"),
        ("--update-baseline", "rows.jsonl"), ("--update-baseline", "folder"), ("--update-baseline", "no/base.jsonl"),
        ("--update-baseline", "base.jsonl", "--limit", "1"), ("--cluster", "nosuch"), ("--ids", "nosuch"), ("--from", "folder"),
        ("--only", "failing", "--from", "folder"), ("--only", "failing", "--from", "missing"), ("--only", "failing"), ("--plan",),
        ("-o", "rows.jsonl"), ("--task", "relation"), ("--self-check", "--replies", "rows.jsonl"),
        *((f"--{name}", value) for name in ("junit", "markdown", "html") for value in ("folder", "rows.jsonl/file")),
        ("--judge", "sftchat:nano"), ("--judge", "nosuch", "--rubric", "rubric.toml"), ("--rubric", "rubric.toml"), ("--against", "sftchat:nano"),
        *(("--judge", "sftchat:nano", "--rubric", value) for value in ("missing.toml", "folder", "wrong.toml", "rows.jsonl")),
        *(("--judge", "sftchat:nano", "--against", value) for value in ("nosuch", "missing.jsonl", "folder")),
        ("--junit", "rows.jsonl"), ("--junit", "one", "--html", "one"), ("adapter", "--base", "nosuch"),
        *(("--scorer", value) for value in ("nosuch", "")), ("--scorer", "exact", "--scorer-option", "nosuch=1"), ("--scorer-option", "a=b"),
        ("--scorer", "exact", "--scorer-option", "extract=nosuch"), ("--scorer", "exact", "--scorer-option", "extract"), ("--labels", "a,b"),
        ("--scorer", "python_tests"),
        ("-k", "2"), ("--prompt", "{nosuch}"), ("--prompt", "{"), *(("--few-shot-file", value) for value in ("missing.jsonl", "folder", "broken.jsonl")),
        ("--task", "missing.toml"), ("--task", "wrong.toml"), ("--few-shot-file", "rows.jsonl", "--few-shot", "-1"),
    ),
    "judge-check": (
        ("missing.csv",), ("folder",), ("broken.jsonl",), ("--id", "nosuch"), ("--judge", "nosuch"), ("--person", "nosuch"), ("--person", "judge"),
        ("--rater", "nosuch"), ("--rater", "id", "--person", "judge", "--person", "id"), ("--scale", "interval"), ("--order", "good"), ("--order", "good,,bad"), ("--save", "folder"), ("--save", "no/file.json"),
    ),
    "chat": (
        ("--evalset", "rows.jsonl"), ("--continue", "--session", "1"), ("--session", "nosuch"), ("--continue",), ("nosuch",), ("sftchat:nano",),
        ("adapter", "--base", "nosuch"), ("--evalset", "missing.jsonl", "--task", "relation"),
    ),
    "ask": (("-k", "2"), ("--questions", "rows.jsonl")),
    "compare": (
        ("adapter",), ("nosuch",), ("--questions", "rows.jsonl"), ("-q", " "),
    ),
    "history": (("nosuch",), ("--evalset", "nosuch"), ("--item", "nosuch"), ("one", "--task", "two")),
    "cache prune": (("--older-than", "3"), ("--model", "nosuch")),
    "inspect": (),
    "merge": ( ("-o", "folder"), ("--prompts", "missing.jsonl")),
    "export": (("-o", "folder"), ("-o", "rows.jsonl"), ("--evalset", "missing.jsonl")),
    "new-task": (("-o", "folder"), ("-o", "new"), ("-o", "wrong.toml"), ("-o", "no/new.toml"), *(("--evalset", value) for value in ("missing.csv", "folder", "broken.jsonl"))),
    "new-plugin": (("-o", "folder"),),
    "ci": (("-o", "folder"), ("-o", "rows.jsonl"), ("-o", "no/new.yml"), ("sftchat:nano", "--nosuch"), ("--limit", "1"), ("--system", "a\nb")),
}  # fmt: skip
"""Further invalid arguments of a command, appended to its valid ones."""

WHOLE: tuple[Words, ...] = (
    ("nosuch",), ("ask", "nosuch", "hello"), ("ask", "folder", "hello"), ("ask", "rows.jsonl", "hello"), ("ask", "sftchat:nano", " "),
    ("ask", "sftchat:nano", "--questions", "missing.jsonl"), ("ask", "sftchat:nano", "--questions", "folder"), ("ask", "adapter", "hi", "--base", "nosuch"),
    ("ask", "sftchat:nano", "--questions", "broken.jsonl"), ("compare", "sftchat:nano", "-q", "hello"), ("compare", "sftchat:nano", "sftchat:nano", "-q", "a"),
    ("compare", "sftchat:nano", "adapter"), ("compare", "sftchat:nano", "adapter", "--questions", "missing.jsonl"),
    ("inspect", "nosuch"), ("inspect", "rows.jsonl"), ("inspect", "adapter", "--base", "nosuch"), ("diff", "nosuch", "nosuch"), ("diff", "sftchat:nano", "sftchat:nano"),
    ("merge", "nosuch", "-o", "new"), ("merge", "sftchat:nano", "-o", "new"), ("export", "nosuch", "-o", "new", "--ollama"),
    ("export", "adapter", "-o", "new", "--ollama"), ("export", "sftchat:nano", "-o", "new"), ("export", "sftchat:nano", "-o", "new", "--gguf", "q8_0", "--create", "name"), ("new-plugin", "relation"), ("new-plugin", "a/b"), ("ci", "nosuch"), ("ci", "github"), ("ci", "github", "sftchat:nano", "--task", "relation"), ("new-task", "relation"), ("new-task", "a/b"),
    ("train", "nosuch", "-o", "new"), ("eval", "--task", "relation"), ("eval", "nosuch/checkpoint-*", "--task", "relation"),
    ("eval", "--task", "relation", "--replies", "missing.jsonl"), ("eval", "--task", "relation", "--replies", "folder"), ("cache", "prune"),
    ("data", "convert", "missing.jsonl", "new.jsonl", "--to", "messages"), ("data", "convert", "rows.jsonl", "rows.jsonl", "--to", "messages"),
    ("data", "filter", "missing.jsonl", "new.jsonl"), ("data", "filter", "-", "new.jsonl"), ("data", "show", "missing.jsonl"), ("data", "show", "folder"),
    ("data", "generate", "nosuch", "-n", "1", "-o", "new.jsonl"), ("data", "distill", "nosuch", "--prompts", "rows.jsonl", "-o", "new.jsonl"),
    ("data", "best-of", "relation", "nosuch", "--prompts", "rows.jsonl", "-o", "new.jsonl"),
    ("data", "best-of", "nosuch", "sftchat:nano", "--prompts", "rows.jsonl", "-o", "new.jsonl"),
)  # fmt: skip
"""Whole commands that are refused."""

COULD_NOT: tuple[Words, ...] = (("ask", "folder", "hello"), ("diff", "sftchat:nano", "sftchat:nano"))
"""Commands with valid arguments whose folders lack required files: exit code 3."""

FREE: dict[str, str] = {
    "--system": "any text is a prompt",
    "--label-column": "read with the rows, which may be on the Hub",
    "--label-instruction": "any text is an instruction",
    "--stop": "any text can end a reply",
    "--question": "any text but an empty one is a question",
    "--rows": "made when a row is kept; a folder that cannot be made is told then",
    "--base": "read where MODEL is an adapter, see the commands with 'adapter'",
    "--optimizer": "the names are those of the installed transformers, which knows them after importing torch",
    "--report-to": "the trackers are those of the installed transformers, which knows them after importing torch",
}
"""Options without a value that arguments and files alone could show to be wrong, with the reason."""


def commands(command: click.Command, path: Words = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command with its name."""
    if not isinstance(command, click.Group) or (path and command.params):
        yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


def wrong(option: click.Parameter) -> tuple[str, ...]:
    """Yield values that an option's type does not accept."""
    kind = option.type
    if isinstance(kind, click.Choice):
        return ("nosuch", "")
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        below = [] if kind.min is None else [str(kind.min if kind.min_open else kind.min - 1)]
        above = [] if kind.max is None else [str(kind.max if kind.max_open else kind.max + 1)]
        return ("x", *below, *above)
    return ("x",) if kind in (click.INT, click.FLOAT) else ()


SAMPLING = {"--max-new-tokens": ("0", "-1"), "--temperature": ("-1", "2.1", "nan"), "--top-p": ("0", "1.1", "nan"), "--top-k": ("-1",)}
OPTIONS = [
    (name, option)
    for name, command in commands(program)
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag
]


def cases() -> Iterator[Words]:
    """Yield every command that must be refused."""
    for name, option in OPTIONS:
        flag = option.opts[-1]
        values = (*wrong(option), *SAMPLING.get(flag, ()), *(() if name == "cache prune" else TEXT.get(flag, ())))
        if isinstance(option.type, click.Choice) or flag not in TEXT or option.type is click.STRING:
            yield from ((*RIGHT[name], flag, value) for value in values)
    for name, ways in REFUSED.items():
        yield from ((*RIGHT[name], *words) for words in ways)
    yield from WHOLE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with rows, invalid rows, and the file names of an adapter."""
    made = tmp_path_factory.mktemp("refusals")
    row = {"id": "a", "messages": [{"role": "user", "content": "x"}], "gold": "无"}
    (made / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (made / "ratings.csv").write_text("id,judge,person\na,good,bad\n", encoding="utf-8")
    (made / "broken.jsonl").write_text("{\n", encoding="utf-8")
    (made / "empty.jsonl").write_text("", encoding="utf-8")
    (made / "policy.toml").write_text('[[tasks]]\ntask = "relation"\nblock = { min = { f1 = 0.1 } }\n', encoding="utf-8")
    (made / "nothing.toml").write_text('[[tasks]]\ntask = "relation"\n', encoding="utf-8")
    (made / "wrong.toml").write_text("nosuch = 1\n", encoding="utf-8")
    (made / "rubric.toml").write_text('name = "r"\n[[criteria]]\nname = "good"\ndescription = "is good"\n', encoding="utf-8")
    (made / "folder").mkdir()
    (made / "folder" / "file").write_text("", encoding="utf-8")
    (made / "adapter").mkdir()
    (made / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "sftchat:nano"}', encoding="utf-8")
    (made / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    return made


def test_every_refusal_is_one_line_before_torch_is_imported(folder: Path) -> None:
    wanted = list(cases())
    homes = {name: str(folder / "home") for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "SFTCHAT_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.cli.refusing"],
        input=json.dumps(wanted), cwd=folder, env={**os.environ, **homes, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(found)) == (0, len(wanted)), done.stderr
    others = {
        " ".join(words): how
        for words, how in zip(wanted, found, strict=True)
        if how["code"] != (3 if words in COULD_NOT else 4 if words[-2:] == ("--baseline", "missing.jsonl") else 2)
        or how["err"].count("\n") != 1
        or not how["err"].startswith("sftchat: error: ")
        or how["heavy"]
    }

    assert others == {}
    assert not (folder / "new").exists()


def test_every_option_is_tested_or_excluded_with_a_reason() -> None:
    tried = {(name, flag) for name, ways in REFUSED.items() for words in ways for flag in words}
    tried |= {(" ".join(words[:2]) if words[0] in ("data", "cache") else words[0], flag) for words in WHOLE for flag in words}
    missing = [
        f"{name} {option.opts[-1]}"
        for name, option in OPTIONS
        if not (wrong(option) or {flag for flag in option.opts if flag in TEXT or flag in FREE or (name, flag) in tried})
    ]

    assert missing == []
