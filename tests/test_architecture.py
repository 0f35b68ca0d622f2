"""docs/architecture.md against the code: its lists of modules, and the files that each flow enters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def listed_modules() -> dict[str, list[str]]:
    """The modules of each package in the tables, those of ``sftchat`` itself under an empty name."""
    modules: dict[str, list[str]] = {"": []}
    for first, second in re.findall(r"^\| (`.*`) \| (.*) \|$", PAGE.partition("## Layers")[0], flags=re.MULTILINE):
        packages = re.findall(r"`([\w/]+)/`", first)
        if packages:
            modules[packages[0]] = re.findall(r"`(\w+)`", second)
        else:
            modules[""] += re.findall(r"`(\w+)`", first)
    return modules


def test_every_module_stands_in_the_table_of_its_package() -> None:
    listed = listed_modules()
    for package in ("cli", "chat/commands", "testing", "scaffold"):  # described as a whole
        listed.pop(package, None)
    exist = {
        package: sorted(path.stem for path in (ROOT / "sftchat" / package).glob("*.py") if not path.stem.startswith("__"))
        for package in listed
    }

    assert {package: sorted(name for name in names if name != "__init__") for package, names in listed.items()} == exist


@pytest.mark.slow
@pytest.mark.parametrize("flow", ["ask", "train", "eval", "chat"])
def test_the_page_lists_the_files_that_a_flow_enters(flow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from trace_flow import FLOWS, entered_files

    (section,) = re.findall(rf"^### {flow.capitalize()}\n(.*?)(?=^### |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    listed = re.findall(r"`([\w/]+\.(?:py|html\.jinja))`", section)

    assert sorted(listed) == sorted(entered_files(FLOWS[flow]))
