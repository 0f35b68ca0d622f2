"""``sftchat new-plugin``: the written project works unchanged, and a wrong name or folder writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftchat.cli import main
from sftchat.scaffold.writing import FILES, TEMPLATE_FOLDER, Names
from tests.distributions import install, python, sftchat


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "demo-task"
    assert main(["new-plugin", "demo-task", "-o", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def site(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(project, tmp_path_factory.mktemp("installed"))


def test_the_project_has_exactly_the_expected_files(project: Path) -> None:
    found = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}

    assert found == {path.format(package="sftchat_demo_task", module="demo_task") for path in FILES}
    assert sorted(project.parent.iterdir()) == [project]


def test_every_template_is_used() -> None:
    assert {str(path.relative_to(TEMPLATE_FOLDER)) for path in TEMPLATE_FOLDER.rglob("*.jinja")} == set(FILES.values())


def test_the_installed_plugin_is_listed(site: Path) -> None:
    found = [plugin for plugin in json.loads(sftchat(site, "plugins", "--json").stdout) if plugin["name"] == "demo-task"]

    assert found == [
        {
            "name": "demo-task",
            "distribution": "sftchat-demo-task 0.0.1",
            "tasks": ["demo-task"],
            "engines": [],
            "commands": [],
            "problem": None,
        }
    ]


@pytest.mark.slow
def test_the_project_passes_its_own_tests(project: Path, site: Path) -> None:
    done = python(site, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", project.name, cwd=project.parent)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_embedded_model_is_trained_on_its_task_and_scored(site: Path, tmp_path: Path) -> None:
    trained = sftchat(site, "train", "demo-task", "-n", "64", "--max-steps", "4", "-o", tmp_path / "run", "--quiet")
    scored = sftchat(site, "eval", tmp_path / "run", "--json", "--quiet")

    assert (trained.returncode, trained.stderr) == (0, "")
    assert scored.returncode == 0, scored.stderr
    (result,) = json.loads(scored.stdout)["results"]
    assert (result["task"], [metric["name"] for metric in result["metrics"]]) == ("demo-task", ["accuracy", "mentioned"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["Bad"], "plugin name 'Bad' must be at most 50 lower-case letters, digits, '-' and '_', starting with a letter and ending with a letter or digit, such as sentiment"),
        (["general"], "'general' is taken by sftchat 0.1.0; choose another name"),
        (["mine", "-o", "there"], "output folder 'there' exists already; give another -o"),
        (["mine", "-o", "file/x"], "output folder 'file/x' cannot be made: '{folder}/file' is a file"),
    ],
)  # fmt: skip
def test_an_unwritable_project_is_one_line_and_leaves_nothing(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("kept")

    assert main(["new-plugin", *words]) == 2

    assert capsys.readouterr() == ("", f"sftchat: error: {line.format(folder=tmp_path)}\n")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there"]


@pytest.mark.parametrize("name", ["", "a b", "名", "1st", "a-", "-a", "a--b", "../x", "a" * 51, "a\x1b[2J"])
def test_a_name_that_could_not_be_a_package_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "--", name]) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\x1b" not in error


@pytest.mark.parametrize(("version", "wanted"), [("0.1.0", ">=0.1,<0.2"), ("1.4.2", ">=1.4,<2")])
def test_a_project_requires_releases_with_its_interface(version: str, wanted: str) -> None:
    assert Names("mine", version, 1).requirement == wanted
