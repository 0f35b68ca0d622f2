"""The released wheel and sdist, in a clean environment without access to the sources."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.distributions import ROOT

pytestmark = pytest.mark.slow


def light_packages() -> set[str]:
    """Return the distributions of a light installation, as the script counts them."""
    spec = importlib.util.spec_from_file_location("bench_startup", ROOT / "scripts" / "bench_startup.py")
    assert spec is not None
    assert spec.loader is not None
    bench_startup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench_startup)
    found: set[str] = bench_startup.dependencies()
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the wheel and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    program = f"from hatchling.build import build_sdist, build_wheel; build_wheel({str(out)!r}); build_sdist({str(out)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def light(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Environment with only the wheel and its light dependencies, linked from the tests' environment."""
    folder = tmp_path_factory.mktemp("light") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site, ours = folder / "lib" / version / "site-packages", Path(pytest.__file__).parent.parent
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in light_packages():
        for top in {file.parts[0] for file in distribution(name).files or () if file.parts[0] not in ("..", "__pycache__")}:
            (site / top).symlink_to(ours / top)
    return folder / "bin" / "python"


def run(python: Path, cwd: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [python, "-m", "sftchat", *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_has_exactly_the_runtime_files(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names} == {"sftchat", "sftchat_general", "sftchat_relation", "sftchat-0.1.0.dist-info"}
    needed = {
        "sftchat/py.typed",
        "sftchat/models/nano/model.safetensors",
        "sftchat/scaffold/project/package/gold.jsonl.jinja",
        "sftchat/scaffold/project/test.yml.jinja",
        "sftchat/scaffold/ci/github.yml.jinja",
        "sftchat/scaffold/ci/gitlab.yml.jinja",
        "sftchat/scaffold/ci/Jenkinsfile.jinja",
        "sftchat/scaffold/task/task.toml.jinja",
        "sftchat/scaffold/task/evalset.csv",
        "sftchat/evaluation/report/page/report.html.jinja",
        "sftchat/evaluation/report.schema.json",
        "sftchat_relation/evalsets/relation.jsonl",
        "sftchat_relation/evalsets/relation-en.jsonl",
        "sftchat_general/evalsets/general.jsonl",
        "sftchat_general/evalsets/general-en.jsonl",
    }
    assert needed - set(names) == set()
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


def test_the_sdist_has_the_tests_and_what_they_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"pyproject.toml", "README.md", "README.zh.md", "SECURITY.md", "requirements.lock", "mkdocs.yml"} - names == set()
    assert {
        "tests/test_packaging.py",
        "examples/sql/pyproject.toml",
        "evalsets/relation.jsonl",
        "scripts/check",
        "docs/hooks.md",
    } - names == set()


def test_the_light_installation_shows_its_help_and_plugins(light: Path, tmp_path: Path) -> None:
    shown, listed = run(light, tmp_path, "--help"), run(light, tmp_path, "plugins", "--json")

    assert (shown.returncode, shown.stderr) == (0, "")
    assert [(plugin["name"], plugin["problem"]) for plugin in json.loads(listed.stdout)] == [
        ("chat", None),
        ("general", None),
        ("relation", None),
    ]


def test_the_light_installation_generates_scores_and_gates(light: Path, tmp_path: Path) -> None:
    made = run(light, tmp_path, "data", "generate", "relation", "-n", 20, "-o", "gold.jsonl", "--format", "evalset", "--quiet")
    rows = [json.loads(line) for line in (tmp_path / "gold.jsonl").read_text(encoding="utf-8").splitlines()]
    replies = [json.dumps({"id": row["id"], "reply": row["gold"]}, ensure_ascii=False) for row in rows]
    (tmp_path / "replies.jsonl").write_text("\n".join(replies) + "\n", encoding="utf-8")
    words = ("eval", "--task", "relation", "--evalset", "gold.jsonl", "--replies", "replies.jsonl", "--min", "f1=1", "--json", "--quiet")
    scored = run(light, tmp_path, *words)

    assert (made.returncode, made.stderr) == (0, "")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["results"][0]["metrics"][0]["value"] == 1.0


def test_the_second_evalset_of_a_bundled_task_is_found_by_its_name(light: Path, tmp_path: Path) -> None:
    (tmp_path / "replies.jsonl").write_text('{"id": "facts-en-01", "reply": "Tokyo"}\n', encoding="utf-8")
    words = ("eval", "--task", "general", "--evalset", "general-en", "--replies", "replies.jsonl", "--partial", "--json", "--quiet")
    scored = run(light, tmp_path, *words)

    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["results"][0]["evalset"]["name"] == "general-en.jsonl"


def test_the_light_installation_writes_a_plugin_and_reports_what_training_needs(light: Path, tmp_path: Path) -> None:
    written, trained = run(light, tmp_path, "new-plugin", "mine"), run(light, tmp_path, "train", "relation", "-o", "run")

    assert written.returncode == 0, written.stderr
    assert (trained.returncode, trained.stderr) == (
        3,
        "sftchat: error: training needs packages that are not installed: pip install 'sftchat[local]'\n",
    )
