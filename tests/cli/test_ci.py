"""``sftchat ci``: each written job is parsed like the service does, and its commands are run by a shell."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sftchat.cli import main
from sftchat.scaffold.ci import REPORTS, SERVICES, TEMPLATE_FOLDER, GateJob, extras_of, render_workflow
from tests.distributions import ROOT

GATE = (
    "--evalset",
    "gold.csv",
    "--scorer",
    "exact",
    "--replies",
    "replies.jsonl",
    "--baseline",
    "baseline.jsonl",
    "--system",
    'It\'s \\ "here"',
)
ROWS = "text,label\n" + "".join(f"question {number},answer {number}\n" for number in range(12))

WORKFLOW_KEYS = {"name", "on", "permissions", "jobs"}
JOB_KEYS = {"runs-on", "env", "steps"}
STEP_KEYS = {"name", "uses", "with", "run", "env", "if"}
GITLAB_KEYS = {"image", "rules", "variables", "cache", "script", "artifacts"}


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with an evalset, replies that are all right, and a baseline of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gold.csv").write_text(ROWS, encoding="utf-8")
    for name in ("replies.jsonl", "baseline.jsonl"):
        write_replies(tmp_path / name, wrong=0)
    return tmp_path


def write_replies(path: Path, wrong: int) -> None:
    rows = [{"id": f"row-{n + 1:06}", "reply": "x" if n < wrong else f"answer {n}"} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write(service: str, *words: str) -> str:
    assert main(["ci", service, *words, "-q"]) == 0
    return Path(SERVICES[service].default).read_text(encoding="utf-8")


def github(text: str) -> tuple[list[str], Mapping[str, str]]:
    """The shell scripts of a workflow and their environment; fails for a key that GitHub does not have."""
    document = yaml.load(text, yaml.BaseLoader)  # so that `on` is no boolean
    (job,) = document["jobs"].values()
    assert (document.keys() - WORKFLOW_KEYS, job.keys() - JOB_KEYS) == (set(), set())
    assert set(document["on"]) <= {"pull_request", "workflow_dispatch"}
    for step in job["steps"]:
        assert step.keys() <= STEP_KEYS, step
        assert ("run" in step) != ("uses" in step), step
    return [step["run"] for step in job["steps"] if "run" in step], job.get("env", {})


def gitlab(text: str) -> tuple[list[str], Mapping[str, str]]:
    (job,) = yaml.safe_load(text).values()
    assert job.keys() <= GITLAB_KEYS
    assert all(rule.keys() <= {"if", "changes"} for rule in job["rules"])
    return job["script"], job.get("variables", {})


def jenkins(text: str) -> tuple[list[str], Mapping[str, str]]:
    """The scripts of a declarative pipeline; fails unless its blocks are balanced and have the sections that Jenkins requires."""
    scripts = re.findall(r"sh '''\n(.*?)'''", text, flags=re.DOTALL)
    rest = re.sub(r"'''.*?'''|'[^'\n]*'|\"[^\"\n]*\"|//[^\n]*", "", text, flags=re.DOTALL)
    depth = 0
    for character in rest:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert re.findall(r"^(\w+) \{", rest, flags=re.MULTILINE) == ["pipeline"]
    assert re.findall(r"^  (\w+) \{", rest, flags=re.MULTILINE) == ["agent", "environment", "stages", "post"]
    assert rest.count("stage(") == rest.count("steps {") == len(scripts) == 2
    variables = dict(re.findall(r"^    (\w+) = '(.*)'$", text, flags=re.MULTILINE))
    return [re.sub(r"\\(.)", r"\1", script) for script in scripts], variables


READ: Mapping[str, Callable[[str], tuple[list[str], Mapping[str, str]]]] = {"github": github, "gitlab": gitlab, "jenkins": jenkins}


def run_scripts(scripts: list[str], variables: Mapping[str, Any], folder: Path) -> tuple[int, str]:
    """Run scripts until one fails, with ``pip``, ``gh`` and ``venv`` replaced; returns the exit code and what the replacements were asked."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    asked = programs / "asked"
    asked.write_text("", encoding="utf-8")
    for name, line in {
        "sftchat": f'exec "{sys.executable}" -m sftchat "$@"',
        "pip": f'echo "pip $*" >> "{asked}"',
        "gh": f'echo "gh $*" >> "{asked}"',
        "python3": 'mkdir -p "$3/bin" && touch "$3/bin/activate"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        **variables,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
        "PR": "7",
    }
    for script in scripts:
        done = subprocess.run(["sh", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.returncode, asked.read_text(encoding="utf-8")
    return 0, asked.read_text(encoding="utf-8")


@pytest.mark.parametrize("service", SERVICES)
def test_the_commands_of_a_job_run_the_gate_and_write_its_reports(service: str, repository: Path) -> None:
    scripts, variables = READ[service](write(service, *GATE))

    code, asked = run_scripts(scripts, variables, repository)

    assert code == 0
    assert asked.splitlines()[0] == "pip install sftchat"
    assert "<testsuites" in (repository / "junit.xml").read_text(encoding="utf-8")
    assert "pass" in (repository / "report.md").read_text(encoding="utf-8")
    assert (repository / "report.html").is_file()


def test_the_job_fails_when_the_gate_fails(repository: Path) -> None:
    scripts, variables = READ["github"](write("github", *GATE))
    write_replies(repository / "replies.jsonl", wrong=9)

    assert run_scripts(scripts, variables, repository)[0] == 1


@pytest.mark.parametrize("service", SERVICES)
@given(words=st.lists(st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1), max_size=5))
def test_any_words_reach_the_command_unchanged(service: str, words: list[str]) -> None:
    job = GateJob(("MODEL", *words), watched=("a b: #c",))

    scripts, _ = READ[service](render_workflow(service, job))

    command = next(script for script in scripts if "sftchat eval" in script)
    assert shlex.split(command[command.index("sftchat eval") :].replace("\\\n", " "))[: 3 + len(words)] == [
        "sftchat",
        "eval",
        "MODEL",
        *words,
    ]
    assert shlex.split(command.replace("\\\n", " "))[-len(REPORTS) :] == [*REPORTS]


def test_a_job_with_a_model_installs_it_and_keeps_the_replies() -> None:
    text = write(
        "github",
        "sftchat:smollm2",
        "--evalset",
        "gold.csv",
        "--scorer",
        "json_schema",
        "--scorer-option",
        'schema={"type": "object"}',
        "--min",
        "accuracy=0.1",
    )
    scripts, variables = github(text)
    steps = yaml.safe_load(text)["jobs"]["gate"]["steps"]

    assert scripts[:2] == [
        "pip install 'sftchat[local,schema]' --extra-index-url https://download.pytorch.org/whl/cpu",
        "sftchat fetch smollm2",
    ]
    assert variables == {"SFTCHAT_CACHE_DIR": ".sftchat-cache"}
    assert [step["uses"] for step in steps if "cache" in step.get("uses", "")] == ["actions/cache/restore@v5", "actions/cache/save@v5"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_key_of_a_server_comes_from_the_secrets(service: str) -> None:
    text = write(service, "http://models:8000/v1#new", "--evalset", "gold.csv", "--scorer", "exact", "--min", "accuracy=0.1")

    READ[service](text)
    assert "sftchat[endpoint]" in text
    assert "SFTCHAT_API_KEY" in text


def test_the_files_of_the_command_start_the_job(repository: Path) -> None:
    (repository / "run").mkdir()
    (repository / "task.toml").write_text('evalset = "hard.csv"\nscorer = { name = "exact" }\n', encoding="utf-8")
    (repository / "hard.csv").write_text(ROWS, encoding="utf-8")
    text = write("github", "run", "--task", "task.toml", "--baseline", "baseline.jsonl", "--must-pass", "row-000001")

    assert yaml.load(text, yaml.BaseLoader)["on"]["pull_request"]["paths"] == ["run/**", "task.toml", "baseline.jsonl", "hard.csv"]


def test_the_job_of_a_policy_runs_it_and_watches_its_files(repository: Path) -> None:
    (repository / "task.toml").write_text('evalset = "gold.csv"\nscorer = { name = "exact" }\n', encoding="utf-8")
    rules = 'block = { min = { accuracy = 0.5 }, must_pass = ["row-000001"] }'
    text = f'[[tasks]]\ntask = "task.toml"\nreplies = "replies.jsonl"\nbaseline = "baseline.jsonl"\n{rules}\n'
    (repository / "gate.toml").write_text(text, encoding="utf-8")

    written = write("github", "--policy", "gate.toml")
    scripts, variables = github(written)

    watched = yaml.load(written, yaml.BaseLoader)["on"]["pull_request"]["paths"]
    assert watched == ["gate.toml", "task.toml", "baseline.jsonl", "replies.jsonl", "gold.csv"]
    assert run_scripts(scripts, variables, repository)[0] == 0
    write_replies(repository / "replies.jsonl", wrong=7)
    assert run_scripts(scripts, variables, repository)[0] == 1


@pytest.mark.parametrize(
    ("models", "extras"),
    [
        (("http://x/v1#y",), ("endpoint",)),
        (("org/name", "m.gguf"), ("gguf", "local")),
        (("ms://org/name",), ("local", "modelscope")),
        (("mine:x",), ()),
        ((), ()),
    ],
)
def test_extras_follow_from_the_models(models: tuple[str, ...], extras: tuple[str, ...]) -> None:
    assert extras_of(models, ["mine"]) == extras


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--evalset", "gold.csv", "--scorer", "exact", "--replies", "replies.jsonl"], "these arguments make no gate, so the job could not fail; add --policy FILE, --baseline FILE, --min METRIC=X or --must-pass ID"),
        (["--min", "accuracy=1"], "nothing to score: give a MODEL, or --replies FILE for stored replies"),
        ([*GATE, "--junit", "x.xml"], "--junit does not belong into the job of a gate, which writes its own reports; leave it out"),
        ([*GATE, "--limit", "3"], "--limit does not belong into the job of a gate, which writes its own reports; leave it out"),
        ([*GATE[:-1], "a\nb"], "argument 'a\\nb' has a line break or a control character, which a workflow cannot hold; write it into a task file"),
        ([*GATE[:-1], "${{ x }}"], "argument '${{ x }}' has '${{', which GitHub replaces; write it into a task file"),
        ([*GATE, "--few-shot", "x"], "Invalid value for '--few-shot': 'x' is not a valid integer range; see 'sftchat eval --help'"),
        ([*GATE, "--nosuch"], "No such option '--nosuch'; see 'sftchat eval --help'"),
        ([*GATE, "--task", "nosuch.toml"], "nosuch.toml: cannot be read as a task: No such file or directory"),
    ],
)  # fmt: skip
def test_arguments_that_could_not_be_a_gate_are_refused(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ci", "github", *words]) == 2

    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert line.casefold() in err.casefold()
    assert not Path(".github").exists()


def test_an_existing_file_is_replaced_only_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("Jenkinsfile").write_text("mine", encoding="utf-8")

    assert main(["ci", "jenkins", *GATE]) == 2
    assert main(["ci", "jenkins", *GATE, "-o", "Jenkinsfile"]) == 2
    assert Path("Jenkinsfile").read_text(encoding="utf-8") == "mine"
    assert capsys.readouterr().err.splitlines()[0] == (
        "sftchat: error: 'Jenkinsfile' exists; give --overwrite to replace it, or another name with -o; "
        "with -o gate.Jenkinsfile, make it the script path of a job of its own"
    )
    assert main(["ci", "jenkins", *GATE, "--overwrite", "-q"]) == 0
    assert Path("Jenkinsfile").read_text(encoding="utf-8").startswith("// Written by")


def test_a_file_outside_the_repository_is_refused(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path_factory.mktemp("other") / "gold.csv"
    other.write_text(ROWS, encoding="utf-8")

    assert main(["ci", "github", "--evalset", str(other), *GATE[2:]]) == 2

    assert "is not below this folder" in capsys.readouterr().err


def test_every_template_belongs_to_a_service() -> None:
    assert {path.name for path in TEMPLATE_FOLDER.iterdir()} == {service.template for service in SERVICES.values()}
