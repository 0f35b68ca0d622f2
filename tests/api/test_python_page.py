"""docs/python.md and the notebook run as they are shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributions import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOK = ROOT / "examples" / "notebook" / "tickets.ipynb"
PYTHON = re.compile(r"^```python\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_blocks_of_the_page_run_in_order(tmp_path: Path) -> None:
    blocks = PYTHON.findall(PAGE)

    done = run_python("\n".join(blocks), tmp_path)

    assert (len(blocks), done.returncode) == (7, 0), done.stderr
    assert done.stdout.split("\n")[-2].startswith("unknown scorer 'exakt'; did you mean 'exact'?")
    assert (tmp_path / "runs" / "tickets" / "sftchat.json").is_file()


@pytest.mark.slow
def test_the_three_lines_of_the_readme_run(tmp_path: Path) -> None:
    (code,) = [block for block in PYTHON.findall(README) if "sftchat.evaluate(" in block]
    (tmp_path / "tickets.csv").write_bytes((ROOT / "examples" / "tickets" / "tickets.csv").read_bytes())

    done = run_python(code.replace("sftchat:smollm2", "sftchat:nano"), tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<")


@pytest.mark.slow
def test_the_notebook_runs_and_its_outputs_have_the_shape_of_the_stored_ones(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    stored = nbformat.read(NOTEBOOK, as_version=4)
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    (tmp_path / "tickets.csv").write_bytes((ROOT / "examples" / "tickets" / "tickets.csv").read_bytes())

    nbclient.NotebookClient(fresh, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()

    def shape(notebook: object) -> list[list[tuple[str, tuple[str, ...]]]]:
        """Kind and formats of every output but the progress, which is on standard error."""
        return [
            [(output.output_type, tuple(sorted(output.get("data", ())))) for output in cell.outputs if output.get("name") != "stderr"]
            for cell in notebook.cells  # type: ignore[attr-defined]
            if cell.cell_type == "code"
        ]

    assert shape(fresh) == shape(stored)
    assert "95 % interval" in NOTEBOOK.read_text(encoding="utf-8")


def test_importing_sftchat_loads_no_model_library_and_is_fast() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import sftchat; print(time.perf_counter() - start);"
        "print(sorted({'torch', 'transformers', 'numpy', 'rich', 'click'} & set(sys.modules)))"
    )
    seconds = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        duration, modules = done.stdout.splitlines()
        assert modules == "[]"
        seconds.append(float(duration))

    assert min(seconds) < 0.06
